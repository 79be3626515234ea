"""Supertoken health: how supertokens are used, by epoch and at the end, and how stable that is.

Shapes: n tokens, s supertokens.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score

from foundry3d.models.health import choices, usage, used_per_cloud
from foundry3d.paper.figures.page import page
from foundry3d.paper.figures.palette import distinct_colours
from foundry3d.paper.figures.panels import Curve, draw_curves, legend_of
from foundry3d.paper.figures.run_metrics import by_epoch, read_metrics, runs_behind
from foundry3d.paper.figures.study import Study, Subject
from foundry3d.report.rows import table

log = logging.getLogger("foundry3d")

USAGE = {
    "model": "model",
    "supertokens": "supertokens",
    "used": "in use (%)",
    "dead": "dead",
    "entropy": "entropy",
    "per_cloud": "used per cloud",
}
STABILITY = {"pair": "students", "matched": "matched tokens (%)", "rand": "adjusted Rand index"}
BY_EPOCH = {
    "assignment_entropy": "entropy of the assignment",
    "dead_supertokens": "dead supertokens",
}


class Stability(NamedTuple):
    """How far two assignments of the same tokens agree.

    Attributes:
        matched: share of the tokens in [0, 1] that agree when the supertokens of one are renamed in
            the best way (Hungarian method); two random assignments reach about 1 / s.
        rand: adjusted Rand index, 1 = the same partition, 0 = as much as chance.
    """

    matched: float
    rand: float


def stability(first: np.ndarray, second: np.ndarray, supertokens: int) -> Stability:
    """The stability of two assignments (n,) of the same tokens to s supertokens each.

    Tokens that either of them leaves unmerged (-1) do not count; without any others both measures
    are NaN.
    """
    both = (first >= 0) & (second >= 0)
    first, second = first[both], second[both]
    if not len(first):
        return Stability(float("nan"), float("nan"))
    shared = np.zeros((supertokens, supertokens), dtype=np.int64)
    np.add.at(shared, (first, second), 1)
    rows, columns = linear_sum_assignment(-shared)
    matched = float(shared[rows, columns].sum()) / len(first)
    return Stability(matched, float(adjusted_rand_score(first, second)))


def usage_row(study: Study, subject: Subject) -> dict[str, Any]:
    """How a model uses its supertokens on the clouds; `counts` has the tokens of each."""
    assignment = study.encoded(subject).assignment
    assert assignment is not None
    counts = choices(assignment, subject.supertokens)
    found = usage(counts)
    return {
        "model": subject.name,
        "supertokens": subject.supertokens,
        "used": 100 * found.share,
        "dead": found.dead,
        "entropy": found.entropy,
        "per_cloud": float(used_per_cloud(assignment, subject.supertokens).float().mean()),
        "counts": counts.numpy(),
    }


def stability_rows(study: Study, subjects: Sequence[Subject]) -> list[dict[str, Any]]:
    """The stability of each pair of models with as many supertokens and tokens."""
    rows = []
    for one, other in combinations(subjects, 2):
        a, b = (study.encoded(subject).assignment for subject in (one, other))
        assert a is not None
        assert b is not None
        if one.supertokens != other.supertokens or a.shape != b.shape:
            continue
        found = stability(a.flatten().numpy(), b.flatten().numpy(), one.supertokens)
        rows.append(
            {
                "pair": f"{one.name} and {other.name}",
                "matched": 100 * found.matched,
                "rand": found.rand,
            }
        )
    return rows


def epoch_curves(subjects: Sequence[Subject], key: str) -> list[Curve]:
    """A measure that distillation logs, by epoch, of the models whose runs have it."""
    curves = []
    for subject in subjects:
        for run, _ in runs_behind(subject.folder):
            epochs, values = by_epoch(read_metrics(run), key)
            if len(epochs):
                curves.append(Curve(subject.name, epochs, values))
    return curves


def draw_shares(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    """The share of the tokens in each supertoken, the largest first, with equal use dotted."""
    shades = distinct_colours(len(rows))
    for row, colour in zip(rows, shades, strict=True):
        counts = np.sort(row["counts"])[::-1]
        shares = 100 * counts / max(counts.sum(), 1)
        places = np.arange(1, len(counts) + 1)
        axes.plot(places, shares, marker="o", markersize=2.5, linewidth=1.0, color=colour)
        axes.plot(places, np.full(len(counts), 100 / len(counts)), ":", lw=0.8, color=colour)
    axes.set_xlabel("supertoken, by use")
    axes.set_ylabel("share of tokens (%)")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25, linewidth=0.5)


def draw_health(study: Study) -> bool:
    """Draws `health` and prints its tables, if a model assigns tokens."""
    subjects = list(study.with_supertokens("health"))
    if not subjects:
        return False
    rows = [usage_row(study, subject) for subject in subjects]
    pairs = stability_rows(study, subjects)
    if not pairs:
        log.info("health: stability needs two students with as many supertokens and tokens")
    tables = table(rows, USAGE) + ("\n\n" + table(pairs, STABILITY) if pairs else "")
    print(tables)
    curves = {axis: epoch_curves(subjects, key) for key, axis in BY_EPOCH.items()}
    panels = {axis: found for axis, found in curves.items() if found}
    caption = (
        "Use of the supertokens. First panel: share of the tokens that go to each, the most used "
        "first; dotted: equal use."
        + (" Others: the training clouds of each epoch of distillation." if panels else "")
        + " All choices are those without noise."
        + " Entropy is that of the distribution of tokens over supertokens, divided by the "
        "logarithm of their number (1 = equal use); a supertoken is dead if no token chooses it. "
        + study.protocol(subjects, f"{len(study.many)} clouds")
        + f"\n\n{tables}"
    )
    names = [subject.name for subject in subjects]
    with page(study.out, "health", (2.6 * (1 + len(panels)) + 0.4, 2.4), caption) as figure:
        draw_shares(figure.add_subplot(1, 1 + len(panels), 1), rows)
        for i, (axis, found) in enumerate(panels.items()):
            axes = figure.add_subplot(1, 1 + len(panels), i + 2)
            draw_curves(axes, found, names, axis)
            axes.set_ylim(-0.04, 1.04 if "entropy" in axis else max(1.0, axes.get_ylim()[1]))
            axes.yaxis.set_major_locator(MaxNLocator(5, integer="entropy" not in axis))
        legend_of(figure, names)
    return True
