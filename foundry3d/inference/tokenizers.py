"""Tokenizers for inference: fewer products than in training, a few groups at a time.

Shapes: B clouds, c tokens, k points per group, R groups of a piece, d width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from foundry3d.inference.kernels import folded
from foundry3d.inference.parts import Builder
from foundry3d.models.tokenizer import SingleStage, Tokenizer


class MergedLayers(NamedTuple):
    """What stands for the third layer of a `Tokenizer`, and the second layer before it, float64.

    Attributes:
        group: weight (o, i) of what a group's maximum adds, once per group.
        offset: its bias (o,).
        point: weight (o, h) of what each point adds, which reads the first layer.
    """

    group: Tensor
    offset: Tensor
    point: Tensor


def merged(tokenizer: Tokenizer) -> MergedLayers:
    """The third layer of a tokenizer in evaluation mode, with fewer products.

    It reads the concatenation of a group's maximum and each of its points. The half of its weights
    that meets the maximum is applied once per group. The other half follows the second layer with
    no nonlinearity in between, so both are one product.
    """
    weight, bias = (part.double() for part in folded(tokenizer.mix, tokenizer.mix_norm))
    inner, offset = tokenizer.widen.weight.double(), tokenizer.widen.bias.double()
    for_group, for_point = weight.split(tokenizer.widen.out_features, dim=1)
    return MergedLayers(for_group, bias + for_point @ offset, for_point @ inner)


class FastTokens(nn.Module, ABC):
    """A tokenizer for inference that reads as many groups at a time as its memory limit allows.

    Args:
        widest: width of its largest temporary, which has a row for each of the R k points.
        width: width of its tokens before `bridge`.
        bridge: brings all tokens to the width of the encoder.
        build: makes the layers.
    """

    def __init__(self, widest: int, width: int, bridge: nn.Module, build: Builder) -> None:
        super().__init__()
        self.row_bytes = widest * build.dtype.itemsize
        self.width, self.bridge = width, bridge
        self.dtype, self.most_bytes = build.dtype, build.most_bytes

    def forward(self, neighborhoods: Tensor) -> Tensor:
        """Tokens (B, c, d) of neighborhoods (B, c, k, 3)."""
        batch, tokens, size, _ = neighborhoods.shape
        step = max(1, self.most_bytes // (size * self.row_bytes))
        groups = neighborhoods.flatten(0, 1)
        found = groups.new_empty(batch * tokens, self.width, dtype=self.dtype)
        for piece, out in zip(groups.split(step), found.split(step), strict=True):
            self.write(piece.flatten(0, 1), out, size)
        return self.bridge(found.view(batch, tokens, -1))

    @abstractmethod
    def write(self, points: Tensor, out: Tensor, size: int) -> None:
        """Writes to `out` (R, width) the tokens of R groups.

        Args:
            points: (R k, 3), group after group.
            out: (R, width), before `bridge`.
            size: k.
        """


class FastTokenizer(FastTokens):
    """A `Tokenizer` for inference, its second and third layer `merged`."""

    def __init__(self, tokenizer: Tokenizer, build: Builder) -> None:
        widest = max(tokenizer.widen.out_features, tokenizer.mix.out_features)
        bridge = build.part(tokenizer.bridge)
        super().__init__(widest, tokenizer.project.out_features, bridge, build)
        lift = folded(tokenizer.lift, tokenizer.lift_norm)
        self.lift = build.layer(*lift, "relu", torch.float32)  # coordinates keep their precision
        self.widen = build.linear(tokenizer.widen)
        layers = merged(tokenizer)
        self.group = build.layer(layers.group, layers.offset)
        self.point = build.layer(layers.point, None)
        self.project = build.linear(tokenizer.project)

    def write(self, points: Tensor, out: Tensor, size: int) -> None:
        """Writes to `out` (R, width) the tokens of R groups of `size` points (R k, 3)."""
        lifted = self.lift(points)
        group = self.group(self.widen(lifted).view(len(out), size, -1).amax(dim=1))
        mixed = self.point(lifted).view(len(out), size, -1)
        mixed.add_(group[:, None]).relu_()
        torch.amax(self.project(mixed.flatten(0, 1)).view(len(out), size, -1), dim=1, out=out)


class FastSingleStage(FastTokens):
    """A `SingleStage` tokenizer for inference."""

    def __init__(self, tokenizer: SingleStage, build: Builder) -> None:
        width = tokenizer.widen.out_features
        widest = max(width, tokenizer.lift.out_features)
        super().__init__(widest, width, build.linear(tokenizer.project), build)
        lift = folded(tokenizer.lift, tokenizer.lift_norm)
        self.lift = build.layer(*lift, "relu", torch.float32)  # coordinates keep their precision
        self.widen = build.linear(tokenizer.widen)

    def write(self, points: Tensor, out: Tensor, size: int) -> None:
        """Writes to `out` (R, width) the maxima over R groups of `size` points (R k, 3)."""
        widened = self.widen(self.lift(points))
        torch.amax(widened.view(len(out), size, -1), dim=1, out=out)
