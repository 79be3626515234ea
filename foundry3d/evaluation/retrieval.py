"""Retrieval: how early the clouds of the same class come among all others.

Shapes: n clouds, d width of their features.
"""

from __future__ import annotations

import numpy as np

from foundry3d.errors import InputError

QUERIES_AT_ONCE = 256


def retrieval_map(features: np.ndarray, labels: np.ndarray) -> float:
    """Mean average precision in [0, 1] where every cloud queries all others by cosine.

    The average precision of a query is the mean, over the clouds of its class, of the share of its
    class among the clouds up to that one (the earlier index first where similarities are equal).
    Clouds that are alone in their class are searched but do not query.

    Args:
        features: (n, d), one row per cloud.
        labels: (n,) integer classes.

    Raises:
        InputError: not one label for each cloud, or no two clouds share a class.
    """
    if features.ndim != 2 or labels.shape != features.shape[:1]:
        raise InputError(
            f"expected features (n, d) and labels (n,), got {features.shape} and {labels.shape}"
        )
    lengths = np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
    unit = features / np.maximum(lengths, 1e-12)
    found = [
        value
        for first in range(0, len(unit), QUERIES_AT_ONCE)
        for value in _precisions(unit, labels, np.arange(len(unit))[first:][:QUERIES_AT_ONCE])
    ]
    if not found:
        raise InputError("retrieval needs two clouds of the same class, got none")
    return float(np.mean(found))


def _precisions(unit: np.ndarray, labels: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Average precisions of the queries that share their class with another cloud."""
    near = unit[queries] @ unit.T
    near[np.arange(len(queries)), queries] = -np.inf  # itself comes last and is cut off
    order = np.argsort(-near, axis=1, kind="stable")[:, :-1]
    same = labels[order] == labels[queries][:, None]
    same = same[same.any(axis=1)]
    share = np.cumsum(same, axis=1) / np.arange(1, same.shape[1] + 1)
    return (share * same).sum(axis=1) / same.sum(axis=1)
