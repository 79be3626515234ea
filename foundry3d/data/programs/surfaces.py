"""Points of each primitive's surface in local coordinates, from numbers u and v in 0..1.

A primitive has one or more charts: six faces of a box; bottom, top, side and hole of a ROUND. Shape
numbers are those of `rows`; kernels read them from row k of a table t (K, WIDTH), of which column
18 is the first. Angles are in turns.

Shapes: n points; u, v and the results x, y, z are (n,).
"""

from __future__ import annotations

import math

import numpy as np

from foundry3d.data.programs.kernels import relaxed_part
from foundry3d.data.programs.numbers import cosine, sine
from foundry3d.data.programs.rows import LATHE

Array = np.ndarray
TURN = 2 * math.pi


@relaxed_part
def box_points(
    t: Array, k: int, chart: int, u: Array, v: Array, x: Array, y: Array, z: Array
) -> None:
    """Six faces."""
    wide, deep = t[k, 18] - 1, t[k, 19] - 1
    right, back = t[k, 20], t[k, 21]
    side = 0.5 if chart % 2 == 0 else -0.5
    for i in range(u.shape[0]):
        if chart < 2:
            a, b, s = u[i] - 0.5, v[i] - 0.5, float(chart)
        elif chart < 4:
            a, b, s = side, v[i] - 0.5, u[i]
        else:
            a, b, s = v[i] - 0.5, side, u[i]
        x[i] = a * (1 + wide * s) + right * s
        y[i] = b * (1 + deep * s) + back * s
        z[i] = s - 0.5


@relaxed_part
def _rim(t: Array, k: int, v: Array, x: Array, y: Array) -> None:
    """Points of the outline of a ROUND of radius 1: a circle, polygon or star."""
    corners, star, start, sweep = int(t[k, 19]), t[k, 24], t[k, 20], t[k, 21]
    if corners == 0:
        for i in range(v.shape[0]):
            angle = start + sweep * v[i]
            x[i], y[i] = cosine(angle), sine(angle)
        return
    inner, corners = (star, 2 * corners) if star > 0 else (1.0, corners)
    cos, sin = cosine(1 / corners), sine(1 / corners)
    for i in range(v.shape[0]):
        j = math.floor(v[i] * corners)
        b = v[i] * corners - j
        even = j - 2 * math.floor(j / 2) == 0
        a, b = (1 - b) * (1.0 if even else inner), b * (inner if even else 1.0)
        first = start + j / corners
        c, s = cosine(first), sine(first)
        x[i], y[i] = a * c + b * (c * cos - s * sin), a * s + b * (s * cos + c * sin)


@relaxed_part
def round_points(
    t: Array, k: int, chart: int, u: Array, v: Array, x: Array, y: Array, z: Array
) -> None:
    """Uniform over the area where the affine map scales x and y alike."""
    _rim(t, k, v, x, y)
    top, hole = t[k, 18], t[k, 23]
    for i in range(u.shape[0]):
        if chart >= 2:
            reach = math.sqrt(max(1 + u[i] * (top * top - 1), 0.0))
            z[i] = u[i] * (1 + top) / (1 + reach) - 0.5
            reach = reach if chart == 2 else reach * hole
        else:
            reach = math.sqrt(u[i] + (1 - u[i]) * hole * hole) * (1.0 if chart == 0 else top)
            z[i] = chart - 0.5
        x[i] *= reach
        y[i] *= reach


@relaxed_part
def ball_points(t: Array, k: int, u: Array, v: Array, x: Array, y: Array, z: Array) -> None:
    """Uniform over the area of a ball without bumps."""
    low, high, start, sweep = t[k, 18], t[k, 19], t[k, 20], t[k, 21]
    for i in range(u.shape[0]):
        c = low + u[i] * (high - low)
        angle, reach = start + sweep * v[i], math.sqrt(max(1 - c * c, 0.0))
        x[i], y[i], z[i] = reach * cosine(angle), reach * sine(angle), c
    bumps, a, b, c, phase = t[k, 22], t[k, 23] / TURN, t[k, 24] / TURN, t[k, 25] / TURN, t[k, 26]
    if bumps != 0:
        for i in range(u.shape[0]):
            wave = sine(a * x[i] + phase) + sine(b * y[i] + 2 * phase) + sine(c * z[i] + phase)
            r = 1 + bumps * wave
            x[i], y[i], z[i] = r * x[i], r * y[i], r * z[i]


@relaxed_part
def torus_points(t: Array, k: int, u: Array, v: Array, x: Array, y: Array, z: Array) -> None:
    """A torus or an arc of it."""
    thick, start, sweep, first, around = t[k, 18], t[k, 19], t[k, 20], t[k, 21], t[k, 22]
    tall = thick * t[k, 23]
    for i in range(u.shape[0]):
        ring, tube = start + sweep * u[i], first + around * v[i]
        reach = 1 + thick * cosine(tube)
        x[i], y[i], z[i] = reach * cosine(ring), reach * sine(ring), tall * sine(tube)


