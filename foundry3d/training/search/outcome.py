"""What a search found: rows, the table, pictures, and the command that repeats a distillation."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from foundry3d.config import DistillConfig
from foundry3d.config.search import Limit
from foundry3d.report.rows import table
from foundry3d.report.scatter import Mark, draw_scatter

COLUMNS = {
    "front": "front",
    "name": "student",
    "what": "what it is",
    "percent": "unexplained (%)",
    "cosine": "cosine",
    "cka": "CKA",
    "gmacs": "GMACs",
    "ms": "ms",
    "mb": "MB",
    "epochs": "epochs",
    "state": "state",
}
DRAWN = "drawn"
SIZES = ("others", "on the front")
AXES = {"gmacs": "GMACs for one cloud", "ms": "ms for one cloud, compiled", "mb": "MB in float16"}

Row = dict[str, Any]


def row_of(trial: FrozenTrial) -> Row:
    """A trial as a row: what the student is, what it costs, how well it does."""
    facts = trial.user_attrs
    cost, fidelity = facts.get("cost", {}), facts.get("fidelity", {})
    row: Row = {"name": facts["name"], "what": facts.get("rival") or DRAWN}
    row |= {"kind": facts["student"]["kind"], "student": facts["student"], **cost}
    row |= {key: fidelity.get(key) for key in ("unexplained", "cosine", "cka", "epochs")}
    share = row["unexplained"]
    return row | {
        "percent": None if share is None else 100 * share,
        "fidelity_on": fidelity.get("fidelity_on"),
        "state": state_of(trial),
        "trial": trial.number,
    }


def state_of(trial: FrozenTrial) -> str:
    """What became of a trial, in words."""
    facts = trial.user_attrs
    if "error" in facts:
        return "failed"
    if facts.get("over"):
        return "over the limit"
    return {
        TrialState.COMPLETE: "tried",
        TrialState.PRUNED: "stopped early",
        TrialState.RUNNING: "running",
    }.get(trial.state, "waiting")


def rows_of(trials: Sequence[FrozenTrial], limit: Limit) -> list[Row]:
    """A row for each candidate, from the cheapest; `front` marks those that none dominates.

    Left out are drawn candidates that were over the limit, and trials that another one repeats.
    """
    found: dict[str, Row] = {}
    for trial in trials:
        facts = trial.user_attrs
        if "cost" not in facts or (facts.get("over") and facts.get("rival") is None):
            continue
        row, before = row_of(trial), found.get(facts["name"])
        if trial.state == TrialState.FAIL and "error" not in facts:
            continue  # left by a process that died, and taken up again
        if before is None or before["state"] != "tried":
            found[row["name"]] = row
    rows = sorted(found.values(), key=lambda row: row[limit.unit] or math.inf)
    marked = {row["name"] for row in front(rows, limit.unit)}
    return [row | {"front": "*" if row["name"] in marked else ""} for row in rows]


def front(rows: Sequence[Row], cost: str) -> list[Row]:
    """The candidates tried to the last rung to which none is both as cheap and as good."""
    done = [r for r in rows if is_done(r) and r.get(cost) is not None]
    found: list[Row] = []
    for row in sorted(done, key=lambda row: (row[cost], row["unexplained"])):
        if not found or row["unexplained"] < found[-1]["unexplained"]:
            found.append(row)
    return found


def is_done(row: Row) -> bool:
    """Whether a candidate went through all rungs and has a finite result."""
    return row["state"] == "tried" and math.isfinite(row["unexplained"] or math.nan)


def best(rows: Sequence[Row]) -> Row | None:
    """The candidate that leaves the least unexplained; None = none went through all rungs."""
    done = [row for row in rows if is_done(row)]
    return min(done, key=lambda row: row["unexplained"]) if done else None


def shown(rows: Sequence[Row]) -> str:
    """The table as Markdown."""
    return table(rows, COLUMNS)


def draw(out: Path, rows: Sequence[Row], *, epochs: int) -> list[Path]:
    """Pictures of unexplained variance over GMACs and over milliseconds, every candidate a mark.

    Args:
        out: folder for `fidelity-gmacs.png` and `fidelity-ms.png`.
        rows: from `rows_of`.
        epochs: of the last rung, for the label.
    """
    made = []
    for cost in ("gmacs", "ms"):
        best_of = {row["name"] for row in front(rows, cost)}
        marks = [
            Mark(
                row[cost],
                row["percent"],
                row["kind"],
                row["what"],
                SIZES[row["name"] in best_of],
            )
            for row in rows
            if row[cost] and row["percent"] and is_done(row)
        ]
        if not marks:
            continue
        path = draw_scatter(
            out / f"fidelity-{cost}.png",
            marks,
            title="Students of one teacher",
            x=AXES[cost],
            y=f"unexplained variance (%) after {epoch_words(epochs)}",
            sizes=SIZES,
            headings=("kind", "student", ""),
            log=True,
        )
        made.append(path)
    return made


def epoch_words(count: int) -> str:
    """`1 epoch`, `9 epochs`."""
    return f"{count} epoch{'' if count == 1 else 's'}"


def differing(record: Any, default: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values of the fields in which a record differs from another of its type."""
    for field in fields(record):
        value, usual = getattr(record, field.name), getattr(default, field.name)
        if is_dataclass(value):
            yield from differing(value, usual, f"{prefix}{field.name}.")
        elif value != usual:
            yield f"{prefix}{field.name}", value


def words_of(value: Any) -> list[str]:
    """A value as the command line takes it."""
    if value is None or isinstance(value, bool):
        return [{None: "null", True: "true", False: "false"}[value]]
    return [str(part) for part in value] if isinstance(value, tuple) else [str(value)]


def command_of(config: DistillConfig, out: str) -> str:
    """The command that repeats a distillation in another folder; it needs no other file."""
    words = ["foundry3d", "distill", "--teacher", config.teacher, "--out", out]
    for name, value in differing(config, DistillConfig()):
        if name not in ("teacher", "out", "resume"):
            words += [f"--{name}", *words_of(value)]
    return shlex.join(words)
