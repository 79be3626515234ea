"""From token features to point features: interpolation from the three nearest centers, layers.

Shapes: B clouds, N points, c tokens, d token width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from foundry3d.geometry import gather, nearest_neighbors
from foundry3d.geometry.opaque import traced
from foundry3d.models.tokenizer import PointConv

MOST_SHARES = 2**25
"""Up to this many weights (B x N x c), `interpolate` multiplies by a dense matrix of weights, which
is faster than gathering; its gradient is several times faster."""


def nearest_shares(points: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
    """The three centers (B, c, 3) nearest to points (B, N, 3), and their weights.

    Returns:
        Indices and weights (B, N, 3); the weights of a point sum to one.
    """
    index = nearest_neighbors(points, centers, min(3, centers.shape[1]))
    squared = (gather(centers, index) - points[:, :, None]).square().sum(-1)
    weight = 1 / (squared + 1e-8)
    return index, weight / weight.sum(dim=-1, keepdim=True)


def interpolate(points: Tensor, centers: Tensor, features: Tensor) -> Tensor:
    """Features (B, N, d) at points (B, N, 3) from features (B, c, d) at centers (B, c, 3).

    Means over the three nearest centers (all if there are fewer), weighted by inverse squared
    distance (PointNet++).
    """
    index, weight = nearest_shares(points, centers)
    weight = weight.to(features.dtype)
    shape = *index.shape[:2], centers.shape[1]
    if traced(points) or math.prod(shape) > MOST_SHARES:
        return (gather(features, index) * weight[..., None]).sum(dim=2)
    return features.new_zeros(shape).scatter(2, index, weight) @ features


class FeatureUpsampling(nn.Module):
    """Points' coordinates and interpolated features, through conv-BatchNorm-ReLU layers.

    Args:
        dim: d of the token features.
        widths: of the layers; the last one is the width of the output.
    """

    def __init__(self, dim: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        inputs = (dim + 3, *widths[:-1])
        self.convs = nn.ModuleList(
            PointConv(a, b, bias=False) for a, b in zip(inputs, widths, strict=True)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for width in widths)

    def forward(self, points: Tensor, centers: Tensor, features: Tensor) -> Tensor:
        """(B, N, widths[-1]) of points (B, N, 3), centers (B, c, 3), features (B, c, d)."""
        x = torch.cat([points, interpolate(points, centers, features)], dim=-1)
        batch, count, _ = x.shape
        x = x.flatten(0, 1)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = torch.relu(norm(conv(x)))
        return x.view(batch, count, -1)
