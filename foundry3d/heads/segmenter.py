"""A model with a head that predicts the part of every point.

Shapes: B clouds, N points, c tokens, d token width, P parts, K categories.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foundry3d.config import PartHeadConfig, SegmenterConfig
from foundry3d.config.heads import kind_of
from foundry3d.errors import InputError
from foundry3d.geometry import Groups, check_points, coordinates
from foundry3d.heads.classifier import Headed, Inner, build_inner
from foundry3d.models.attributes import encoded
from foundry3d.models.budget import Budget
from foundry3d.models.tokenizer import PointConv
from foundry3d.models.upsample import FeatureUpsampling
from foundry3d.models.vit import drop, initialise


def evenly_spaced_blocks(depth: int) -> tuple[int, ...]:
    """The blocks at the ends of three equal stretches of an encoder: 3, 7, 11 of 12; 1, 2, 3 of 4.

    Fewer where the encoder has fewer than three.
    """
    return tuple(sorted({max(0, math.ceil(i * depth / 3) - 1) for i in (1, 2, 3)}))


class PartHead(nn.Module):
    """Token features to part logits of every point (`docs/method.md`, "Part segmentation").

    Per point: features interpolated from the tokens, through `FeatureUpsampling`. Per cloud:
    maximum and mean over the tokens, and an embedding of the category. Both together go through
    layers with BatchNorm and ReLU. The first layer reads both; its weights for the cloud are
    applied once per cloud instead of once per point, with the same result.

    Args:
        dim: d.
        categories: K; a single category has no embedding.
        parts: P.
        config: widths.
        generator: source of the initial weights; None = torch's default one.
    """

    def __init__(
        self,
        dim: int,
        categories: int,
        parts: int,
        config: PartHeadConfig,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.categories, self.dropout = categories, config.dropout
        embedded = config.label_dim if categories > 1 else 0
        if embedded:
            self.label = nn.Linear(categories, embedded, bias=False)
            self.label_norm = nn.BatchNorm1d(embedded)
        self.upsampling = FeatureUpsampling(dim, config.upsampling)
        self.local = PointConv(config.upsampling[-1], config.hidden[0], bias=False)
        self.whole = nn.Linear(2 * dim + embedded, config.hidden[0], bias=False)
        pairs = pairwise(config.hidden)
        self.convs = nn.ModuleList(PointConv(a, b, bias=False) for a, b in pairs)
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for width in config.hidden)
        self.out = PointConv(config.hidden[-1], parts)
        initialise(self, generator=generator)

    def pooled(self, features: Tensor, categories: Tensor) -> Tensor:
        """(B, 2d + label_dim): maximum and mean of features (B, c, d), and categories (B,)."""
        pooled = [features.amax(dim=1), features.mean(dim=1)]
        if self.categories > 1:
            chosen = self.label(F.one_hot(categories, self.categories).to(features.dtype))
            pooled.append(F.leaky_relu(self.label_norm(chosen), 0.2))
        return torch.cat(pooled, dim=-1)

    def forward(
        self,
        points: Tensor,
        centers: Tensor,
        features: Tensor,
        categories: Tensor,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Logits (B, N, P) of points (B, N, 3) from features (B, c, d) at centers (B, c, 3)."""
        local = self.local(self.upsampling(points, centers, features))
        x = local + self.whole(self.pooled(features, categories))[:, None]
        batch, count, _ = x.shape
        x = torch.relu(self.norms[0](x.flatten(0, 1)))
        if self.training:
            x = drop(x, self.dropout, generator, per_cloud=False)
        for conv, norm in zip(self.convs, self.norms[1:], strict=True):
            x = torch.relu(norm(conv(x)))
        return self.out(x).view(batch, count, -1)


