"""Foundry-Gate: which tokens are merged, and how few tokens the encoder may see (section 3.4).

The gate gives every token a fusion probability. Merged tokens alone pass DSO and CAU; the others
go through the encoder beside the supertokens and keep its output. Here are the choice of tokens
and the bookkeeping; the modules that compress and reconstruct are in `supertokens.py`.

Shapes: B clouds, c tokens, s supertokens, d width, m merged tokens of a cloud, n tokens encoded.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
