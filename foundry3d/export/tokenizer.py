"""Tokenizers as they are exported: merged algebra (`docs/method.md`) in operators of any runtime.

The layers are those of `foundry3d.compile`; what computes them can be recorded for any number of
clouds and points.

Shapes: B clouds, c tokens, k points per group, d width.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

from foundry3d.inference.kernels import folded
from foundry3d.inference.tokenizers import merged
from foundry3d.models.tokenizer import SingleStage, Tokenizer

Module = TypeVar("Module", bound=nn.Module)


class MergedTokenizer(nn.Module):
    """A `Tokenizer` in evaluation mode with fewer products.

    Args:
        tokenizer: it stays as it is.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        layers = merged(tokenizer)
        self.lift = linear(*folded(tokenizer.lift, tokenizer.lift_norm))
        self.widen = tokenizer.widen
        self.group = linear(layers.group, layers.offset)
        self.point = linear(layers.point)
        self.project, self.bridge = tokenizer.project, tokenizer.bridge

    def forward(self, neighborhoods: Tensor) -> Tensor:
        """Tokens (B, c, d) of neighborhoods (B, c, k, 3)."""
        batch, tokens, size, channels = neighborhoods.shape
        x = self.lift(neighborhoods.reshape(-1, channels)).relu()
        group = self.group(self.widen(x).view(batch * tokens, size, -1).amax(dim=1))
        x = self.point(x).view(batch * tokens, size, -1) + group[:, None]
        x = self.project(x.relu().flatten(0, 1))
        return self.bridge(x.view(batch, tokens, size, -1).amax(dim=2))


class MergedSingleStage(nn.Module):
    """A `SingleStage` in evaluation mode without BatchNorm.

    Args:
        tokenizer: it stays as it is.
    """

    def __init__(self, tokenizer: SingleStage) -> None:
        super().__init__()
        self.lift = linear(*folded(tokenizer.lift, tokenizer.lift_norm))
        self.widen, self.project = tokenizer.widen, tokenizer.project

    def forward(self, neighborhoods: Tensor) -> Tensor:
        """Tokens (B, c, d) of neighborhoods (B, c, k, 3)."""
        x = self.widen(self.lift(neighborhoods.flatten(0, 2)).relu())
        return self.project(x.view(*neighborhoods.shape[:3], -1).amax(dim=2))


def linear(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    """A layer of a weight (o, i) and a bias (o,), in float32."""
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    with torch.no_grad():
        made.weight.copy_(weight)
        if bias is not None:
            made.bias.copy_(bias)
    return made


def with_merged_tokenizers(module: Module) -> Module:
    """A copy of a module in evaluation mode whose tokenizers have fewer products."""
    made = copy.deepcopy(module)
    for part in list(made.modules()):
        for name, child in part.named_children():
            if isinstance(child, Tokenizer):
                setattr(part, name, MergedTokenizer(child))
            elif isinstance(child, SingleStage):
                setattr(part, name, MergedSingleStage(child))
    return made.eval()
