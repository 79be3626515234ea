"""Encoder, supertoken and head modules for inference, and the builder that makes them.

Every fast module is made of a trained one and is called as that one is.

Shapes: B clouds, N points, c tokens, s supertokens, n tokens encoded, d width.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import repeat
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foundry3d.heads.classifier import ClassHead
from foundry3d.heads.segmenter import PartHead
from foundry3d.inference.kernels import Activation, FastLinear, folded
from foundry3d.models.gate import Gate
from foundry3d.models.supertokens import CAU, FeatureMLP, joined, sliced
from foundry3d.models.tokenizer import Position
from foundry3d.models.upsample import FeatureUpsampling, interpolate
from foundry3d.models.vit import Block, Encoder, Reduce, State

Module = TypeVar("Module", bound=nn.Module)
Factory = Callable[[Any, "Builder"], nn.Module]


@dataclass(frozen=True, kw_only=True)
class Builder:
    """Makes fast modules of one precision and kernel.

    Attributes:
        dtype: the precision of every layer that does not ask for another.
        kernel: a name in `kernels.KERNELS`.
        most_bytes: no temporary of tokenizer or encoder is larger, unless one group or one cloud
            alone needs more.
        factories: how each type of module is made fast.
    """

    dtype: torch.dtype
    kernel: str
    most_bytes: int
    factories: Mapping[type[nn.Module], Factory]

    def layer(
        self,
        weight: Tensor,
        bias: Tensor | None,
        activation: Activation = "none",
        dtype: torch.dtype | None = None,
    ) -> FastLinear:
        """A layer of a weight (o, i) and a bias (o,)."""
        dtype = dtype or self.dtype
        bias = None if bias is None else bias.to(dtype)
        kernel = self.kernel if dtype == self.dtype else "plain"
        return FastLinear(weight.to(dtype), bias, activation=activation, kernel=kernel)

    def linear(self, linear: nn.Linear, activation: Activation = "none") -> FastLinear:
        """The fast form of a linear layer."""
        return self.layer(linear.weight, linear.bias, activation)

    def normed(self, layers: nn.ModuleList, norms: nn.ModuleList) -> list[FastLinear]:
        """The fast form of linear layers that are each followed by BatchNorm and ReLU."""
        pairs: Any = zip(layers, norms, strict=True)
        return [self.layer(*folded(layer, norm), "relu") for layer, norm in pairs]

    def part(self, module: nn.Module) -> nn.Module:
        """The fast form of a module."""
        factory = self.factories.get(type(module))
        return self.inside(module) if factory is None else factory(module, self)

    def inside(self, module: Module) -> Module:
        """A copy of a module in this precision, with the fast form of each of its children."""
        made = copy.deepcopy(module).to(self.dtype)
        for name, child in module.named_children():
            setattr(made, name, self.part(child))
        return made


def fast_position(position: Position, build: Builder) -> nn.Module:
    """A `Position` for inference."""
    first, _, last = position
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    return nn.Sequential(build.linear(first, "gelu"), build.linear(last))


def fast_gate(gate: Gate, build: Builder) -> nn.Module:
    """A `Gate` for inference; its last layer computes in float32, as in the `Gate`."""
    last = build.layer(gate.fc2.weight, gate.fc2.bias, dtype=torch.float32)
    return nn.Sequential(build.linear(gate.fc1, "gelu"), last, nn.Sigmoid(), nn.Flatten(-2))


class FastBlock(nn.Module):
    """A transformer `Block` for inference."""

    def __init__(self, block: Block, build: Builder) -> None:
        super().__init__()
        self.norm1, self.norm2 = build.part(block.norm1), build.part(block.norm2)
        self.attn = build.part(block.attn)
        self.mlp = nn.Sequential(build.linear(block.fc1, "gelu"), build.linear(block.fc2))

    def forward(
        self,
        layer: int,
        state: State,
        reduce: Reduce | None = None,
        generator: torch.Generator | None = None,
    ) -> State:
        """The state after block number `layer`, with `reduce` between attention and MLP."""
        x = state.tokens + state.positions
        mixed, keys = self.attn(self.norm1(x), state.bias, generator)
        state = State(tokens=x + mixed, positions=state.positions, bias=state.bias)
        if reduce is not None:
            state = reduce(layer, state, keys.mean(dim=1))
        x = state.tokens + self.mlp(self.norm2(state.tokens))
        return State(tokens=x, positions=state.positions, bias=state.bias)


class FastEncoder(nn.Module):
    """An `Encoder` for inference that reads as many clouds at a time as its memory limit allows."""

    def __init__(self, encoder: Encoder, build: Builder) -> None:
        super().__init__()
        self.encoder = build.inside(encoder)
        self.most_bytes = build.most_bytes
        hidden = (block.fc1.out_features for block in encoder.blocks if isinstance(block, Block))
        self.widest = max(hidden, default=1)

    @property
    def blocks(self) -> nn.ModuleList:
        """The blocks, in order."""
        return self.encoder.blocks

    @property
    def norm(self) -> nn.LayerNorm | nn.Identity:
        """The final LayerNorm."""
        return self.encoder.norm

    def clouds_at_once(self, tokens: Tensor) -> int:
        """How many clouds of tokens (B, n, d) the memory limit allows."""
        row = tokens[0, :, 0].numel() * tokens.element_size()
        return max(1, self.most_bytes // (row * self.widest))

    def states(self, tokens: Tensor, positions: Tensor, **options: Any) -> list[Tensor]:
        """Output of every block, each (B, n, d); all clouds at once. See `Encoder.states`."""
        return self.encoder.states(tokens, positions, **options)

    def begin(
        self,
        tokens: Tensor,
        positions: Tensor,
        stop: int,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """(B, n, d) after the first `stop` blocks; nothing is drawn."""
        step = self.clouds_at_once(tokens)
        pieces = zip(tokens.split(step), positions.split(step), strict=True)
        return torch.cat([self.encoder.begin(x, at, stop) for x, at in pieces])

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor,
        *,
        bias: Tensor | None = None,
        reduce: Reduce | None = None,
        generator: torch.Generator | None = None,
        start: int = 0,
    ) -> Tensor:
        """Encoded tokens (B, n, d), from block `start` on; `reduce` sees all clouds at once."""
        step = self.clouds_at_once(tokens)
        if reduce is not None or step >= len(tokens):
            return self.encoder(tokens, positions, bias=bias, reduce=reduce, start=start)
        biases = repeat(None) if bias is None else bias.split(step)
        pieces = zip(tokens.split(step), positions.split(step), biases, strict=False)
        return torch.cat([self.encoder(x, at, bias=hide, start=start) for x, at, hide in pieces])


def fast_feature_mlp(mlp: FeatureMLP, build: Builder) -> nn.Module:
    """A `FeatureMLP` for inference."""
    norm = nn.Identity() if mlp.norm is None else build.part(mlp.norm)
    return nn.Sequential(build.linear(mlp.fc1, "gelu"), build.linear(mlp.fc2), norm)


class FastCAU(nn.Module):
    """A `CAU` for inference."""

    def __init__(self, cau: CAU, build: Builder) -> None:
        super().__init__()
        self.heads = cau.heads
        self.mlp = fast_feature_mlp(cau, build)

    def forward(self, tokens: Tensor, cam: Tensor, encoded: Tensor) -> Tensor:
        """Features (B, c, d) of tokens (B, c, d), their map and supertokens (B, s, d)."""
        return self.mlp(tokens + joined(cam @ sliced(encoded, self.heads), self.heads))


class FastClassHead(nn.Module):
    """A `ClassHead` for inference."""

    def __init__(self, head: ClassHead, build: Builder) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *build.normed(head.hidden, head.norms), build.linear(head.output)
        )

    def forward(self, pooled: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Logits (B, C) of pooled features (B, 2d); nothing is drawn."""
        return self.layers(pooled)


