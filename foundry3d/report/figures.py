"""Figures drawn from arrays: token features as colours on points, and line plots.

Shapes: B clouds, N points, c tokens, d width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from foundry3d.writing import replacing


def pca_basis(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (d,) and the first three principal directions (3, d) of features (..., d)."""
    flat = features.reshape(-1, features.shape[-1]).astype(np.float64)
    mean = flat.mean(axis=0)
    directions = np.linalg.svd(flat - mean, full_matrices=False)[2][:3]
    return mean, directions


def pca_colours(features: np.ndarray, mean: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """RGB (..., 3) in [0, 1] of features (..., d): their PCA coordinates, scaled to percentiles."""
    coordinates = (features - mean) @ directions.T
    low, high = np.percentile(coordinates.reshape(-1, 3), [2, 98], axis=0)
    return np.clip((coordinates - low) / np.maximum(high - low, 1e-12), 0, 1)


def _figure(size: tuple[float, float], title: str, **options: Any) -> Figure:
    figure = Figure(figsize=size, dpi=110, **options)
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=12)
    return figure


def _saved(figure: Figure, path: str | Path) -> Path:
    with replacing(path) as partial:
        figure.savefig(partial, format="png")
    return Path(path)


def draw_grid(
    path: str | Path,
    points: np.ndarray,
    columns: Sequence[tuple[str, np.ndarray]],
    *,
    rows: Sequence[str],
    title: str,
) -> Path:
    """Writes a PNG with one row per cloud and one column per model, each point in its colour.

    Args:
        path: of the PNG.
        points: (B, N, 3), z up.
        columns: heading and colours (B, N, 3) of each column.
        rows: name of each cloud.
        title: above the grid.

    Returns:
        The path.
    """
    size = (2.6 * len(columns) + 0.6, 2.5 * len(points) + 0.7)
    figure = _figure(size, title)
    for i, cloud in enumerate(points):
        reach = 0.72 * np.abs(cloud - cloud.mean(axis=0)).max()
        for j, (heading, colours) in enumerate(columns):
            axes = figure.add_subplot(
                len(points), len(columns), i * len(columns) + j + 1, projection="3d"
            )
            middle = (cloud.max(axis=0) + cloud.min(axis=0)) / 2
            axes.scatter(*cloud.T, c=np.clip(colours[i], 0, 1), s=8, linewidths=0, depthshade=False)
            for axis, center in zip("xyz", middle, strict=True):
                getattr(axes, f"set_{axis}lim")(center - reach, center + reach)
            axes.set_box_aspect((1, 1, 1))
            axes.view_init(elev=18, azim=-60)
            axes.set_axis_off()
            if i == 0:
                axes.set_title(heading, fontsize=11)
            if j == 0:
                axes.text2D(-0.05, 0.5, rows[i], transform=axes.transAxes, rotation=90, va="center")
    figure.subplots_adjust(left=0.04, right=1, bottom=0, top=0.9, wspace=0, hspace=0)
    return _saved(figure, path)


Curves = dict[str, tuple[list[float], list[float]]]
"""The x and y values of each curve, by name."""


def curves_of(points: Iterable[tuple[str, float, float]]) -> Curves:
    """Curves from the name, x and y of each point, in the order of the points."""
    found: Curves = {}
    for name, x, y in points:
        xs, ys = found.setdefault(name, ([], []))
        xs.append(x)
        ys.append(y)
    return found


def draw_lines(
    path: str | Path,
    panels: Sequence[tuple[str, str, Curves]],
    *,
    title: str,
    y: str,
    ticks: bool = True,
    log: bool = False,
    marks: Mapping[tuple[float, float], str] | None = None,
) -> Path:
    """Writes a PNG of line plots side by side; a name has the same colour in all of them.

    The legend is below the panels for more than six names, otherwise inside each panel.

    Args:
        path: of the PNG.
        panels: heading, name of the x axis, and curves by name, for each panel.
        title: above the panels.
        y: name of the y axis.
        ticks: x values are categories (budgets, lambdas), sorted and drawn at equal distances;
            otherwise the axis is linear.
        log: both axes are logarithmic, with x ticks at the values; not together with `ticks`.
        marks: labels of points (x, y); not together with `ticks`.

    Returns:
        The path.
    """
    names = dict.fromkeys(name for _, _, curves in panels for name in curves)
    below = len(names) > 6
    size = (5.2 * len(panels) + 0.6, 5.3 if below else 4.4)
    figure = _figure(size, title, layout="constrained")
    colours = {name: f"C{i % 10}" for i, name in enumerate(names)}
    for i, (heading, axis, curves) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), i + 1)
        known = sorted({value for xs, _ in curves.values() for value in xs})
        for name, (xs, ys) in curves.items():
            order = np.argsort(xs)
            at = [known.index(xs[k]) if ticks else xs[k] for k in order]
            heights = [ys[k] for k in order]
            axes.plot(at, heights, marker="o", markersize=4, label=name, color=colours[name])
            for point in zip(xs, ys, strict=True):
                if marks and point in marks:
                    axes.annotate(
                        marks[point],
                        point,
                        xytext=(4, 4),
                        textcoords="offset points",
                        fontsize=8,
                        color=colours[name],
                    )
        if ticks:
            many = len(known) > 8
            axes.set_xticks(range(len(known)), [f"{value:.3g}" for value in known])
            axes.tick_params(axis="x", rotation=90 if many else 0, labelsize=7 if many else 10)
        if log:
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_xticks(known, [f"{value:,.0f}" for value in known])
            axes.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
        axes.set_title(heading, fontsize=11)
        axes.set_xlabel(axis)
        if i == 0:
            axes.set_ylabel(y)
        axes.grid(alpha=0.3)
        if not below and (len(curves) > 1 or log):
            axes.legend(fontsize=8)
    if below:
        shown = [
            Line2D([], [], marker="o", markersize=4, label=name, color=colour)
            for name, colour in colours.items()
        ]
        figure.legend(handles=shown, loc="outside lower center", ncols=3, fontsize=8)
    return _saved(figure, path)
