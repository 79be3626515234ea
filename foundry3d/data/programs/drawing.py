"""Points uniform over the area of a program's surface.

Each chart is split into cells whose area is measured at their middle; points are uniform within a
cell. Cells are as fine as the area varies: one is exact for a plane, a cylinder or a ball.

Shapes: K rows t (K, WIDTH), C cuts (C, WIDTH), n cells.
"""

from __future__ import annotations

import math

import numpy as np

from foundry3d.data.programs.placing import BACK, inside, inverse, place, warped
from foundry3d.data.programs.rows import BALL, BOX, FIELD, HELIX, ROUND, SUPER, SWEEP, TORUS
from foundry3d.geometry.jit import unchecked

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31, _S11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)
_STEP = 1e-4


@unchecked
def uniform(state: np.ndarray) -> float:
    """The next number in 0..1 (exclusive) of a SplitMix64 generator with state (1,) uint64."""
    state[0] += _GOLDEN
    x = state[0]
    x = (x ^ (x >> _S30)) * _FIRST
    x = (x ^ (x >> _S27)) * _SECOND
    x ^= x >> _S31
    return float(np.int64(x >> _S11)) * 1.1102230246251565e-16


@unchecked
def _uneven(t: np.ndarray, k: int, axis: int) -> bool:
    """Whether the affine map scales x and another axis (1 y, 2 z) differently."""
    x = t[k, 6] ** 2 + t[k, 10] ** 2 + t[k, 14] ** 2
    y = t[k, 6 + axis] ** 2 + t[k, 10 + axis] ** 2 + t[k, 14 + axis] ** 2
    return abs(x - y) > 0.02 * x


@unchecked
def _split(t: np.ndarray, k: int, chart: int, warp: bool) -> tuple[int, int]:
    """Number of cells of a chart along u and v; (0, 0) where there is no such chart."""
    kind = int(t[k, 0])
    bent = warp or t[k, 3] != 0 or t[k, 4] != 0 or t[k, 5] != 0
    if kind == BOX:
        if chart > 5 or int(t[k, 22]) >> chart & 1:
            return 0, 0
        tapered = chart >= 2 and (t[k, 18] != 1 or t[k, 19] != 1)
        return 3 if bent or tapered else 1, 3 if bent else 1
    if kind == ROUND:
        empty = chart > 3 or (int(t[k, 22]) >> chart & 1) or (chart == 3 and t[k, 23] == 0)
        if empty or (chart == 1 and t[k, 18] == 0):
            return 0, 0
        sides = int(t[k, 19]) * (2 if t[k, 24] > 0 else 1)
        around = sides if sides else 8 if bent or _uneven(t, k, 1) else 1
        return 3 if bent else 1, around
    if chart > 0:
        return 0, 0
    if kind == BALL:
        even = not (bent or t[k, 22] != 0 or _uneven(t, k, 1) or _uneven(t, k, 2))
        return (1, 1) if even else (6, 8)
    if kind == TORUS:
        return 8 if bent or _uneven(t, k, 1) else 1, 8
    if kind == SUPER:
        return 8, 12
    if kind == SWEEP:
        return 8, 4 if bent or t[k, 28] > 0 or t[k, 29] != 1 else 2
    if kind == HELIX:
        return max(int(6 * t[k, 18]), 1), 2
    if kind == FIELD:
        return 6, 6
    return 12, 8 if bent or _uneven(t, k, 1) else 1


@unchecked
def _density(t: np.ndarray, k: int, warp: np.ndarray, chart: int, u: float, v: float) -> float:
    """Area per unit of u and v, by central differences."""
    a = b = c = x = y = z = 0.0
    for side in range(4):
        step = _STEP if side % 2 else -_STEP
        p, q, r = place(t, k, chart, u + (step if side < 2 else 0), v + (step if side > 1 else 0))
        if warp[0] != 0:
            p, q, r = warped(warp, p, q, r)
        sign = 1.0 if side % 2 else -1.0
        if side < 2:
            a, b, c = a + sign * p, b + sign * q, c + sign * r
        else:
            x, y, z = x + sign * p, y + sign * q, z + sign * r
    i, j, h = b * z - c * y, c * x - a * z, a * y - b * x
    return math.sqrt(i * i + j * j + h * h) / (4 * _STEP * _STEP)


