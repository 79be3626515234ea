"""The teacher: points in, one feature per token out.

Shapes: B clouds, N points, c tokens, k points per group, d width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from foundry3d import config as configs
from foundry3d.config import BackboneConfig
from foundry3d.errors import InputError
from foundry3d.geometry import Groups
from foundry3d.models.budget import Budget, refuse_budget
from foundry3d.models.tokenizer import PointModel
from foundry3d.models.tokens import Tokens as Tokens
from foundry3d.models.tokens import pool as pool
from foundry3d.models.vit import encoder_of, initialise


class TokenFeatures(Protocol):
    """What a teacher returns."""

    @property
    def features(self) -> Tensor:
        """(B, c, d) one feature per token."""
        ...

    @property
    def centers(self) -> Tensor:
        """(B, c, 3) where the tokens are, in the coordinates of the points."""
        ...


class Teacher(Protocol):
    """Anything that can be distilled: points (B, N, 3) in, token features out.

    Your own module satisfies it without inheriting from anything here.
    """

    def __call__(self, points: Tensor, /) -> TokenFeatures:
        """Token features of points (B, N, 3)."""
        ...


class Backbone(PointModel):
    """A point-cloud transformer: the teacher, and the model that is pre-trained.

    Args:
        config: sizes; see `BackboneConfig`.
        generator: source of the initial weights; None = torch's default one.
    """

    def __init__(
        self, config: BackboneConfig | None = None, *, generator: torch.Generator | None = None
    ) -> None:
        config = config or BackboneConfig()
        super().__init__(config)
        self.config = config
        self.encoder = encoder_of(config)
        initialise(self, generator=generator)
        self.class_token: nn.Parameter | None = None
        self.class_position: nn.Parameter | None = None
        if self.config.class_token:
            self.class_token = nn.Parameter(torch.empty(self.config.dim))
            self.class_position = nn.Parameter(torch.empty(self.config.dim))
            nn.init.trunc_normal_(self.class_token, std=0.02, generator=generator)
            nn.init.trunc_normal_(self.class_position, std=0.02, generator=generator)

    @classmethod
    def preset(cls, name: str, **changes: object) -> Backbone:
        """An untrained backbone in evaluation mode: `vit_t`, `vit_s` or `vit_b`.

        Args:
            name: of the preset.
            changes: fields of `BackboneConfig` that differ from it.

        Raises:
            InputError: the name or a field is unknown, or a value is refused.
        """
        return cls(configs.preset(name, **changes)).eval()

    @property
    def output_dim(self) -> int:
        """Width of the returned features."""
        return self.config.dim

    def forward(
        self,
        points: Tensor | Groups,
        *,
        tokens: Tensor | None = None,
        budget: Budget | None = None,
        generator: torch.Generator | None = None,
    ) -> Tokens:
        """One feature per token of points.

        Args:
            points: (B, N, 3) floating point, N at least groups and group_size, taken as they are,
                with attributes (B, N, 3 + m); or groups of them.
            tokens: (B, c, token width), the tokenizer's output for groups where it exists already.
            budget: None; budgets are for students.
            generator: source of the draws in training mode; None = torch's default one.

        Raises:
            InputError: `geometry.check_points` refuses the points, or a budget is given.
        """
        refuse_budget(budget)
        groups = points if isinstance(points, Groups) else self.group(points, generator=generator)
        entering, positions = self.with_class(*self.embed_groups(groups, tokens, generator))
        encoded = self.encoder(entering, positions, generator=generator)
        count = torch.full(encoded.shape[:1], encoded.shape[1], device=encoded.device)
        features = encoded[:, -groups.centers.shape[1] :]
        return Tokens(features=features, centers=groups.centers, tokens_used=count)

    def block_features(
        self,
        groups: Groups,
        layers: Sequence[int],
        *,
        budget: Budget | None = None,
        generator: torch.Generator | None = None,
    ) -> list[Tensor]:
        """Features (B, c, d) of groups after each of these blocks, before the final LayerNorm.

        Args:
            groups: of B clouds.
            layers: indices of blocks, from 0.
            budget: None; budgets are for students.
            generator: source of the draws in training mode.

        Raises:
            InputError: a budget is given.
        """
        refuse_budget(budget)
        tokens, positions = self.with_class(*self.embed_groups(groups, None, generator))
        states = self.encoder.states(tokens, positions, generator=generator)
        return [states[layer][:, -groups.centers.shape[1] :] for layer in layers]

    def encode_blocks(
        self, groups: Groups, layers: Sequence[int], *, tokens: Tensor | None = None
    ) -> tuple[Tokens, list[Tensor]]:
        """`encode` and `block_features` with one run of the encoder."""
        entering, positions = self.with_class(*self.embed_groups(groups, tokens))
        states = self.encoder.states(entering, positions)
        first = entering.shape[1] - groups.centers.shape[1]
        output = Tokens(
            features=self.encoder.norm(states[-1])[:, first:],
            centers=groups.centers,
            tokens_used=torch.full(entering.shape[:1], entering.shape[1], device=entering.device),
        )
        return output, [states[layer][:, first:] for layer in layers]

    def with_class(self, tokens: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens and positions (B, n, d) with the class token in front, if there is one."""
        if self.class_token is None or self.class_position is None:
            return tokens, positions
        first = self.class_token.to(tokens.dtype).expand(tokens.shape[0], 1, -1)
        place = self.class_position.to(positions.dtype).expand(tokens.shape[0], 1, -1)
        return torch.cat([first, tokens], dim=1), torch.cat([place, positions], dim=1)


def untrained(model: Backbone, points: Tensor) -> Backbone:
    """Sets the BatchNorm statistics of an untrained backbone from points (B, N, 3), in place.

    Otherwise its evaluation mode would assume zero mean and unit variance, which would make the
    untrained row of a report unfairly bad.
    """
    groups = model.group(points)
    norms = [part for part in model.modules() if isinstance(part, nn.BatchNorm1d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None
        norm.reset_running_stats()
        norm.train()
    with torch.no_grad():
        model.tokenizer(groups.neighborhoods)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
    return model


def require_teacher(model: object) -> Backbone:
    """The model itself if it is a `Backbone`.

    Raises:
        InputError: it is something else, e.g. a student.
    """
    if not isinstance(model, Backbone):
        raise InputError(f"a teacher is a backbone, got a {type(model).__name__}; load the teacher")
    return model
