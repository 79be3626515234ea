"""Sampling and neighbours in numpy, with the indices of `foundry3d.geometry`, ties included.

Distances are direct differences in float32, summed as dx*dx + dy*dy + dz*dz. Every operation is
rounded by itself, as numpy computes no fused products.

Shapes: B clouds, N points, M queries, c centers, k neighbours.
"""

from __future__ import annotations

import numpy as np

MOST_DISTANCES = 2**21
"""Distances of neighbours that are in memory at once, unless one query needs more."""


def farthest_point_sample(points: np.ndarray, count: int) -> np.ndarray:
    """(B, count) int64 indices into float32 points (B, N, 3), from index 0; ties to the lowest."""
    batch, size, _ = points.shape
    axes = np.ascontiguousarray(points.transpose(2, 0, 1))
    rows = np.arange(batch)
    chosen = np.zeros((batch, count), np.int64)
    nearest = np.full((batch, size), np.inf, np.float32)
    for i in range(1, count):
        x, y, z = axes - axes[:, rows, chosen[:, i - 1], None]
        x *= x
        y *= y
        z *= z
        x += y
        x += z
        np.minimum(nearest, x, out=nearest)
        chosen[:, i] = nearest.argmax(axis=1)
    return chosen


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared distances (B, M, N) between float32 a (B, M, 3) and b (B, N, 3)."""
    dx, dy, dz = (a[:, :, None, i] - b[:, None, :, i] for i in range(3))
    return dx * dx + dy * dy + dz * dz


def nearest_neighbors(queries: np.ndarray, points: np.ndarray, k: int) -> np.ndarray:
    """(B, M, k) int64 indices into points (B, N, 3), nearest first; ties to the lowest index."""
    batch, size, _ = points.shape
    chunk = max(1, MOST_DISTANCES // (size * batch))
    order = np.arange(size, dtype=np.uint64)
    found = []
    for start in range(0, queries.shape[1], chunk):
        distance = squared_distances(queries[:, start : start + chunk], points)
        # Non-negative floats sort like their bits, so (bits, index) is one unique integer key.
        key = distance.view(np.uint32).astype(np.uint64) << np.uint64(32) | order
        if k < size:
            key = np.partition(key, k - 1, axis=-1)[..., :k]
        key.sort(axis=-1)
        found.append((key & np.uint64(0xFFFFFFFF)).astype(np.int64))
    return np.concatenate(found, axis=1)


def gather(values: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Rows of values (B, N, C) at index (B, ...): (B, ..., C)."""
    rows = np.arange(len(values)).reshape(-1, *[1] * (index.ndim - 1))
    return values[rows, index]


def group_points(
    points: np.ndarray, groups: int, group_size: int, radius: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Centers (B, c, 3) of float32 points (B, N, 3), and the points around them.

    Args:
        points: N at least groups and group_size.
        groups: c.
        group_size: k.
        radius: divides the relative coordinates when given.

    Returns:
        Centers, and neighborhoods (B, c, k, 3), nearest first, relative to their center.
    """
    centers = gather(points, farthest_point_sample(points, groups))
    near = gather(points, nearest_neighbors(centers, points, group_size)) - centers[:, :, None]
    return centers, near if radius is None else near / np.float32(radius)
