"""Grids of coloured clouds drawn from arrays: orthographic, equal scales, no axes.

Shapes: n clouds, N points.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from foundry3d.paper.figures.palette import distinct_colours
from foundry3d.paper.figures.projection import shown_from

CELL = 1.25
"""Inches of one cloud."""


class Cell(NamedTuple):
    """A cloud of a grid.

    Attributes:
        points: (N, 3), z up.
        colours: (N, 3) RGB.
        note: below it; empty = none.
    """

    points: np.ndarray
    colours: np.ndarray
    note: str = ""


def draw_cloud(axes: Axes, cell: Cell) -> None:
    """One cloud, nearer points in front and slightly larger."""
    places, near = shown_from(cell.points)
    order = np.argsort(near, kind="stable")
    depth = (near - near.min()) / max(np.ptp(near), 1e-12)
    size = 3.2 * (1024 / len(places)) ** 0.5 * (0.7 + 0.6 * depth)
    x, y = places[order].T
    axes.scatter(x, y, s=size[order], c=cell.colours[order], linewidths=0, rasterized=True)
    middle = (places.min(axis=0) + places.max(axis=0)) / 2
    reach = 0.54 * max(np.ptp(places, axis=0).max(), 1e-6)
    axes.set_xlim(middle[0] - reach, middle[0] + reach)
    axes.set_ylim(middle[1] - reach, middle[1] + reach)
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    if cell.note:
        axes.set_xlabel(cell.note, fontsize=7, labelpad=0)


def draw_objects(
    figure: Figure,
    cells: Sequence[Sequence[Cell]],
    *,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
) -> None:
    """A grid of clouds.

    Args:
        figure: empty.
        cells: of each row; all rows have as many.
        rows: name of each row, at its left; none = no names.
        columns: name of each column, above it; none = no names.
    """
    for i, row in enumerate(cells):
        for j, cell in enumerate(row):
            axes = figure.add_subplot(len(cells), len(row), i * len(row) + j + 1)
            draw_cloud(axes, cell)
            if i == 0 and columns:
                axes.set_title(columns[j])
            if j == 0 and rows:
                axes.set_ylabel(rows[i])


def grid_size(rows: int, columns: int, *, legend: int = 0) -> tuple[float, float]:
    """Inches of a grid of clouds with names, above `legend` lines of a legend."""
    return CELL * columns + 0.25, CELL * rows + 0.25 + 0.17 * legend


def colours_of(assignment: np.ndarray, supertokens: int) -> np.ndarray:
    """RGB (..., 3) of the supertoken in each entry of an assignment; grey where it is -1."""
    shades = np.concatenate([distinct_colours(supertokens), [[0.75, 0.75, 0.75]]])
    return shades[assignment]


def supertoken_legend(figure: Figure, used: Sequence[int], supertokens: int) -> None:
    """One legend of supertokens below all panels, numbered from 1; -1 = not merged.

    Args:
        figure: with its panels.
        used: the supertokens that are seen.
        supertokens: s.
    """
    shades = colours_of(np.array(used, dtype=int), supertokens)
    handles = [
        Line2D(
            [], [], linestyle="", marker="o", markersize=4.5, color=colour,
            label="not merged" if number < 0 else str(number + 1),
        )
        for number, colour in zip(used, shades, strict=True)
    ]  # fmt: skip
    figure.legend(
        handles=handles, loc="outside lower center", ncols=legend_columns(figure.get_figwidth()),
        title="supertoken", title_fontsize=7, handletextpad=0.1, columnspacing=1.0,
    )  # fmt: skip


def legend_columns(width: float) -> int:
    """How many supertokens fit into a line of a legend of these inches."""
    return max(4, int(width / 0.42))


def legend_lines(used: int, width: float) -> int:
    """Lines that a legend of so many supertokens takes, its title included."""
    return 1 + -(-used // legend_columns(width))
