"""Parts that programs are made of: rows of primitives with the sizes that a builder thinks in."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from random import Random
from typing import TypeVar

from foundry3d.data.programs.rows import (
    BALL,
    BOX,
    FIELD,
    HELIX,
    LATHE,
    ROUND,
    SHARP,
    SUPER,
    SWEEP,
    TORUS,
    Row,
    Vector,
    row_of,
)

T = TypeVar("T")


class Draw:
    """Random proportions.

    Args:
        seed: of all draws.
    """

    def __init__(self, seed: int) -> None:
        self.random: Callable[[], float] = Random(seed).random

    def __call__(self, low: float, high: float) -> float:
        """A number between `low` and `high`."""
        return low + (high - low) * self.random()

    def whole(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included."""
        return low + int((high - low + 1) * self.random())

    def chance(self, share: float) -> bool:
        """True with probability `share`."""
        return self.random() < share

    def pick(self, choices: Sequence[T]) -> T:
        """One of the choices."""
        return choices[int(len(choices) * self.random())]


def box(
    x: float, y: float, z: float, wide: float, deep: float, tall: float,
    *, top: tuple[float, float] = (1.0, 1.0), slide: tuple[float, float] = (0.0, 0.0),
    omit: int = 0,
) -> Row:  # fmt: skip
    """A box with middle x, y and bottom z; `top` and `slide` count in edges of the bottom."""
    shape = (*top, *slide, omit)
    return row_of(BOX, (x, y, z + tall / 2), (wide, deep, tall), shape, solid=not omit)


def post(
    x: float, y: float, z: float, radius: float, tall: float,
    *, top: float = 1.0, corners: int = 0, omit: int = 0, hole: float = 0.0, star: float = 0.0,
    deep: float = 0.0, phase: float = 0.0,
) -> Row:  # fmt: skip
    """An upright cylinder, cone or prism with bottom z; `deep` is another radius along y."""
    size = (radius, deep or radius, tall)
    shape = (top, corners, phase, 1.0, omit, hole, star)
    return row_of(ROUND, (x, y, z + tall / 2), size, shape, solid=not omit)


def rod(start: Vector, end: Vector, radius: float, *, top: float = 1.0, corners: int = 0) -> Row:
    """A straight cylinder, cone or prism between two points."""
    a, b, c = (e - s for s, e in zip(start, end, strict=True))
    length = math.sqrt(a * a + b * b + c * c) or 1e-6
    flat = math.sqrt(a * a + b * b)
    row = post(0.0, 0.0, 0.0, radius, 1.0, top=top, corners=corners)
    if flat > 1e-6:
        u, v = (-b / flat, a / flat, 0.0), (-a * c / flat, -b * c / flat, flat)
    else:
        u, v = (1.0, 0.0, 0.0), (0.0, length, 0.0)
    for d, (low, high, along) in enumerate(zip(start, end, (a, b, c), strict=True)):
        row[6 + 4 * d : 10 + 4 * d] = (
            radius * u[d], radius * v[d] / length, along, (low + high) / 2,
        )  # fmt: skip
    return row


def ball(
    x: float, y: float, z: float, wide: float, deep: float = 0.0, tall: float = 0.0,
    *, low: float = -1.0, high: float = 1.0, bumps: float = 0.0, phase: float = 0.0,
    rate: float = 4.0, sweep: float = 1.0,
) -> Row:  # fmt: skip
    """An ellipsoid about x, y, z with these radii (0 = as `wide`), cut off at `low` and `high`."""
    shape = (low, high, phase, sweep, bumps, rate, rate * 1.3, rate * 0.8, phase)
    whole = low == -1 and high == 1 and bumps == 0
    return row_of(BALL, (x, y, z), (wide, deep or wide, tall or wide), shape, solid=whole)


def blob(
    x: float, y: float, z: float, wide: float, deep: float, tall: float, a: float, b: float
) -> Row:
    """A superquadric about x, y, z with these radii and exponents."""
    return row_of(SUPER, (x, y, z), (wide, deep, tall), (a, b), solid=True)


def hoop(
    x: float, y: float, z: float, radius: float, tube: float,
    *, start: float = 0.0, sweep: float = 1.0, tall: float = 1.0,
) -> Row:  # fmt: skip
    """A lying torus, or an arc of it."""
    shape = (tube / radius, start, sweep, 0.0, 1.0, tall)
    return row_of(TORUS, (x, y, z), (radius, radius, radius), shape)


def tube(
    points: Sequence[float], radius: float, end: float, *, flat: bool = False, aspect: float = 1.0
) -> Row:
    """A sweep along the Bezier curve of four points x0, z0, ... x3, z3 in the plane y = 0."""
    return row_of(
        SWEEP,
        (0.0, 0.0, 0.0),
        (1.0, 1.0, 1.0),
        (*points, radius, end, 1.0 if flat else 0.0, aspect),
    )


def spring(turns: float, radius: float, wire: float, tall: float, *, top: float = 1.0) -> Row:
    """A helix about the z axis, its middle at the origin."""
    return row_of(
        HELIX, (0.0, 0.0, 0.0), (radius, radius, radius),
        (turns, wire / radius, wire / radius, top, tall / radius),
    )  # fmt: skip


def lathe(profile: Sequence[float], *, smooth: bool = True) -> Row:
    """A surface of revolution through seven points r0, z0, ... r6, z6."""
    return row_of(LATHE if smooth else SHARP, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), profile)


def sheet(
    x: float, y: float, z: float, wide: float, deep: float,
    *, waves: Sequence[float] = (), disc: bool = False,
) -> Row:  # fmt: skip
    """A sheet about x, y, z with up to three waves: x and y frequency, phase, height of each."""
    return row_of(FIELD, (x, y, z), (wide, deep, 1.0), (1.0 if disc else 0.0, *waves))