class Segmenter(Headed):
    """A backbone or student with a part head: a part for every point.

    Args:
        config: sizes of model and head, categories, parts, and the parts of each category.
        generator: source of the initial weights; None = torch's default one.
    """

    allowed: Tensor

    def __init__(
        self, config: SegmenterConfig, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.backbone = build_inner(config.inner, generator=generator)
        self.blocks = config.head.blocks or evenly_spaced_blocks(self.backbone.shape.depth)
        count, parts, width = len(config.categories), len(config.parts), self.backbone.output_dim
        self.head = PartHead(width, count, parts, config.head, generator=generator)
        allowed = torch.zeros(count, parts, dtype=torch.bool)
        for category, owned in enumerate(config.owned):
            allowed[category, list(owned)] = True
        allowed |= ~allowed.any(dim=1, keepdim=True)
        self.register_buffer("allowed", allowed, persistent=False)

    @classmethod
    def from_model(
        cls,
        model: Inner,
        *,
        parts: tuple[str, ...],
        categories: tuple[str, ...] = ("all",),
        owned: Sequence[Sequence[int]] = ((),),
        head: PartHeadConfig | None = None,
        generator: torch.Generator | None = None,
    ) -> Segmenter:
        """A copy of a model with a new head.

        Args:
            model: its weights are copied; not changed.
            parts: names of the parts of all categories.
            categories: names of the categories.
            owned: the part numbers of each category; empty = all parts.
            head: sizes of the head; None = the published ones.
            generator: source of the head's weights; None = torch's default one.

        Returns:
            The segmenter, in evaluation mode, on the model's device.

        Raises:
            InputError: `SegmenterConfig` refuses the sizes, names or numbers.
        """
        config = SegmenterConfig(
            kind=kind_of(model.config),
            inner=model.config,
            head=head or PartHeadConfig(),
            categories=tuple(categories),
            parts=tuple(parts),
            owned=tuple(tuple(int(n) for n in numbers) for numbers in owned),
        )
        return cls(config, generator=generator).adopt(model)

    def forward(
        self,
        points: Tensor,
        categories: Tensor,
        *,
        budget: Budget | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Logits (B, N, P) of all parts, whichever category owns them.

        Args:
            points: (B, N, 3), normalised as in training.
            categories: (B,) int64 in 0..K-1.
            budget: of the model under the head; students only.
            generator: source of the draws in training mode; None = torch's default one.

        Raises:
            InputError: the model refuses the points or the budget, or categories have another
                shape or range.
        """
        self._check(points, categories)
        groups = self.backbone.group(points, generator=generator)
        return self.answers(points, groups, categories, budget=budget, generator=generator)

    def answers(
        self,
        points: Tensor,
        groups: Groups,
        labels: Tensor,
        *,
        budget: Budget | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Logits (B, N, P); see `Headed.answers`."""
        features = self.token_features(groups, budget=budget, generator=generator)
        categories = self.categories_of(labels)
        return self.head(coordinates(points), groups.centers, features, categories, generator)

    def token_features(
        self,
        groups: Groups,
        *,
        budget: Budget | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """What the head reads (B, c, d): the mean of the normalised features of several blocks."""
        states = self.backbone.block_features(
            groups, self.blocks, budget=budget, generator=generator
        )
        width = states[0].shape[-1:]
        return torch.stack([F.layer_norm(state, width) for state in states]).mean(dim=0)

    def categories_of(self, labels: Tensor) -> Tensor:
        """Categories (B,) of labelled clouds; all 0 where the model knows a single category."""
        return labels if self.head.categories > 1 else torch.zeros_like(labels)

    def _check(self, points: Tensor, categories: Tensor) -> None:
        shape = self.backbone.shape
        check_points(encoded(points, shape), attributes=shape.point_channels - 3)
        count = self.head.categories
        if categories.shape != points.shape[:1]:
            raise InputError(
                f"expected categories of shape ({len(points)},), one per cloud, "
                f"got {tuple(categories.shape)}"
            )
        if bool(((categories < 0) | (categories >= count)).any()):
            raise InputError(f"expected categories in 0..{count - 1}, got {categories.tolist()}")

    def predict(
        self, points: Tensor, categories: Tensor, *, budget: Budget | None = None
    ) -> Tensor:
        """The part (B, N) int64 of each point, among those that the cloud's category owns.

        Raises:
            InputError: as `forward`.
        """
        logits = self(points, categories, budget=budget)
        return logits.masked_fill(~self.allowed[categories][:, None], float("-inf")).argmax(dim=-1)
