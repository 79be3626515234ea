"""The transformer encoder: pre-norm blocks, positions added before every block, one reduce hook.

Shapes: B clouds, n tokens, d width, h heads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foundry3d.config import BackboneConfig


@dataclass(frozen=True, kw_only=True)
class State:
    """The input and output of a block.

    Attributes:
        tokens: (B, n, d) without position.
        positions: (B, n, d), added before every block.
        bias: (B, n) added to the attention logits of each key: -inf hides a token, log(size)
            makes attention proportional to size. None = no bias.
    """

    tokens: Tensor
    positions: Tensor
    bias: Tensor | None = None


class Reduce(Protocol):
    """Changes the tokens between attention and MLP of a block (token reducers)."""

    def __call__(self, layer: int, state: State, keys: Tensor) -> State:
        """The state to continue with; keys (B, n, d/h) are attention keys averaged over heads."""
        ...


def drop(x: Tensor, p: float, generator: torch.Generator | None, *, per_cloud: bool) -> Tensor:
    """Zeros elements (or whole clouds) of x (B, ...) with probability p and rescales the rest."""
    if p == 0.0:
        return x
    shape = (x.shape[0], *([1] * (x.ndim - 1))) if per_cloud else x.shape
    keep = torch.rand(shape, device=x.device, generator=generator) >= p
    return x * (keep.to(x.dtype) / (1 - p))


class Attention(nn.Module):
    """Multi-head self-attention with a bias per key."""

    def __init__(self, dim: int, heads: int, *, qkv_bias: bool, attention_dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention_dropout = attention_dropout
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(
        self, x: Tensor, bias: Tensor | None, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Mixed tokens (B, n, d) and keys (B, h, n, d/h) of x (B, n, d) and bias (B, n)."""
        batch, count, dim = x.shape
        qkv = self.qkv(x).view(batch, count, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mask = None if bias is None else bias[:, None, None, :].to(q.dtype)
        if self.training and self.attention_dropout > 0:
            logits = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
            weights = (logits if mask is None else logits + mask).softmax(dim=-1)
            mixed = drop(weights, self.attention_dropout, generator, per_cloud=False) @ v
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.proj(mixed.transpose(1, 2).reshape(batch, count, dim)), k


class Block(nn.Module):
    """Pre-norm transformer block: attention, the reduce hook, MLP."""

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.dropout, self.drop_path = dropout, drop_path
        self.norm1 = nn.LayerNorm(dim)
        self.attn = Attention(dim, heads, qkv_bias=qkv_bias, attention_dropout=attention_dropout)
        self.norm2 = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, int(dim * mlp_ratio))
        self.activation = nn.GELU()
        self.fc2 = nn.Linear(int(dim * mlp_ratio), dim)

    def _residual(self, x: Tensor, change: Tensor, generator: torch.Generator | None) -> Tensor:
        if self.training:
            change = drop(change, self.dropout, generator, per_cloud=False)
            change = drop(change, self.drop_path, generator, per_cloud=True)
        return x + change

    def forward(
        self,
        layer: int,
        state: State,
        reduce: Reduce | None = None,
        generator: torch.Generator | None = None,
    ) -> State:
        """The state after this block; `layer` is its index, for the hook's schedule."""
        x = state.tokens + state.positions
        mixed, keys = self.attn(self.norm1(x), state.bias, generator)
        x = self._residual(x, mixed, generator)
        state = State(tokens=x, positions=state.positions, bias=state.bias)
        if reduce is not None:
            state = reduce(layer, state, keys.mean(dim=1))
        x = state.tokens
        hidden = self.activation(self.fc1(self.norm2(x)))
        if self.training:
            hidden = drop(hidden, self.dropout, generator, per_cloud=False)
        x = self._residual(x, self.fc2(hidden), generator)
        return State(tokens=x, positions=state.positions, bias=state.bias)


