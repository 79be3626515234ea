"""The gate (section 3.4): a fusion probability for every token, and which tokens are merged.

`Gate` is the module; the functions below it choose tokens by its probabilities. `entry.py` takes
the chosen tokens through DSO, encoder and CAU.

Shapes: B clouds, c tokens, s supertokens, d width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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


class SingleLinear(nn.Linear):
    """A linear layer that computes in single precision even if its weights are half precision.

    With 8 significant bits, many tokens of a cloud would get the same probability.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(..., out) of x (..., in), float32 or wider."""
        wide = torch.promote_types(x.dtype, torch.float32)
        return F.linear(x.to(wide), self.weight.to(wide), self.bias.to(wide))


def by_probability(probability: Tensor) -> Tensor:
    """(B, c) int64: tokens by falling probability (B, c), by index on ties."""
    return probability.argsort(dim=1, descending=True, stable=True)


def fill_budget(choices: Tensor, tokens: int, budget: int) -> Tensor:
    """How many tokens to merge so that exactly `budget` tokens enter the encoder.

    Each token that is merged leaves the encoder and adds a supertoken if it is the first to choose
    it. The number of encoded tokens therefore falls from c in steps of 0 or 1, and reaches every
    budget from s on. Of several numbers of merges that fit, the smallest is returned; a budget of
    c merges nothing.

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


def listing_count(tokens: int, budget: int, supertokens: int) -> int:
    """How many of c tokens Listing 1 merges for a token budget if no two probabilities are equal.

    One more than leaves b - s tokens, because the threshold is read one place too far down the
    sorted probabilities. For b = s + 1 that place does not exist and the listing fails; here all
    tokens are merged.

    Args:
        tokens: c.
        budget: b, between s and c.
        supertokens: s.
    """
    return 0 if budget >= tokens else min(tokens, tokens - budget + supertokens + 1)


def listing_merges(probability: Tensor, budget: int, supertokens: int) -> Tensor:
    """How many tokens Listing 1 merges for a token budget: those strictly above a threshold.

    Tokens whose probability equals the threshold stay, so equal probabilities merge fewer tokens,
    and more than b tokens may enter the encoder.

    Args:
        probability: (B, c) of the gate.
        budget: b, between s and c.
        supertokens: s.

    Returns:
        (B,) int64.
    """
    total = probability.shape[1]
    count = listing_count(total, budget, supertokens)
    if count in (0, total):
        return probability.new_full(probability.shape[:1], count, dtype=torch.int64)
    threshold = probability.sort(dim=1, descending=True).values[:, count, None]
    return (probability > threshold).sum(dim=1)


def selection(probability: Tensor, merged: Tensor) -> Tensor:
    """(B, c) ones at the `merged` (B,) most probable tokens of each cloud, zeros elsewhere.

    The gradient passes to the probabilities (B, c) unchanged (straight-through).
    """
    rank = by_probability(probability).argsort(dim=1)
    hard = (rank < merged[:, None]).to(probability.dtype)
    return hard + probability - probability.detach()


def relative(probability: Tensor) -> Tensor:
    """Probabilities (B, c) relative to the mean logit of their cloud, for drawn numbers of merges.

    Merging costs accuracy. Where the number of merged tokens is given, the distillation loss would
    push every probability to 0; relative probabilities can only change their order.
    """
    logits = probability.clamp(1e-6, 1 - 1e-6).logit()
    return (logits - logits.mean(dim=1, keepdim=True)).sigmoid()