@unchecked
def cells_of(t: np.ndarray, warp: np.ndarray, cells: np.ndarray) -> int:
    """Writes (n, 7) cells: row, chart, first u and v, extent in u and v, sum of weighted areas.

    The sum is that of all cells up to and with this one.

    Args:
        t: rows.
        warp: (WARP,).
        cells: takes as many as there are, or as there is room for.

    Returns:
        How many there are.
    """
    n, area = 0, 0.0
    for k in range(t.shape[0]):
        for chart in range(6):
            nu, nv = _split(t, k, chart, warp[0] != 0)
            if n + nu * nv > cells.shape[0]:
                return n
            for i in range(nu * nv):
                du, dv = 1 / nu, 1 / nv
                u, v = (i // nv) * du, (i % nv) * dv
                here = _density(t, k, warp, chart, u + du / 2, v + dv / 2)
                area += here * du * dv * t[k, 1]
                cells[n, 0], cells[n, 1], cells[n, 2], cells[n, 3] = k, chart, u, v
                cells[n, 4], cells[n, 5], cells[n, 6] = du, dv, area
                n += 1
    return n


@unchecked
def backs_of(t: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    """The (K + C, BACK) numbers of `inverse` of the solid rows and of the cuts."""
    count = t.shape[0]
    backs = np.empty((count + cuts.shape[0], BACK))
    for k in range(count):
        if t[k, 2] > 0:
            inverse(t, k, backs, k)
    for k in range(cuts.shape[0]):
        inverse(cuts, k, backs, count + k)
    return backs


@unchecked
def _rivals(t: np.ndarray, k: int, backs: np.ndarray, found: np.ndarray) -> int:
    """Writes which other solid rows may have points of row k inside; returns how many."""
    count = 0
    for n in range(t.shape[0]):
        near = n != k and t[n, 2] > 0
        if near and t[k, 2] > 0:
            for d in range(3):
                reach = (backs[k, 12 + d] + backs[n, 12 + d]) * 0.9999
                near = near and abs(backs[k, 15 + d] - backs[n, 15 + d]) < reach
        if near:
            found[count] = n
            count += 1
    return count


@unchecked
def _removed(
    t: np.ndarray, k: int, cuts: np.ndarray, backs: np.ndarray, found: np.ndarray, rivals: int,
    x: float, y: float, z: float,
) -> bool:  # fmt: skip
    """Whether a point of row k is cut off, or inside one of the solid rows `found`."""
    for i in range(rivals):
        n = found[i]
        if inside(t, n, backs, n, x, y, z):
            return True
    for n in range(cuts.shape[0]):
        if cuts[n, 1] <= k < cuts[n, 2]:
            within = inside(cuts, n, backs, t.shape[0] + n, x, y, z)
            if within == (cuts[n, 3] > 0):
                return True
    return False


@unchecked
def scatter(
    t: np.ndarray, cuts: np.ndarray, warp: np.ndarray, backs: np.ndarray, cells: np.ndarray,
    count: int, wanted: int, state: np.ndarray, points: np.ndarray, filled: int,
) -> int:  # fmt: skip
    """Draws `wanted` points, and writes those that no cut removes to `points` from `filled` on.

    The number of points in a cell is drawn by systematic sampling: within one of its exact share.

    Returns:
        How many points there are now.
    """
    offset, done, last, rivals = uniform(state), 0, -1, 0
    found = np.empty(t.shape[0], np.int64)
    for n in range(count):
        until = int(cells[n, 6] / cells[count - 1, 6] * wanted + offset)
        k, chart = int(cells[n, 0]), int(cells[n, 1])
        if k != last:
            last, rivals = k, _rivals(t, k, backs, found)
        testing = rivals > 0 or cuts.shape[0] > 0
        for _ in range(done, min(until, done + points.shape[0] - filled)):
            u = cells[n, 2] + cells[n, 4] * uniform(state)
            v = cells[n, 3] + cells[n, 5] * uniform(state)
            x, y, z = place(t, k, chart, u, v)
            if testing and _removed(t, k, cuts, backs, found, rivals, x, y, z):
                continue
            if warp[0] != 0:
                x, y, z = warped(warp, x, y, z)
            points[filled, 0], points[filled, 1], points[filled, 2] = x, y, z
            filled += 1
        done = until
    return filled
