"""Scores pooled features of models, of descriptors and of plain extents on labelled clouds.

    python benchmarks/score_features.py --data NAME=TRAIN.npz,TEST.npz --out scores.jsonl \
        --models NAME=FOLDER ... --untrained NAME --descriptors NAME=FILE.npz ...

NAME=FOLDER@TOKENS scores a gated student at that token budget.

Linear probe (SVM, C selected on held-out training clouds; C = 0.012, not standardised; 20-NN),
nearest mean of 5 examples per class (ten draws), 5-way 10-shot linear SVM (twenty episodes) and
retrieval mAP, all on test clouds, for three seeds. A descriptor file holds features `train` (n, d)
and `test` (m, d) of the same clouds.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import foundry3d
from foundry3d.config import DataConfig
from foundry3d.data.clouds import Clouds
from foundry3d.data.loading import Splits, load_splits
from foundry3d.evaluation.examples import nearest_mean
from foundry3d.evaluation.probe import extract, score, untrained_like
from foundry3d.models.student import Budgeted
from foundry3d.transforms import normalise

Features = tuple[np.ndarray, np.ndarray]  # of training and test clouds


def pairs(words: list[str]) -> dict[str, str]:
    return dict(word.split("=", 1) for word in words)


def extents(clouds: Clouds, points: int) -> np.ndarray:
    """Sizes of the bounding box, standard deviations along its axes, and the mean radius."""
    found = normalise(torch.from_numpy(clouds.points[:, :points].astype(np.float32))).numpy()
    radius = np.linalg.norm(found, axis=2).mean(axis=1, keepdims=True)
    return np.concatenate([np.ptp(found, axis=1), found.std(axis=1), radius], axis=1)


def subjects(args: argparse.Namespace, splits: Splits, seed: int) -> Iterator[tuple[str, Features]]:
    assert splits.test is not None
    both = splits.train, splits.test
    size = args.points
    if seed == args.seeds[0]:  # these have no seed of their own
        yield "extents", (extents(both[0], size), extents(both[1], size))
        for name, path in pairs(args.descriptors).items():
            file = np.load(path)
            yield name, (file["train"], file["test"])
        for name, path in pairs(args.models).items():
            path, _, tokens = path.partition("@")
            model = foundry3d.load(path).eval()
            if tokens:
                model = Budgeted(model, foundry3d.Budget(token_budget=int(tokens)))
            yield name, (extract(model, both[0], points=size), extract(model, both[1], points=size))
    if args.untrained:
        shape = foundry3d.load(pairs(args.models)[args.untrained])
        model = untrained_like(shape, splits, points=size, seed=seed)
        yield (
            "untrained",
            (
                extract(model, both[0], points=size),
                extract(model, both[1], points=size),
            ),
        )


def few(generator: np.random.Generator, labels: np.ndarray, shot: int) -> np.ndarray:
    """Positions of `shot` clouds of every class, of all where there are fewer."""
    chosen = [
        generator.permutation(np.flatnonzero(labels == one))[:shot] for one in np.unique(labels)
    ]
    return np.concatenate(chosen)


def five_way(
    generator: np.random.Generator, features: Features, labels: tuple[np.ndarray, np.ndarray]
) -> float:
    """Test accuracy of a linear SVM on 10 training clouds for each of 5 classes."""
    ways = generator.permutation(np.unique(labels[1]))[:5]
    train, test = (np.flatnonzero(np.isin(part, ways)) for part in labels)
    picked = train[few(generator, labels[0][train], 10)]
    scaler = StandardScaler().fit(features[0][picked])
    machine = SVC(C=1.0, kernel="linear").fit(
        scaler.transform(features[0][picked]), labels[0][picked]
    )
    return float(machine.score(scaler.transform(features[1][test]), labels[1][test]))


def scores(features: Features, splits: Splits, seed: int) -> dict[str, float]:
    assert splits.test is not None
    labels = splits.train.labels, splits.test.labels
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(labels[0]))
    held, kept = order[: len(order) // 10], order[len(order) // 10 :]
    probed = score(
        features[0][kept],
        labels[0][kept],
        features[0][held],
        labels[0][held],
        features[1],
        labels[1],
    )
    means = []
    for _ in range(10):
        picked = few(generator, labels[0], 5)
        scaler = StandardScaler().fit(features[0][picked])
        found = nearest_mean(
            scaler.transform(features[0][picked]),
            labels[0][picked],
            scaler.transform(features[1]),
        )
        means.append((found == labels[1]).mean())
    episodes = [five_way(generator, features, labels) for _ in range(20)]
    return {
        "probe": probed.svm,
        "svm_c012": probed.svm_c012,
        "knn": probed.knn,
        "five_shot_mean": 100 * float(np.mean(means)),
        "five_way_ten_shot": 100 * float(np.mean(episodes)),
        "retrieval_map": probed.retrieval_map,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--models", nargs="*", default=[])
    parser.add_argument(
        "--untrained", help="which of the models the untrained network is built like"
    )
    parser.add_argument("--descriptors", nargs="*", default=[])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--points", type=int, default=1024)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    for name, files in pairs(args.data).items():
        train, test = files.split(",")
        config = DataConfig(train=train, test=test, points=args.points, validation=0.0)
        splits = load_splits(config)
        kept: dict[str, Features] = {}
        for seed in args.seeds:
            kept |= dict(subjects(args, splits, seed))
            for subject, features in kept.items():
                row = {"data": name, "subject": subject, "seed": seed, "points": args.points}
                row |= scores(features, splits, seed)
                with args.out.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(row, flush=True)


if __name__ == "__main__":
    main()
