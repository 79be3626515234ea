"""Polygons into triangles: fans, and ear clipping where a corner points inwards.

Shape legend: V vertices, P polygons, T corners of all polygons, F triangles.
"""

from __future__ import annotations

import numpy as np

from foundry3d.data.formats.raw import ramp
from foundry3d.errors import InputError
from foundry3d.extras import explained

MOST_CORNERS = 2**14
"""Ear clipping can take time that grows with the square of the corners of a polygon."""

_BLOCK = 2**15  # polygons that are looked at together
_FLAT = 1e-9  # sines of turns below this are rounding


def triangles(counts: np.ndarray, corners: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """Triangles that cover polygons, their corners in the same sense of rotation.

    Args:
        counts: (P,) int64 corners of each polygon; those with fewer than 3 give no triangle.
        corners: (T,) int64 vertex numbers, polygon after polygon.
        vertices: (V, 3) coordinates.

    Returns:
        (F, 3) int64; for corners that do not exist, triangles of them.

    Raises:
        InputError: a polygon has more than `MOST_CORNERS` corners.
    """
    if len(counts) and counts.max() > MOST_CORNERS:
        raise InputError(
            f"expected polygons of at most {MOST_CORNERS} corners, got one of {counts.max()}; "
            "export the file as triangles"
        )
    if (
        not len(corners)
        or counts.max() <= 3
        or not 0 <= corners.min() <= corners.max() < len(vertices)
    ):
        return fans(counts, corners)
    starts = np.cumsum(counts) - counts
    many = np.flatnonzero(counts > 3)
    blocks = np.split(many, range(_BLOCK, len(many), _BLOCK))
    concave = np.concatenate(
        [_concave(block, starts[block], counts[block], corners, vertices) for block in blocks]
    )
    if not len(concave):
        return fans(counts, corners)
    clipped = [
        _clip(corners[starts[i] : starts[i] + counts[i]], vertices.astype(np.float64))
        for i in concave
    ]
    kept = np.ones(len(counts), bool)
    kept[concave] = False
    return np.concatenate([fans(counts[kept], corners[np.repeat(kept, counts)]), *clipped])


def fans(counts: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Polygons cut into triangles around their first corner; shapes as in `triangles`."""
    each = np.maximum(counts - 2, 0)
    first = np.repeat(np.cumsum(counts) - counts, each)
    middle = first + 1 + ramp(each)
    return np.stack([corners[first], corners[middle], corners[middle + 1]], axis=1)


def _concave(
    polygons: np.ndarray,
    firsts: np.ndarray,
    sizes: np.ndarray,
    corners: np.ndarray,
    vertices: np.ndarray,
) -> np.ndarray:
    """Those of some polygons that turn against their own sense of rotation at a corner."""
    if not len(polygons):
        return polygons
    points = vertices[corners[np.repeat(firsts, sizes) + ramp(sizes)]].astype(np.float64)
    starts = np.cumsum(sizes) - sizes
    after, before = np.arange(1, len(points) + 1), np.arange(-1, len(points) - 1)
    after[starts + sizes - 1], before[starts] = starts, starts + sizes - 1
    points = points - np.repeat(points[starts], sizes, axis=0)
    normals = np.add.reduceat(np.cross(points, points[after]), starts)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), np.finfo(float).tiny)
    edges = points[after] - points
    lengths = np.linalg.norm(edges, axis=1)
    turns = (np.cross(edges[before], edges) * np.repeat(normals, sizes, axis=0)).sum(axis=1)
    inwards = turns < -_FLAT * lengths[before] * lengths
    return polygons[np.logical_or.reduceat(inwards, starts)]


def _clip(corners: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """Triangles (F, 3) of one polygon, clipped in the plane that it faces."""
    with explained():
        import mapbox_earcut

    points = vertices[corners] - vertices[corners[0]]
    normal = np.cross(points, np.roll(points, -1, axis=0)).sum(axis=0)
    axis = int(np.abs(normal).argmax())
    flat = np.ascontiguousarray(points[:, [(axis + 1) % 3, (axis + 2) % 3]])
    found = mapbox_earcut.triangulate_float64(flat, np.array([len(flat)], np.uint32))
    order = found.astype(np.int64).reshape(-1, 3)
    a, b, c = flat[order[:, 0]], flat[order[:, 1]], flat[order[:, 2]]
    area = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    turned = area * normal[axis] < 0
    order[turned] = order[turned][:, ::-1]
    return corners[order]
