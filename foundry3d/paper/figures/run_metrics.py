"""The metrics that a run folder holds, by epoch, and the runs behind a saved model."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np

from foundry3d.training.run_folder import read_settings

STEP, ONCE = "step", "clouds_per_second"
"""Columns of `metrics.csv`; the second has a value at the end of every epoch."""

Logged = list[dict[str, str]]


def run_folder_of(folder: str | Path) -> Path | None:
    """The run folder that a model or run folder belongs to; None where there is none."""
    path = Path(folder)
    for place in (path, path.parent):
        if (place / "config.yaml").is_file() and (place / "metrics").is_dir():
            return place
    return None


def runs_behind(folder: str | Path) -> list[tuple[Path, dict[str, Any]]]:
    """The run of a model and, for a fine-tuned one, the run of the model it started from.

    Returns:
        Folder and settings of each, the latest first; none for a model that was not trained here.

    Raises:
        InputError: settings that are damaged.
    """
    found: list[tuple[Path, dict[str, Any]]] = []
    run = run_folder_of(folder)
    while run is not None and run.resolve() not in [known.resolve() for known, _ in found]:
        settings = read_settings(run / "config.yaml") or {}
        found.append((run, settings))
        before = settings.get("model")
        run = run_folder_of(before) if isinstance(before, str) else None
    return found


def read_metrics(run: Path) -> Logged:
    """The rows of all starts of a run, in their order; rows without a step are left out."""
    rows: Logged = []
    paths = (run / "metrics").glob("version_*/metrics.csv")
    for path in sorted(paths, key=lambda p: int(p.parent.name.rpartition("_")[2])):
        text = path.read_text(encoding="utf-8", errors="replace")
        rows += [
            row for row in csv.DictReader(text.splitlines()) if (row.get(STEP) or "").isdigit()
        ]
    return rows


def steps_per_epoch(rows: Logged) -> int:
    """Steps in an epoch, from the steps at which epochs ended; 0 where none did."""
    return math.gcd(*(int(row[STEP]) for row in rows if row.get(ONCE)))


def number(text: str | None) -> float | None:
    """A finite number in a cell; None for anything else."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def by_epoch(rows: Logged, key: str, *, after: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Epochs, from 1, and the mean of a metric in each, where it was logged.

    A later start of the run counts where it repeats a step.

    Args:
        rows: from `read_metrics`.
        key: name of the metric.
        after: the metric is logged with the number of steps done, instead of the step's own number.
    """
    steps = steps_per_epoch(rows)
    if not steps:
        return np.zeros(0), np.zeros(0)
    latest = {int(row[STEP]): v for row in rows if (v := number(row.get(key))) is not None}
    epochs: dict[int, list[float]] = {}
    for step, value in latest.items():
        epochs.setdefault(step // steps + (0 if after else 1), []).append(value)
    known = sorted(epochs)
    return np.array(known, float), np.array([np.mean(epochs[e]) for e in known], float)
