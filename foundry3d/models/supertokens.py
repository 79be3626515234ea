"""Supertokens: compress c tokens into s (DSO, equations 2-4), reconstruct all c (CAU, equation 5).

Shapes: B clouds, c tokens, s supertokens, d width, h assignment heads. An assignment map (CAM) is
(B, c, s). With several heads it is (B, h, c, s), and each head assigns its own slice of the width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foundry3d.models.vit import Encoder


class Compressed(NamedTuple):
    """The DSO's output.

    Attributes:
        supertokens: (B, s, d) updated supertokens; one that no token chose is to be hidden.
        positions: (B, s, d) mean position of the tokens of each.
        cam: (B, c, s) assignment map, one-hot unless the assignment is soft; (B, h, c, s) with
            several heads.
        used: (B, s) bool, chosen by at least one token in at least one head.
    """

    supertokens: Tensor
    positions: Tensor
    cam: Tensor
    used: Tensor

    @property
    def assignment(self) -> Tensor:
        """(B, c) int64: the supertoken of each token; with several heads, of the first."""
        return first_choice(self.cam)


def first_choice(cam: Tensor) -> Tensor:
    """(B, c) int64: the supertoken that a map assigns to each token; of the first head."""
    return (cam if cam.ndim == 3 else cam[:, 0]).argmax(dim=-1)


def key_bias(used: Tensor, dtype: torch.dtype) -> Tensor:
    """Attention bias (B, s) that hides unused supertokens (-inf) from every query."""
    return torch.zeros(used.shape, dtype=dtype, device=used.device).masked_fill_(
        ~used, float("-inf")
    )


def gumbel(logits: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard Gumbel noise in the shape of logits, in float32."""
    noise = torch.empty(logits.shape, device=logits.device).exponential_(generator=generator)
    return -noise.clamp_min(torch.finfo(torch.float32).tiny).log()


def annealed(start: float, end: float | None, progress: float) -> float:
    """The temperature at a share `progress` of a run: geometric from start to end, if not None."""
    return start if end is None else start * (end / start) ** progress


def sliced(x: Tensor, heads: int) -> Tensor:
    """The slices of x (..., n, d) for every head (..., h, n, d/h); x itself for one head."""
    return x if heads == 1 else x.unflatten(-1, (heads, -1)).transpose(-3, -2)


def joined(x: Tensor, heads: int) -> Tensor:
    """The inverse of `sliced`."""
    return x if heads == 1 else x.transpose(-3, -2).flatten(-2)


