"""Linear probe: how well classes can be separated by a frozen model's pooled features.

Every row has three protocols. `svm`: features standardised, C of the linear SVM selected on clouds
held out of training, then refitted on all training clouds. `svm_c012`: C = 0.012 without
standardisation, the published fixed choice. `knn`: 20 nearest neighbours on standardised features.
Nothing is ever selected on test.

Shapes: n clouds, d width; pooled features are (n, 2d), maximum and mean over tokens.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from foundry3d.baselines import RandomSampling
from foundry3d.checkpoints.folder import load_backbone
from foundry3d.checkpoints.origin import Origin, origin_of
from foundry3d.config import BackboneConfig, DataConfig, ProbeConfig, read_for, require_data
from foundry3d.data.batches import in_order
from foundry3d.data.clouds import Clouds
from foundry3d.data.labelled import require_classes, require_labelled
from foundry3d.data.loading import Splits, load_splits
from foundry3d.data.progress import with_progress
from foundry3d.errors import InputError
from foundry3d.evaluation.examples import DRAWS, taught_accuracy
from foundry3d.evaluation.retrieval import retrieval_map
from foundry3d.evaluation.rows import data_columns, model_columns, short_name
from foundry3d.extras import explained
from foundry3d.heads.classifier import Inner
from foundry3d.inference.allocator import retain_memory
from foundry3d.models import backbone as models
from foundry3d.models.attributes import select
from foundry3d.models.backbone import Backbone, Tokens
from foundry3d.report.rows import append, table
from foundry3d.transforms import normalise

with explained():
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

C_GRID = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
NEIGHBORS = 20
Model = Callable[[torch.Tensor], Tokens]


class Scores(NamedTuple):
    """Test accuracies and retrieval mAP in percent, and the C that the held-out clouds selected.

    `retrieval_map` is NaN where every test cloud has a class of its own.
    """

    svm: float
    svm_c012: float
    knn: float
    c: float
    retrieval_map: float


def extract(model: Model, clouds: Clouds, *, points: int, batch_size: int = 64) -> np.ndarray:
    """Pooled features (n, 2d) float32 of all clouds, normalised into the unit sphere.

    A model with attributes reads those of its own that the clouds have, others coordinates alone.

    Args:
        model: in evaluation mode, on the CPU or a GPU.
        clouds: n clouds.
        points: how many of each cloud's points are read.
        batch_size: clouds at a time.
    """
    device = next(iter(getattr(model, "parameters", list)()), torch.empty(0)).device
    shape = getattr(model, "shape", None)
    attributes = shape.attributes if isinstance(shape, BackboneConfig) else ()
    batches = with_progress(range(0, len(clouds), batch_size), "features of", "batches")
    found = []
    with torch.inference_mode():
        for _, batch in zip(batches, in_order(clouds, batch_size, points), strict=True):
            read = select(batch, clouds.attributes, attributes)
            found.append(model(normalise(read.to(device))).pooled().float().cpu().numpy())
    return np.concatenate(found)


def _svm(train: np.ndarray, labels: np.ndarray, c: float) -> SVC:
    return SVC(C=c, kernel="linear", cache_size=500).fit(train, labels)


def choose_c(
    features: np.ndarray, labels: np.ndarray, held: np.ndarray, held_labels: np.ndarray
) -> float:
    """The C of `C_GRID` with the best score on held-out clouds; the smallest on a tie."""
    scores = [_svm(features, labels, c).score(held, held_labels) for c in C_GRID]
    return C_GRID[int(np.argmax(scores))]


def score(
    train: np.ndarray,
    labels: np.ndarray,
    held: np.ndarray,
    held_labels: np.ndarray,
    test: np.ndarray,
    test_labels: np.ndarray,
) -> Scores:
    """Scores features (n, 2d) of the three splits with the protocols of this module."""
    scaler = StandardScaler().fit(train)
    c = choose_c(scaler.transform(train), labels, scaler.transform(held), held_labels)
    everything = np.concatenate([train, held])
    all_labels = np.concatenate([labels, held_labels])
    scaler = StandardScaler().fit(everything)
    fit, seen = scaler.transform(everything), scaler.transform(test)
    neighbors = KNeighborsClassifier(min(NEIGHBORS, len(fit))).fit(fit, all_labels)
    return Scores(
        svm=100 * _svm(fit, all_labels, c).score(seen, test_labels),
        svm_c012=100 * _svm(everything, all_labels, 0.012).score(test, test_labels),
        knn=100 * neighbors.score(seen, test_labels),
        c=c,
        retrieval_map=100 * retrieval_map(seen, test_labels) if _repeats(test_labels) else math.nan,
    )


def _repeats(labels: np.ndarray) -> bool:
    """Whether two clouds have the same label."""
    return len(np.unique(labels)) < len(labels)


def probe(model: Model, splits: Splits, *, points: int) -> Scores:
    """Scores a frozen model on labelled splits.

    Args:
        model: points (B, N, 3) in, `Tokens` out.
        splits: with validation and test.
        points: points of a cloud that the model reads.

    Raises:
        InputError: a split or its labels are missing, or the classes differ.
    """
    return score(*labelled_features(model, splits, points=points))


def labelled_features(
    model: Model, splits: Splits, *, points: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pooled features (n, 2d) and labels (n,) of training, held-out and test clouds, for `score`.

    Raises:
        InputError: a split or its labels are missing, or the classes differ.
    """
    train, held, test = splits.train, splits.validation, splits.test
    if held is None or test is None:
        raise InputError("a probe needs data.test, and data.validation above 0 to select C")
    for clouds in (train, held, test):
        if clouds.labels.min() < 0 or len(np.unique(train.labels)) < 2:
            raise InputError(f"{clouds.name}: a probe needs a class label for every cloud")
    require_classes(train, test)
    made = [extract(model, clouds, points=points) for clouds in (train, held, test)]
    return made[0], train.labels, made[1], held.labels, made[2], test.labels


