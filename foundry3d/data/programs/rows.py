"""How a program is written down: one row of numbers for each primitive surface.

    column   0      1       2      3      4      5     6..17        18..31
    row      kind   weight  solid  taper  twist  bend  affine 3x4   shape
    cut      kind   first   last   sign   -      -     affine 3x4   shape

A row takes its primitive from local coordinates, of about unit size about the origin, to the
program's, z up. `weight` multiplies its density (1 but for floors). Surfaces inside a `solid` row
are left out, as in a union. A cut removes the points of rows `first` to `last` (exclusive) that lie
inside its solid (sign 1) or outside (sign -1).

Shape numbers by kind (missing ones are 0; angles in turns):

    BOX    unit cube: 0 1 top edges as multiples of the bottom ones, 2 3 shift of the top, 4 mask
           of the faces left out (1 bottom, 2 top, 4 8 +-x, 16 32 +-y)
    ROUND  radius 1, height 1: 0 top radius, 1 corners (0 = a circle), 2 3 start and sweep, 4 mask
           of what is left out (1 bottom, 2 top, 4 side, 8 wall of the hole), 5 radius of a hole,
           6 inner radius of a star
    BALL   radius 1: 0 1 lowest and highest z, 2 3 start and sweep, 4 height of bumps, 5 6 7 their
           frequencies, 8 phase
    TORUS  ring radius 1: 0 tube radius, 1 2 start and sweep of the ring, 3 4 of the tube, 5 height
           of the tube as a multiple of its radius
    SUPER  superquadric: 0 1 exponents (1 1 a ball, 0 a box, 2 an octahedron)
    SWEEP  along a cubic Bezier curve in the xz plane: 0..7 x and z of its four points, 8 9 radius
           at its ends, 10 profile (0 ellipse, 1 rectangle), 11 half-width along y in radii
    HELIX  radius 1: 0 turns, 1 2 tube radius at its ends, 3 radius at the top, 4 height
    LATHE  a smooth profile revolved about z: 0..13 radius and z of seven points
    SHARP  the same with straight lines between the points
    FIELD  a unit sheet: 0 shape (0 square, 1 disc), 1..12 three waves of x and y frequency, phase
           and height
"""

from __future__ import annotations

import math
from collections.abc import Sequence

BOX, ROUND, BALL, TORUS, SUPER, SWEEP, HELIX, LATHE, SHARP, FIELD = range(10)
KIND, WEIGHT, SOLID, TAPER, TWIST, BEND, AFFINE, SHAPE = 0, 1, 2, 3, 4, 5, 6, 18
FIRST, LAST, SIGN = 1, 2, 3
WIDTH = 32
TURN = 2 * math.pi

Row = list[float]
Vector = tuple[float, float, float]
_PADDING = [0.0] * 14


def row_of(
    kind: int, centre: Vector, size: Vector, shape: Sequence[float], *, solid: bool = False
) -> Row:
    """A row without rotation or deformation, scaled by `size` and moved to `centre`."""
    (x, y, z), (a, b, c) = centre, size
    row = [
        kind, 1.0, 1.0 if solid else 0.0, 0.0, 0.0, 0.0,
        a, 0.0, 0.0, x, 0.0, b, 0.0, y, 0.0, 0.0, c, z, *shape,
    ]  # fmt: skip
    row += _PADDING[: WIDTH - len(row)]
    return row


def turned(row: Row, axis: int, angle: float, about: Vector = (0.0, 0.0, 0.0)) -> Row:
    """The row turned by `angle` radians about an axis (0 x, 1 y, 2 z) through a point."""
    i, j = (axis + 1) % 3, (axis + 2) % 3
    p, q = AFFINE + 4 * i, AFFINE + 4 * j
    cos, sin = math.cos(angle), math.sin(angle)
    out = row[:]
    out[p + 3] -= about[i]
    out[q + 3] -= about[j]
    for k in range(4):
        a, b = out[p + k], out[q + k]
        out[p + k], out[q + k] = cos * a - sin * b, sin * a + cos * b
    out[p + 3] += about[i]
    out[q + 3] += about[j]
    return out


def moved(row: Row, x: float, y: float, z: float) -> Row:
    """The row moved."""
    out = row[:]
    out[9] += x
    out[13] += y
    out[17] += z
    return out


def mirrored(row: Row, axis: int, at: float = 0.0) -> Row:
    """The mirror image in the plane where coordinate `axis` is `at`."""
    out = row[:]
    first = AFFINE + 4 * axis
    for k in range(first, first + 4):
        out[k] = -out[k]
    out[first + 3] += 2 * at
    return out


def scaled(row: Row, factors: Vector) -> Row:
    """The row stretched about the origin."""
    out = row[:]
    for axis, factor in enumerate(factors):
        for k in range(AFFINE + 4 * axis, AFFINE + 4 * axis + 4):
            out[k] *= factor
    return out


def pair(rows: Sequence[Row], axis: int = 0, at: float = 0.0) -> list[Row]:
    """Rows and their mirror images."""
    return [*rows, *(mirrored(row, axis, at) for row in rows)]


def four(rows: Sequence[Row]) -> list[Row]:
    """Rows, mirrored in x = 0, in y = 0 and in both."""
    return pair(pair(rows, 0), 1)


def line(rows: Sequence[Row], count: int, step: Vector) -> list[Row]:
    """A linear array: the rows `count` times, each moved by `step` from the one before."""
    x, y, z = step
    return [moved(row, i * x, i * y, i * z) for i in range(count) for row in rows]


def ring(
    rows: Sequence[Row], count: int, *, sweep: float = TURN, lift: float = 0.0, axis: int = 2
) -> list[Row]:
    """A radial array: the rows `count` times around an axis, each lifted along z by `lift` more."""
    step = sweep / count
    return [
        moved(turned(row, axis, i * step), 0.0, 0.0, i * lift) for i in range(count) for row in rows
    ]


def cut_of(solid: Row, first: int, last: int, *, outside: bool = False) -> Row:
    """The cut that removes what rows `first` to `last` have inside (or outside) a solid row."""
    out = solid[:]
    out[FIRST], out[LAST], out[SIGN] = first, last, -1.0 if outside else 1.0
    return out
