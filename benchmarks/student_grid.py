"""Students of every kind at shares of their teacher's MACs: fidelity and accuracy, a row per seed.

    python benchmarks/student_grid.py --teachers T6=FOLDER T12=FOLDER --out grid.jsonl \
        --data TRAIN.npz,TEST.npz --shapes TRAIN.npz,TEST.npz

For every teacher, share and kind, the candidate with the most MACs (tokenizer included) under the
share is taken for each width of the tokenizer; where there are several, a short distillation with
seed 0 chooses by unexplained variance on held-out clouds. That student is distilled and fine-tuned
with every seed. The test clouds of `--data` are read for fidelity, accuracy and the probe (C on
held-out clouds), those of `--shapes`, which nothing trains on, for few-shot episodes and retrieval.

`--part I/N` runs every N-th group of rows, so that several processes share the work; a teacher that
is not there yet is waited for. Rows that the file already has are not made again.
`--options` makes the rows of one student, called by `--kinds`, whatever else would fit.
"""

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from score_features import five_way, pairs
from sklearn.preprocessing import StandardScaler

import foundry3d
from foundry3d.checkpoints.policy import stored_facts
from foundry3d.config import (
    AugmentConfig,
    ClassifyConfig,
    DataConfig,
    DistillConfig,
    StudentOptions,
    TokenLossConfig,
    TrainConfig,
)
from foundry3d.data.loading import load_splits
from foundry3d.errors import InputError
from foundry3d.evaluation.classify import classify
from foundry3d.evaluation.probe import extract, probe
from foundry3d.evaluation.retrieval import retrieval_map
from foundry3d.inference.cost import count
from foundry3d.models.backbone import Backbone, require_teacher
from foundry3d.report.error_bars import Panel, Point, draw_panels
from foundry3d.report.rows import append, read_rows, table
from foundry3d.training.distill import distill, student_of
from foundry3d.training.goals import held_out_losses

SHARES = (25, 40, 60)
Options = dict[str, Any]


class Cell(NamedTuple):
    """A group of rows: a teacher (by name), and its students of a kind under a share of its MACs.

    The teacher itself has the kind "teacher".
    """

    teacher: str
    kind: str
    share: int


def options_of(kind: str, depth: int) -> Iterator[Options]:
    """What students of a kind may be, but for their tokenizer."""
    numbers = (1, 2, 4, 8, 16, 32)
    match kind:
        case "supertokens":
            yield from ({"supertokens": s} for s in numbers)
        case "supertokens after blocks":
            for after in (1, 2, 3, 4, 6):
                if after < depth:
                    yield from ({"supertokens": s, "supertokens_after": after} for s in (1, 4, 16))
        case "truncated":
            yield from ({"kind": "truncated", "depth": d} for d in range(depth))
        case "narrow":
            yield from ({"kind": "truncated", "depth": d, "dim": 64} for d in range(depth + 1))
        case "tome":
            yield from ({"kind": "tome", "supertokens": s} for s in numbers)


KINDS = ("supertokens", "supertokens after blocks", "truncated", "narrow", "tome")


