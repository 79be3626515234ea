"""The sweep over the gate's regulariser: Table 12 and figures 5 and 6 of the paper.

One gated student for each lambda, frozen or not, with weight decay on the gate or not; each is
probed. A cell whose row is there is not run again, so a sweep that was stopped goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from scipy.stats import spearmanr

from foundry3d.checkpoints.folder import load
from foundry3d.config import SweepConfig
from foundry3d.data.clouds import Clouds
from foundry3d.data.loading import Splits, in_order, load_splits
from foundry3d.errors import InputError
from foundry3d.evaluation.probe import probe_row
from foundry3d.models.backbone import Backbone, require_teacher
from foundry3d.models.student import Student
from foundry3d.report.figures import Curves, draw_lines
from foundry3d.report.rows import append, read_rows, table
from foundry3d.training.distill import Learner, distill
from foundry3d.training.engine import retain_memory
from foundry3d.transforms import normalise

log = logging.getLogger("foundry3d")

COLUMNS = {
    "gate_lambda": "lambda",
    "frozen": "frozen",
    "decay": "gate decay",
    "loss": "distillation loss",
    "fusion_ratio": "token fusion ratio",
    "score": "probe",
}


class Cell(NamedTuple):
    """One run of a sweep."""

    gate_lambda: float
    frozen: bool
    decay: bool

    @property
    def name(self) -> str:
        """Name of its run folder."""
        frozen, decay = ("frozen" if self.frozen else "unfrozen"), ("-decay" * self.decay)
        return f"lambda-{self.gate_lambda:.4g}-{frozen}{decay}"


def cells(config: SweepConfig) -> Iterator[Cell]:
    """All runs of a sweep, unfrozen last."""
    for frozen in sorted(set(config.frozen), reverse=True):
        for decay in sorted(set(config.gate_decay)):
            for value in sorted(set(config.gate_lambdas)):
                yield Cell(value, frozen, decay)


def held_out_losses(
    teacher: Backbone, student: Learner, clouds: Clouds, points: int
) -> dict[str, float]:
    """Distillation loss, share of merged tokens and mean probability on clouds, no augmentation.

    Without a gate the share is 1 and there is no probability.
    """
    sums: dict[str, float] = {}
    with torch.inference_mode():
        for batch in in_order(clouds, 64, points):
            groups = student.group(normalise(batch))
            output, goal = student.encode(groups), teacher.encode(groups).features
            assert output.assignment is not None
            found = {
                "loss": F.smooth_l1_loss(output.features, goal),
                "fusion_ratio": (output.assignment >= 0).float().mean(),
            }
            if output.probability is not None:
                found["probability"] = output.probability.mean()
            for name, value in found.items():
                sums[name] = sums.get(name, 0.0) + float(value) * len(batch)
    return {name: total / len(clouds) for name, total in sums.items()}


def run_cell(config: SweepConfig, cell: Cell, teacher: Backbone, splits: Splits) -> dict[str, Any]:
    """Distils (or takes up) the student of a cell and scores it."""
    base, folder = config.distill, Path(config.out) / cell.name
    settings = replace(
        base,
        out=str(folder),
        gate_lambda=cell.gate_lambda,
        gate_decay=cell.decay,
        unfreeze_encoder=None if cell.frozen else base.unfreeze_encoder,
        resume=True,
    )
    complete = (folder / "model" / "config.json").is_file()
    student = (
        load(folder / "model", kind=Student) if complete else distill(settings, teacher=teacher)
    )
    held = splits.validation or splits.train
    row: dict[str, Any] = cell._asdict() | held_out_losses(teacher, student, held, base.data.points)
    found = probe_row(cell.name, student, splits, base.data, seed=base.train.seed)
    return found | row | {"score": found["svm"]}


def correlations(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Spearman correlation of lambda with score, loss and fusion ratio: frozen, unfrozen, all.

    Without spread (a single lambda, or a column that never changes) a correlation is missing.
    """
    subsets = {
        "frozen": [row for row in rows if row["frozen"]],
        "unfrozen": [row for row in rows if not row["frozen"]],
        "all": rows,
    }
    found = []
    for name, chosen in subsets.items():
        line: dict[str, Any] = {"students": name, "runs": len(chosen)}
        for column in ("score", "loss", "fusion_ratio"):
            xs = [row["gate_lambda"] for row in chosen]
            ys = [row[column] for row in chosen]
            spread = len(set(xs)) > 1 and len(set(ys)) > 1
            line[column] = float(spearmanr(xs, ys).statistic) if spread else None
        found.append(line)
    return found


def draw(out: Path, rows: list[dict[str, Any]]) -> None:
    """Figure 5 (score over lambda) and figure 6 (loss and fusion ratio over lambda)."""

    def by_kind(column: str) -> Curves:
        made: Curves = {}
        for row in rows:
            name = ("frozen" if row["frozen"] else "unfrozen") + ", gate decay" * row["decay"]
            xs, ys = made.setdefault(name, ([], []))
            xs.append(row["gate_lambda"])
            ys.append(row[column])
        return made

    axis = "lambda of the gate"
    draw_lines(
        out / "score.png",
        [("probe", axis, by_kind("score"))],
        title="Downstream score over the gate's regulariser",
        y="accuracy (%)",
    )
    panels = {"distillation loss": "loss", "token fusion ratio": "fusion_ratio"}
    draw_lines(
        out / "loss.png",
        [(heading, axis, by_kind(column)) for heading, column in panels.items()],
        title="What the gate's regulariser does",
        y="held-out clouds",
    )


def sweep_gate(config: SweepConfig) -> list[dict[str, Any]]:
    """Runs every missing cell; prints all rows and the correlations, draws two pictures.

    Raises:
        InputError: teacher, data or settings that cannot be used.
    """
    retain_memory()
    out, base = Path(config.out), config.distill
    teacher = require_teacher(load(base.teacher))
    splits = load_splits(base.data, seed=base.train.seed)
    if splits.test is None:
        raise InputError("a sweep probes its students; name test clouds with --distill.data.test")
    path = out / "results.jsonl"
    known = {
        (r["gate_lambda"], r["frozen"], r["decay"]): r for r in read_rows(path, keys=Cell._fields)
    }
    wanted = list(cells(config))
    for i, cell in enumerate(wanted, 1):
        if cell not in known:
            log.info("%d/%d  %s", i, len(wanted), cell.name)
            known[cell] = run_cell(config, cell, teacher, splits)
            append(path, [known[cell]])
    rows = [known[cell] for cell in wanted]
    print(table(rows, COLUMNS))
    print("\nSpearman correlation with lambda\n")
    names = {"students": "students", "runs": "runs", "score": "probe"}
    print(table(correlations(rows), names | {"loss": "loss", "fusion_ratio": "fusion ratio"}))
    draw(out, rows)
    return rows
