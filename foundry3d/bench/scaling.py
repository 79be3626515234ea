"""`foundry3d bench scaling`: time and memory against N, c, s and the batch, with fitted exponents.

An exponent is the slope of a straight line through the logarithms, by least squares: 1 is linear,
2 quadratic. What a call costs whatever its size (and what stays in the cache) bends the lower end;
N log N between 10^4 and 10^6 fits 1.09.

Shapes: B clouds, N points, c tokens, s supertokens.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from foundry3d.bench import scene_forms, subjects
from foundry3d.bench.measure import interleaved, machine, timings, waiting
from foundry3d.bench.memory import measured
from foundry3d.bench.subjects import Subject, described, model_of
from foundry3d.config import BenchConfig
from foundry3d.report.figures import Curves, draw_lines
from foundry3d.report.rows import code_version
from foundry3d.training.engine import retain_memory

log = logging.getLogger("foundry3d")

COLUMNS = {
    "sweep": "over",
    "x": "value",
    "name": "name",
    "precision": "precision",
    "median_s": "median s",
    "spread_s": "spread s",
    "peak_mb": "peak MB",
    "working_mb": "working MB",
    "of": "fit of",
    "exponent": "exponent",
    "r2": "R2",
}


class Sweep(NamedTuple):
    """Subjects along an axis.

    Attributes:
        name: of the axis.
        curves: for each curve its subjects by the value on the axis.
    """

    name: str
    curves: dict[str, dict[int, Subject]]


def fit(xs: Sequence[float], ys: Sequence[float]) -> tuple[float, float]:
    """Exponent of y over x by least squares on the logarithms, and the share R^2 it explains.

    Args:
        xs: at least two different positive values.
        ys: positive.
    """
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
    """Everything that is varied; sizes of the whole follow the configuration."""
    clouds, points, most, _ = config.sizes
    s = config.supertokens[0] if config.supertokens else 1
    base = Subject(
        name="teacher",
        form="compiled",
        precision=config.precisions[0],
        model=config.model,
        clouds=clouds,
        batch=clouds,
        points=points,
        seed=config.seed,
        device=config.device,
    )
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
    return [
        Sweep("scene points", large),
        Sweep("tokens", {one.name: tokens(one) for one in both}),
        Sweep(
            "supertokens",
            {"student": {n: replace(student, supertokens=n) for n in _doubled(1, own)}},
        ),
        Sweep("batch", {one.name: batches(one) for one in both}),
    ]


def _call(subject: Subject) -> Callable[[], object]:
    return (scene_forms if subject.form in scene_forms.FORMS else subjects).runner(subject)


def _rows_of(sweep: Sweep, config: BenchConfig) -> list[dict[str, Any]]:
    """A row for every subject of a sweep."""
    listed = [(name, x, one) for name, curve in sweep.curves.items() for x, one in curve.items()]
    times = interleaved(
        {f"{i}": _call(subject) for i, (_, _, subject) in enumerate(listed)},
        repeats=config.sizes.repeats,
        limit=config.limit / 4,
        finish=waiting(config.device),
    )
    rows = []
    for i, (name, x, subject) in enumerate(listed):
        timed = times[f"{i}"]
        first = times[f"{[curve for curve, _, _ in listed].index(name)}"].median
        rows.append(
            described(subject)
            | timings(timed, first)
            | measured(subject, config)
            | {
                "bench": "scaling",
                "sweep": sweep.name,
                "x": x,
                "name": name,
                "clouds_s": subject.clouds / timed.median,
                "error": None,
            }
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
                found.append(
                    {
                        "bench": "fit",
                        "of": f"{sweep}, {what}",
                        "name": name,
                        "form": part[0]["form"],
                        "exponent": exponent,
                        "r2": r2,
                    }
                )
    return found


def draw(
    rows: Sequence[dict[str, Any]], found: Sequence[dict[str, Any]], folder: str
) -> list[Path]:
    """Pictures of time and working memory over every axis, the exponents in the legends."""
    exponents = {(row["of"], row["name"]): row["exponent"] for row in found}
    drawn = []
    for what, key, y in (
        ("time", "median_s", "seconds"),
        ("memory", "working_mb", "working memory, MB"),
    ):
        panels: list[tuple[str, str, Curves]] = []
        for sweep in dict.fromkeys(row["sweep"] for row in rows):
            curves: Curves = {}
            for row in rows:
                if row["sweep"] == sweep and (row[key] or 0) > 0:
                    exponent = exponents.get((f"{sweep}, {what}", row["name"]))
                    label = row["name"] + ("" if exponent is None else f"  (x^{exponent:.2f})")
                    xs, ys = curves.setdefault(label, ([], []))
                    xs.append(row["x"])
                    ys.append(row[key])
            if curves:
                panels.append((f"over {sweep}", sweep, curves))
        if panels:
            path = Path(folder) / f"scaling_{what}.png"
            drawn.append(
                draw_lines(path, panels, title=f"Scaling: {what}", y=y, ticks=False, log=True)
            )
    return drawn


def measure(config: BenchConfig) -> list[dict[str, Any]]:
    """A row for every value of every sweep, then the fitted exponents; draws them if asked.

    Raises:
        InputError: a model that cannot be used.
    """
    retain_memory()
    facts = machine(config.device) | {"code": code_version()}
    rows: list[dict[str, Any]] = []
    for sweep in sweeps(config):
        log.info("scaling over %s", sweep.name)
        rows += [row | facts for row in _rows_of(sweep, config)]
        subjects.forget()
    found = fits(rows)
    if config.out is not None:
        for path in draw(rows, found, config.out):
            print(f"picture  {path}")
    return rows + [row | facts for row in found]
