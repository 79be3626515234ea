"""Figures drawn from arrays: token features as colours on points, and line plots.

Shapes: B clouds, N points, c tokens, d width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from foundry3d.extras import explained
from foundry3d.writing import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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


def new_figure(size: tuple[float, float], title: str, **options: Any) -> Figure:
    """An empty figure of this width and height in inches, drawn without a display."""
    with explained():
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=110, **options)
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=12)
    return figure


def saved(figure: Figure, path: str | Path) -> Path:
    """Writes a PNG, or an SVG that is the same for the same figure."""
    from matplotlib import rc_context

    kind = Path(path).suffix.removeprefix(".") or "png"
    with replacing(path) as partial, rc_context({"svg.hashsalt": "foundry3d"}):
        figure.savefig(partial, format=kind, metadata={"Date": None} if kind == "svg" else None)
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
    figure = new_figure(size, title)
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
    return saved(figure, path)


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


class Level(NamedTuple):
    """A value that does not depend on x, with its deviation if it has one."""

    value: float
    deviation: float | None = None


class Panel(NamedTuple):
    """A line plot of several.

    Attributes:
        heading: above it.
        axis: name of the x axis, with its unit.
        curves: x and y values by name.
        errors: deviations of the y values, by the names of curves; None where there is none.
        levels: horizontal lines by name.
    """

    heading: str
    axis: str
    curves: Curves
    errors: Mapping[str, Sequence[float | None]] = MappingProxyType({})
    levels: Mapping[str, Level] = MappingProxyType({})


def _curve(
    axes: Any, at: Sequence[float], panel: Panel, name: str, order: Any, **style: Any
) -> None:
    """Draws a curve, its points in the order of x; with bars for the deviations that are known."""
    heights = [panel.curves[name][1][k] for k in order]
    axes.plot(at, heights, marker="o", markersize=4, label=name, **style)
    found = panel.errors.get(name) or [None] * len(heights)
    bars = [(x, y, found[k]) for x, y, k in zip(at, heights, order, strict=True)]
    bars = [bar for bar in bars if bar[2] is not None]
    if bars:
        xs, ys, deviations = zip(*bars, strict=True)
        axes.errorbar(xs, ys, deviations, fmt="none", capsize=3, elinewidth=1, **style)


def _level(axes: Any, name: str, level: Level, **style: Any) -> None:
    """Draws a horizontal line, with a band for its deviation."""
    axes.axhline(level.value, linestyle="--", linewidth=1.3, label=name, **style)
    if level.deviation is not None:
        low, high = level.value - level.deviation, level.value + level.deviation
        axes.axhspan(low, high, alpha=0.12, linewidth=0, **style)


def draw_lines(
    path: str | Path,
    panels: Sequence[Panel | tuple[str, str, Curves]],
    *,
    title: str,
    y: str,
    ticks: bool = True,
    log: bool = False,
) -> Path:
    """Writes a picture of line plots, up to four in a row; a name has one colour in all of them.

    A legend is inside each panel of more than one name; below all of them for more than six names.

    Args:
        path: of the picture, PNG or SVG by its suffix.
        panels: from left to right and top to bottom.
        title: above the panels.
        y: name of the y axis, with its unit.
        ticks: x values are categories (budgets, lambdas), sorted and drawn at equal distances;
            otherwise the axis is linear.
        log: both axes are logarithmic, with x ticks at the values; not together with `ticks`.

    Returns:
        The path.
    """
    whole = [Panel(*panel) for panel in panels]
    names = dict.fromkeys(name for panel in whole for name in (*panel.curves, *panel.levels))
    below = len(names) > 6
    across = min(4, len(whole))
    down = -(-len(whole) // max(1, across))
    size = (max(5.2 * across + 0.6, 7.5 if below else 0), 4.4 * down + 0.9 * below)
    figure = new_figure(size, title, layout="constrained")
    curves = dict.fromkeys(name for panel in whole for name in panel.curves)
    colours = {name: "black" for name in names} | {n: f"C{i % 10}" for i, n in enumerate(curves)}
    handles: dict[str, Any] = {}
    for i, panel in enumerate(whole):
        axes = figure.add_subplot(down, across, i + 1)
        known = sorted({value for xs, _ in panel.curves.values() for value in xs})
        for name, (xs, _) in panel.curves.items():
            order = np.argsort(xs, kind="stable")
            at = [known.index(xs[k]) if ticks else xs[k] for k in order]
            _curve(axes, at, panel, name, order, color=colours[name])
        for name, level in panel.levels.items():
            _level(axes, name, level, color=colours[name])
        if ticks:
            many = len(known) > 8
            axes.set_xticks(range(len(known)), [f"{value:.3g}" for value in known])
            axes.tick_params(axis="x", rotation=90 if many else 0, labelsize=7 if many else 10)
        if log:
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_xticks(known, [f"{value:,.0f}" for value in known])
            axes.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
        axes.set_title(panel.heading, fontsize=11)
        axes.set_xlabel(panel.axis)
        if i % across == 0:
            axes.set_ylabel(y)
        axes.grid(alpha=0.3)
        found = axes.get_legend_handles_labels()
        handles |= dict(zip(found[1], found[0], strict=True))
        if not below and (len(found[1]) > 1 or log):
            axes.legend(fontsize=8)
    if below:
        figure.legend(
            handles=list(handles.values()),
            labels=list(handles),
            loc="outside lower center",
            ncols=min(3, max(1, round(size[0] / 3.5))),
            fontsize=8,
        )
    return saved(figure, path)
