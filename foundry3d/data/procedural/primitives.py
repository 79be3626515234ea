"""Boxes, lathes, balls, rods and rings as patches.

Shape legend: n shapes, m copies of a primitive in each; a `Number` broadcasts to (n, m).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from foundry3d.data.procedural.patches import (
    FLAT,
    RING,
    ROUND,
    Number,
    Patches,
    Vector,
    X,
    Y,
    assemble,
    stacked,
)

Outline = Sequence[tuple[Number, Number]]


def box(
    centre: Vector,
    size: Vector,
    *,
    top: tuple[Number, Number] = (1.0, 1.0),
    slide: tuple[Number, Number] = (0.0, 0.0),
) -> Patches:
    """Closed boxes, optionally tapered; six patches for each of the (n, m).

    `size` are the edges along x, y, z, the first two at the bottom; `top` the top edges along x and
    y as multiples of the bottom ones, (1, 0) for a roof, moved by `slide` along x and y.
    """
    x, y, z = centre
    sx, sy, sz = size
    tx, ty = sx * top[0], sy * top[1]
    dx, dy = slide
    low, high = z - sz / 2, z + sz / 2
    frames, extents = [], []
    for height, east, north, wide, deep in ((low, x, y, sx, sy), (high, x + dx, y + dy, tx, ty)):
        frames.append([(east, north - deep / 2, height), X, (0, 0, 0), (0, deep, 0)])
        extents.append((wide, wide, 0, 0))
    for side in (-1, 1):
        foot, lean = (x + side * sx / 2, y, low), (dx + side * (tx - sx) / 2, dy, sz)
        frames.append([foot, Y, (0, 0, 0), lean])
        extents.append((sy, ty, 0, 0))
        foot, lean = (x, y + side * sy / 2, low), (dx, dy + side * (ty - sy) / 2, sz)
        frames.append([foot, X, (0, 0, 0), lean])
        extents.append((sx, tx, 0, 0))
    return assemble(FLAT, frames, extents)


def lathe(base: Vector, profile: Outline) -> Patches:
    """Surfaces of revolution about the vertical axis through `base`, from which heights count.

    The profile is the corners (radius, height) of the outline; a radius of 0 at an end closes it.
    Each of the (n, m) surfaces has len(profile) - 1 patches.
    """
    x, y, z = base
    frames, extents = [], []
    for (r0, z0), (r1, z1) in pairwise(profile):
        frames.append([(x, y, z + z0), X, Y, (0, 0, z1 - z0)])
        extents.append((r0, r1, 0, 2 * np.pi))
    return assemble(ROUND, frames, extents)


def ball(
    centre: Vector,
    radius: Number,
    height: Number | None = None,
    *,
    low: float = -90.0,
    high: float = 90.0,
    segments: int = 10,
) -> Patches:
    """Spheres, or spheroids of half-height `height`, cut at latitudes `low` and `high` degrees.

    `centre` is the middle of the whole spheroid; each of the (n, m) has `segments` patches.
    """
    angles = np.radians(np.linspace(low, high, segments + 1))
    up = radius if height is None else height
    return lathe(centre, [(radius * abs(np.cos(t)), up * np.sin(t)) for t in angles])


def rod(start: Vector, end: Vector, radius: Number, end_radius: Number | None = None) -> Patches:
    """Closed cylinders, or cone frusta, between the middles of their caps; three patches each."""
    r1 = radius if end_radius is None else end_radius
    first, last = np.broadcast_arrays(stacked(start), stacked(end))
    along = last - first
    unit = along / np.linalg.norm(along, axis=-1, keepdims=True)
    aside = np.where(np.abs(unit[..., :1]) > 0.7, Y, X)
    a = np.cross(unit, aside)
    a /= np.linalg.norm(a, axis=-1, keepdims=True)
    o, p, a, b, c = (np.moveaxis(v, -1, 0) for v in (first, last, a, np.cross(unit, a), along))
    flat = (0, 0, 0)
    extents = [(r, s, 0, 2 * np.pi) for r, s in ((radius, r1), (0.0, radius), (0.0, r1))]
    return assemble(ROUND, [(o, a, b, c), (o, a, b, flat), (p, a, b, flat)], extents)


def cylinder(base: Vector, radius: Number, height: Number) -> Patches:
    """Closed upright cylinders standing on `base`; three patches for each of the (n, m)."""
    x, y, z = base
    return rod(base, (x, y, z + height), radius)


def ring(
    centre: Vector,
    radius: Number,
    tube: Number,
    *,
    right: Vector = X,
    up: Vector = Y,
    start: Number = 0.0,
    sweep: Number = 2 * np.pi,
) -> Patches:
    """Arcs of a torus, open at their ends; one patch each.

    The unit vectors `right` and `up` are where angle 0 and a quarter turn point; the arc begins at
    `start` and covers `sweep`, in radians. `radius` reaches to the middle of the tube.
    """
    (rx, ry, rz), (ux, uy, uz) = right, up
    axis = (ry * uz - rz * uy, rz * ux - rx * uz, rx * uy - ry * ux)
    return assemble(RING, [[centre, right, up, axis]], [(radius, tube, start, sweep)])
