"""Points of each primitive's surface in local coordinates, from two numbers u and v in 0..1.

A primitive has one or more charts: six faces of a box; bottom, top, side and hole of a ROUND. Shape
numbers are those of `rows`; kernels read them from row k of a table t (K, WIDTH), of which column
18 is the first.
"""

from __future__ import annotations

import math

import numpy as np

from foundry3d.data.programs.rows import BALL, BOX, FIELD, HELIX, LATHE, ROUND, SUPER, SWEEP, TORUS
from foundry3d.geometry.jit import unchecked

Point = tuple[float, float, float]
TURN = 2 * math.pi


@unchecked
def _box(t: np.ndarray, k: int, chart: int, u: float, v: float) -> Point:
    if chart < 2:
        if chart == 0:
            return u - 0.5, v - 0.5, -0.5
        return (u - 0.5) * t[k, 18] + t[k, 20], (v - 0.5) * t[k, 19] + t[k, 21], 0.5
    wide, deep = 1 + (t[k, 18] - 1) * u, 1 + (t[k, 19] - 1) * u
    x = y = 0.5 if chart % 2 == 0 else -0.5
    if chart < 4:
        y = v - 0.5
    else:
        x = v - 0.5
    return x * wide + t[k, 20] * u, y * deep + t[k, 21] * u, u - 0.5


@unchecked
def _round(t: np.ndarray, k: int, chart: int, u: float, v: float) -> Point:
    """Uniform over the area where the affine map scales x and y alike."""
    x, y = rim(t, k, v)
    top, hole = t[k, 18], t[k, 23]
    if chart >= 2:
        reach = math.sqrt(max(1 + u * (top * top - 1), 0.0))
        z = u * (1 + top) / max(1 + reach, 1e-12) - 0.5
        reach = reach if chart == 2 else reach * hole
    else:
        reach = math.sqrt(u + (1 - u) * hole * hole)
        reach, z = (reach, -0.5) if chart == 0 else (reach * top, 0.5)
    return reach * x, reach * y, z


@unchecked
def rim(t: np.ndarray, k: int, v: float) -> tuple[float, float]:
    """A point of the outline of a ROUND of radius 1: a circle, polygon or star."""
    corners = int(t[k, 19])
    if corners == 0:
        angle = t[k, 20] + t[k, 21] * v
        return math.cos(angle), math.sin(angle)
    star = t[k, 24]
    corners = 2 * corners if star > 0 else corners
    j = math.floor(v * corners)
    b = v * corners - j
    a = 1.0 - b
    if star > 0:
        if j % 2 == 0:
            b *= star
        else:
            a *= star
    first, step = t[k, 20] + TURN * j / corners, TURN / corners
    cos, sin = math.cos(first), math.sin(first)
    c, s = math.cos(step), math.sin(step)
    return a * cos + b * (cos * c - sin * s), a * sin + b * (sin * c + cos * s)


@unchecked
def _ball(t: np.ndarray, k: int, u: float, v: float) -> Point:
    z = t[k, 18] + u * (t[k, 19] - t[k, 18])
    angle = t[k, 20] + t[k, 21] * v
    reach = math.sqrt(max(1 - z * z, 0.0))
    x, y, r = reach * math.cos(angle), reach * math.sin(angle), 1.0
    if t[k, 22] != 0:
        phase = t[k, 26]
        bumps = math.sin(t[k, 23] * x + phase) + math.sin(t[k, 24] * y + 2 * phase)
        r += t[k, 22] * (bumps + math.sin(t[k, 25] * z + phase))
    return r * x, r * y, r * z


@unchecked
def _torus(t: np.ndarray, k: int, u: float, v: float) -> Point:
    ring, tube = t[k, 19] + t[k, 20] * u, t[k, 21] + t[k, 22] * v
    reach = 1 + t[k, 18] * math.cos(tube)
    return reach * math.cos(ring), reach * math.sin(ring), t[k, 18] * t[k, 23] * math.sin(tube)


@unchecked
def superquadric(t: np.ndarray, k: int, x: float, y: float, z: float) -> float:
    """The implicit function of a superquadric: 1 on its surface, less inside."""
    tall, flat = t[k, 18], t[k, 19]
    across = abs(x) ** (2 / flat) + abs(y) ** (2 / flat)
    return across ** (flat / tall) + abs(z) ** (2 / tall)


@unchecked
def _super(t: np.ndarray, k: int, u: float, v: float) -> Point:
    """A direction, scaled: the implicit function is homogeneous of degree 2 / exponent."""
    z = 2 * u - 1
    reach = math.sqrt(max(1 - z * z, 0.0))
    x, y = reach * math.cos(TURN * v), reach * math.sin(TURN * v)
    r = superquadric(t, k, x, y, z) ** (-t[k, 18] / 2)
    return r * x, r * y, r * z


