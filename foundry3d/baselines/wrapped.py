"""The base of models that use a backbone in another way, with the interface all models share.

Shapes: B clouds, N points, c tokens, d width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from foundry3d.config import BackboneConfig
from foundry3d.geometry import Groups
from foundry3d.models.backbone import Backbone, Tokens
from foundry3d.models.budget import Budget, refuse_budget
from foundry3d.models.tokenizer import Position, SingleStage, Tokenizer
from foundry3d.models.vit import Encoder


class Wrapped(nn.Module):
    """A backbone, unchanged; subclasses change what enters its encoder or what happens inside.

    Args:
        backbone: its weights are shared; the model starts in its training or evaluation mode.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.training = backbone.training

    @property
    def shape(self) -> BackboneConfig:
        """Sizes of the model, with the groups that it makes."""
        return self.backbone.shape

    @property
    def output_dim(self) -> int:
        """Width of the returned features."""
        return self.backbone.output_dim

    @property
    def tokenizer(self) -> Tokenizer | SingleStage:
        """The tokenizer of the backbone."""
        return self.backbone.tokenizer

    @property
    def position(self) -> Position:
        """The position embedding of the backbone."""
        return self.backbone.position

    @property
    def encoder(self) -> Encoder:
        """The encoder of the backbone."""
        return self.backbone.encoder

    def group(
        self, points: Tensor, *, generator: torch.Generator | None = None, drawn: bool = True
    ) -> Groups:
        """The groups of points (B, N, 3) that features are returned for; see `Backbone.group`."""
        return self.backbone.group(points, generator=generator, drawn=drawn)

    def encode(
        self,
        groups: Groups,
        *,
        budget: Budget | None = None,
        generator: torch.Generator | None = None,
    ) -> Tokens:
        """Features of grouped points."""
        refuse_budget(budget)
        return self.backbone.encode(groups, generator=generator)

    def block_features(
        self,
        groups: Groups,
        layers: Sequence[int],
        *,
        budget: Budget | None = None,
        generator: torch.Generator | None = None,
    ) -> list[Tensor]:
        """Features (B, c, d) of grouped points after each of these blocks (from 0)."""
        refuse_budget(budget)
        return self.backbone.block_features(groups, layers, generator=generator)

    def forward(
        self,
        points: Tensor,
        *,
        budget: Budget | None = None,
        generator: torch.Generator | None = None,
    ) -> Tokens:
        """Features of points (B, N, 3), taken as they are.

        Raises:
            InputError: `geometry.check_points` refuses the points, or a budget is given.
        """
        refuse_budget(budget)
        return self.encode(self.group(points, generator=generator), generator=generator)


def copied(teacher: Backbone) -> Backbone:
    """A copy of a teacher to train as a student: without dropout, in evaluation mode."""
    shape = replace(teacher.config, dropout=0.0, attention_dropout=0.0, drop_path=0.0)
    own = Backbone(shape, generator=torch.Generator())
    own.load_state_dict(teacher.state_dict())
    return own.to(next(teacher.parameters()).device).eval()