class DSO(nn.Module):
    """Dynamic Supertoken Optimization: every token chooses one of s learned supertokens.

    With several heads, every head chooses by its own slice of keys and queries, and only that
    slice of the token's value goes to the supertoken. The position of a supertoken is the mean
    position of its tokens, each counted once for every head that chose it.

    Args:
        dim: d.
        supertokens: s.
        soft: softmax over supertokens instead of a single choice (ablation).
        bias: bias on W_Q, W_K, W_V (ablation).
        learned_positions: learned positions are added to the mean positions (ablation).
        temperature: of the Gumbel-Softmax in training, and of the softmax of a soft assignment;
            distillation with an annealed temperature sets it at every step.
        heads: h, assignment heads; the paper's equation 3 has one map for the whole width.
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
        heads: int = 1,
    ) -> None:
        super().__init__()
        self.soft, self.temperature, self.heads = soft, temperature, heads
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
        """Similarity (B, c, s) of layer-normed tokens (B, c, d) to the supertokens (equation 2).

        Args:
            normed: (B, c, d).
            count: only the first s' supertokens; None = all.

        Returns:
            (B, c, s), or (B, h, c, s) with several heads.
        """
        queries = sliced(self.query(self.supertokens[:count]), self.heads)
        keys = sliced(self.key(normed), self.heads)
        return keys @ queries.mT * keys.shape[-1] ** -0.5

    def assign(self, logits: Tensor, generator: torch.Generator | None) -> Tensor:
        """Assignment map of logits (equation 3); straight-through Gumbel-Softmax in training."""
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
        """Tokens (B, c, d) layer-normed, and their assignment map; see `logits` and `assign`."""
        normed = self.norm(tokens)
        return normed, self.assign(self.logits(normed, count), generator).to(normed.dtype)

    def merge(self, normed: Tensor, positions: Tensor, cam: Tensor) -> Compressed:
        """Supertokens of layer-normed tokens and positions (B, c, d) by a map (equation 4).

        A token whose row of the map is zero is left out.
        """
        share, used = self.shares(cam)
        merged = joined(share.mT @ sliced(self.value(normed), self.heads), self.heads)
        if self.heads > 1:
            share, used = self.shares(cam.sum(dim=1))
        placed = share.mT @ positions
        if self.positions is not None:
            placed = placed + self.positions[: cam.shape[-1]]
        return Compressed(self.out(merged), placed, cam, used)

    def shares(self, cam: Tensor) -> tuple[Tensor, Tensor]:
        """A map (..., c, s) with every used column scaled to sum 1; which are used (..., s)."""
        # Straight-through maps hold ones up to rounding; a soft map uses every supertoken.
        total = cam.sum(dim=-2)
        used = total.detach() > (0 if self.soft else 0.5)
        return cam / total.masked_fill(~used, 1).unsqueeze(-2), used

    def forward(
        self, tokens: Tensor, positions: Tensor, generator: torch.Generator | None = None
    ) -> Compressed:
        """Compresses tokens (B, c, d), without position, and their positions (B, c, d)."""
        normed, cam = self.choose(tokens, generator)
        return self.merge(normed, positions, cam)


class FeatureMLP(nn.Module):
    """From tokens to the features of a teacher: Linear, GELU, Linear.

    Args:
        dim: d.
        norm: LayerNorm on the output.
    """

    def __init__(self, dim: int, *, norm: bool = False) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, dim)
        self.activation = nn.GELU()
        self.fc2 = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim) if norm else None

    def forward(self, tokens: Tensor) -> Tensor:
        """Features (B, c, d) of tokens (B, c, d)."""
        x = self.fc2(self.activation(self.fc1(tokens)))
        return x if self.norm is None else self.norm(x)


class CAU(FeatureMLP):
    """Cross-Attention Upsampling (equation 5): c features from s encoded supertokens.

    Its tokens are T + P or T, see `SupertokenOptions.cau_positions`.

    Args:
        dim: d.
        norm: LayerNorm on the output (ablation).
        heads: h; with several, each slice of a feature comes from the supertoken of its head.
    """

    def __init__(self, dim: int, *, norm: bool = False, heads: int = 1) -> None:
        super().__init__(dim, norm=norm)
        self.heads = heads

    def forward(  # type: ignore[override]
        self, tokens: Tensor, cam: Tensor, encoded: Tensor
    ) -> Tensor:
        """Features (B, c, d) of tokens (B, c, d), their map, and encoded supertokens (B, s, d)."""
        return super().forward(tokens + joined(cam @ sliced(encoded, self.heads), self.heads))


class SupertokenEncoder(nn.Module):
    """DSO, encoder and CAU as one encoder, for pre-training with supertokens (Table 9).

    Args:
        dso, encoder, cau: weights are shared; one assignment head.
        cau_positions: the CAU reads tokens with their positions.
    """

    def __init__(self, dso: DSO, encoder: Encoder, cau: CAU, *, cau_positions: bool) -> None:
        super().__init__()
        self.dso, self.encoder, self.cau = dso, encoder, cau
        self.cau_positions = cau_positions

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor,
        *,
        bias: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Features (B, n, d) of tokens and positions (B, n, d).

        Args:
            tokens: without position.
            positions: of the tokens.
            bias: (B, n) as in `Encoder`: -inf keeps a token out of every supertoken, log(size)
                weights it by its size; None = all count once.
            generator: source of the draws in training mode.
        """
        normed, cam = self.dso.choose(tokens, generator)
        merged = cam if bias is None else cam * bias.exp().unsqueeze(-1)
        packed = self.dso.merge(normed, positions, merged)
        encoded = self.encoder(
            packed.supertokens,
            packed.positions,
            bias=key_bias(packed.used, tokens.dtype),
            generator=generator,
        )
        residual = tokens + positions if self.cau_positions else tokens
        return self.cau(residual, cam, encoded)
