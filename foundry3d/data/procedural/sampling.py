"""Points drawn uniformly over the area of patches.

Shape legend: n shapes, K patches of each, N points on each.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from foundry3d.data.procedural.patches import FLAT, RING, ROUND, Patches

_TINY = np.float32(1e-12)
_A, _B, _C = 3, 6, 9  # where the axes begin in a row of frame numbers


def sample(patches: Patches, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Points uniform over the area of each shape, in random order.

    The number of points on each patch is drawn by systematic sampling: within one of its exact
    share, and equal to it on average.

    Returns:
        Coordinates (3, n, N) float32, and the patch (n, N) each point lies on.
    """
    repeats = _shares(patches.areas(), count, rng)
    n, k = repeats.shape
    patch = np.repeat(np.tile(np.arange(k), n), repeats.ravel())
    place = rng.permuted(np.arange(n * count).reshape(n, count), axis=1).ravel()
    owner, points = np.empty(n * count, np.intp), np.empty((3, n * count), np.float32)
    owner[place] = patch
    kinds = patches.kind[patch]
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
    """Number of points on each patch (n, K), from the areas (n, K)."""
    edges = np.cumsum(areas, axis=1)
    edges = np.floor(edges / edges[:, -1:] * count + rng.random((len(areas), 1)))
    edges[:, -1] = count
    return np.diff(edges, axis=1, prepend=0).astype(np.intp)


def _points_on(
    kind: int, table: np.ndarray, repeats: np.ndarray, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Coordinates of `repeats` points on each patch of one kind; table (16, patches)."""
    extent = np.repeat(table[12:], repeats, axis=1)
    weights = _weights(kind, extent, rng)
    for d in range(3):
        value = np.repeat(table[d], repeats)
        for axis, weight in weights.items():
            value += weight * np.repeat(table[axis + d], repeats)
        yield value


def _weights(kind: int, extent: np.ndarray, rng: np.random.Generator) -> dict[int, np.ndarray]:
    """What points take of the axes of their patch, so that they are uniform over its area.

    The density of flat and round patches is linear in height, from r0 to r1. On a ring, outer
    points weigh more: with the right odds, an angle of the tube is mirrored outwards.
    """
    r0, r1, start, sweep = extent
    if kind == RING:
        u, v, w = rng.random((3, r0.size), dtype=np.float32)
        out = np.cos(2 * np.pi * u)
        out = np.where(2 * w * r0 < r0 + r1 * out, out, -out)
        reach, climb = r0 + r1 * out, r1 * np.sin(2 * np.pi * u)
    else:
        u, v = rng.random((2, r0.size), dtype=np.float32)
        reach = np.sqrt(r0 * r0 + u * (r1 * r1 - r0 * r0))
        climb = u * (r0 + r1) / np.maximum(reach + r0, _TINY)
    if kind == FLAT:
        return {_A: reach * (v - np.float32(0.5)), _C: climb}
    angle = start + sweep * v
    return {_A: reach * np.cos(angle), _B: reach * np.sin(angle), _C: climb}
