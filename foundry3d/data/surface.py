"""Points drawn from the surface of a mesh.

Shape legend: V vertices, F triangles, S samples.
"""

from __future__ import annotations

import numpy as np

from foundry3d.errors import InputError

_BLOCK = 2**18  # triangles whose corners are held at a time


def sample_surface(
    vertices: np.ndarray, faces: np.ndarray, samples: int, rng: np.random.Generator
) -> np.ndarray:
    """Points (S, 3) float64 drawn evenly by area from triangles (F, 3) of vertices (V, 3).

    Raises:
        InputError: the triangles have no area.
    """
    blocks = (faces[start : start + _BLOCK] for start in range(0, len(faces), _BLOCK))
    ends = np.cumsum(np.concatenate([np.zeros(0), *(_areas(vertices, part) for part in blocks)]))
    if not (len(ends) and ends[-1] > 0):
        raise InputError(
            f"expected triangles with some area, got {len(ends)} without; "
            "save the file without faces to use its vertices"
        )
    drawn = np.searchsorted(ends, rng.random(samples) * ends[-1], side="right")
    a, b, c = _corners(vertices, faces[np.minimum(drawn, len(ends) - 1)])
    u, v = np.sqrt(rng.random((samples, 1))), rng.random((samples, 1))
    return (1 - u) * a + u * (1 - v) * b + u * v * c


def _corners(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(3, F, 3) float64."""
    return np.moveaxis(vertices[faces].astype(np.float64), 1, 0)


def _areas(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Twice the area of each triangle (F,)."""
    a, b, c = _corners(vertices, faces)
    return np.linalg.norm(np.cross(b - a, c - a), axis=1)