@relaxed_part
def superquadric(t: Array, k: int, x: float, y: float, z: float) -> float:
    """The implicit function of a superquadric: 1 on its surface, less inside."""
    tall, flat = t[k, 18], t[k, 19]
    across = abs(x) ** (2 / flat) + abs(y) ** (2 / flat)
    return across ** (flat / tall) + abs(z) ** (2 / tall)


@relaxed_part
def super_points(t: Array, k: int, u: Array, v: Array, x: Array, y: Array, z: Array) -> None:
    """Directions, scaled: the implicit function is homogeneous of degree 2 / exponent."""
    for i in range(u.shape[0]):
        c = 2 * u[i] - 1
        reach = math.sqrt(max(1 - c * c, 0.0))
        a, b = reach * cosine(v[i]), reach * sine(v[i])
        r = superquadric(t, k, a, b, c) ** (-t[k, 18] / 2)
        x[i], y[i], z[i] = r * a, r * b, r * c


@relaxed_part
def sweep_points(t: Array, k: int, u: Array, v: Array, x: Array, y: Array, z: Array) -> None:
    """A profile along a planar curve; open at its ends."""
    rectangle, aspect = t[k, 28] > 0, t[k, 29]
    for i in range(u.shape[0]):
        s, w = u[i], 1 - u[i]
        a, b, c, d = w * w * w, 3 * w * w * s, 3 * w * s * s, s * s * s
        px = a * t[k, 18] + b * t[k, 20] + c * t[k, 22] + d * t[k, 24]
        pz = a * t[k, 19] + b * t[k, 21] + c * t[k, 23] + d * t[k, 25]
        a, b, c, d = -w * w, w * (w - 2 * s), s * (2 * w - s), s * s
        dx = a * t[k, 18] + b * t[k, 20] + c * t[k, 22] + d * t[k, 24]
        dz = a * t[k, 19] + b * t[k, 21] + c * t[k, 23] + d * t[k, 25]
        if rectangle:
            side = math.floor(4 * v[i])
            along, sign = 2 * (4 * v[i] - side) - 1, 1.0 if side < 2 else -1.0
            even = side == 0 or side == 2
            across, over = (along, sign) if even else (sign, along)
        else:
            across, over = cosine(v[i]), sine(v[i])
        radius = t[k, 26] + (t[k, 27] - t[k, 26]) * s
        across *= radius / math.sqrt(dx * dx + dz * dz + 1e-20)
        x[i], y[i], z[i] = px - across * dz, radius * aspect * over, pz + across * dx


@relaxed_part
def helix_points(t: Array, k: int, u: Array, v: Array, x: Array, y: Array, z: Array) -> None:
    """A round wire along a helix; open at its ends."""
    turns, height = t[k, 18], t[k, 22]
    for i in range(u.shape[0]):
        cos, sin = cosine(turns * u[i]), sine(turns * u[i])
        reach = 1 + (t[k, 21] - 1) * u[i]
        around = TURN * turns * reach
        speed = math.sqrt(around * around + height * height)
        radius = t[k, 19] + (t[k, 20] - t[k, 19]) * u[i]
        a, b = reach + radius * cosine(v[i]), radius * sine(v[i]) / speed
        x[i], y[i] = a * cos + b * height * sin, a * sin - b * height * cos
        z[i] = height * (u[i] - 0.5) + b * around


@relaxed_part
def lathe_points(t: Array, k: int, u: Array, v: Array, x: Array, y: Array, z: Array) -> None:
    """The profile runs through seven points, smoothly (Catmull and Rom) or in straight lines."""
    smooth = t[k, 0] == LATHE
    for i in range(u.shape[0]):
        j = min(math.floor(6 * u[i]), 5)
        s = 6 * u[i] - j
        p, q = 18 + 2 * j, 20 + 2 * j
        b, a, c = s, 0.0, 0.0
        if smooth:
            b, a, c = s * s * (3 - 2 * s), s * (1 - s) * (1 - s) / 2, s * s * (s - 1) / 2
        o, r = max(p - 2, 18), min(q + 2, 30)
        radius = t[k, p] + b * (t[k, q] - t[k, p]) + a * (t[k, q] - t[k, o])
        radius = max(radius + c * (t[k, r] - t[k, p]), 0.0)
        o, p, q, r = o + 1, p + 1, q + 1, r + 1
        z[i] = t[k, p] + b * (t[k, q] - t[k, p]) + a * (t[k, q] - t[k, o])
        z[i] += c * (t[k, r] - t[k, p])
        x[i], y[i] = radius * cosine(v[i]), radius * sine(v[i])


@relaxed_part
def field_points(t: Array, k: int, u: Array, v: Array, x: Array, y: Array, z: Array) -> None:
    """A sheet with waves."""
    for i in range(u.shape[0]):
        reach = math.sqrt(u[i]) / 2
        disc = t[k, 18] > 0
        x[i] = reach * cosine(v[i]) if disc else u[i] - 0.5
        y[i] = reach * sine(v[i]) if disc else v[i] - 0.5
        z[i] = 0.0
    for j in range(19, 31, 4):
        a, b, phase, high = t[k, j] / TURN, t[k, j + 1] / TURN, t[k, j + 2] / TURN, t[k, j + 3]
        if high != 0:
            for i in range(u.shape[0]):
                z[i] += high * sine(a * x[i] + b * y[i] + phase)
