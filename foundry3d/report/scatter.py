"""Scatter plots of points in groups that differ in shape, colour and size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from foundry3d.extras import explained
from foundry3d.report.figures import new_figure, saved

with explained():
    from matplotlib.legend import Legend
    from matplotlib.lines import Line2D


class Mark(NamedTuple):
    """A point of a scatter plot.

    Attributes:
        x: its place.
        y: its place.
        shape: name of the group that shares its shape.
        colour: name of the group that shares its colour.
        size: name of the group that shares its size, the smallest first.
        deviation: of y; None = not known.
    """

    x: float
    y: float
    shape: str
    colour: str
    size: str
    deviation: float | None = None


SHAPES = "osD^vP*X<>ph"


def _keys(axes: Any, heading: str, handles: list[Line2D], top: float) -> None:
    """A legend to the right of a plot, its upper end at `top` of the height."""
    legend = Legend(
        axes,
        handles,
        [str(handle.get_label()) for handle in handles],
        title=heading,
        loc="upper left",
        bbox_to_anchor=(1.01, top),
        fontsize=8,
        title_fontsize=8,
        alignment="left",
        frameon=False,
    )
    axes.add_artist(legend)
    legend.set_clip_on(False)  # what is clipped to the axes gets no room beside them


def draw_scatter(
    path: str | Path,
    marks: Sequence[Mark],
    *,
    title: str,
    x: str,
    y: str,
    sizes: Sequence[str],
    headings: tuple[str, str, str],
    log: bool = False,
) -> Path:
    """Writes a scatter plot with legends of its shapes, colours and sizes.

    Args:
        path: of the picture, PNG or SVG by its suffix.
        marks: the points; shapes and colours are given out in their order.
        title: above the plot.
        x: name of the x axis, with its unit.
        y: name of the y axis, with its unit.
        sizes: names of sizes from the smallest to the largest mark.
        headings: above the legends of shapes, colours and sizes.
        log: whether both axes are logarithmic; places are then above 0.

    Returns:
        The path.
    """
    figure = new_figure((7.6, 4.8), title, layout="constrained")
    axes = figure.add_subplot(1, 1, 1)
    kinds = dict.fromkeys(mark.shape for mark in marks)
    shapes = {name: SHAPES[i % len(SHAPES)] for i, name in enumerate(kinds)}
    groups = dict.fromkeys(mark.colour for mark in marks)
    colours = {name: f"C{i % 10}" for i, name in enumerate(groups)}
    areas = {name: 4.5 + 1.8 * i for i, name in enumerate(sizes)}
    for mark in marks:
        axes.errorbar(
            mark.x,
            mark.y,
            mark.deviation,
            marker=shapes[mark.shape],
            markersize=areas[mark.size],
            color=colours[mark.colour],
            markeredgecolor="white",
            markeredgewidth=0.6,
            alpha=0.85,
            elinewidth=0.8,
            capsize=2,
            linestyle="none",
        )
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    if log:
        axes.set_xscale("log")
        axes.set_yscale("log")

    def key(name: str, shape: str, colour: str, size: float) -> Line2D:
        return Line2D(
            [], [], linestyle="none", marker=shape, color=colour, markersize=size, label=name
        )

    used = [name for name in sizes if name in {mark.size for mark in marks}]
    blocks = (
        [key(name, shape, "0.35", 6) for name, shape in shapes.items()],
        [key(name, "o", colour, 6) for name, colour in colours.items()],
        [key(name, "o", "0.35", areas[name]) for name in used],
    )
    top = 1.02
    for heading, handles in zip(headings, blocks, strict=True):
        _keys(axes, heading, handles, top)
        top -= 0.046 * (len(handles) + 1.6)
    return saved(figure, path)
