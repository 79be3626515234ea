"""Point groups to tokens (mini-PointNet) and centers to positions.

Shapes: B clouds, c tokens, k points a group, d token width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class PointConv(nn.Linear):
    """A 1x1 convolution over points of any precision, channels last: (..., in) to (..., out)."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., out) of x (..., in), in the precision of the weights."""
        return super().forward(x.to(self.weight.dtype))


class GroupConv(PointConv):
    """A 1x1 convolution over each point with its group's maximum concatenated in front.

    The half of the weights that meets the maximum is applied once a group instead of once a
    point; the function is that of the plain form.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(R, k, out) of groups x (R, k, in / 2)."""
        half = x.shape[-1]
        once = F.linear(x.amax(dim=1), self.weight[:, :half], self.bias)
        return F.linear(x, self.weight[:, half:]) + once[:, None]


class Tokenizer(nn.Module):
    """Mini-PointNet of Point-BERT and Point-JEPA (`docs/method.md`, "Tokenizer").

    Per point 3 -> w1, BatchNorm, ReLU, w1 -> w2; the group's maximum concatenated in front;
    2*w2 -> w3, BatchNorm, ReLU, w3 -> dim; maximum over the group.

    Args:
        dim: d, width of the tokens.
        widths: (w1, w2, w3).
        bias: biases on the convolutions that BatchNorm follows.
        inner_dim: width after the maximum, brought to dim by a Linear (Point-BERT); None = dim
            itself and no such Linear.
    """

    def __init__(
        self,
        dim: int,
        widths: tuple[int, int, int],
        *,
        bias: bool = False,
        inner_dim: int | None = None,
    ) -> None:
        super().__init__()
        first, second, third = widths
        self.lift = PointConv(3, first, bias=bias)
        self.lift_norm = nn.BatchNorm1d(first)
        self.lift_relu = nn.ReLU()
        self.widen = PointConv(first, second)
        self.mix = GroupConv(2 * second, third, bias=bias)
        self.mix_norm = nn.BatchNorm1d(third)
        self.mix_relu = nn.ReLU()
        self.project = PointConv(third, inner_dim or dim)
        self.bridge = nn.Linear(inner_dim, dim) if inner_dim else nn.Identity()

    def forward(self, neighborhoods: Tensor) -> Tensor:
        """Tokens (B, c, d) of neighborhoods (B, c, k, 3) of any precision, in the weights' own."""
        batch, tokens, size, _ = neighborhoods.shape
        x = neighborhoods.reshape(-1, 3)
        x = self.widen(self.lift_relu(self.lift_norm(self.lift(x))))
        x = self.mix(x.view(batch * tokens, size, -1)).flatten(0, 1)
        x = self.project(self.mix_relu(self.mix_norm(x)))
        return self.bridge(x.view(batch, tokens, size, -1).amax(dim=2))


class SingleStage(nn.Module):
    """A lighter mini-PointNet: its points meet once, in one maximum over the group.

    Per point 3 -> w1, BatchNorm, ReLU, w1 -> w2; maximum over the group; once a token w2 -> dim.

    Args:
        dim: d, width of the tokens.
        widths: (w1, w2).
        bias: a bias on the convolution that BatchNorm follows.
    """

    def __init__(self, dim: int, widths: tuple[int, int], *, bias: bool = False) -> None:
        super().__init__()
        first, second = widths
        self.lift = PointConv(3, first, bias=bias)
        self.lift_norm = nn.BatchNorm1d(first)
        self.lift_relu = nn.ReLU()
        self.widen = PointConv(first, second)
        self.project = nn.Linear(second, dim)

    def forward(self, neighborhoods: Tensor) -> Tensor:
        """Tokens (B, c, d) of neighborhoods (B, c, k, 3)."""
        x = self.lift_norm(self.lift(neighborhoods.reshape(-1, 3)))
        x = self.widen(self.lift_relu(x))
        return self.project(x.view(*neighborhoods.shape[:3], -1).amax(dim=2))


def tokenizer_of(
    dim: int, widths: Sequence[int], *, bias: bool = False, inner_dim: int | None = None
) -> Tokenizer | SingleStage:
    """The `Tokenizer` of three widths or the `SingleStage` of two, which has no inner_dim."""
    if len(widths) == 2:
        return SingleStage(dim, (widths[0], widths[1]), bias=bias)
    first, second, third = widths
    return Tokenizer(dim, (first, second, third), bias=bias, inner_dim=inner_dim)


class Position(nn.Sequential):
    """Position embeddings (B, c, d) of centers (B, c, 3): Linear, GELU, Linear."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__(nn.Linear(3, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, centers: Tensor) -> Tensor:
        """Embeddings (B, c, d) of centers (B, c, 3) of any precision, in that of the weights."""
        return super().forward(centers.to(next(self.parameters()).dtype))
