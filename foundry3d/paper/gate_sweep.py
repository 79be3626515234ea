"""The sweep over the gate's regulariser: Table 12 and figures 5 and 6 of the paper.

One gated student per lambda, frozen or not, with or without weight decay on the gate; each is
probed. Runs that already have a row are skipped, so an interrupted sweep can be continued.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from scipy.stats import spearmanr

from foundry3d.checkpoints.folder import load
from foundry3d.checkpoints.origin import origin_of
from foundry3d.config import SweepConfig, require_data
from foundry3d.data.loading import Splits, load_splits
from foundry3d.evaluation.probe import probe_row
from foundry3d.models.backbone import Backbone, require_teacher
from foundry3d.models.student import Student
from foundry3d.report.figures import Curves, curves_of, draw_lines
from foundry3d.report.rows import append, read_rows, table
from foundry3d.training.distill import distill
from foundry3d.training.engine import retain_memory
from foundry3d.training.goals import held_out_losses

log = logging.getLogger("foundry3d")

COLUMNS = {
    "gate_lambda": "lambda",
    "frozen": "frozen",
    "decay": "gate decay",
    "loss": "distillation loss",
    "fusion_ratio": "token fusion ratio",
    "score": "probe",
}


class SweepRun(NamedTuple):
    """A student of the sweep, by what sets it apart."""

    gate_lambda: float
    frozen: bool
    decay: bool

    @property
    def name(self) -> str:
        """Name of its run folder."""
        frozen, decay = ("frozen" if self.frozen else "unfrozen"), ("-decay" * self.decay)
        return f"lambda-{self.gate_lambda:.4g}-{frozen}{decay}"


def runs_of(config: SweepConfig) -> Iterator[SweepRun]:
    """All runs of a sweep, the unfrozen ones last."""
    for frozen in sorted(set(config.frozen), reverse=True):
        for decay in sorted(set(config.gate_decay)):
            for value in sorted(set(config.gate_lambdas)):
                yield SweepRun(value, frozen, decay)


def run_row(
    config: SweepConfig, run: SweepRun, teacher: Backbone, splits: Splits
) -> dict[str, Any]:
    """Distils the student of a run, unless it is saved already, and scores it."""
    base, folder = config.distill, Path(config.out) / run.name
    settings = replace(
        base,
        out=str(folder),
        gate_lambda=run.gate_lambda,
        gate_decay=run.decay,
        frozen="encoder" if run.frozen else base.frozen,
        unfreeze_epoch=None if run.frozen else base.unfreeze_epoch,
        resume=True,
    )
    complete = (folder / "model" / "config.json").is_file()
    student = (
        load(folder / "model", kind=Student) if complete else distill(settings, teacher=teacher)
    )
    held = splits.validation or splits.train
    row: dict[str, Any] = run._asdict() | held_out_losses(teacher, student, held, base.data.points)
    origin = origin_of(folder)
    found = probe_row(run.name, student, splits, base.data, seed=base.train.seed, origin=origin)
    return found | row | {"score": found["svm"]}


def correlations(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Spearman correlation of lambda with score, loss and fusion ratio: frozen, unfrozen, all.

    A correlation is None where lambda or the column has a single value.
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
            varied = len(set(xs)) > 1 and len(set(ys)) > 1
            line[column] = float(spearmanr(xs, ys).statistic) if varied else None
        found.append(line)
    return found


def draw(out: Path, rows: list[dict[str, Any]]) -> None:
    """Figure 5 (score over lambda) and figure 6 (loss and fusion ratio over lambda)."""

    def by_kind(column: str) -> Curves:
        names = [
            ("frozen" if row["frozen"] else "unfrozen") + ", gate decay" * row["decay"]
            for row in rows
        ]
        return curves_of(
            (name, row["gate_lambda"], row[column]) for name, row in zip(names, rows, strict=True)
        )

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
        title="Effect of the gate's regulariser",
        y="held-out clouds",
    )


def sweep_gate(config: SweepConfig) -> list[dict[str, Any]]:
    """Runs what is missing; prints all rows and the correlations, draws two pictures.

    Raises:
        InputError: the teacher or data cannot be read, or there are no test clouds.
    """
    out, base = Path(config.out), config.distill
    require_data(base.data, test=True, option="distill.data")
    retain_memory()
    teacher = require_teacher(load(base.teacher))
    splits = load_splits(base.data, seed=base.train.seed)
    path = out / "results.jsonl"
    known = {
        (r["gate_lambda"], r["frozen"], r["decay"]): r
        for r in read_rows(path, keys=SweepRun._fields)
    }
    wanted = list(runs_of(config))
    for i, run in enumerate(wanted, 1):
        if run not in known:
            log.info("%d/%d  %s", i, len(wanted), run.name)
            known[run] = run_row(config, run, teacher, splits)
            append(path, [known[run]])
    rows = [known[run] for run in wanted]
    print(table(rows, COLUMNS))
    print("\nSpearman correlation with lambda\n")
    names = {"students": "students", "runs": "runs", "score": "probe"}
    print(table(correlations(rows), names | {"loss": "loss", "fusion_ratio": "fusion ratio"}))
    draw(out, rows)
    return rows
