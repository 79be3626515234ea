"""Flat panels drawn from arrays: scatter plots by class, curves by epoch, and bars.

Shapes: n points.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogFormatter, MaxNLocator

from foundry3d.paper.figures.palette import distinct_colours

MARKERS = ("o", "^", "s", "D", "v", "P", "X", "<", ">", "p")
SHADES = 10
"""Colours of classes; further classes repeat them with another marker."""


class Curve(NamedTuple):
    """A curve of a panel.

    Attributes:
        name: in the legend; the same name has the same colour in every panel.
        x: (n,).
        y: (n,).
    """

    name: str
    x: np.ndarray
    y: np.ndarray


def grid_shape(count: int, most: int = 4) -> tuple[int, int]:
    """Rows and columns of `count` panels, at most `most` in a row, as even as possible."""
    rows = -(-count // most)
    return rows, -(-count // rows)


def class_style(label: int) -> dict[str, Any]:
    """Colour and marker of a class; together unique for up to 100."""
    return {
        "color": distinct_colours(SHADES)[label % SHADES],
        "marker": MARKERS[label // SHADES % len(MARKERS)],
    }


def bare(axes: Axes) -> None:
    """Removes ticks: distances in the panel mean something, its coordinates do not."""
    axes.set_xticks([])
    axes.set_yticks([])
    for side in ("top", "right"):
        axes.spines[side].set_visible(True)
    for spine in axes.spines.values():
        spine.set_color("0.75")


def draw_classes(
    figure: Figure,
    panels: Sequence[tuple[str, np.ndarray]],
    labels: np.ndarray,
    names: Sequence[str],
) -> None:
    """Scatter plots side by side, coloured by class, with one legend below.

    Args:
        figure: empty.
        panels: title and coordinates (n, 2) of each.
        labels: (n,) class of each point, -1 = none.
        names: of the classes; those without points are not in the legend.
    """
    rows, columns = grid_shape(len(panels))
    present = [int(label) for label in np.unique(labels)]
    size = float(np.clip(2500 / len(labels), 3, 14))
    for i, (title, places) in enumerate(panels):
        axes = figure.add_subplot(rows, columns, i + 1)
        for label in present:
            style = class_style(label) if label >= 0 else {"color": "0.6", "marker": "."}
            members = places[labels == label]
            axes.scatter(members[:, 0], members[:, 1], s=size, linewidths=0, alpha=0.85, **style)
        axes.set_title(title)
        bare(axes)
    handles = [
        Line2D(
            [],
            [],
            linestyle="",
            markersize=4,
            label=names[label].replace("_", " "),
            **class_style(label),
        )
        for label in present
        if label >= 0
    ]
    if handles:
        legend_below(figure, handles, handletextpad=0.2)


def legend_shape(names: Sequence[str], width: float) -> tuple[int, int]:
    """Columns and lines of a legend of these names in `width` inches."""
    fitting = int(width * 18 / (max(map(len, names), default=0) + 5))
    columns = max(1, min(fitting, len(names)))
    return columns, -(-len(names) // columns)


def legend_below(figure: Figure, handles: Sequence[Line2D], **options: Any) -> None:
    """One legend below all panels, with as many columns as fit."""
    names = [str(handle.get_label()) for handle in handles]
    columns, _ = legend_shape(names, figure.get_figwidth())
    figure.legend(handles=list(handles), loc="outside lower center", ncols=columns, **options)


def draw_curves(
    axes: Axes, curves: Sequence[Curve], names: Sequence[str], y: str, *, log: bool = False
) -> None:
    """Curves over epochs.

    Args:
        axes: empty.
        curves: to draw.
        names: of all curves of the figure, which fix the colours.
        y: name and unit of the y axis.
        log: the y axis is logarithmic.
    """
    shades = distinct_colours(len(names))
    for curve in curves:
        alone = "o" if len(curve.x) < 30 else ""
        colour = shades[list(names).index(curve.name)]
        axes.plot(curve.x, curve.y, marker=alone, markersize=2.5, linewidth=1.2, color=colour)
    if log:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(LogFormatter())
        axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.5)))
    axes.set_xlabel("epoch")
    axes.set_ylabel(y)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25, linewidth=0.5)


def legend_of(figure: Figure, names: Sequence[str]) -> None:
    """One legend of curves below all panels."""
    shades = distinct_colours(len(names))
    handles = [
        Line2D([], [], color=colour, linewidth=1.5, label=name)
        for name, colour in zip(names, shades, strict=True)
    ]
    legend_below(figure, handles)
