"""Clouds and meshes as other libraries hold them: their points as plain arrays.

Nothing is imported for this: objects are recognised by the attributes that their libraries
document. trimesh: `vertices` and `faces`. Open3D: `points`, or `vertices` and `triangles`, and in
its tensor forms `point.positions`, or `vertex.positions` and `triangle.indices`.

Shapes: N points, V vertices, F triangles.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from foundry3d.config import EmbedConfig
from foundry3d.data.surface import sample_surface
from foundry3d.errors import InputError

SAMPLES = EmbedConfig.samples
"""Points that are drawn from the surface of a mesh, as `foundry3d embed` does."""
MESHES = (
    (("vertex", "positions"), ("triangle", "indices")),
    (("vertices",), ("faces",)),
    (("vertices",), ("triangles",)),
)
CLOUDS = (("point", "positions"), ("points",), ("vertices",))


def _attribute(value: Any, names: tuple[str, ...]) -> Any:
    """The value of nested attributes; None if one is missing."""
    for name in names:
        value = getattr(value, name, None)
    return value


def _array(values: Any) -> np.ndarray:
    """Values of an array, or of a tensor of another library on any device."""
    for name in ("cpu", "numpy"):
        convert = getattr(values, name, None)
        values = convert() if callable(convert) else values
    return np.asarray(values)


def points_of(cloud: object, source: str, *, seed: int, samples: int = SAMPLES) -> object:
    """The points of an object of another library; anything else as it is.

    Args:
        cloud: an object that holds a cloud or a mesh, an array, a tensor or rows.
        source: its name in messages.
        seed: of the points that are drawn from a mesh, evenly by area.
        samples: how many are drawn.

    Returns:
        Points (N, 3), or the cloud.

    Raises:
        InputError: a mesh whose triangles are not (F, 3) indices of its vertices, or have no area.
    """
    if isinstance(cloud, np.ndarray | Tensor | list | tuple):
        return cloud
    for points, corners in MESHES:
        vertices, faces = _attribute(cloud, points), _attribute(cloud, corners)
        if vertices is not None and faces is not None and len(faces):
            return _sampled(_array(vertices), _array(faces), source, seed, samples)
    found = (_attribute(cloud, names) for names in CLOUDS)
    held = next((values for values in found if values is not None), None)
    return cloud if held is None else _array(held)


def _sampled(
    vertices: np.ndarray, faces: np.ndarray, source: str, seed: int, samples: int
) -> np.ndarray:
    """Points (N, 3) drawn from triangles (F, 3) of vertices (V, 3)."""
    right = vertices.ndim == faces.ndim == 2 and vertices.shape[1] == faces.shape[1] == 3
    if not (right and faces.dtype.kind in "iu" and 0 <= faces.min() <= faces.max() < len(vertices)):
        raise InputError(
            f"{source}: expected vertices (V, 3) and triangles (F, 3) of their indices, got "
            f"{vertices.shape} and {faces.dtype} of shape {faces.shape}"
        )
    if not np.isfinite(vertices).all():
        raise InputError(f"{source}: expected finite vertices, got NaN or infinite ones")
    try:
        return sample_surface(vertices, faces, samples, np.random.default_rng(seed))
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
