"""A student's features compared with its goal: every loss on them that a run's options ask for.

Shapes: B clouds, c tokens, n kinds of features (the final ones, then those after blocks), d width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from foundry3d.config import DistillConfig
from foundry3d.training.goals import Goal
from foundry3d.training.losses import distance, plain_norm, relation_loss, scale_of


class Comparison(nn.Module):
    """The losses of a student's features: final ones, relations, blocks, in whitened units.

    With `whiten` it holds the scale of the features as buffers, so that a resumed run has the same.

    Args:
        config: of the run.
        width: d.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: DistillConfig, width: int) -> None:
        super().__init__()
        self.config = config
        if config.whiten:
            self.register_buffer("mean", torch.zeros(1 + len(config.loss_blocks), width))
            self.register_buffer("std", torch.zeros(1 + len(config.loss_blocks), width))

    @property
    def unmeasured(self) -> bool:
        """Whether the scale of the features is needed and not known yet."""
        return self.config.whiten and not bool(self.std.any())

    def measure(self, goals: Iterable[Goal]) -> None:
        """Sets the scale of the features from goals of a few batches.

        Raises:
            InputError: all features of a kind are constant.
        """
        mean, std = scale_of(kinds_of(goal) for goal in goals)
        self.mean.copy_(mean)
        self.std.copy_(std)

    def scaled(self, features: Tensor, kind: int) -> Tensor:
        """Features (B, c, d) of a kind, whitened if that is on."""
        if not self.config.whiten:
            return features
        return (features - self.mean[kind].float()) / self.std[kind].float()

    def forward(
        self, features: Tensor, blocks: Sequence[Tensor], goal: Goal
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of the losses, and each one by its name in the metrics.

        `loss` is the plain one of equation 1 whatever the options are, so that runs compare.

        Args:
            features: (B, c, d) of the student.
            blocks: the same of its blocks, one for each of `loss_blocks`.
            goal: of the same groups.
        """
        config, kind = self.config, self.config.loss
        assert goal.features is not None
        own = features.float()
        total = distance(own, goal.features, kind, goal.weight)
        found = {"loss": total}
        own, its = self.scaled(own, 0), self.scaled(goal.features, 0)
        if config.whiten:
            total = found["whitened_loss"] = distance(own, its, kind, goal.weight)
        if config.relation_weight:
            found["relation_loss"] = relation_loss(own, its, goal.weight)
            total = total + config.relation_weight * found["relation_loss"]
        for i, (block, weight) in enumerate(config.block_losses.items()):
            assert goal.blocks is not None
            after = self.scaled(plain_norm(blocks[i].float()), 1 + i)
            loss = distance(after, self.scaled(goal.blocks[:, :, i], 1 + i), kind)
            found[f"block_{block}_loss"] = loss
            total = total + weight * loss
        return total, found


def kinds_of(goal: Goal) -> Tensor:
    """All features of a goal, (n, B, c, d); with weights of those that count, (n, T, d)."""
    assert goal.features is not None
    if goal.weight is not None:
        return goal.features[goal.weight > 0][None]
    after = [] if goal.blocks is None else list(goal.blocks.unbind(dim=-2))
    return torch.stack([goal.features, *after])
