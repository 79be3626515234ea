"""What lies inside a solid row, for unions and cuts.

Shapes: K rows t (K, WIDTH), C cuts (C, WIDTH).
"""

from __future__ import annotations

import math

import numpy as np

from foundry3d.data.programs.kernels import relaxed, relaxed_part
from foundry3d.data.programs.rows import BALL, BOX, ROUND, SUPER
from foundry3d.data.programs.surfaces import superquadric

Array = np.ndarray
BACK = 18
"""Numbers that `_inverse` writes: an affine map, half extents and the middle of a box."""
TURN = 2 * math.pi
_MARGIN = 1 - 1e-6


@relaxed_part
def _inverse(t: Array, k: int, out: Array, n: int) -> None:
    """Writes the inverse of the affine map of row k to out[n, :12], and a box around the primitive.

    out[n, 12:15] are half the extents of the box and out[n, 15:18] its middle.
    """
    for i in range(3):  # cofactors: rows of the inverse are cross products of columns
        for j in range(3):
            a, b = 6 + 4 * ((j + 1) % 3), 6 + 4 * ((j + 2) % 3)
            c, d = (i + 1) % 3, (i + 2) % 3
            out[n, 4 * i + j] = t[k, a + c] * t[k, b + d] - t[k, a + d] * t[k, b + c]
    volume = t[k, 6] * out[n, 0] + t[k, 10] * out[n, 1] + t[k, 14] * out[n, 2]
    for i in range(0, 12, 4):
        out[n, i + 3] = 0.0
        for j in range(3):
            out[n, i + j] /= volume
            out[n, i + 3] -= out[n, i + j] * t[k, 9 + 4 * j]
    kind = int(t[k, 0])
    wide = deep = tall = 1.0
    if kind in (BOX, ROUND):
        tall = 0.5
        wide = deep = max(1.0, t[k, 18])
    if kind == BOX:
        wide = max(0.5, t[k, 18] / 2 + abs(t[k, 20]))
        deep = max(0.5, t[k, 19] / 2 + abs(t[k, 21]))
    for i in range(3):
        m = 6 + 4 * i
        out[n, 12 + i] = abs(t[k, m]) * wide + abs(t[k, m + 1]) * deep + abs(t[k, m + 2]) * tall
        out[n, 15 + i] = t[k, m + 3]


def backs_of(t: Array, cuts: Array) -> Array:
    """For each solid row, then each cut: its inverse and a box around it, (K + C, BACK)."""
    backs = np.empty((len(t) + len(cuts), BACK))
    _invert(t, cuts, backs)
    return backs


@relaxed
def _invert(t: Array, cuts: Array, backs: Array) -> None:
    count = t.shape[0]
    for k in range(count):
        if t[k, 2] > 0:
            _inverse(t, k, backs, k)
    for k in range(cuts.shape[0]):
        _inverse(cuts, k, backs, count + k)


@relaxed_part
def _polygon(t: Array, k: int, part: float) -> float:
    """Radius of the outline of a polygon or star at a share of the turn."""
    star = t[k, 24]
    corners = int(t[k, 19]) * (2 if star > 0 else 1)
    j = math.floor(part * corners)
    step = TURN / corners
    angle = TURN * part - j * step
    a = b = 1.0
    if star > 0:
        a, b = (1.0, star) if j % 2 == 0 else (star, 1.0)
    return a * b * math.sin(step) / (a * math.sin(angle) + b * math.sin(step - angle))


@relaxed_part
def inside(t: Array, k: int, backs: Array, n: int, x: float, y: float, z: float) -> bool:
    """Whether a point lies strictly inside row k, a BOX, ROUND, BALL or SUPER.

    Args:
        t: rows or cuts.
        k: the row.
        backs: from `backs_of`.
        n: which of them is that of row k.
        x: of the point, as y and z.
        y: see x.
        z: see x.
    """
    if (
        abs(x - backs[n, 15]) > backs[n, 12]
        or abs(y - backs[n, 16]) > backs[n, 13]
        or abs(z - backs[n, 17]) > backs[n, 14]
    ):
        return False
    a = backs[n, 0] * x + backs[n, 1] * y + backs[n, 2] * z + backs[n, 3]
    b = backs[n, 4] * x + backs[n, 5] * y + backs[n, 6] * z + backs[n, 7]
    c = backs[n, 8] * x + backs[n, 9] * y + backs[n, 10] * z + backs[n, 11]
    kind = int(t[k, 0])
    if kind == BALL:
        return a * a + b * b + c * c < _MARGIN * _MARGIN and t[k, 18] < c < t[k, 19]
    if kind == SUPER:
        return superquadric(t, k, a, b, c) < _MARGIN
    if 2 * abs(c) >= _MARGIN:
        return False
    s = c + 0.5
    if kind == BOX:
        wide, deep = 1 + (t[k, 18] - 1) * s, 1 + (t[k, 19] - 1) * s
        within = 2 * abs(a - t[k, 20] * s) < wide * _MARGIN
        return within and 2 * abs(b - t[k, 21] * s) < deep * _MARGIN
    reach, far = _MARGIN * (1 + (t[k, 18] - 1) * s), a * a + b * b
    if far < (t[k, 23] * reach) ** 2:
        return False
    if t[k, 19] > 0:
        reach *= _polygon(t, k, (math.atan2(b, a) / TURN - t[k, 20]) % 1.0)
    return far < reach * reach


@relaxed_part
def rivals_of(t: Array, k: int, backs: Array, found: Array) -> int:
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


@relaxed_part
def removed(
    t: Array, k: int, cuts: Array, backs: Array, found: Array, rivals: int,
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
