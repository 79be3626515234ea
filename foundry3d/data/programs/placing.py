"""From local coordinates to the program's: deformation of a row, its affine map, cuts, the warp.

The warp deforms the whole program, after the cuts:

    entry    0      1        2       3       4      5     6         7     8 9 10       11
             used   middle   height  taper   twist  bend  towards   wave  frequencies  phase

where taper, twist and bend (radians) are from the bottom to the top of `height` about z = `middle`.
"""

from __future__ import annotations

import math

import numpy as np

from foundry3d.data.programs.rows import BALL, BOX, ROUND, SUPER
from foundry3d.data.programs.surfaces import Point, superquadric, surface_point
from foundry3d.geometry.jit import unchecked

WARP = 12
BACK = 18
"""Numbers that `inverse` writes: an affine map, half extents and the middle of a box."""
TURN = 2 * math.pi
_MARGIN = 1 - 1e-6


@unchecked
def place(t: np.ndarray, k: int, chart: int, u: float, v: float) -> Point:
    """The point at u, v of a chart of row k, before cuts and warp."""
    x, y, z = surface_point(t, k, chart, u, v)
    if t[k, 3] != 0:
        scale = 1 + t[k, 3] * z
        x, y = x * scale, y * scale
    if t[k, 4] != 0:
        cos, sin = math.cos(t[k, 4] * z), math.sin(t[k, 4] * z)
        x, y = cos * x - sin * y, sin * x + cos * y
    x += t[k, 5] * z * z
    return (
        t[k, 6] * x + t[k, 7] * y + t[k, 8] * z + t[k, 9],
        t[k, 10] * x + t[k, 11] * y + t[k, 12] * z + t[k, 13],
        t[k, 14] * x + t[k, 15] * y + t[k, 16] * z + t[k, 17],
    )


@unchecked
def warped(warp: np.ndarray, x: float, y: float, z: float) -> Point:
    """The point x, y, z under a warp (WARP,) that is used."""
    s = (z - warp[1]) / warp[2]
    scale = max(1 + warp[3] * s, 0.05)
    x, y = x * scale, y * scale
    if warp[4] != 0:
        cos, sin = math.cos(warp[4] * s), math.sin(warp[4] * s)
        x, y = cos * x - sin * y, sin * x + cos * y
    if warp[5] != 0:
        cos, sin = math.cos(warp[6]), math.sin(warp[6])
        x, y = cos * x + sin * y, cos * y - sin * x
        radius, angle = warp[2] / warp[5], warp[5] * s
        z = warp[1] + (radius - x) * math.sin(angle)
        x = radius - (radius - x) * math.cos(angle)
        x, y = cos * x - sin * y, sin * x + cos * y
    if warp[7] != 0:
        a, b, c = warp[8] * x, warp[9] * y, warp[10] * z
        x += warp[7] * math.sin(b + warp[11])
        y += warp[7] * math.sin(c + 2 * warp[11])
        z += warp[7] * math.sin(a + warp[11])
    return x, y, z


@unchecked
def inverse(t: np.ndarray, k: int, out: np.ndarray, n: int) -> None:
    """Writes the inverse of the affine map of row k to out[n, :12], and a box around the primitive.

    The primitive must be one that `inside` knows; out[n, 12:15] are half the extents of the box and
    out[n, 15:18] its middle.
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


@unchecked
def _polygon(t: np.ndarray, k: int, part: float) -> float:
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


@unchecked
def inside(t: np.ndarray, k: int, backs: np.ndarray, n: int, x: float, y: float, z: float) -> bool:
    """Whether a point lies strictly inside row k, a BOX, ROUND, BALL or SUPER.

    Args:
        t: (K, WIDTH).
        k: the row.
        backs: (n, BACK) from `inverse`.
        n: which of them is that of row k.
        x: of the point, as y and z.
        y: see x.
        z: see x.
    """
    for d, value in enumerate((x, y, z)):
        if abs(value - backs[n, 15 + d]) > backs[n, 12 + d]:
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
        reach *= _polygon(t, k, ((math.atan2(b, a) - t[k, 20]) / TURN) % 1.0)
    return far < reach * reach
