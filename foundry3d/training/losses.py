"""Losses of distillation as pure functions: features, their scale, their similarities, the gate.

Shapes: B clouds, c tokens, d width.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from foundry3d.errors import InputError

FLOOR = 0.01
"""The smallest standard deviation that features are divided by, relative to the mean of all d."""


def distance(
    own: Tensor, goal: Tensor, kind: Literal["smooth_l1", "mse"], weight: Tensor | None = None
) -> Tensor:
    """Smooth L1 (beta 1) or squared error between features (B, c, d), mean over all elements.

    With weights (B, c) it is their mean over tokens by weight, 0 where all weights are.
    """
    loss = F.mse_loss if kind == "mse" else F.smooth_l1_loss
    if weight is None:
        return loss(own, goal)
    return weighted_mean(loss(own, goal, reduction="none").mean(dim=-1), weight)


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """The mean of values by weights of the same shape; 0 where all weights are 0."""
    return (values * weight).sum() / weight.sum().clamp_min(1e-12)


def similarities(features: Tensor) -> Tensor:
    """Cosine similarity (B, c, c) of every two tokens of a cloud, of features (B, c, d).

    In the precision of the features in mixed precision too, which would round differences away.
    """
    unit = F.normalize(features, dim=-1)
    with torch.autocast(unit.device.type, enabled=False):
        return unit @ unit.mT


def relation_loss(own: Tensor, goal: Tensor, weight: Tensor | None = None) -> Tensor:
    """Smooth L1 (beta 1) between the similarities of two sets of features (B, c, d).

    With weights (B, c), a pair of tokens counts by the product of theirs.
    """
    if weight is None:
        return F.smooth_l1_loss(similarities(own), similarities(goal))
    each = F.smooth_l1_loss(similarities(own), similarities(goal), reduction="none")
    return weighted_mean(each, weight[:, :, None] * weight[:, None, :])


def gate_loss(probability: Tensor, weight: float) -> Tensor:
    """Equation 6: minus `weight` times the sum of probabilities (B, c), averaged over clouds."""
    return -weight * probability.sum(dim=1).mean()


def plain_norm(features: Tensor) -> Tensor:
    """Features (..., d) after a LayerNorm without parameters."""
    return F.layer_norm(features, features.shape[-1:])


def matching_block(block: int, *, teacher: int, student: int) -> int:
    """The student's block at the relative depth of one of the teacher's, both counted from 0.

    Args:
        block: of the teacher.
        teacher: number of its blocks.
        student: number of the student's blocks, at least 1.
    """
    return max(1, round((block + 1) * student / teacher)) - 1


def scale_of(batches: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (n, d) of n kinds of features over all tokens.

    A feature that hardly varies counts with 1 % of the mean deviation of the d features of its
    kind, so that no small number is divided by.

    Args:
        batches: at least one, each (n, B, c, d).

    Raises:
        InputError: all features of a kind are constant.
    """
    count = 0
    total = squares = torch.zeros(())
    for features in batches:
        rows = features.flatten(1, -2).double()
        count += rows.shape[1]
        total = total.to(rows) + rows.sum(dim=1)
        squares = squares.to(rows) + rows.square().sum(dim=1)
    mean = total / count
    std = (squares / count - mean.square()).clamp_min(0).sqrt()
    typical = std.mean(dim=-1, keepdim=True)
    if not bool((typical > 0).all()):
        raise InputError(
            "the teacher's features are the same for all tokens, so they have no scale to whiten "
            "by; leave whiten out, or check the teacher"
        )
    return mean, std.maximum(FLOOR * typical)
