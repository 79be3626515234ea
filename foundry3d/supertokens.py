"""Supertokens: compress c tokens into s (DSO, equations 2-4), reconstruct all c (CAU, equation 5).

Shapes: B clouds, c tokens, s supertokens, d width. An assignment map (CAM) is (B, c, s).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Compressed(NamedTuple):
    """What the DSO hands to the encoder and the CAU.

    Attributes:
        supertokens: (B, s, d) updated supertokens; zero where nobody chose one.
        positions: (B, s, d) mean position of the tokens of each.
        cam: (B, c, s) assignment map, one-hot unless the assignment is soft.
        used: (B, s) bool, chosen by at least one token.
    """

    supertokens: Tensor
    positions: Tensor
    cam: Tensor
    used: Tensor

    @property
    def assignment(self) -> Tensor:
        """(B, c) int64: the supertoken of each token."""
        return self.cam.argmax(dim=-1)


def key_bias(used: Tensor, dtype: torch.dtype) -> Tensor:
    """Attention bias (B, s) that hides unused supertokens (-inf) from every query."""
    return torch.zeros(used.shape, dtype=dtype, device=used.device).masked_fill_(
        ~used, float("-inf")
    )


def gumbel(logits: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard Gumbel noise of the shape of logits, in float32."""
    noise = torch.empty(logits.shape, device=logits.device).exponential_(generator=generator)
    return -noise.clamp_min(torch.finfo(torch.float32).tiny).log()


class DSO(nn.Module):
    """Dynamic Supertoken Optimization: every token chooses one of s learned supertokens.

    Args:
        dim: d.
        supertokens: s.
        soft: softmax over supertokens instead of one choice (ablation).
        bias: bias on W_Q, W_K, W_V (ablation).
        learned_positions: learned positions instead of zero added to the merged ones (ablation).
        temperature: of the Gumbel-Softmax in training.
    """

    def __init__(
        self,
        dim: int,
        supertokens: int,
        *,
        soft: bool = False,
        bias: bool = False,
        learned_positions: bool = False,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self.soft, self.temperature = soft, temperature
        self.norm = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim, bias=bias)
        self.key = nn.Linear(dim, dim, bias=bias)
        self.value = nn.Linear(dim, dim, bias=bias)
        self.out = nn.Linear(dim, dim)
        self.supertokens = nn.Parameter(nn.init.trunc_normal_(torch.empty(supertokens, dim)))
        self.positions = (
            nn.Parameter(nn.init.trunc_normal_(torch.empty(supertokens, dim), std=0.02))
            if learned_positions
            else None
        )

    def logits(self, normed: Tensor, count: int | None = None) -> Tensor:
        """Similarity (B, c, s) of layer-normed tokens (B, c, d) with the first `count` supertokens.

        Nested training makes the first s' of s a set of their own; None = all of them.
        """
        queries = self.query(self.supertokens[:count])
        return self.key(normed) @ queries.T * normed.shape[-1] ** -0.5

    def assign(self, logits: Tensor, generator: torch.Generator | None) -> Tensor:
        """Assignment map (B, c, s): argmax, or straight-through Gumbel-Softmax in training."""
        logits = logits.float()
        if self.soft:
            return (logits / self.temperature).softmax(dim=-1)
        count = logits.shape[-1]
        if not self.training:
            return F.one_hot(logits.argmax(dim=-1), count).to(logits.dtype)
        soft = ((logits + gumbel(logits, generator)) / self.temperature).softmax(dim=-1)
        hard = F.one_hot(soft.argmax(dim=-1), count).to(soft.dtype)
        return hard + soft - soft.detach()

    def choose(
        self, tokens: Tensor, generator: torch.Generator | None = None, count: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Layer-normed tokens (B, c, d) and the map (B, c, s) of tokens without position."""
        normed = self.norm(tokens)
        return normed, self.assign(self.logits(normed, count), generator).to(normed.dtype)

    def merge(self, normed: Tensor, positions: Tensor, cam: Tensor) -> Compressed:
        """Supertokens of layer-normed tokens and positions (B, c, d) by a map (B, c, s).

        Rows of the map that are zero leave their token out.
        """
        # Straight-through maps hold ones up to rounding; a soft map uses every supertoken.
        total = cam.sum(dim=1)
        used = total.detach() > (0 if self.soft else 0.5)
        share = cam / total.masked_fill(~used, 1).unsqueeze(1)
        merged = share.transpose(1, 2) @ self.value(normed)
        placed = share.transpose(1, 2) @ positions
        if self.positions is not None:
            placed = placed + self.positions[: cam.shape[-1]]
        return Compressed(self.out(merged), placed, cam, used)

    def forward(
        self, tokens: Tensor, positions: Tensor, generator: torch.Generator | None = None
    ) -> Compressed:
        """Compresses tokens (B, c, d), which carry no position, and their positions (B, c, d)."""
        normed, cam = self.choose(tokens, generator)
        return self.merge(normed, positions, cam)


class CAU(nn.Module):
    """Cross-Attention Upsampling: all c features back from s encoded supertokens.

    Args:
        dim: d.
        norm: LayerNorm on the output (ablation).
    """

    def __init__(self, dim: int, *, norm: bool = False) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, dim)
        self.activation = nn.GELU()
        self.fc2 = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim) if norm else None

    def forward(self, tokens: Tensor, cam: Tensor, encoded: Tensor) -> Tensor:
        """Features (B, c, d) of tokens (B, c, d), map (B, c, s) and supertokens (B, s, d)."""
        x = self.fc2(self.activation(self.fc1(tokens + cam @ encoded)))
        return x if self.norm is None else self.norm(x)
