"""From points to tokens and positions: grouping, mini-PointNet, position MLP (section 3.1).

Shapes: B clouds, N points, c tokens, k points per group, d token width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foundry3d.config import BackboneConfig
from foundry3d.errors import InputError
from foundry3d.geometry import Groups, check_points, draw_start, group_points
from foundry3d.models.attributes import dropped, encoded
from foundry3d.models.budget import Budget
from foundry3d.models.tokens import Tokens
from foundry3d.models.vit import Encoder


class PointModel(nn.Module):
    """The front of teacher and student: points to groups, groups to tokens and positions.

    Args:
        shape: sizes.
    """

    encoder: Encoder

    def __init__(self, shape: BackboneConfig) -> None:
        super().__init__()
        width = shape.token_dim or shape.dim
        self.shape = shape
        self.tokenizer = tokenizer_of(
            width,
            shape.point_widths,
            channels=shape.point_channels,
            bias=shape.point_bias,
            inner_dim=shape.tokenizer_dim,
        )
        self.position = Position(width, shape.position_dim)
        bridged = width != shape.dim
        self.token_bridge = nn.Linear(width, shape.dim) if bridged else nn.Identity()
        self.position_bridge = nn.Linear(width, shape.dim) if bridged else nn.Identity()

    @property
    def some_weight(self) -> Tensor:
        """A weight, on the device and in the precision of the others."""
        bias = self.position[-1].bias
        assert isinstance(bias, Tensor)
        return bias

    def group(
        self,
        points: Tensor,
        *,
        generator: torch.Generator | None = None,
        group_size: int | None = None,
        drawn: bool = True,
        like: BackboneConfig | None = None,
    ) -> Groups:
        """Groups of points (B, N, 3): c centers by farthest point sampling, k nearest points each.

        Sampling starts at index 0; in training mode at a random point of each cloud.

        Args:
            points: (B, N, 3), or (B, N, 3 + m) with the model's attributes.
            generator: source of the starts in training mode; None = torch's default one.
            group_size: k; None = the model's own.
            drawn: False = sampling starts at index 0 in training mode too.
            like: sizes of the model whose attributes the groups have; None = the model's own.

        Raises:
            InputError: `geometry.check_points` or `attributes.encoded` refuses the points, or they
                are on another device or of another precision than the weights.
        """
        read = like or self.shape
        points, start = encoded(points, read), None
        extra = read.point_channels - 3
        if self.training and drawn:
            check_points(points, attributes=extra)
            start = draw_start(*points.shape[:2], device=points.device, generator=generator)
        shape = self.shape
        size = shape.group_size if group_size is None else group_size
        groups = group_points(
            points, shape.groups, size, start=start, radius=shape.radius, attributes=extra
        )
        check_kind(points, self.some_weight)
        return groups

    def encode(
        self,
        groups: Groups,
        *,
        tokens: Tensor | None = None,
        budget: Budget | None = None,
        generator: torch.Generator | None = None,
    ) -> Tokens:
        """`forward` for points that are grouped already."""
        found: Tokens = self.forward(groups, tokens=tokens, budget=budget, generator=generator)
        return found

    def tokenize(self, groups: Groups, generator: torch.Generator | None = None) -> Tensor:
        """Tokens (B, c, token width) of groups; in training mode attributes may be dropped.

        Args:
            groups: of B clouds, with the model's attributes.
            generator: source of these draws; None = torch's default one.
        """
        near = groups.neighborhoods
        if self.training and self.shape.attributes and self.shape.attribute_dropout:
            near = dropped(near, self.shape, generator)
        tokens: Tensor = self.tokenizer(near)
        return tokens

    def embed_groups(
        self,
        groups: Groups,
        tokens: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Tokens and positions (B, c, d) of groups, at the encoder's width.

        Args:
            groups: of B clouds.
            tokens: (B, c, token width), the tokenizer's output where it exists already.
            generator: source of the draws in training mode; see `tokenize`.
        """
        if tokens is None:
            tokens = self.tokenize(groups, generator)
        return self.token_bridge(tokens), self.embed_centers(groups.centers)

    def embed_centers(self, centers: Tensor) -> Tensor:
        """Positions (B, c, d) of centers (B, c, 3), at the encoder's width."""
        positions: Tensor = self.position_bridge(self.position(centers))
        return positions


def check_kind(points: Tensor, weight: Tensor) -> None:
    """Refuses points that the layers of a model could not be applied to.

    Raises:
        InputError: another device than the weight's, or a floating-point type that does not go
            with the weight's outside autocast.
    """
    if points.device != weight.device:
        raise InputError(
            f"the points are on {points.device}, the model on {weight.device}; move one of them"
        )
    kind = points.device.type
    single = points.dtype == torch.float32 and weight.dtype != torch.float64
    cast = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    if points.dtype == weight.dtype or single or cast:
        return
    raise InputError(
        f"the points are {points.dtype}, the weights {weight.dtype}; convert the points, e.g. "
        "points.float()"
    )