def candidates(teacher: Backbone, kind: str, share: int) -> list[Options]:
    """The largest student under the share, for each width of the tokenizer that has one."""
    whole, found = count(teacher).macs, []
    for part in (1, 2, 4) if kind != "tome" else (1,):
        widths = tuple(width // part for width in teacher.config.point_widths)
        best: tuple[float, Options] | None = None
        for options in options_of(kind, teacher.config.depth):
            options |= {} if part == 1 else {"point_widths": widths}
            try:
                student = student_of(teacher, DistillConfig(student=StudentOptions(**options)))
            except InputError:
                continue
            macs = count(student).macs
            if macs <= whole * share / 100 and (best is None or macs > best[0]):
                best = macs, options
        found += [best[1]] if best else []
    return found


class Runs:
    """Trains and scores; `args` are those of the command line."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.work = args, Path(args.work)
        train, test = args.data.split(",")
        self.data = DataConfig(train=train, test=test, points=args.points, validation=0.1)
        train, test = args.shapes.split(",")
        self.shapes = load_splits(
            DataConfig(train=train, test=test, points=args.points, validation=0.0)
        )

    def schedule(self, epochs: int, seed: int, batch: int) -> TrainConfig:
        """A cosine over these epochs, saved at its end."""
        return TrainConfig(
            epochs=epochs, batch_size=batch, lr=1.5e-3, warmup_epochs=max(1, epochs // 20),
            seed=seed, accelerator=self.args.accelerator, checkpoint_every=epochs,
        )  # fmt: skip

    def distilled(
        self, teacher: Backbone, options: Options, epochs: int, seed: int, out: Path
    ) -> Any:
        """A student, saved as `<out>/model`; a lighter tokenizer learns the tokens first."""
        light = "point_widths" in options
        config = DistillConfig(
            out=str(out),
            student=StudentOptions(**options),
            frozen="none",
            token_loss=TokenLossConfig(epochs=epochs // 4 if light else 0),
            data=self.data,
            augment=AugmentConfig(scale=(0.8, 1.2), rotate=True, flip=True),
            train=self.schedule(epochs, seed, self.args.batch),
        )
        return distill(config, teacher=teacher)

    def tuned(self, folder: Path, seed: int, out: Path) -> dict[str, Any]:
        """The result row of a saved model, fine-tuned."""
        config = ClassifyConfig(
            model=str(folder),
            out=str(out),
            results=None,
            label_smoothing=0.1,
            drop_path=0.1,
            eval_every=3,
            data=self.data,
            augment=AugmentConfig(scale=(0.8, 1.2)),
            train=replace(self.schedule(self.args.tune_epochs, seed, 64), lr=1e-3, clip=10.0),
        )
        return classify(config)

    def features(self, model: Any, clouds: Any) -> np.ndarray:
        """Pooled features (n, d) of clouds."""
        return extract(model, clouds, points=self.args.points, batch_size=256)

    def scores(self, model: Any, teacher: Backbone, seed: int) -> dict[str, float]:
        """Everything that needs no training, on test clouds."""
        splits, shapes = load_splits(self.data, seed=seed), self.shapes
        assert splits.test is not None and shapes.test is not None
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model, teacher = model.to(device).eval(), teacher.to(device).eval()
        probed = probe(model, splits, points=self.args.points)
        found = self.features(model, shapes.train), self.features(model, shapes.test)
        labels = shapes.train.labels, shapes.test.labels
        generator = np.random.default_rng(seed)
        episodes = [five_way(generator, found, labels) for _ in range(20)]
        seen = StandardScaler().fit(found[0]).transform(found[1])
        fidelity: dict[str, float] = {"unexplained": 0.0, "cosine": 1.0, "cka": 1.0}
        if model is not teacher:
            fidelity = held_out_losses(teacher, model, splits.test, self.args.points)
        return {
            "unexplained": 100 * fidelity["unexplained"],
            "cosine": fidelity["cosine"],
            "cka": fidelity["cka"],
            "probe": probed.svm,
            "few_shot": 100 * float(np.mean(episodes)),
            "retrieval": 100 * retrieval_map(seen, labels[1]),
        }

    def rows(self, cell: Cell, folder: Path, seeds: list[int]) -> Iterator[dict[str, Any]]:
        """The rows of a group, a seed at a time; none where no student is small enough."""
        teacher = require_teacher(foundry3d.load(folder)).eval()
        if cell.kind == "teacher":
            fits: list[Options] = [{}]
        elif self.args.options:
            fits = [self.args.options]
        else:
            fits = candidates(teacher, cell.kind, cell.share)
        base = self.work / "-".join(map(str, cell)).replace(" ", "_")
        if len(fits) > 1:
            tries = []
            for i, options in enumerate(fits):
                short = max(4, self.args.distill_epochs // 4)
                self.distilled(teacher, options, short, 0, base / f"try{i}")
                tries.append((stored_facts(base / f"try{i}/model")["unexplained"], i))
            fits = [fits[min(tries)[1]]]
        for seed in seeds if fits else ():
            began = time.monotonic()
            model: Any = teacher
            where = folder
            if cell.kind != "teacher":
                out = base / f"seed{seed}"
                model = self.distilled(teacher, fits[0], self.args.distill_epochs, seed, out)
                where = out / "model"
            cost = count(model)
            row = {**cell._asdict(), "seed": seed, "options": fits[0], "params": cost.params}
            row |= {"macs": cost.macs, "of_teacher": 100 * cost.macs / count(teacher).macs}
            row |= self.scores(model, teacher, seed)
            tuned = self.tuned(where, seed, base / f"tuned{seed}")
            row |= {"tuned": tuned["oa"], "tuned_last": tuned["oa_last"]}
            teacher.cpu()
            yield row | {"seconds": round(time.monotonic() - began, 1)}


MEASURED = {
    "unexplained": "unexplained (%)",
    "tuned": "fine-tuned (%)",
    "probe": "probe (%)",
    "few_shot": "5-way 10-shot, shapes (%)",
    "retrieval": "retrieval mAP, shapes (%)",
}


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each group: means and deviations over its seeds."""
    groups = defaultdict(list)
    for row in rows:
        groups[row["teacher"], row["share"], row["kind"]].append(row)
    found = []
    for (teacher, share, kind), members in sorted(groups.items()):
        entry = {"teacher": teacher, "under (%)": share, "kind": kind, "seeds": len(members)}
        first = members[0]
        entry["student"] = " ".join(f"{k}={v}" for k, v in first["options"].items() if k != "kind")
        entry["MMACs"], entry["of the teacher (%)"] = first["macs"] / 1e6, first["of_teacher"]
        for name in MEASURED:
            values = [member[name] for member in members]
            entry[name] = statistics.mean(values)
            entry[f"{name} ±"] = statistics.stdev(values) if len(values) > 1 else None
        found.append(entry)
    return found


def draw(path: Path, groups: list[dict[str, Any]]) -> None:
    """Unexplained variance and fine-tuned accuracy over the share of MACs, a row per teacher."""
    panels = []
    for teacher in dict.fromkeys(group["teacher"] for group in groups):
        known = [group for group in groups if group["teacher"] == teacher]
        students = [group for group in known if group["kind"] != "teacher"]
        first = min(group["of the teacher (%)"] for group in students)
        for name in ("unexplained", "tuned"):
            curves: dict[str, list[Point]] = defaultdict(list)
            for group in students if name == "unexplained" else known:
                point = Point(group["of the teacher (%)"], group[name], group[f"{name} ±"])
                curves[group["kind"]].append(point)
                if group["kind"] == "teacher":  # a line
                    curves["teacher"].append(Point(first, group[name]))
            panels.append(Panel(teacher, "MACs of the teacher (%)", MEASURED[name], curves))
    draw_panels(path, panels, title="Students of every kind", columns=2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--teachers", nargs="+", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--shapes", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", default="grid-runs")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--kinds", nargs="+", default=["teacher", *KINDS])
    parser.add_argument("--shares", nargs="+", type=int, default=SHARES)
    parser.add_argument("--points", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--distill_epochs", type=int, default=30)
    parser.add_argument("--tune_epochs", type=int, default=15)
    parser.add_argument("--accelerator", default="auto")
    parser.add_argument("--part", default="0/1")
    parser.add_argument("--options", type=json.loads, default={}, help="of one student, JSON")
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    teachers = pairs(args.teachers)
    cells = [
        Cell(name, kind, share)
        for name in teachers
        for share in args.shares
        for kind in args.kinds
        if kind != "teacher" or share == args.shares[0]
    ]
    mine, all_parts = map(int, args.part.split("/"))
    names = *Cell._fields, "seed"
    done = {tuple(row[name] for name in names) for row in read_rows(args.out, keys=names)}
    runs = Runs(args)
    for cell in cells[mine::all_parts]:
        seeds = [seed for seed in args.seeds if (*cell, seed) not in done]
        if not seeds:
            continue
        folder = Path(teachers[cell.teacher])
        while not (folder / "config.json").exists():
            time.sleep(1)
        for row in runs.rows(cell, folder, seeds):
            append(args.out, [row])
    groups = summary(read_rows(args.out))
    columns = {name: MEASURED.get(name, name) for name in groups[0]}
    print(table(groups, columns))
    if args.picture:
        draw(args.picture, groups)


if __name__ == "__main__":
    main()
