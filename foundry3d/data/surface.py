"""Points drawn from the surface of a mesh.

Shape legend: V vertices, F triangles, S samples.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from foundry3d.errors import InputError

_BLOCK = 2**18  # triangles whose corners are held at a time


class Drawn(NamedTuple):
    """Where points were drawn: in which triangles, and the weights of their corners.

    Attributes:
        corners: (S, 3) vertex numbers of the triangle of each point.
        weights: (S, 3) of the corners, their sum is one.
    """

    corners: np.ndarray
    weights: np.ndarray

    def of(self, values: np.ndarray) -> np.ndarray:
        """Values (V, m) of the vertices, at the points (S, m) float64."""
        return np.einsum("sc,scm->sm", self.weights, values[self.corners].astype(np.float64))

    def normals(self, vertices: np.ndarray) -> np.ndarray:
        """Normals (S, 3) of the triangles, each as long as twice the area, by its sense."""
        a, b, c = _corners(vertices, self.corners)
        return np.cross(b - a, c - a)


def sample_surface(
    vertices: np.ndarray, faces: np.ndarray, samples: int, rng: np.random.Generator
) -> np.ndarray:
    """Points (S, 3) float64 drawn evenly by area from triangles (F, 3) of vertices (V, 3).

    Raises:
        InputError: the triangles have no area.
    """
    return draw_surface(vertices, faces, samples, rng)[0]


def draw_surface(
    vertices: np.ndarray, faces: np.ndarray, samples: int, rng: np.random.Generator
) -> tuple[np.ndarray, Drawn]:
    """`sample_surface`, and where the points were drawn."""
    blocks = (faces[start : start + _BLOCK] for start in range(0, len(faces), _BLOCK))
    ends = np.cumsum(np.concatenate([np.zeros(0), *(_areas(vertices, part) for part in blocks)]))
    if not (len(ends) and ends[-1] > 0):
        raise InputError(
            f"expected triangles with some area, got {len(ends)} without; "
            "save the file without faces to use its vertices"
        )
    drawn = np.searchsorted(ends, rng.random(samples) * ends[-1], side="right")
    corners = faces[np.minimum(drawn, len(ends) - 1)]
    a, b, c = _corners(vertices, corners)
    u, v = np.sqrt(rng.random((samples, 1))), rng.random((samples, 1))
    weights = np.concatenate([1 - u, u * (1 - v), u * v], axis=1)
    return (1 - u) * a + u * (1 - v) * b + u * v * c, Drawn(corners, weights)


def _corners(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(3, F, 3) float64."""
    return np.moveaxis(vertices[faces].astype(np.float64), 1, 0)


def _areas(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Twice the area of each triangle (F,)."""
    a, b, c = _corners(vertices, faces)
    return np.linalg.norm(np.cross(b - a, c - a), axis=1)
