"""One feature for every point of a scene, in chunks that never hold all N x d numbers.

Shapes: N points, n points of a chunk, c tokens, d width.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from foundry3d.models.upsample import nearest_shares
from foundry3d.scenes.memory import FLOAT, MOST_TEMPORARY
from foundry3d.scenes.scene import Walk, quietly

SEARCHED = 2**17
"""How many points are searched for their nearest centers together."""


@torch.no_grad()
def dense_features(
    points: Tensor, centers: Tensor, features: Tensor, *, walk: Walk = quietly
) -> Iterator[Tensor]:
    """`upsample.interpolate` in chunks, in the order of the points.

    Args:
        points: (1, N, 3), not necessarily those of the scene.
        centers: (1, c, 3) in the same coordinates.
        features: (1, c, d).
        walk: iterates over blocks of points.

    Yields:
        (n, d) features of the next n points, at most a quarter of `MOST_TEMPORARY`.
    """
    most = max(1, MOST_TEMPORARY // (4 * FLOAT * features.shape[-1]))
    for block in walk(points.split(SEARCHED, dim=1), "interpolated"):
        index, weight = nearest_shares(block, centers)
        for rows, shares in zip(index[0].split(most), weight[0].split(most), strict=True):
            yield F.embedding_bag(
                rows, features[0], per_sample_weights=shares.to(features.dtype), mode="sum"
            )
