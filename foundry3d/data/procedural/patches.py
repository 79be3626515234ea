"""Surfaces as bags of patches, and how to combine, copy and move them.

A patch has an origin o and axes a, b, c, and maps coefficients to a point
o + alpha a + beta b + gamma c:

    FLAT   trapezoid: widths r0 to r1 along a, climbing along c            (boxes, wings, roofs)
    ROUND  cone frustum: radii r0 to r1 in the plane of a and b, along c   (rods, lathes, discs)
    RING   arc of a torus: ring radius r0, tube radius r1, c its axis      (handles, bands)

Shape legend: n shapes, m copies of a primitive in each, K patches of a shape.
A `Number` is a float or an array that broadcasts to (n, m): (n, 1) varies by shape, (m,) by copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Number = float | np.ndarray
Vector = tuple[Number, Number, Number]
Axis = tuple[float, float, float]

FLAT, ROUND, RING = 0, 1, 2
X: Axis = (1.0, 0.0, 0.0)
Y: Axis = (0.0, 1.0, 0.0)
Z: Axis = (0.0, 0.0, 1.0)


@dataclass(frozen=True)
class Patches:
    """The surface patches of n shapes (n = 1 stands for any number of equal ones).

    Attributes:
        kind: (K,) int8, FLAT, ROUND or RING.
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


def stacked(numbers: Sequence[Number]) -> np.ndarray:
    """Numbers, each broadcasting to (n, m), as one array (n, m, len(numbers))."""
    shapes = {np.shape(number) for number in numbers}
    table = np.empty((*np.broadcast_shapes((1, 1), *shapes), len(numbers)))
    for column, number in enumerate(numbers):
        table[..., column] = number
    return table


def assemble(kind: int, frames: Sequence[Sequence], extents: Sequence[Sequence]) -> Patches:
    """Patches from k frames [o, a, b, c] of vectors and k extents [r0, r1, start, sweep]."""
    numbers = [x for vectors in frames for v in vectors for x in v]
    table = stacked(numbers + [x for extent in extents for x in extent])
    frame = table[..., : len(numbers)].reshape(len(table), -1, 4, 3)
    extent = table[..., len(numbers) :].reshape(len(table), -1, 4)
    return Patches(np.full(frame.shape[1], kind, np.int8), frame, extent)


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


def _copies(patches: Patches, frame: np.ndarray) -> Patches:
    """The patches m times over, with the frames (n, m, K, 4, 3)."""
    n, m = frame.shape[:2]
    extent = np.broadcast_to(patches.extent[:, None], frame.shape[:-1])
    return Patches(np.tile(patches.kind, m), frame.reshape(n, -1, 4, 3), extent.reshape(n, -1, 4))


def carry(patches: Patches, matrix: np.ndarray) -> Patches:
    """Copies of the patches under the linear maps `matrix` (n, m, 3, 3)."""
    return _copies(patches, patches.frame[:, None] @ np.swapaxes(matrix, -1, -2)[:, :, None])


def move(patches: Patches, by: Vector) -> Patches:
    """Copies of the patches moved, one for each of the (n, m) vectors."""
    offset = np.pad(stacked(by)[:, :, None, None], [(0, 0)] * 3 + [(0, 3), (0, 0)])
    return _copies(patches, patches.frame[:, None] + offset)


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
    return carry(patches, rotation(axis, np.atleast_2d(angle)))
