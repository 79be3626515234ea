"""Surfaces built from patches, and points drawn uniformly over their area.

Every surface here is a bag of patches. A patch has an origin o and axes a, b, c, and maps
coefficients to a point o + alpha a + beta b + gamma c:

    FLAT   trapezoid: widths r0 to r1 along a, climbing along c            (boxes, wings, roofs)
    ROUND  cone frustum: radii r0 to r1 in the plane of a and b, along c   (rods, lathes, discs)
    RING   arc of a torus: ring radius r0, tube radius r1, c its axis      (handles, bands)

Shape legend: n shapes, m copies of a primitive in each, K patches of a shape, N points.
A `Number` is a float or an array that broadcasts to (n, m): (n, 1) varies by shape, (m,) by copy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

Number = float | np.ndarray
Vector = tuple[Number, Number, Number]
Axis = tuple[float, float, float]
Outline = Sequence[tuple[Number, Number]]
Weights = dict[int, np.ndarray]

FLAT, ROUND, RING = 0, 1, 2
X: Axis = (1.0, 0.0, 0.0)
Y: Axis = (0.0, 1.0, 0.0)
Z: Axis = (0.0, 0.0, 1.0)
_TINY = np.float32(1e-12)
_A, _B, _C = 3, 6, 9  # where the axes begin in a row of frame numbers


@dataclass(frozen=True)
class Patches:
    """The surface patches of n shapes (n = 1 stands for any number of equal ones).

    Attributes:
        kind: (K,) FLAT, ROUND or RING.
        frame: (n, K, 4, 3) the vectors o, a, b, c of each patch.
        extent: (n, K, 4) the numbers r0, r1, and where the angle starts and how far it sweeps.
    """

    kind: np.ndarray
    frame: np.ndarray
    extent: np.ndarray

    def rows(self, span: slice) -> Patches:
        """The patches of the shapes in `span`."""
        return Patches(self.kind, self.frame[span], self.extent[span])

    def areas(self) -> np.ndarray:
        """Area of each patch (n, K): exact, but for round ones stretched across their axis."""
        _, a, b, c = np.moveaxis(self.frame, 2, 0)
        r0, r1, _, sweep = np.moveaxis(self.extent, 2, 0)
        disc, climb = _cross_norm(a, b), (c * c).sum(-1)
        flat = _cross_norm(a, c) * (r0 + r1) / 2
        cone = sweep * (r0 + r1) / 2 * np.sqrt(disc * ((r1 - r0) ** 2 * disc + climb))
        ring = sweep * r0 * 2 * np.pi * r1 * np.sqrt(disc * climb)
        return np.where(self.kind == FLAT, flat, np.where(self.kind == ROUND, cone, ring))


def _cross_norm(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    square = (a * a).sum(-1) * (b * b).sum(-1) - (a * b).sum(-1) ** 2
    return np.sqrt(np.maximum(square, 0.0))


def _vectors(vector: Sequence[Number]) -> np.ndarray:
    """Components, each broadcasting to (n, m), as one array (n, m, len(vector))."""
    shapes = {np.shape(v) for v in vector}
    table = np.empty((*np.broadcast_shapes((1, 1), *shapes), len(vector)))
    for column, value in enumerate(vector):
        table[..., column] = value
    return table


def _assemble(kind: int, frames: Sequence[Sequence], extents: Sequence[Sequence]) -> Patches:
    """Patches from k frames [o, a, b, c] of vectors and k extents [r0, r1, start, sweep]."""
    numbers = [x for vectors in frames for v in vectors for x in v]
    numbers += [x for extent in extents for x in extent]
    table = _vectors(numbers)
    n, k = len(table), len(frames)
    cut = 12 * k
    frame = table[..., :cut].reshape(n, -1, 4, 3)
    extent = table[..., cut:].reshape(n, -1, 4)
    return Patches(np.full(frame.shape[1], kind), frame, extent)


def box(
    centre: Vector,
    size: Vector,
    *,
    top: tuple[Number, Number] = (1.0, 1.0),
    slide: tuple[Number, Number] = (0.0, 0.0),
) -> Patches:
    """Closed boxes, tapered if wished.

    Args:
        centre: middle of the box.
        size: edges along x, y, z, the first two at the bottom.
        top: top edges along x and y as multiples of the bottom ones; (1, 0) makes a roof.
        slide: how far the top is moved along x and y.

    Returns:
        Patches, six for each of the (n, m) boxes.
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
    return _assemble(FLAT, frames, extents)