@unchecked
def outline(rectangle: bool, aspect: float, v: float) -> tuple[float, float]:
    """The profile of a SWEEP of radius 1: an ellipse or a rectangle, of half-width `aspect`."""
    if not rectangle:
        return math.cos(TURN * v), aspect * math.sin(TURN * v)
    side = math.floor(4 * v)
    along = 2 * (4 * v - side) - 1
    sign = 1.0 if side < 2 else -1.0
    return (along, aspect * sign) if side % 2 == 0 else (sign, aspect * along)


@unchecked
def _sweep(t: np.ndarray, k: int, u: float, v: float) -> Point:
    w = 1 - u
    a, b, c, d = w * w * w, 3 * w * w * u, 3 * w * u * u, u * u * u
    x = a * t[k, 18] + b * t[k, 20] + c * t[k, 22] + d * t[k, 24]
    z = a * t[k, 19] + b * t[k, 21] + c * t[k, 23] + d * t[k, 25]
    a, b, c, d = -w * w, w * (w - 2 * u), u * (2 * w - u), u * u
    dx = a * t[k, 18] + b * t[k, 20] + c * t[k, 22] + d * t[k, 24]
    dz = a * t[k, 19] + b * t[k, 21] + c * t[k, 23] + d * t[k, 25]
    speed = max(math.sqrt(dx * dx + dz * dz), 1e-12)
    radius = t[k, 26] + (t[k, 27] - t[k, 26]) * u
    across, y = outline(t[k, 28] > 0, t[k, 29], v)
    return x - radius * across * dz / speed, radius * y, z + radius * across * dx / speed


@unchecked
def _helix(t: np.ndarray, k: int, u: float, v: float) -> Point:
    turn, height = TURN * t[k, 18], t[k, 22]
    cos, sin = math.cos(turn * u), math.sin(turn * u)
    reach = 1 + (t[k, 21] - 1) * u
    speed = math.sqrt(turn * turn * reach * reach + height * height)
    radius = t[k, 19] + (t[k, 20] - t[k, 19]) * u
    a, b = reach + radius * math.cos(TURN * v), radius * math.sin(TURN * v) / speed
    return (
        a * cos + b * height * sin,
        a * sin - b * height * cos,
        height * (u - 0.5) + b * turn * reach,
    )


@unchecked
def profile(t: np.ndarray, k: int, smooth: bool, u: float) -> tuple[float, float]:
    """Radius and height at u of the profile through the seven points of a lathe."""
    i = min(math.floor(6 * u), 5)
    s = 6 * u - i
    first, second = 18 + 2 * i, 20 + 2 * i
    before, after = max(first - 2, 18), min(second + 2, 30)
    b, a, c = s, 0.0, 0.0
    if smooth:
        b, a, c = s * s * (3 - 2 * s), s * (1 - s) * (1 - s) / 2, s * s * (s - 1) / 2
    radius = z = 0.0
    for d in range(2):
        r1, r2 = t[k, first + d], t[k, second + d]
        radius, z = z, r1 + b * (r2 - r1) + a * (r2 - t[k, before + d]) + c * (t[k, after + d] - r1)
    return max(radius, 0.0), z


@unchecked
def _field(t: np.ndarray, k: int, u: float, v: float) -> Point:
    x, y, z = u - 0.5, v - 0.5, 0.0
    if t[k, 18] > 0:
        reach = math.sqrt(u) / 2
        x, y = reach * math.cos(TURN * v), reach * math.sin(TURN * v)
    for i in range(19, 31, 4):
        if t[k, i + 3] != 0:
            z += t[k, i + 3] * math.sin(t[k, i] * x + t[k, i + 1] * y + t[k, i + 2])
    return x, y, z


@unchecked
def surface_point(t: np.ndarray, k: int, chart: int, u: float, v: float) -> Point:
    """The point at u, v in 0..1 of a chart of row k."""
    kind = int(t[k, 0])
    if kind == BOX:
        return _box(t, k, chart, u, v)
    if kind == ROUND:
        return _round(t, k, chart, u, v)
    if kind == BALL:
        return _ball(t, k, u, v)
    if kind == TORUS:
        return _torus(t, k, u, v)
    if kind == SUPER:
        return _super(t, k, u, v)
    if kind == SWEEP:
        return _sweep(t, k, u, v)
    if kind == HELIX:
        return _helix(t, k, u, v)
    if kind == FIELD:
        return _field(t, k, u, v)
    radius, z = profile(t, k, kind == LATHE, u)
    return radius * math.cos(TURN * v), radius * math.sin(TURN * v), z
