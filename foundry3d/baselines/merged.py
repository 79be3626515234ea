"""Backbones whose encoder merges tokens, with a feature for every original token.

Shapes: B clouds, c tokens of the tokenizer, d width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from foundry3d.baselines.trace import PatchMerger, Reduction, Trace
from foundry3d.baselines.wrapped import Wrapped, copied
from foundry3d.config import MergedConfig, ReductionConfig
from foundry3d.geometry import Groups
from foundry3d.models.backbone import Backbone, Tokens
from foundry3d.models.budget import Budget, refuse_budget
from foundry3d.models.vit import State, initialise


class Merged(Wrapped):
    """A backbone that merges tokens inside its encoder (ToMe, PiToMe, PatchMerger, clusters).

    `around` wraps a trained backbone for inference; `from_teacher` makes a student to distil.
    Attention to a merged token is proportional to its size, positions are merged like tokens, and
    every original token gets the feature of the token it was merged into. A class token is never
    merged.

    Args:
        config: sizes, method and schedule.
        backbone: a backbone of these sizes, whose weights are shared; None = a new one.
        generator: source of the initial weights; None = torch's default one.
    """

    def __init__(
        self,
        config: MergedConfig,
        backbone: Backbone | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(backbone or Backbone(config.backbone, generator=generator))
        self.config = config
        self.merger: PatchMerger | None = None
        if config.reduction.method == "patchmerger":
            self.merger = PatchMerger(config.backbone.dim, config.supertokens)
            initialise(self.merger, generator=generator)
            nn.init.trunc_normal_(self.merger.queries, generator=generator)

    @classmethod
    def around(cls, backbone: Backbone, reduction: ReductionConfig) -> Merged:
        """A trained backbone that merges tokens at inference; its weights are shared.

        Raises:
            InputError: the schedule does not fit the backbone.
        """
        return cls(MergedConfig(backbone=backbone.config, reduction=reduction), backbone)

    @classmethod
    def from_teacher(
        cls,
        teacher: Backbone,
        reduction: ReductionConfig,
        *,
        generator: torch.Generator | None = None,
    ) -> Merged:
        """A student with a copy of the teacher's weights, without dropout, in evaluation mode.

        Raises:
            InputError: the schedule does not fit the teacher.
        """
        own = copied(teacher)
        made = cls(MergedConfig(backbone=own.config, reduction=reduction), own, generator=generator)
        return made.to(next(own.parameters()).device).eval()

    def reductions(
        self, groups: Groups, *, generator: torch.Generator | None = None
    ) -> list[Reduction]:
        """For each block, its output tokens and where the c tokens of the groups are in them.

        Raises:
            InputError: there are too few groups for the schedule.
        """
        config, backbone = self.config.reduction, self.backbone
        tokens, positions = backbone.embed_groups(groups, generator=generator)
        batch, count, _ = tokens.shape
        ones = torch.ones(batch, count, device=tokens.device)
        rows = torch.arange(count, device=tokens.device).expand(batch, -1)
        start = Reduction(
            tokens=tokens, positions=positions, centers=groups.centers, sizes=ones, source=rows
        )
        blocks = backbone.encoder.blocks
        entering = backbone.with_class(tokens, positions)
        trace = Trace(
            config,
            config.schedule(count, len(blocks)),
            start,
            first=entering[0].shape[1] - count,
            generator=generator if self.training else None,
        )
        state, found = State(tokens=entering[0], positions=entering[1]), []
        for layer, block in enumerate(blocks):
            if self.merger is not None and layer == config.merger_after(len(blocks)):
                trace.now = self.merger(trace.follow(state))
                state = trace.state(state, bias=None)
            hook = None if self.merger is not None else trace
            state = block(layer, state, hook, generator)
            found.append(trace.follow(state))
        return found

    def encode(
        self,
        groups: Groups,
        *,
        budget: Budget | None = None,
        generator: torch.Generator | None = None,
    ) -> Tokens:
        """Features of grouped points; `tokens_used` counts the tokens that leave the encoder."""
        refuse_budget(budget)
        last = self.reductions(groups, generator=generator)[-1]
        leaving = (last.sizes > 0) | (self.merger is not None)  # the merger hides no row
        return Tokens(
            features=last.spread(self.encoder.norm(last.tokens)),
            centers=groups.centers,
            assignment=last.source,
            tokens_used=leaving.sum(dim=1),
        )

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
        found = self.reductions(groups, generator=generator)
        return [found[layer].spread(found[layer].tokens) for layer in layers]