class Encoder(nn.Module):
    """A stack of blocks and a final LayerNorm.

    Args:
        dim: d.
        depth: number of blocks; 0 = none.
        heads: attention heads.
        drop_path: stochastic depth of the last block, rising linearly from 0.
        constant_drop_path: the same stochastic depth in every block instead.
        final_norm: end with the LayerNorm.
        mlp_ratio, qkv_bias, dropout, attention_dropout: as in `Block`.
    """

    def __init__(
        self,
        dim: int,
        depth: int,
        heads: int,
        *,
        drop_path: float = 0.0,
        constant_drop_path: bool = False,
        final_norm: bool = True,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        ramp = [1.0 if constant_drop_path else i / max(depth - 1, 1) for i in range(depth)]
        self.blocks = nn.ModuleList(
            Block(
                dim,
                heads,
                mlp_ratio=mlp_ratio,
                qkv_bias=qkv_bias,
                dropout=dropout,
                attention_dropout=attention_dropout,
                drop_path=drop_path * share,
            )
            for share in ramp
        )
        self.norm: nn.LayerNorm | nn.Identity = nn.LayerNorm(dim) if final_norm else nn.Identity()

    def states(
        self,
        tokens: Tensor,
        positions: Tensor,
        *,
        bias: Tensor | None = None,
        reduce: Reduce | None = None,
        generator: torch.Generator | None = None,
        start: int = 0,
        stop: int | None = None,
    ) -> list[Tensor]:
        """The output of every block from `start` to before `stop`, each (B, n, d), not normed."""
        state = State(tokens=tokens, positions=positions, bias=bias)
        return [then.tokens for then in self._run(state, reduce, generator, start, stop)]

    def begin(
        self,
        tokens: Tensor,
        positions: Tensor,
        stop: int,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """(B, n, d) after the first `stop` blocks, which `forward` continues from `start=stop`."""
        return [tokens, *self.states(tokens, positions, generator=generator, stop=stop)][-1]

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
        """Encoded tokens (B, n, d), after the blocks from `start` on and the final LayerNorm."""
        state = State(tokens=tokens, positions=positions, bias=bias)
        for then in self._run(state, reduce, generator, start):
            state = then
        return self.norm(state.tokens)

    def _run(
        self,
        state: State,
        reduce: Reduce | None,
        generator: torch.Generator | None,
        start: int = 0,
        stop: int | None = None,
    ) -> Iterator[State]:
        """Yields the state after every block."""
        for layer in range(len(self.blocks))[start:stop]:
            state = self.blocks[layer](layer, state, reduce, generator)
            yield state


def encoder_of(shape: BackboneConfig, *, final_norm: bool = True) -> Encoder:
    """An untrained encoder of these sizes."""
    return Encoder(
        shape.dim,
        shape.depth,
        shape.heads,
        mlp_ratio=shape.mlp_ratio,
        qkv_bias=shape.qkv_bias,
        dropout=shape.dropout,
        attention_dropout=shape.attention_dropout,
        drop_path=shape.drop_path,
        final_norm=final_norm,
    )


def initialise(module: nn.Module, *, generator: torch.Generator | None = None) -> None:
    """Initialises all linear layers of a module from one generator.

    Inside encoders: truncated normal with standard deviation 0.02 and zero biases; `attn.proj` and
    `fc2` of an encoder with L blocks are divided by sqrt(2 L) (GPT-2, the paper's teacher).
    Elsewhere: uniform within 1 / sqrt(inputs), torch's default.
    """
    inside = {
        id(part): len(encoder.blocks)
        for encoder in module.modules()
        if isinstance(encoder, Encoder)
        for part in encoder.modules()
    }
    for name, part in module.named_modules():
        if not isinstance(part, nn.Linear) or part.weight.is_meta:
            continue
        bound = part.in_features**-0.5
        if id(part) in inside:
            deep = name.endswith(("attn.proj", "fc2"))
            std = 0.02 * ((2 * inside[id(part)]) ** -0.5 if deep else 1.0)
            nn.init.trunc_normal_(part.weight, std=std, a=-2.0, b=2.0, generator=generator)
        else:
            nn.init.uniform_(part.weight, -bound, bound, generator=generator)
        if part.bias is not None and id(part) in inside:
            nn.init.zeros_(part.bias)
        elif part.bias is not None:
            nn.init.uniform_(part.bias, -bound, bound, generator=generator)
