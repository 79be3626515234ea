"""The record that every model returns.

Shapes: B clouds, c tokens, d width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """The output of every model.

    Attributes:
        features: (B, c, d) one feature per token.
        centers: (B, c, 3) where the tokens are.
        assignment: (B, c) int64, the supertoken of each token, -1 = not merged; None for teachers.
            With several assignment heads, that of the first.
        tokens_used: (B,) int64, how many tokens entered the encoder.
        probability: (B, c) the gate's fusion probabilities; None without a gate.
    """

    features: Tensor
    centers: Tensor
    assignment: Tensor | None = None
    tokens_used: Tensor
    probability: Tensor | None = None

    def pooled(self) -> Tensor:
        """(B, 2d): maximum and mean over the tokens, the global feature of the protocols."""
        return pool(self.features)


def pool(features: Tensor) -> Tensor:
    """(B, 2d): maximum and mean over the tokens of features (B, c, d)."""
    return torch.cat([features.amax(dim=1), features.mean(dim=1)], dim=-1)