def lathe(base: Vector, profile: Outline) -> Patches:
    """Surfaces of revolution about a vertical axis.

    Args:
        base: the point of the axis that heights are counted from.
        profile: corners (radius, height) of the outline; a radius of 0 at an end closes it.

    Returns:
        Patches, len(profile) - 1 for each of the (n, m) surfaces.
    """
    x, y, z = base
    frames, extents = [], []
    for (r0, z0), (r1, z1) in pairwise(profile):
        frames.append([(x, y, z + z0), X, Y, (0, 0, z1 - z0)])
        extents.append((r0, r1, 0, 2 * np.pi))
    return _assemble(ROUND, frames, extents)


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

    Args:
        centre: middle of the whole spheroid.
        radius: horizontal radius.
        height: vertical radius; None takes `radius`.
        low: latitude where the surface begins; -90 is the bottom.
        high: latitude where it ends; 90 is the top.
        segments: cone frusta it is made of.

    Returns:
        Patches, `segments` for each of the (n, m) balls.
    """
    angles = np.radians(np.linspace(low, high, segments + 1))
    up = radius if height is None else height
    return lathe(centre, [(radius * abs(np.cos(t)), up * np.sin(t)) for t in angles])


def rod(start: Vector, end: Vector, radius: Number, end_radius: Number | None = None) -> Patches:
    """Closed cylinders, or cone frusta, from `start` to `end`.

    Args:
        start: middle of the first cap.
        end: middle of the last cap, elsewhere than `start`.
        radius: radius at `start`.
        end_radius: radius at `end`; None takes `radius`.

    Returns:
        Patches, three for each of the (n, m) rods.
    """
    r1 = radius if end_radius is None else end_radius
    first, last = np.broadcast_arrays(_vectors(start), _vectors(end))
    along = last - first
    unit = along / np.linalg.norm(along, axis=-1, keepdims=True)
    aside = np.where(np.abs(unit[..., :1]) > 0.7, Y, X)
    a = np.cross(unit, aside)
    a /= np.linalg.norm(a, axis=-1, keepdims=True)
    o, p, a, b, c = (np.moveaxis(v, -1, 0) for v in (first, last, a, np.cross(unit, a), along))
    flat = (0, 0, 0)
    extents = [(r, s, 0, 2 * np.pi) for r, s in ((radius, r1), (0.0, radius), (0.0, r1))]
    return _assemble(ROUND, [(o, a, b, c), (o, a, b, flat), (p, a, b, flat)], extents)


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
    """Arcs of a torus, open at their ends.

    Args:
        centre: middle of the ring.
        radius: from the centre to the middle of the tube.
        tube: radius of the tube, at most `radius`.
        right: unit vector that angle 0 points to.
        up: unit vector that a quarter turn points to, square to `right`.
        start: angle where the arc begins, in radians.
        sweep: how far it goes on, in radians.

    Returns:
        Patches, one for each of the (n, m) arcs.
    """
    (rx, ry, rz), (ux, uy, uz) = right, up
    axis = (ry * uz - rz * uy, rz * ux - rx * uz, rx * uy - ry * ux)
    return _assemble(RING, [[centre, right, up, axis]], [(radius, tube, start, sweep)])


def join(*parts: Patches) -> Patches:
    """All patches of `parts` as one bag; those of n = 1 serve every shape."""
    n = max(len(p.frame) for p in parts)
    frames = [np.broadcast_to(p.frame, (n, *p.frame.shape[1:])) for p in parts]
    extents = [np.broadcast_to(p.extent, (n, *p.extent.shape[1:])) for p in parts]
    kind = np.concatenate([p.kind for p in parts])
    return Patches(kind, np.concatenate(frames, axis=1), np.concatenate(extents, axis=1))


def where(mask: np.ndarray, patches: Patches) -> Patches:
    """Patches of the same geometry where `mask` (n, m) holds, and without area elsewhere."""
    keep = np.repeat(mask, patches.kind.size // mask.shape[1], axis=1)
    extent = patches.extent * keep[..., None]
    frame = np.broadcast_to(patches.frame, (len(extent), *patches.frame.shape[1:]))
    return Patches(patches.kind, frame, extent)


def either(mask: np.ndarray, yes: Patches, no: Patches) -> Patches:
    """The patches `yes` for shapes where `mask` (n, 1) holds, and `no` for the others."""
    return join(where(mask, yes), where(~mask, no))


def carry(patches: Patches, matrix: np.ndarray, offset: np.ndarray | None = None) -> Patches:
    """Patches under the linear maps `matrix` (n, 3, 3), then moved by `offset` (n, 3)."""
    frame = patches.frame @ np.swapaxes(matrix, -1, -2)[:, None]
    if offset is not None:
        frame[:, :, 0] += offset[:, None]
    return Patches(patches.kind, frame, np.broadcast_to(patches.extent, (*frame.shape[:2], 4)))


def rotation(axis: Axis, angle: np.ndarray) -> np.ndarray:
    """Matrices (..., 3, 3) that turn by `angle` (...) radians about X, Y or Z."""
    i, j = {X: (1, 2), Y: (2, 0), Z: (0, 1)}[axis]
    matrix = np.zeros((*np.shape(angle), 3, 3))
    matrix[..., [0, 1, 2], [0, 1, 2]] = 1.0
    matrix[..., i, i] = matrix[..., j, j] = np.cos(angle)
    matrix[..., j, i] = np.sin(angle)
    matrix[..., i, j] = -matrix[..., j, i]
    return matrix


def turn(patches: Patches, axis: Axis, angle: Number) -> Patches:
    """Copies of the patches turned about X, Y or Z, one for each of the (n, m) angles."""
    matrices = np.moveaxis(rotation(axis, np.atleast_2d(angle)), 1, 0)
    return join(*(carry(patches, matrix) for matrix in matrices))


def move(patches: Patches, by: Vector) -> Patches:
    """Copies of the patches moved, one for each of the (n, m) vectors."""
    offsets = np.moveaxis(_vectors(by), 1, 0)
    still = np.broadcast_to(np.eye(3), (offsets.shape[1], 3, 3))
    return join(*(carry(patches, still, offset) for offset in offsets))


def sample(patches: Patches, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Points uniform over the area of each shape, in random order.

    Patches get their share of the points by systematic sampling: within one point of the exact
    share, and right on average.

    Args:
        patches: n shapes, each with some area.
        count: points of a shape, N.
        rng: source of all randomness.

    Returns:
        Coordinates (3, n, N) float32, and the patch (n, N) each point lies on.
    """
    repeats = _shares(patches.areas(), count, rng)
    n, k = repeats.shape
    row = np.repeat(np.arange(n * k), repeats.ravel())
    place = rng.permuted(np.tile(np.arange(count), (n, 1)), axis=1)
    place = (place + np.arange(0, n * count, count)[:, None]).ravel()
    owner, points = np.empty(n * count, np.intp), np.empty((3, n * count), np.float32)
    owner[place] = row % k
    kinds = np.tile(patches.kind.astype(np.int8), n)[row]
    table = np.concatenate([patches.frame.reshape(n, k, 12), patches.extent], axis=2)
    table = np.moveaxis(table, 2, 0).astype(np.float32)
    for kind in (FLAT, ROUND, RING):
        own = patches.kind == kind
        goal = place[kinds == kind]
        values = _points_on(kind, table[:, :, own].reshape(16, -1), repeats[:, own].ravel(), rng)
        for coordinate, value in zip(points, values, strict=True):
            coordinate[goal] = value
    return points.reshape(3, n, count), owner.reshape(n, count)


