"""Features in two or three dimensions: PCA and t-SNE, both the same in every run of a seed.

Shapes: n features, d width.
"""

from __future__ import annotations

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors

REDUCED = 50
"""PCA components that t-SNE reads, where features are wider."""


def tsne(features: np.ndarray, *, perplexity: float, seed: int) -> np.ndarray:
    """Two coordinates (n, 2) of features (n, d), started from PCA.

    Args:
        features: n at least 4.
        perplexity: lowered to a third of n where it is larger.
        seed: of t-SNE.
    """
    found = features.astype(np.float64)
    most = min(REDUCED, *found.shape)
    if found.shape[1] > most:
        found = PCA(most, svd_solver="full").fit_transform(found)
    bounded = min(perplexity, (len(found) - 1) / 3)
    return TSNE(2, perplexity=bounded, init="pca", random_state=seed).fit_transform(found)


def colours(features: np.ndarray) -> np.ndarray:
    """RGB (..., 3) in [0, 1] of features (..., d): three principal components.

    Each is scaled so that its 1st and 99th percentiles become 0 and 1.
    """
    flat = features.reshape(-1, features.shape[-1]).astype(np.float64)
    count = min(3, *flat.shape)
    found = np.zeros((len(flat), 3))
    with np.errstate(invalid="ignore"):  # features that are all equal have no variance to divide
        found[:, :count] = PCA(count, svd_solver="full").fit_transform(flat)
    low, high = np.percentile(found, [1, 99], axis=0)
    scaled = (found - low) / np.maximum(high - low, 1e-12)
    return np.clip(scaled, 0, 1).reshape(*features.shape[:-1], 3)


def agreement(features: np.ndarray, labels: np.ndarray, *, neighbours: int = 10) -> float:
    """Share in [0, 1] of the nearest neighbours of features (n, d) with the same label (n,)."""
    count = min(neighbours, len(features) - 1)
    index = NearestNeighbors(n_neighbors=count).fit(features).kneighbors(return_distance=False)
    return float((labels[index] == labels[:, None]).mean())


def shown_from(
    points: np.ndarray, *, azimuth: float = -55.0, elevation: float = 22.0
) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, 3), z up, seen from above one side in orthographic projection.

    Returns:
        Coordinates (N, 2) in the picture, to the same scale in both directions, and the nearness
        (N,) of each point to the viewer.
    """
    a, e = np.deg2rad(azimuth), np.deg2rad(elevation)
    toward = np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])
    right = np.array([-np.sin(a), np.cos(a), 0.0])
    seen = points @ np.stack([right, np.cross(toward, right), toward]).T
    return seen[:, :2], seen[:, 2]


def upright(points: np.ndarray, up: str) -> np.ndarray:
    """Points (..., 3) turned so that the axis `up` (x, y or z) becomes z."""
    return points[..., {"x": [1, 2, 0], "y": [2, 0, 1], "z": [0, 1, 2]}[up]]
