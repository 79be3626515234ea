"""Foundry-Gate: which tokens are merged, and how few tokens the encoder may see (section 3.4).

The gate gives every token a fusion probability. Merged tokens alone pass DSO and CAU; the others
go through the encoder beside the supertokens and keep its output. Here are the choice of tokens
and the bookkeeping; the modules that compress and reconstruct are in `supertokens.py`.

Shapes: B clouds, c tokens, s supertokens, d width, m merged tokens of a cloud, n tokens encoded.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foundry3d.errors import InputError
from foundry3d.geometry import gather


class SingleLinear(nn.Linear):
    """A linear layer that multiplies and answers in single precision under half-precision weights.

    A number of 8 significant bits would tie many of a cloud's tokens.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(..., out) of x (..., in), float32 or wider."""
        wide = torch.promote_types(x.dtype, torch.float32)
        return F.linear(x.to(wide), self.weight.to(wide), self.bias.to(wide))


class Gate(nn.Module):
    """Fusion probability of every token: Linear, GELU, Linear, sigmoid (appendix A).

    Args:
        dim: d.
        hidden: width of the hidden layer.
    """

    def __init__(self, dim: int, hidden: int = 128) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.activation = nn.GELU()
        self.fc2 = SingleLinear(hidden, 1)
        self.sigmoid = nn.Sigmoid()

    def forward(self, tokens: Tensor) -> Tensor:
        """Probabilities (B, c) of tokens (B, c, d)."""
        return self.sigmoid(self.fc2(self.activation(self.fc1(tokens)))).squeeze(-1)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a call asks of a student; None = as the student was made.

    Attributes:
        ratio: r, tokens of a fusion probability above it are merged.
        token_budget: b, exactly as many tokens enter the encoder, c = nothing is merged.
        supertokens: s', the first s' of the s supertokens are used.
        merged: (B,) int64, how many of each cloud's tokens are merged (training).
        packed: clouds that keep different numbers of tokens are encoded without padding, those of
            equal numbers together; the results are the same.
    """

    ratio: float | None = None
    token_budget: int | None = None
    supertokens: int | None = None
    merged: Tensor | None = None
    packed: bool = False

    def check(self, *, gated: bool, tokens: int, supertokens: int) -> None:
        """Refuses what a student of c tokens and s supertokens cannot do.

        Raises:
            InputError: values out of range, two budgets at once, or a budget without a gate.
        """
        count = supertokens if self.supertokens is None else self.supertokens
        if not _whole(count) or not 1 <= count <= supertokens:
            raise InputError(f"supertokens must be a whole number in 1..{supertokens}, got {count}")
        asked = [
            name for name in ("ratio", "token_budget", "merged") if getattr(self, name) is not None
        ]
        if len(asked) > 1:
            raise InputError(f"give one of ratio and token_budget, got {' and '.join(asked)}")
        if asked and not gated:
            raise InputError(
                f"{asked[0]} needs a student with a gate; distil one with --gate, or lower "
                "supertokens"
            )
        ratio, budget = self.ratio, self.token_budget
        if ratio is not None and not (_number(ratio) and 0 <= ratio <= 1):
            raise InputError(f"ratio must lie in [0, 1], got {ratio}")
        if budget is not None and not (_whole(budget) and count <= budget <= tokens):
            raise InputError(
                f"token_budget must be a whole number in {count}..{tokens} (from the supertokens "
                f"to all tokens), got {budget}"
            )


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


class Plan(NamedTuple):
    """Which tokens of each cloud are merged.

    Attributes:
        order: (B, c) int64, tokens by falling fusion probability.
        merged: (B,) int64, m: the first m of that order are merged.
        rows: at least the largest m of the batch.
        width: the number of tokens of every cloud that enter the encoder; None = counted, for
            which an accelerator is waited for.
    """

    order: Tensor
    merged: Tensor
    rows: int
    width: int | None = None


def by_probability(probability: Tensor) -> Tensor:
    """(B, c) tokens by falling probability (B, c), by index on ties."""
    return probability.argsort(dim=1, descending=True, stable=True)


def fill_budget(choices: Tensor, tokens: int, budget: int) -> Tensor:
    """How many tokens to merge so that exactly `budget` tokens enter the encoder.

    Merging one token more takes it away from the encoder and may bring one supertoken in, so the
    encoded number falls by steps of 0 or 1 from c, and every budget from s on is met exactly. Of
    several such numbers the smallest is taken; a budget of c merges nothing.

    Args:
        choices: (B, n, s) one-hot supertoken of the first n tokens to merge, in order; n must be
            c - budget + s, or 0 for a budget of c.
        tokens: c.
        budget: b, between s and c.

    Returns:
        (B,) int64.
    """
    seen = choices.cumsum(dim=1)
    used = (seen > 0).sum(dim=-1)
    encoded = used + tokens - torch.arange(1, choices.shape[1] + 1, device=choices.device)
    over = (encoded > budget).sum(dim=1)
    return over + 1 if budget < tokens else over


def selection(probability: Tensor, merged: Tensor) -> Tensor:
    """(B, c) ones at the tokens to merge, with a gradient to the gate (straight-through).

    Ones are the `merged` (B,) largest of probability (B, c).
    """
    rank = by_probability(probability).argsort(dim=1)
    hard = (rank < merged[:, None]).to(probability.dtype)
    return hard + probability - probability.detach()


def relative(probability: Tensor) -> Tensor:
    """Probabilities (B, c) about the mean logit of their cloud, for numbers drawn by rank.

    Merging costs accuracy, so the distillation loss would push every probability to 0 where their
    level does not decide how many are merged; relative to the cloud only their order can change.
    """
    logits = probability.clamp(1e-6, 1 - 1e-6).logit()
    return (logits - logits.mean(dim=1, keepdim=True)).sigmoid()


def draw_merged(
    batch: int, tokens: int, *, all_merged: float, generator: torch.Generator
) -> Tensor:
    """(B,) int64 numbers of tokens to merge, a ratio drawn for every cloud.

    Args:
        batch: B.
        tokens: c.
        all_merged: share of the clouds that merge all c; the others draw from 0..c.
        generator: of the draws.
    """
    device = generator.device
    drawn = torch.randint(0, tokens + 1, (batch,), device=device, generator=generator)
    whole = torch.rand(batch, device=device, generator=generator) < all_merged
    return torch.where(whole, tokens, drawn)


def draw_supertokens(supertokens: int, *, whole: float, generator: torch.Generator) -> int:
    """s', how many of s supertokens a step uses: a power of two below s, or s.

    Args:
        supertokens: s.
        whole: probability of s itself; the powers of two below share the rest equally.
        generator: of the draw.
    """
    below = [2**i for i in range(supertokens.bit_length()) if 2**i < supertokens]
    draw = torch.rand((), device=generator.device, generator=generator).item()
    if not below or draw < whole:
        return supertokens
    return below[min(int((draw - whole) / (1 - whole) * len(below)), len(below) - 1)]


class Entry(NamedTuple):
    """What enters a student's encoder, and the way back.

    Attributes:
        tokens: (B, n, d).
        positions: (B, n, d).
        bias: (B, n), -inf hides a row; None = all are seen.
        restore: from encoded (B, n, d) to features (B, c, d).
        assignment: (B, c) int64, the supertoken of each token, -1 = not merged.
        used: (B,) int64, tokens of each cloud that count, n without the hidden rows.
        probability: (B, c) of the gate, None without one.
        packed: encode clouds of equal `used` together instead of all of them with hidden rows.
    """

    tokens: Tensor
    positions: Tensor
    bias: Tensor | None
    restore: Callable[[Tensor], Tensor]
    assignment: Tensor
    used: Tensor
    probability: Tensor | None = None
    packed: bool = False


def compacted(x: Tensor, positions: Tensor, valid: Tensor, width: int) -> tuple[Tensor, ...]:
    """Valid rows first, cut to `width`: what an encoder without holes reads.

    Args:
        x: (B, n, d) rows.
        positions: (B, n, d).
        valid: (B, n) bool.
        width: rows kept, at least the valid rows of any cloud.

    Returns:
        Rows (B, width, d), positions (B, width, d), valid (B, width) and index (B, width).
    """
    index = valid.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :width]
    return gather(x, index), gather(positions, index), valid.gather(1, index), index


def spread(rows: Tensor, index: Tensor, count: int) -> Tensor:
    """(B, count, d) with rows (B, n, d) at index (B, n), zero elsewhere."""
    target = rows.new_zeros(rows.shape[0], count, rows.shape[-1])
    return target.scatter(1, index.unsqueeze(-1).expand_as(rows), rows)


def by_length(lengths: Tensor) -> list[Tensor]:
    """Indices of the clouds of every distinct length (B,), shortest first."""
    return [torch.nonzero(lengths == length).flatten() for length in lengths.unique().tolist()]