class FastUpsampling(nn.Module):
    """A `FeatureUpsampling` for inference."""

    def __init__(self, upsampling: FeatureUpsampling, build: Builder) -> None:
        super().__init__()
        self.layers = nn.Sequential(*build.normed(upsampling.convs, upsampling.norms))

    def forward(self, points: Tensor, centers: Tensor, features: Tensor) -> Tensor:
        """(B, N, width) at points (B, N, 3) from features (B, c, d) at centers (B, c, 3)."""
        return self.layers(torch.cat([points, interpolate(points, centers, features)], dim=-1))


class FastPartHead(nn.Module):
    """A `PartHead` for inference."""

    def __init__(self, head: PartHead, build: Builder) -> None:
        super().__init__()
        self.categories = head.categories
        if self.categories > 1:
            self.label = build.layer(*folded(head.label, head.label_norm))
        self.upsampling = build.part(head.upsampling)
        first = head.norms[0]  # follows the sum of `local` and `whole`
        assert isinstance(first, nn.BatchNorm1d)
        self.local = build.layer(*folded(head.local, first))
        self.whole = build.layer(folded(head.whole, first)[0], None)
        hidden = build.normed(head.convs, head.norms[1:])
        self.layers = nn.Sequential(nn.ReLU(), *hidden, build.linear(head.out))

    def forward(
        self,
        points: Tensor,
        centers: Tensor,
        features: Tensor,
        categories: Tensor,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Logits (B, N, P) of points (B, N, 3) from features (B, c, d) at centers (B, c, 3)."""
        pooled = [features.amax(dim=1), features.mean(dim=1)]
        if self.categories > 1:
            chosen = F.one_hot(categories, self.categories).to(features.dtype)
            pooled.append(F.leaky_relu(self.label(chosen), 0.2))
        whole = self.whole(torch.cat(pooled, dim=-1))
        return self.layers(self.local(self.upsampling(points, centers, features)) + whole[:, None])