def _shares(areas: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """How many of the points each patch gets (n, K), from the areas (n, K)."""
    edges = np.cumsum(areas, axis=1)
    edges = np.floor(edges / edges[:, -1:] * count + rng.random((len(areas), 1)))
    edges[:, -1] = count
    return np.diff(edges, axis=1, prepend=0).astype(np.intp)


def _points_on(
    kind: int, table: np.ndarray, repeats: np.ndarray, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Coordinates of `repeats` points on each patch of one kind; table (16, patches)."""
    r0, r1, start, sweep = (np.repeat(column, repeats) for column in table[12:])
    if kind == RING:
        weights = _on_ring(r0, r1, start, sweep, rng)
    elif kind == ROUND:
        weights = _on_round(r0, r1, start, sweep, rng)
    else:
        weights = _on_flat(r0, r1, rng)
    for d in range(3):
        value = np.repeat(table[d], repeats)
        for axis, weight in weights.items():
            value += weight * np.repeat(table[axis + d], repeats)
        yield value


def _on_flat(r0: np.ndarray, r1: np.ndarray, rng: np.random.Generator) -> Weights:
    reach, climb = _climb(r0, r1, rng)
    return {_A: reach * (rng.random(r0.size, dtype=np.float32) - np.float32(0.5)), _C: climb}


def _on_round(
    r0: np.ndarray, r1: np.ndarray, start: np.ndarray, sweep: np.ndarray, rng: np.random.Generator
) -> Weights:
    reach, climb = _climb(r0, r1, rng)
    angle = start + sweep * rng.random(r0.size, dtype=np.float32)
    return {_A: reach * np.cos(angle), _B: reach * np.sin(angle), _C: climb}


def _climb(
    r0: np.ndarray, r1: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Width, and height in 0..1, of points whose density is linear in height from r0 to r1."""
    u = rng.random(r0.size, dtype=np.float32)
    reach = np.sqrt(r0 * r0 + u * (r1 * r1 - r0 * r0))
    return reach, u * (r0 + r1) / np.maximum(reach + r0, _TINY)


def _on_ring(
    r0: np.ndarray, r1: np.ndarray, start: np.ndarray, sweep: np.ndarray, rng: np.random.Generator
) -> Weights:
    """Outer points weigh more: with the right odds, an angle of the tube is mirrored outwards."""
    u, v, w = rng.random((3, r0.size), dtype=np.float32)
    out = np.cos(2 * np.pi * u)
    out = np.where(2 * w * r0 < r0 + r1 * out, out, -out)
    reach, angle = r0 + r1 * out, start + sweep * v
    return {_A: reach * np.cos(angle), _B: reach * np.sin(angle), _C: r1 * np.sin(2 * np.pi * u)}
