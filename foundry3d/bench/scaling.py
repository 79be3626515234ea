"""`foundry3d bench scaling`: time and memory over N, c, s and the batch, with fitted exponents.

An exponent is the slope of a line fitted to the logarithms by least squares: 1 is linear, 2 is
quadratic. Fixed costs of a call, and caches, bend the lower end; N log N between 10^4 and 10^6
has a fitted exponent of 1.09.

Shapes: B clouds, N points, c tokens, s supertokens.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from foundry3d.bench import forms, scene_forms
from foundry3d.bench.forms import described, model_of
from foundry3d.bench.measure import columns, timed, timings
from foundry3d.bench.memory import measured
from foundry3d.bench.subjects import Subject, teacher_of
from foundry3d.config import BenchConfig
from foundry3d.report.figures import curves_of, draw_lines

log = logging.getLogger("foundry3d")

COLUMNS = columns(
    *("sweep", "x", "name", "precision", "median_s", "iqr_s", "peak_mb", "working_mb"),
    *("of", "exponent", "r2"),
)


class Sweep(NamedTuple):
    """Subjects along an axis.

    Attributes:
        name: of the axis.
        curves: the subjects of each curve, by their value on the axis.
    """

    name: str
    curves: dict[str, dict[int, Subject]]


def fit(xs: Sequence[float], ys: Sequence[float]) -> tuple[float, float]:
    """Exponent of y over x by least squares on the logarithms of both, and the R^2 of the fit."""
    x, y = np.log(xs), np.log(ys)
    slope, offset = np.polyfit(x, y, 1)
    left = ((y - slope * x - offset) ** 2).sum()
    total = ((y - y.mean()) ** 2).sum()
    return float(slope), float(1 - left / total) if total > 0 else 1.0


def _doubled(first: int, last: int, factor: int = 2) -> list[int]:
    found = [first]
    while found[-1] * factor <= last:
        found.append(found[-1] * factor)
    return found


def sweeps(config: BenchConfig) -> list[Sweep]:
    """Everything that is varied, up to the sizes of the configuration."""
    clouds, _, most, _ = config.sizes
    s = config.supertokens[0] if config.supertokens else 1
    base = teacher_of(config, form="compiled", precision=config.precisions[0])
    own = model_of(base).shape.groups
    student = replace(base, name=f"s={s}", supertokens=s)

    def scenes(subject: Subject) -> dict[int, Subject]:
        steps = range(round(2 * np.log10(most / 10**4)) + 1) if most > 10**4 else (0,)
        values = [min(most, round(10 ** (4 + step / 2))) for step in steps]
        return {
            n: replace(subject, clouds=1, batch=1, points=n, groups=n // config.points_per_token)
            for n in values
        }

    def tokens(subject: Subject) -> dict[int, Subject]:
        last = own * (4 if config.quick else 64)
        return {
            c: replace(subject, clouds=1, batch=1, points=16 * c, groups=c)
            for c in _doubled(own, last, 2 if config.quick else 4)
        }

    def batches(subject: Subject) -> dict[int, Subject]:
        return {n: replace(subject, clouds=n, batch=n) for n in _doubled(1, clouds)}

    large = {
        f"s={s}, {precision}": scenes(replace(student, form="streamed", precision=precision))
        for precision in config.precisions
    }
    large["geometry alone"] = scenes(replace(student, form="geometry"))
    both = (base, student)
    compressed = {n: replace(student, supertokens=n) for n in _doubled(1, own)}
    return [
        Sweep("scene points", large),
        Sweep("tokens", {one.name: tokens(one) for one in both}),
        Sweep("supertokens", {"student": compressed}),
        Sweep("batch", {one.name: batches(one) for one in both}),
    ]


def _call(subject: Subject) -> Callable[[], object]:
    return (scene_forms if subject.form in scene_forms.FORMS else forms).runner(subject)


def _rows_of(sweep: Sweep, config: BenchConfig) -> list[dict[str, Any]]:
    """A row for every subject of a sweep."""
    curves = sweep.curves.items()
    calls = {(name, x): _call(one) for name, curve in curves for x, one in curve.items()}
    times = timed(calls, config, share=0.25)
    rows = []
    for name, curve in curves:
        first = times[name, next(iter(curve))].median
        for x, subject in curve.items():
            rows.append(
                described(subject)
                | timings(times[name, x], baseline=first, clouds=subject.clouds)
                | measured(subject, config)
                | {"bench": "scaling", "sweep": sweep.name, "x": x, "name": name, "error": None}
            )
    return rows


def fits(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Exponents of time and working memory for every curve of at least three measured values."""
    curves: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        curves.setdefault((row["sweep"], row["name"]), []).append(row)
    found = []
    for (sweep, name), part in curves.items():
        for what, key in (("time", "median_s"), ("memory", "working_mb")):
            pairs = [(row["x"], row[key]) for row in part if (row[key] or 0) > 0]
            if len(pairs) >= 3:
                exponent, r2 = fit(*zip(*pairs, strict=True))
                row = {"bench": "fit", "of": f"{sweep}, {what}", "name": name}
                row |= {"form": part[0]["form"], "exponent": exponent, "r2": r2}
                found.append(row)
    return found


def draw(
    rows: Sequence[dict[str, Any]], found: Sequence[dict[str, Any]], folder: str
) -> list[Path]:
    """Plots time and working memory over every axis, with the exponents in the legends."""
    exponents = {(row["of"], row["name"]): row["exponent"] for row in found}
    drawn = []
    axes = (("time", "median_s", "seconds"), ("memory", "working_mb", "working memory, MB"))
    for what, key, y in axes:
        panels = []
        for sweep in dict.fromkeys(row["sweep"] for row in rows):

            def label(name: str, of: str = f"{sweep}, {what}") -> str:
                exponent = exponents.get((of, name))
                return name if exponent is None else f"{name}  (x^{exponent:.2f})"

            curves = curves_of(
                (label(row["name"]), row["x"], row[key])
                for row in rows
                if row["sweep"] == sweep and (row[key] or 0) > 0
            )
            if curves:
                panels.append((f"over {sweep}", sweep, curves))
        if panels:
            path = Path(folder) / f"scaling_{what}.png"
            drawn.append(
                draw_lines(path, panels, title=f"Scaling: {what}", y=y, ticks=False, log=True)
            )
    return drawn


def measure(config: BenchConfig) -> list[dict[str, Any]]:
    """A row for every value of every sweep, then the fitted exponents; draws them on request.

    Raises:
        InputError: the model cannot be loaded, or does not fit the options.
    """
    rows: list[dict[str, Any]] = []
    for sweep in sweeps(config):
        log.info("scaling over %s", sweep.name)
        rows += _rows_of(sweep, config)
        forms.forget()
    found = fits(rows)
    if config.out is not None:
        for path in draw(rows, found, config.out):
            print(f"picture  {path}")
    return rows + found