def untrained_like(model: Inner, splits: Splits, *, points: int, seed: int) -> Backbone:
    """An untrained backbone of the same sizes, BatchNorm statistics taken from training clouds."""
    fresh = Backbone(model.shape, generator=torch.Generator().manual_seed(seed)).eval()
    first = next(in_order(splits.train, 256, points))
    read = select(first, splits.train.attributes, fresh.shape.attributes)
    return models.untrained(fresh, normalise(read))


PROBE_COLUMNS = {
    "model": "model",
    "tokens": "tokens",
    "encoded": "encoded",
    "params_m": "params (M)",
    "gmacs": "GMACs",
    "svm": "SVM",
    "knn": "20-NN",
    "svm_c012": "SVM C=0.012",
    "retrieval_map": "retrieval mAP",
}


TAUGHT = "taught: nearest mean of {examples} examples per class, standardised, {draws} draws; "


def probe_columns(examples: int | None) -> dict[str, str]:
    """The columns of a table of rows with this many examples per class."""
    return PROBE_COLUMNS | ({"taught": f"{examples} examples"} if examples else {})


def probe_row(
    name: str,
    model: Any,
    splits: Splits,
    data: DataConfig,
    *,
    seed: int,
    origin: Origin | None = None,
    examples: int | None = None,
) -> dict[str, Any]:
    """One result row of a model on labelled splits, with its protocol and, if saved, its origin.

    With `examples`, also that of a classifier from this many training clouds per class.
    """
    began = time.monotonic()
    features = labelled_features(model, splits, points=data.points)
    row = model_columns(name, model, origin)
    row |= {key: round(value, 2) for key, value in score(*features)._asdict().items()}
    if examples is not None:
        mean, std = taught_accuracy(*features[:2], *features[4:], examples=examples, seed=seed)
        row |= {"examples": examples, "taught": round(mean, 2), "taught_std": round(std, 2)}
    taught = "" if examples is None else TAUGHT.format(examples=examples, draws=DRAWS)
    return row | {
        "task": "linear probe",
        "protocol": f"{taught}svm: standardised, C selected on held-out train; svm_c012: C 0.012, "
        "raw; "
        "knn: 20 neighbours, standardised; retrieval_map: test clouds among each other, cosine, "
        "standardised; nothing selected on test",
        **data_columns(splits, points=data.points, seed=seed),
        "seconds": round(time.monotonic() - began, 1),
    }


class Subject(NamedTuple):
    """A model to probe.

    Attributes:
        name: in its row.
        model: points (B, N, 3) in, `Tokens` out.
        origin: of a saved model.
    """

    name: str
    model: Any
    origin: Origin | None = None


def probe_rows(
    subjects: Sequence[Subject],
    splits: Splits,
    data: DataConfig,
    *,
    seed: int,
    out: str | Path | None,
    examples: int | None = None,
) -> list[dict[str, Any]]:
    """A result row for every model, appended to the file `out` as soon as it is complete."""
    rows = []
    for name, model, origin in subjects:
        row = probe_row(name, model, splits, data, seed=seed, origin=origin, examples=examples)
        rows.append(row)
        if out is not None:
            append(out, rows[-1:])
    return rows


def probe_models(config: ProbeConfig) -> list[dict[str, Any]]:
    """Probes saved models, after an untrained network of the first one's sizes; prints a table.

    Raises:
        InputError: models or data cannot be read, or the data has no labels or test clouds.
    """
    require_data(config.data, test=True)
    require_labelled(config.data)
    retain_memory()
    loaded = [(name, load_backbone(name)) for name in config.models]
    data = read_for(config.data, *(model.shape for _, model in loaded))
    config = replace(config, data=data)
    splits = load_splits(config.data, seed=config.seed)
    fresh = untrained_like(loaded[0][1], splits, points=config.data.points, seed=config.seed)
    subjects = [Subject("untrained", fresh)]
    for path, model in loaded:
        name, origin = short_name(path), origin_of(path)
        subjects.append(Subject(name, model, origin))
        if isinstance(model, Backbone):
            for n in config.random_tokens:
                fewer = RandomSampling(model, n, seed=config.seed)
                subjects.append(Subject(f"{name}, {n} random tokens", fewer, origin))
    options: dict[str, Any] = {"seed": config.seed, "examples": config.examples}
    rows = probe_rows(subjects, splits, config.data, out=config.results, **options)
    print(table(rows, probe_columns(config.examples)))
    return rows
