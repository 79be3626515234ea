"""Normals of a surface from its points alone: the direction in which neighbours spread least.

Shapes: N points, k neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from foundry3d.errors import InputError
from foundry3d.geometry.ops import build_trees, check_points, nearest_neighbors

NEIGHBORS = 16
BLOCK = 2**16
"""Points whose neighbours are held at a time."""


def estimate_normals(
    points: np.ndarray | Tensor,
    neighbors: int = NEIGHBORS,
    viewpoint: Sequence[float] | None = None,
) -> np.ndarray:
    """Unit normals of a cloud by principal component analysis of each point's neighbours.

    Args:
        points: (N, 3) finite real numbers, in any unit.
        neighbors: k, points that span each plane, the point itself included; 3 to N. More of them
            smooth noise and edges.
        viewpoint: (x, y, z) that all normals face, e.g. where the scanner stood; None = they face
            away from the mean of the points, as for a scanned object.

    Returns:
        (N, 3) float32.

    Raises:
        InputError: another shape, NaN or infinite coordinates, neighbors outside 3..N, or a
            viewpoint that is not three finite numbers.
    """
    cloud = torch.as_tensor(points).detach().cpu()
    if cloud.ndim != 2 or cloud.shape[-1] != 3:
        raise InputError(f"expected points of shape (N, 3), got {tuple(cloud.shape)}")
    cloud = cloud.to(torch.float64)
    middle = cloud.mean(dim=0)
    cloud = cloud - middle
    check_points(cloud[None])
    size = len(cloud)
    if not 3 <= neighbors <= size:
        raise InputError(f"neighbors must lie in 3..{size} (the points), got {neighbors}")
    exact = cloud.float()[None]
    trees = build_trees(exact)
    found = torch.empty(size, 3, dtype=torch.float64)
    for rows in torch.arange(size).split(BLOCK):
        index = nearest_neighbors(exact[:, rows], exact, neighbors, trees=trees)[0]
        found[rows] = _flattest(cloud[index])
    return _facing(found, cloud, _target(viewpoint, middle)).float().numpy()


def _flattest(near: Tensor) -> Tensor:
    """The direction (n, 3) of least spread of each of n sets of points (n, k, 3)."""
    spread = near - near.mean(dim=1, keepdim=True)
    return torch.linalg.eigh(spread.mT @ spread).eigenvectors[..., 0]


def _target(viewpoint: Sequence[float] | None, middle: Tensor) -> Tensor | None:
    """The viewpoint relative to the mean of the points."""
    if viewpoint is None:
        return None
    place = torch.as_tensor(viewpoint, dtype=torch.float64)
    if place.shape != (3,) or not bool(place.isfinite().all()):
        raise InputError(f"expected a viewpoint of three finite numbers, got {viewpoint}")
    return place - middle


def _facing(normals: Tensor, points: Tensor, viewpoint: Tensor | None) -> Tensor:
    """Normals (N, 3) turned to a viewpoint, or away from the origin where there is none."""
    outward = points if viewpoint is None else viewpoint - points
    away = (normals * outward).sum(dim=1, keepdim=True) < 0
    return torch.where(away, -normals, normals)
