"""A classification head, and a model with one: points in, class logits out.

Shapes: B clouds, N points, d token width, C classes.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foundry3d.baselines import FPSStudent, KMeansStudent, Merged
from foundry3d.config import (
    BackboneConfig,
    ClassifierConfig,
    FPSStudentConfig,
    HeadConfig,
    KMeansStudentConfig,
    MergedConfig,
    StudentConfig,
    TruncatedConfig,
)
from foundry3d.config.heads import InnerConfig, kind_of, shape_of
from foundry3d.geometry import Groups
from foundry3d.models.backbone import Backbone
from foundry3d.models.budget import Budget
from foundry3d.models.student import Student
from foundry3d.models.truncated import Truncated
from foundry3d.models.vit import drop, initialise

Inner = Backbone | Student | Truncated | Merged | FPSStudent | KMeansStudent


class ClassHead(nn.Module):
    """Pooled features to logits: hidden layers with BatchNorm, ReLU and dropout, then a Linear.

    The head of Point-JEPA and point2vec by default (`docs/method.md`, "Classification").

    Args:
        width: 2d, width of the pooled features.
        classes: C.
        config: hidden widths and dropout.
        generator: source of the initial weights; None = torch's default one.
    """

    def __init__(
        self,
        width: int,
        classes: int,
        config: HeadConfig | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.config = config or HeadConfig()
        widths = (width, *self.config.hidden)
        self.hidden = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(nn.BatchNorm1d(b) for b in widths[1:])
        self.output = nn.Linear(widths[-1], classes)
        initialise(self, generator=generator)

    def forward(self, pooled: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Logits (B, C) of pooled features (B, 2d)."""
        x = pooled
        for linear, norm in zip(self.hidden, self.norms, strict=True):
            x = F.relu(norm(linear(x)))
            if self.training:
                x = drop(x, self.config.dropout, generator, per_cloud=False)
        return self.output(x)


def build_inner(config: InnerConfig, *, generator: torch.Generator | None = None) -> Inner:
    """An untrained model of these sizes."""
    match config:
        case BackboneConfig():
            return Backbone(config, generator=generator)
        case StudentConfig():
            return Student(config, generator=generator)
        case TruncatedConfig():
            return Truncated(config, generator=generator)
        case MergedConfig():
            return Merged(config, generator=generator)
        case FPSStudentConfig():
            return FPSStudent(config, generator=generator)
        case KMeansStudentConfig():
            return KMeansStudent(config, generator=generator)


def reshaped(model: Inner, *, generator: torch.Generator | None = None, **changes: Any) -> Inner:
    """A copy of a model, weights included, with other values in its `BackboneConfig`.

    Args:
        model: not changed.
        generator: source of fresh weights; None = the weights of the model are copied.
        changes: fields that no weight depends on (dropout, groups); None = unchanged.

    Raises:
        InputError: the configuration refuses the values.
    """
    given = {key: value for key, value in changes.items() if value is not None}
    config: InnerConfig = model.config
    shape = replace(shape_of(config), **given)
    config = shape if isinstance(config, BackboneConfig) else replace(config, backbone=shape)
    copy = build_inner(config, generator=generator)
    if generator is None:
        copy.load_state_dict(model.state_dict())
    return copy.to(next(model.parameters()).device).train(model.training)


class Headed(nn.Module):
    """What is fine-tuned: a backbone, a student or a reduced backbone with a head."""

    backbone: Inner

    def adopt(self, model: Inner) -> Self:
        """Takes over the weights of a model and its device; in evaluation mode."""
        self.backbone.load_state_dict(model.state_dict())
        return self.to(next(model.parameters()).device).eval()

    def answers(
        self,
        points: Tensor,
        groups: Groups,
        labels: Tensor,
        *,
        budget: Budget | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Logits of points that are already grouped: (B, C) of clouds or (B, N, P) of points.

        Args:
            points: (B, N, 3).
            groups: of the points.
            labels: (B,) int64, the category of each cloud; only part heads read it.
            budget: of the model under the head; students only.
            generator: of the draws in training mode; None = torch's default one.
        """
        raise NotImplementedError("each headed model defines its answers")


class Classifier(Headed):
    """A model with a classification head.

    Args:
        config: sizes of model and head, and the class names.
        generator: source of the initial weights; None = torch's default one.
    """

    def __init__(
        self, config: ClassifierConfig, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.backbone = build_inner(config.inner, generator=generator)
        width = 2 * self.backbone.output_dim
        self.head = ClassHead(width, len(config.classes), config.head, generator=generator)

    @classmethod
    def from_model(
        cls,
        model: Inner,
        classes: tuple[str, ...],
        *,
        head: HeadConfig | None = None,
        generator: torch.Generator | None = None,
    ) -> Classifier:
        """A copy of a model with a new head.

        Args:
            model: its weights are copied; not changed.
            classes: names of the classes, in the order of their labels.
            head: sizes of the head; None = the published ones.
            generator: source of the head's weights; None = torch's default one.

        Returns:
            The classifier, in evaluation mode, on the model's device.

        Raises:
            InputError: there are fewer than two classes.
        """
        config = ClassifierConfig(
            kind=kind_of(model.config),
            inner=model.config,
            head=head or HeadConfig(),
            classes=tuple(classes),
        )
        return cls(config, generator=generator).adopt(model)

    def forward(
        self,
        points: Tensor,
        *,
        budget: Budget | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Logits (B, C) of points (B, N, 3).

        Args:
            points: taken as they are.
            budget: of the model under the head; students only.
            generator: source of the draws in training mode; None = torch's default one.

        Raises:
            InputError: the model refuses the points or the budget.
        """
        tokens = self.backbone(points, budget=budget, generator=generator)
        return self.head(tokens.pooled(), generator=generator)

    def answers(
        self,
        points: Tensor,
        groups: Groups,
        labels: Tensor,
        *,
        budget: Budget | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Logits (B, C); see `Headed.answers`."""
        tokens = self.backbone.encode(groups, budget=budget, generator=generator)
        return self.head(tokens.pooled(), generator=generator)
