"""Points uniform over the area of a program's surface.

Each chart is split into cells whose area is measured about their middle; points are uniform within
a cell. Cells are as fine as the area varies: one is exact for a plane, a cylinder or a ball.

Shapes: K rows t (K, WIDTH), n cells, m points (3, m).
"""

from __future__ import annotations

import math

import numpy as np

from foundry3d.data.programs.kernels import relaxed, relaxed_part
from foundry3d.data.programs.numbers import fill_uniform, uniform
from foundry3d.data.programs.rows import BALL, BOX, FIELD, HELIX, ROUND, SUPER, SWEEP, TORUS
from foundry3d.data.programs.solids import removed, rivals_of

Array = np.ndarray
CELL = 7
_STEP = 0.01


@relaxed_part
def _uneven(t: Array, k: int) -> tuple[bool, bool]:
    """Whether the affine map scales x and y, and x and z, differently."""
    x = t[k, 6] ** 2 + t[k, 10] ** 2 + t[k, 14] ** 2
    y = t[k, 7] ** 2 + t[k, 11] ** 2 + t[k, 15] ** 2
    z = t[k, 8] ** 2 + t[k, 12] ** 2 + t[k, 16] ** 2
    return abs(x - y) > 0.02 * x, abs(x - z) > 0.02 * x


@relaxed_part
def _split(t: Array, k: int, chart: int, warp: bool) -> tuple[int, int]:
    """Number of cells of a chart along u and v; (0, 0) where there is no such chart."""
    kind = int(t[k, 0])
    bent = warp or t[k, 3] != 0 or t[k, 4] != 0 or t[k, 5] != 0
    oval, tall = _uneven(t, k)
    if kind == BOX:
        if int(t[k, 22]) >> chart & 1:
            return 0, 0
        tapered = chart >= 2 and (t[k, 18] != 1 or t[k, 19] != 1)
        return 3 if bent or tapered else 1, 3 if bent else 1
    if kind == ROUND:
        empty = chart > 3 or (int(t[k, 22]) >> chart & 1) or (chart == 3 and t[k, 23] == 0)
        if empty or (chart == 1 and t[k, 18] == 0):
            return 0, 0
        sides = int(t[k, 19]) * (2 if t[k, 24] > 0 else 1)
        around = sides if sides else 8 if bent or oval else 1
        return 3 if bent else 1, around
    if chart > 0:
        return 0, 0
    if kind == BALL:
        even = not (bent or t[k, 22] != 0 or oval or tall)
        return (1, 1) if even else (6, 8)
    if kind == TORUS:
        return 8 if bent or oval else 1, 8
    if kind == SUPER:
        return 8, 12
    if kind == SWEEP:
        return 8, 4 if bent or t[k, 28] > 0 or t[k, 29] != 1 else 2
    if kind == HELIX:
        return max(int(6 * t[k, 18]), 1), 2
    if kind == FIELD:
        return 6, 6
    return 12, 8 if bent or oval else 1


@relaxed
def cells_of(t: Array, warped: bool, cells: Array) -> int:
    """Writes (n, CELL) cells: row, chart, first u and v, extent in u and v; returns n.

    They are as many as there are, or as there is room for.
    """
    n = 0
    for k in range(t.shape[0]):
        for chart in range(6):
            nu, nv = _split(t, k, chart, warped)
            if n + nu * nv > cells.shape[0]:
                return n
            for i in range(nu * nv):
                du, dv = 1 / nu, 1 / nv
                cells[n, 0], cells[n, 1] = k, chart
                cells[n, 2], cells[n, 3] = (i // nv) * du, (i % nv) * dv
                cells[n, 4], cells[n, 5] = du, dv
                n += 1
    return n


def aim(cells: Array) -> tuple[Array, Array]:
    """Four points around the middle of each cell, for `measure`: `space` and `ends` to place."""
    space, ends = np.empty((5, 4 * len(cells))), np.empty(len(cells), np.int64)
    _aim(cells, space, ends)
    return space, ends


@relaxed
def _aim(cells: Array, space: Array, ends: Array) -> None:
    for n in range(cells.shape[0]):
        u, v = cells[n, 2] + cells[n, 4] / 2, cells[n, 3] + cells[n, 5] / 2
        for i in range(4):
            space[0, 4 * n + i], space[1, 4 * n + i] = u, v
        space[0, 4 * n] = u - _STEP
        space[0, 4 * n + 1] = u + _STEP
        space[1, 4 * n + 2] = v - _STEP
        space[1, 4 * n + 3] = v + _STEP
        ends[n] = 4 * n + 4


@relaxed
def measure(t: Array, cells: Array, points: Array) -> None:
    """Writes the sum of the weighted areas of all cells up to and with each into its last column.

    The area per unit of u and v is that of central differences of the points of `aim`.
    """
    x, y, z = points[0], points[1], points[2]
    area = 0.0
    for n in range(cells.shape[0]):
        i, j = 4 * n, 4 * n + 2
        a, b, c = x[i + 1] - x[i], y[i + 1] - y[i], z[i + 1] - z[i]
        d, e, f = x[j + 1] - x[j], y[j + 1] - y[j], z[j + 1] - z[j]
        p, q, r = b * f - c * e, c * d - a * f, a * e - b * d
        here = math.sqrt(p * p + q * q + r * r) / (4 * _STEP * _STEP)
        area += here * cells[n, 4] * cells[n, 5] * t[int(cells[n, 0]), 1]
        cells[n, 6] = area


def scatter(cells: Array, wanted: int, state: Array) -> tuple[Array, Array]:
    """Random u and v of `wanted` points: `space` and `ends` to place.

    The number of points in a cell is drawn by systematic sampling: within one of its exact share.
    """
    space, ends = np.empty((5, wanted)), np.empty(len(cells), np.int64)
    _scatter(cells, wanted, state, space, ends)
    return space, ends


@relaxed
def _scatter(cells: Array, wanted: int, state: Array, space: Array, ends: Array) -> None:
    count = cells.shape[0]
    share, offset, first = wanted / cells[count - 1, 6], uniform(state), 0
    fill_uniform(state, space[0], space[1])
    for n in range(count):
        last = wanted if n == count - 1 else min(int(cells[n, 6] * share + offset), wanted)
        for i in range(first, last):
            space[0, i] = cells[n, 2] + cells[n, 4] * space[0, i]
            space[1, i] = cells[n, 3] + cells[n, 5] * space[1, i]
        ends[n] = first = last


def keep(t: Array, cuts: Array, backs: Array, cells: Array, ends: Array, points: Array) -> int:
    """Moves the points that no cut and no solid removes forward; returns how many."""
    return _keep(t, cuts, backs, cells, ends, points, np.empty(len(t), np.int64))


@relaxed
def _keep(
    t: Array, cuts: Array, backs: Array, cells: Array, ends: Array, points: Array, found: Array
) -> int:
    x, y, z = points[0], points[1], points[2]
    kept, first, row, rivals = 0, 0, -1, 0
    for n in range(cells.shape[0]):
        k = int(cells[n, 0])
        if k != row:
            row, rivals = k, rivals_of(t, k, backs, found)
        testing = rivals > 0 or cuts.shape[0] > 0
        for i in range(first, ends[n]):
            if testing and removed(t, k, cuts, backs, found, rivals, x[i], y[i], z[i]):
                continue
            x[kept], y[kept], z[kept] = x[i], y[i], z[i]
            kept += 1
        first = ends[n]
    return kept
