"""The truncated student: a teacher's first blocks and an MLP to its features, no supertokens.

Shapes: B clouds, N points, c tokens, d width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from foundry3d.config import StudentOptions, TruncatedConfig
from foundry3d.geometry import Groups
from foundry3d.models.backbone import Backbone, Tokens
from foundry3d.models.budget import Budget, refuse_budget
from foundry3d.models.inherit import copy_weights, truncated_config
from foundry3d.models.supertokens import FeatureMLP
from foundry3d.models.tokenizer import PointModel
from foundry3d.models.vit import encoder_of, initialise


class Truncated(PointModel):
    """A student that runs k blocks on all c tokens: features are MLP(T_k + P).

    The rival that supertokens have to beat at the same cost.

    Args:
        config: sizes; see `TruncatedConfig`.
        generator: source of the initial weights; None = torch's default one.
    """

    def __init__(
        self, config: TruncatedConfig, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(config.backbone)
        self.config = config
        self.encoder = encoder_of(config.backbone, final_norm=False)
        self.mlp = FeatureMLP(config.backbone.dim)
        same = self.output_dim == config.backbone.dim
        self.output = nn.Identity() if same else nn.Linear(config.backbone.dim, self.output_dim)
        initialise(self, generator=generator)

    @property
    def output_dim(self) -> int:
        """Width of the returned features: the teacher's."""
        return self.config.output_dim or self.config.backbone.dim

    def forward(
        self,
        points: Tensor | Groups,
        *,
        tokens: Tensor | None = None,
        budget: Budget | None = None,
        generator: torch.Generator | None = None,
    ) -> Tokens:
        """The teacher's features, predicted from its first blocks.

        Args:
            points: (B, N, 3) floating point, N at least groups and group_size, taken as they are,
                with attributes (B, N, 3 + m); or groups of them.
            tokens: (B, c, token width), the tokenizer's output for groups where it exists already.
            budget: None; budgets are for students with supertokens.
            generator: source of the draws in training mode; None = torch's default one.

        Raises:
            InputError: `geometry.check_points` refuses the points, or a budget is given.
        """
        refuse_budget(budget)
        groups = points if isinstance(points, Groups) else self.group(points, generator=generator)
        tokens, positions = self.embed_groups(groups, tokens, generator)
        encoded = self.encoder(tokens, positions, generator=generator)
        count = torch.full(encoded.shape[:1], encoded.shape[1], device=encoded.device)
        features = self.features_of(encoded, positions)
        return Tokens(features=features, centers=groups.centers, tokens_used=count)

    def features_of(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Features (B, c, output_dim) of tokens after a block and of positions (B, c, d)."""
        return self.output(self.mlp(tokens + positions))

    def block_features(
        self,
        groups: Groups,
        layers: Sequence[int],
        *,
        budget: Budget | None = None,
        generator: torch.Generator | None = None,
    ) -> list[Tensor]:
        """Features (B, c, output_dim) after each of these blocks, each through the same MLP.

        Without blocks, each of them is what `encode` returns.

        Args:
            groups: of B clouds.
            layers: indices of blocks, from 0.
            budget: None; budgets are for students with supertokens.
            generator: source of the draws in training mode.

        Raises:
            InputError: a budget is given.
        """
        refuse_budget(budget)
        tokens, positions = self.embed_groups(groups, None, generator)
        states = self.encoder.states(tokens, positions, generator=generator)
        chosen = [states[layer] if states else tokens for layer in layers]
        return [self.features_of(state, positions) for state in chosen]

    def encode_blocks(
        self,
        groups: Groups,
        layers: Sequence[int],
        *,
        tokens: Tensor | None = None,
        budget: Budget | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tokens, list[Tensor]]:
        """`encode` and `block_features` with one run of the encoder.

        Raises:
            InputError: a budget is given.
        """
        refuse_budget(budget)
        tokens, positions = self.embed_groups(groups, tokens, generator)
        states = [tokens, *self.encoder.states(tokens, positions, generator=generator)]
        count = torch.full(tokens.shape[:1], tokens.shape[1], device=tokens.device)
        output = Tokens(
            features=self.features_of(states[-1], positions),
            centers=groups.centers,
            tokens_used=count,
        )
        return output, [self.features_of(states[layer + 1], positions) for layer in layers]

    @classmethod
    def from_teacher(
        cls,
        teacher: Backbone,
        options: StudentOptions | None = None,
        *,
        generator: torch.Generator | None = None,
        **changes: Any,
    ) -> Truncated:
        """A student that starts from the teacher's first blocks, in evaluation mode, on its device.

        Tokenizer, position and blocks are copied where their sizes agree; the MLP is new.

        Args:
            teacher: where weights and sizes come from; not changed.
            options: of kind truncated; None = the defaults of `StudentOptions`.
            generator: of the new weights; None = torch's default one.
            changes: fields of `StudentOptions` that replace those of `options`, e.g. `depth=1`.

        Raises:
            InputError: an unknown option, or one that does not fit the teacher.
        """
        sizes = truncated_config(teacher.config, options, **changes)
        student = cls(sizes, generator=generator)
        copy_weights(teacher, teacher.config, student, sizes.backbone, shallower=True)
        return student.to(next(teacher.parameters()).device).eval()