class PointConv(nn.Linear):
    """A 1x1 convolution over points, channels last: (..., in) to (..., out)."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., out) of x (..., in) of any precision, in the precision of the weights."""
        return super().forward(x.to(self.weight.dtype))


class GroupConv(PointConv):
    """A 1x1 convolution over each point with its group's maximum concatenated in front.

    The weights for the maximum are applied once per group instead of once per point; the result
    is the same.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(R, k, out) of groups x (R, k, in / 2)."""
        half = x.shape[-1]
        once = F.linear(x.amax(dim=1), self.weight[:, :half], self.bias)
        return F.linear(x, self.weight[:, half:]) + once[:, None]


class Tokenizer(nn.Module):
    """Mini-PointNet of Point-BERT and Point-JEPA (`docs/method.md`, "Tokenizer").

    Per point 3, or more channels, -> w1, BatchNorm, ReLU, w1 -> w2; the group's maximum in front;
    2*w2 -> w3, BatchNorm, ReLU, w3 -> dim; maximum over the group.

    Args:
        dim: d, width of the tokens.
        widths: (w1, w2, w3).
        channels: numbers that are read of each point.
        bias: biases on the convolutions that BatchNorm follows.
        inner_dim: width after the maximum, from which a Linear leads to dim (Point-BERT); None =
            dim, without that Linear.
    """

    def __init__(
        self,
        dim: int,
        widths: tuple[int, int, int],
        *,
        channels: int = 3,
        bias: bool = False,
        inner_dim: int | None = None,
    ) -> None:
        super().__init__()
        first, second, third = widths
        self.lift = PointConv(channels, first, bias=bias)
        self.lift_norm = nn.BatchNorm1d(first)
        self.lift_relu = nn.ReLU()
        self.widen = PointConv(first, second)
        self.mix = GroupConv(2 * second, third, bias=bias)
        self.mix_norm = nn.BatchNorm1d(third)
        self.mix_relu = nn.ReLU()
        self.project = PointConv(third, inner_dim or dim)
        self.bridge = nn.Linear(inner_dim, dim) if inner_dim else nn.Identity()

    def forward(self, neighborhoods: Tensor) -> Tensor:
        """Tokens (B, c, d) of neighborhoods (B, c, k, channels), in the weights' precision."""
        batch, tokens, size, channels = neighborhoods.shape
        x = neighborhoods.reshape(-1, channels)
        x = self.widen(self.lift_relu(self.lift_norm(self.lift(x))))
        x = self.mix(x.view(batch * tokens, size, -1)).flatten(0, 1)
        x = self.project(self.mix_relu(self.mix_norm(x)))
        return self.bridge(x.view(batch, tokens, size, -1).amax(dim=2))


class SingleStage(nn.Module):
    """A lighter mini-PointNet with a single maximum over the group.

    Per point 3 -> w1, BatchNorm, ReLU, w1 -> w2; maximum over the group; per token w2 -> dim.

    Args:
        dim: d, width of the tokens.
        widths: (w1, w2).
        channels: numbers that are read of each point.
        bias: a bias on the convolution that BatchNorm follows.
    """

    def __init__(
        self, dim: int, widths: tuple[int, int], *, channels: int = 3, bias: bool = False
    ) -> None:
        super().__init__()
        first, second = widths
        self.lift = PointConv(channels, first, bias=bias)
        self.lift_norm = nn.BatchNorm1d(first)
        self.lift_relu = nn.ReLU()
        self.widen = PointConv(first, second)
        self.project = nn.Linear(second, dim)

    def forward(self, neighborhoods: Tensor) -> Tensor:
        """Tokens (B, c, d) of neighborhoods (B, c, k, 3)."""
        x = self.lift_norm(self.lift(neighborhoods.flatten(0, 2)))
        x = self.widen(self.lift_relu(x))
        return self.project(x.view(*neighborhoods.shape[:3], -1).amax(dim=2))


def tokenizer_of(
    dim: int,
    widths: Sequence[int],
    *,
    channels: int = 3,
    bias: bool = False,
    inner_dim: int | None = None,
) -> Tokenizer | SingleStage:
    """A `Tokenizer` for three widths, a `SingleStage` (without inner_dim) for two."""
    if len(widths) == 2:
        return SingleStage(dim, (widths[0], widths[1]), channels=channels, bias=bias)
    first, second, third = widths
    return Tokenizer(dim, (first, second, third), channels=channels, bias=bias, inner_dim=inner_dim)


class Position(nn.Sequential):
    """Position embeddings (B, c, d) of centers (B, c, 3): Linear, GELU, Linear."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__(nn.Linear(3, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, centers: Tensor) -> Tensor:
        """Embeddings (B, c, d) of centers (B, c, 3), in the precision of the weights."""
        return super().forward(centers.to(next(self.parameters()).dtype))
