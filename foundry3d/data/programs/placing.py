"""From local coordinates to the program's: deformation of a row, its affine map, warp and pose.

The warp deforms the whole program, after the cuts:

    entry    0      1        2       3       4      5     6         7     8 9 10       11
             used   middle   height  taper   twist  bend  towards   wave  frequencies  phase

where taper, twist and bend are from the bottom to the top of `height` about z = `middle`. Angles
are in turns. The pose (9,) is a 3x3 matrix that comes last.

Shapes: K rows t (K, WIDTH), n points; u, v, x, y, z are (n,), the first of each row of points
(3, m).
"""

from __future__ import annotations

import math

import numpy as np

from foundry3d.data.programs.kernels import relaxed, relaxed_part
from foundry3d.data.programs.numbers import cosine, sine
from foundry3d.data.programs.rows import BALL, BOX, FIELD, HELIX, ROUND, SUPER, SWEEP, TORUS
from foundry3d.data.programs.surfaces import (
    ball_points,
    box_points,
    field_points,
    helix_points,
    lathe_points,
    round_points,
    super_points,
    sweep_points,
    torus_points,
)

Array = np.ndarray
WARP, POSE = 12, 9
TURN = 2 * math.pi


@relaxed_part
def _map(t: Array, k: int, x: Array, y: Array, z: Array) -> None:
    """From local coordinates to the program's: the deformation of row k, then its affine map."""
    taper, twist, bend = t[k, 3], t[k, 4], t[k, 5]
    if taper != 0 or twist != 0 or bend != 0:
        for i in range(x.shape[0]):
            scale = 1 + taper * z[i]
            cos, sin = scale * cosine(twist * z[i]), scale * sine(twist * z[i])
            a, b = cos * x[i] - sin * y[i], sin * x[i] + cos * y[i]
            x[i], y[i] = a + bend * z[i] * z[i], b
    a, b, c, d = t[k, 6], t[k, 7], t[k, 8], t[k, 9]
    e, f, g, h = t[k, 10], t[k, 11], t[k, 12], t[k, 13]
    o, p, q, r = t[k, 14], t[k, 15], t[k, 16], t[k, 17]
    for i in range(x.shape[0]):
        s, w, m = x[i], y[i], z[i]
        x[i] = a * s + b * w + c * m + d
        y[i] = e * s + f * w + g * m + h
        z[i] = o * s + p * w + q * m + r


@relaxed
def place_cells(t: Array, cells: Array, ends: Array, space: Array) -> None:
    """Places points, cells of one chart at a time.

    Args:
        t: rows.
        cells: (n, CELL).
        ends: (n,) end of the points of each cell.
        space: (5, m): u, v, then the results x, y, z.
    """
    first = n = 0
    while n < ends.shape[0]:
        k, chart = int(cells[n, 0]), int(cells[n, 1])
        while n + 1 < ends.shape[0] and cells[n + 1, 0] == k and cells[n + 1, 1] == chart:
            n += 1
        last = ends[n]
        n += 1
        if last == first:
            continue
        u, v = space[0, first:last], space[1, first:last]
        x, y, z = space[2, first:last], space[3, first:last], space[4, first:last]
        kind = int(t[k, 0])
        if kind == BOX:
            box_points(t, k, chart, u, v, x, y, z)
        elif kind == ROUND:
            round_points(t, k, chart, u, v, x, y, z)
        elif kind == BALL:
            ball_points(t, k, u, v, x, y, z)
        elif kind == TORUS:
            torus_points(t, k, u, v, x, y, z)
        elif kind == SUPER:
            super_points(t, k, u, v, x, y, z)
        elif kind == SWEEP:
            sweep_points(t, k, u, v, x, y, z)
        elif kind == HELIX:
            helix_points(t, k, u, v, x, y, z)
        elif kind == FIELD:
            field_points(t, k, u, v, x, y, z)
        else:
            lathe_points(t, k, u, v, x, y, z)
        _map(t, k, x, y, z)
        first = last


@relaxed
def warp_points(warp: Array, points: Array, n: int) -> None:
    """Applies a warp to the first n points, in place."""
    if warp[0] == 0:
        return
    x, y, z = points[0, :n], points[1, :n], points[2, :n]
    middle, height, bend = warp[1], warp[2], warp[5]
    cos, sin = cosine(warp[6]), sine(warp[6])
    for i in range(x.shape[0]):
        s = (z[i] - middle) / height
        scale = max(1 + warp[3] * s, 0.05)
        c, d = scale * cosine(warp[4] * s), scale * sine(warp[4] * s)
        a, b = c * x[i] - d * y[i], d * x[i] + c * y[i]
        if bend != 0:
            a, b = cos * a + sin * b, cos * b - sin * a
            radius = height / (TURN * bend)
            z[i] = middle + (radius - a) * sine(bend * s)
            a = radius - (radius - a) * cosine(bend * s)
            a, b = cos * a - sin * b, sin * a + cos * b
        x[i], y[i] = a, b
    high, phase = warp[7], warp[11]
    if high != 0:
        for i in range(x.shape[0]):
            a, b, c = warp[8] * x[i], warp[9] * y[i], warp[10] * z[i]
            x[i] += high * sine(b + phase)
            y[i] += high * sine(c + 2 * phase)
            z[i] += high * sine(a + phase)


@relaxed
def pose_points(pose: Array, points: Array, n: int) -> None:
    """Multiplies the first n points by a matrix (9,), in place."""
    x, y, z = points[0, :n], points[1, :n], points[2, :n]
    a, b, c, d, e, f = pose[0], pose[1], pose[2], pose[3], pose[4], pose[5]
    g, h, j = pose[6], pose[7], pose[8]
    for i in range(x.shape[0]):
        p, q, r = x[i], y[i], z[i]
        x[i] = a * p + b * q + c * r
        y[i] = d * p + e * q + f * r
        z[i] = g * p + h * q + j * r
