"""Panels of curves with error bars; a logarithmic axis has its zero on the left of a break."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from foundry3d.extras import explained
from foundry3d.writing import replacing

with explained():
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.gridspec import SubplotSpec
    from matplotlib.lines import Line2D
    from matplotlib.ticker import LogLocator


class Point(NamedTuple):
    """A point of a curve.

    Attributes:
        x: place on the x axis.
        y: height.
        std: length of the error bar on either side; None = none.
    """

    x: float
    y: float
    std: float | None = None


class Panel(NamedTuple):
    """Axes with curves.

    Attributes:
        heading: above the axes.
        x: name of the x axis.
        y: name of the y axis, with its unit.
        curves: points by the name of the curve.
        decades: the x axis is logarithmic, with 0 left of a break.
    """

    heading: str
    x: str
    y: str
    curves: Mapping[str, Sequence[Point]]
    decades: bool = False


def draw_panels(path: str | Path, panels: Sequence[Panel], *, title: str, columns: int = 4) -> Path:
    """Writes a PNG of panels in rows; a name has the same colour in all of them.

    The legend is below the panels, where there is more than one name.

    Args:
        path: of the PNG.
        panels: at least one.
        title: above all of them.
        columns: panels in a row.

    Returns:
        The path.
    """
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    names = list(dict.fromkeys(name for panel in panels for name in panel.curves))
    legend = 0.3 * -(-len(names) // max(2, columns)) if len(names) > 1 else 0.0
    size = (4.6 * columns + 0.4, 3.5 * rows + 0.5 + legend)
    figure = Figure(figsize=size, dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=12)
    colours = {name: f"C{i % 10}" for i, name in enumerate(names)}
    grid = figure.add_gridspec(rows, columns)
    for i, panel in enumerate(panels):
        for axes in _axes_of(figure, grid[i // columns, i % columns], panel):
            _draw(axes, panel, colours)
    if len(names) > 1:
        shown = [
            Line2D([], [], marker="o", markersize=4, label=name, color=colour)
            for name, colour in colours.items()
        ]
        place = max(2, columns)
        figure.legend(handles=shown, loc="outside lower center", ncols=place, fontsize=9)
    with replacing(path) as partial:
        figure.savefig(partial, format="png")
    return Path(path)


def _axes_of(figure: Figure, place: SubplotSpec, panel: Panel) -> list[Axes]:
    """The axes of a panel: one, or those of zero and of the decades with a break between them."""
    xs = sorted({point.x for curve in panel.curves.values() for point in curve})
    if not (panel.decades and xs[0] == 0 < xs[-1]):
        axes = figure.add_subplot(place)
        _label(axes, axes, panel)
        if panel.decades:
            _decades(axes)
        elif len(xs) <= 12 and all(float(f"{x:g}") == x for x in xs):
            axes.set_xticks(xs, [f"{x:g}" for x in xs])
        return [axes]
    parts = place.subgridspec(1, 2, width_ratios=[1, 8], wspace=0.02)
    zero = figure.add_subplot(parts[0])
    decades = figure.add_subplot(parts[1], sharey=zero)
    zero.set_xlim(-1, 1)
    zero.set_xticks([0], ["0"])
    _decades(decades)
    decades.tick_params(axis="y", left=False, labelleft=False)
    zero.spines["right"].set_visible(False)
    decades.spines["left"].set_visible(False)
    for axes, edge in ((zero, 1), (decades, 0)):
        axes.plot(
            [edge, edge],
            [0, 1],
            transform=axes.transAxes,
            clip_on=False,
            marker=((-0.5, -1), (0.5, 1)),
            markersize=9,
            linestyle="none",
            color="k",
        )
    _label(zero, decades, panel)
    return [zero, decades]


def _label(left: Axes, right: Axes, panel: Panel) -> None:
    """Names the axes of a panel, which may consist of two parts."""
    right.set_title(panel.heading, fontsize=11)
    right.set_xlabel(panel.x)
    left.set_ylabel(panel.y)


def _decades(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(numticks=6))


def _draw(axes: Axes, panel: Panel, colours: Mapping[str, str]) -> None:
    """Draws the points that belong to the axes: all, zero, or the decades."""
    for name, curve in panel.curves.items():
        points = sorted(curve)
        if panel.decades:
            is_log = axes.get_xscale() == "log"
            points = [point for point in points if (point.x > 0) == is_log]
        bars = [np.nan if point.std is None else point.std for point in points]
        axes.errorbar(
            [point.x for point in points],
            [point.y for point in points],
            yerr=None if np.isnan(bars).all() else bars,
            marker="o",
            markersize=4,
            capsize=2.5,
            linewidth=1.3,
            color=colours[name],
        )
    axes.grid(alpha=0.3)
