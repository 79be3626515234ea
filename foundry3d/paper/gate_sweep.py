"""The sweep over the gate's regulariser: Table 12 and figures 5 and 6 with a probe.

One gated student per lambda, frozen or not, with or without weight decay on the gate; each is
probed, where the suites `table12`, `figure5` and `figure6` fine-tune it. Runs
that already have a row are skipped, so an interrupted sweep can be continued.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from foundry3d.checkpoints.folder import load
from foundry3d.checkpoints.origin import origin_of
from foundry3d.cluster import Outcome, run_units
from foundry3d.config import SweepConfig, require_data
from foundry3d.data.loading import Splits, load_splits
from foundry3d.errors import PartialFailure
from foundry3d.evaluation.probe import probe_row
from foundry3d.inference.allocator import retain_memory
from foundry3d.models.backbone import Backbone, require_teacher
from foundry3d.models.student import Student
from foundry3d.paper.suite.gate_figures import LAMBDA, kind_name
from foundry3d.paper.suite.gate_results import STUDENTS, correlations
from foundry3d.paper.suite.records import Model
from foundry3d.report.error_bars import Panel, Point, draw_panels
from foundry3d.report.rows import append, read_rows, table
from foundry3d.training.distill import distill
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
CORRELATIONS = {
    "students": "students",
    "n": "n",
    "score": "probe",
    "p_score": "p",
    "loss": "loss",
    "p_loss": "p",
    "fusion_ratio": "fusion ratio",
    "p_fusion_ratio": "p",
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


def gated(row: dict[str, Any]) -> Model:
    """The model of a row, as the suites describe it."""
    return Model(
        how="student",
        frozen="encoder" if row["frozen"] else None,
        gate_lambda=row["gate_lambda"],
        gate_decay=row["decay"],
    )


def correlation_rows(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Spearman's correlation of lambda with score, loss and fusion ratio, as Table 12 takes it.

    Students with decay on the gate are left out, unless all have it.
    """
    shown = [row for row in rows if not row["decay"]] or rows
    models = [gated(r) for r in shown]
    lines: dict[str, dict[str, Any]] = {name: {"students": name} for name in STUDENTS}
    for column in ("score", "loss", "fusion_ratio"):
        found = correlations(zip(models, (row[column] for row in shown), strict=True))
        for name, value in found.items():
            lines[name] |= {"n": value.n, column: value.rho, f"p_{column}": value.p}
    return list(lines.values())


def draw(out: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Figure 5 (score over lambda) and figure 6 (loss and fusion ratio over lambda)."""

    def panel(heading: str, y: str, column: str) -> Panel:
        curves: dict[str, list[Point]] = {}
        for row in rows:
            curves.setdefault(kind_name(gated(row)), []).append(
                Point(row["gate_lambda"], row[column])
            )
        return Panel(heading, LAMBDA, y, curves, decades=True)

    score = panel("probe", "test accuracy (%)", "score")
    draw_panels(out / "score.png", [score], title="Probe over the gate's regulariser")
    panels = [
        panel("distillation loss, held-out clouds", "Smooth L1 loss", "loss"),
        panel("fusion ratio, held-out clouds", "share of tokens merged", "fusion_ratio"),
    ]
    draw_panels(out / "loss.png", panels, title="Effect of the gate's regulariser")


def open_runs(config: SweepConfig) -> Callable[[SweepRun], dict[str, Any]]:
    """What is opened once: the function that distils the student of a run and scores it.

    Raises:
        InputError: the teacher or data cannot be read.
    """
    retain_memory()
    base = config.distill
    teacher = require_teacher(load(base.teacher_path))
    splits = load_splits(base.data, seed=base.train.seed)
    return lambda run: run_row(config, run, teacher, splits)


def outcomes(config: SweepConfig, runs: list[SweepRun]) -> Iterator[Outcome[SweepRun]]:
    """Each run with its row as it is done; in this process an error is raised at once."""
    if config.cluster.engine is None:
        row_of = open_runs(config)
        for i, run in enumerate(runs, 1):
            log.info("%d/%d  %s", i, len(runs), run.name)
            yield Outcome(run, row_of(run))
        return
    named, folder = {run.name: run for run in runs}, Path(config.out) / "cluster"
    for outcome in run_units(partial(open_runs, config), named, config.cluster, folder):
        log.info("%s", outcome.unit.name)
        yield outcome


def sweep_gate(config: SweepConfig) -> list[dict[str, Any]]:
    """Runs what is missing; prints all rows and the correlations, draws two pictures.

    Raises:
        InputError: the teacher or data cannot be read, or there are no test clouds.
        PartialFailure: some runs failed in their tasks; the rows of the others are kept.
    """
    out, base = Path(config.out), config.distill
    require_data(base.data, test=True, option="distill.data")
    path = out / "results.jsonl"
    known = {
        (r["gate_lambda"], r["frozen"], r["decay"]): r
        for r in read_rows(path, keys=SweepRun._fields)
    }
    wanted, faults = list(runs_of(config)), list[Outcome[SweepRun]]()
    for outcome in outcomes(config, [run for run in wanted if run not in known]):
        if outcome.fault:
            log.error("%s failed: %s", outcome.unit.name, outcome.fault)
            faults.append(outcome)
        else:
            known[outcome.unit] = outcome.value
            append(path, [outcome.value])
    if faults:
        raise PartialFailure(
            f"{len(faults)} of {len(wanted)} runs failed, {faults[0].unit.name} first: "
            f"{faults[0].fault}; run the command again to continue"
        )
    rows = [known[run] for run in wanted]
    print(table(rows, COLUMNS))
    print("\nSpearman correlation with lambda\n")
    print(table(correlation_rows(rows), CORRELATIONS))
    draw(out, rows)
    return rows
