"""The static students of Table 4: fewer, larger groups (FPS), and prototypes (KMeans).

Shapes: B clouds, N points, c tokens, s encoded tokens, d width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from foundry3d.baselines.matching import merge, merged_sizes, nearest_seed
from foundry3d.baselines.sampling import larger_size
from foundry3d.baselines.wrapped import Wrapped, copied
from foundry3d.config import BackboneConfig, FPSStudentConfig, KMeansStudentConfig
from foundry3d.errors import InputError
from foundry3d.geometry import Groups, gather, group_at
from foundry3d.models.attributes import encoded
from foundry3d.models.backbone import Backbone, Tokens
from foundry3d.models.budget import Budget, refuse_budget
from foundry3d.models.supertokens import key_bias
from foundry3d.models.upsample import interpolate


class LayeredGroups(Groups):
    """The c groups of every cloud, for which features are returned, and s larger ones to encode.

    Args:
        fine: c groups.
        coarse: s groups around the first of their centers.
    """

    coarse: Groups

    def __new__(cls, fine: Groups, coarse: Groups) -> LayeredGroups:
        """The fine groups, with the coarse ones as an attribute."""
        made = super().__new__(cls, *fine)
        made.coarse = coarse
        return made

    def __getnewargs__(self) -> tuple[Groups, Groups]:
        return Groups(*self), self.coarse


class FPSStudent(Wrapped):
    """A student that tokenises and encodes s groups of k = 2 N / s points and interpolates.

    Its groups are centered on the first s of the c farthest points, so that a teacher can read
    the c groups of the same cloud; each of the c features is interpolated from the three nearest
    of the s.

    Args:
        config: sizes.
        backbone: a backbone of these sizes, whose weights are shared; None = a new one.
        generator: source of the initial weights; None = torch's default one.
    """

    def __init__(
        self,
        config: FPSStudentConfig,
        backbone: Backbone | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(backbone or Backbone(config.backbone, generator=generator))
        self.config = config

    @classmethod
    def from_teacher(cls, teacher: Backbone, *, supertokens: int, points: int) -> FPSStudent:
        """A student with a copy of the teacher's weights, without dropout, in evaluation mode.

        Raises:
            InputError: `FPSStudentConfig` refuses the sizes.
        """
        own = copied(teacher)
        sizes = FPSStudentConfig(backbone=own.config, supertokens=supertokens, points=points)
        return cls(sizes, own)

    @property
    def shape(self) -> BackboneConfig:
        """Sizes of the backbone, with the number and size of the groups that are tokenised."""
        count = self.config.supertokens
        size = larger_size(self.config.points, count)
        return replace(self.config.backbone, groups=count, group_size=size)

    def group(
        self, points: Tensor, *, generator: torch.Generator | None = None, drawn: bool = True
    ) -> LayeredGroups:
        """The c groups of points (B, N, 3), and the s larger ones."""
        fine, shape = self.backbone.group(points, generator=generator, drawn=drawn), self.shape
        shared = fine.centers[:, : shape.groups]
        points = encoded(points, self.backbone.shape)
        coarse = group_at(points, shared, shape.group_size, radius=shape.radius)
        return LayeredGroups(fine, coarse)

    def encode(
        self,
        groups: Groups,
        *,
        budget: Budget | None = None,
        generator: torch.Generator | None = None,
    ) -> Tokens:
        """Features of the c groups that `group` made, or of plain groups as they are."""
        refuse_budget(budget)
        if not isinstance(groups, LayeredGroups):
            return self.backbone.encode(groups, generator=generator)
        found = self.backbone.encode(groups.coarse, generator=generator)
        return Tokens(
            features=interpolate(groups.centers, groups.coarse.centers, found.features),
            centers=groups.centers,
            assignment=nearest_seed(groups.centers, groups.coarse.centers),
            tokens_used=found.tokens_used,
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
        if not isinstance(groups, LayeredGroups):
            return self.backbone.block_features(groups, layers, generator=generator)
        coarse = groups.coarse
        found = self.backbone.block_features(coarse, layers, generator=generator)
        return [interpolate(groups.centers, coarse.centers, features) for features in found]


class KMeansStudent(Wrapped):
    """A backbone that encodes prototypes instead of tokens.

    Each token is replaced by the nearest prototype. The position of a prototype is the mean
    position of its tokens, a prototype without tokens is hidden, and every token gets the encoded
    feature of its prototype: a DSO with a fixed codebook, and no CAU. The prototypes fit the tokens
    of the teacher, so the whole backbone (tokenizer, position, encoder, BatchNorm statistics) stays
    frozen in fine-tuning, where only the head trains.

    Args:
        config: sizes.
        backbone: a backbone of these sizes, whose weights are shared; None = a new one.
        generator: source of the initial weights; None = torch's default one.
    """

    prototypes: Tensor

    def __init__(
        self,
        config: KMeansStudentConfig,
        backbone: Backbone | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(backbone or Backbone(config.backbone, generator=generator))
        self.config = config
        self.register_buffer("prototypes", torch.zeros(config.supertokens, config.backbone.dim))

    @classmethod
    def from_teacher(
        cls, teacher: Backbone, batches: Iterable[Tensor], *, supertokens: int, seed: int = 0
    ) -> KMeansStudent:
        """A student with a copy of the teacher's weights and prototypes of its training clouds.

        Args:
            teacher: where the weights come from; not changed.
            batches: points (B, N, 3) of the training clouds, as the teacher reads them.
            supertokens: s.
            seed: seed of the k-means.

        Raises:
            InputError: see `fit_prototypes`.
        """
        own = copied(teacher)
        student = cls(KMeansStudentConfig(backbone=own.config, supertokens=supertokens), own)
        student.prototypes = fit_prototypes(own, batches, supertokens, seed=seed)
        return student.eval()

    def _states(
        self, groups: Groups, generator: torch.Generator | None
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        """Blocks' outputs (B, s, d), the prototype (B, c) of each token, tokens (B, s) of each."""
        tokens, positions = self.backbone.embed_groups(groups, generator=generator)
        count = len(self.prototypes)
        chosen = nearest_prototype(tokens, self.prototypes)
        ones = torch.ones(tokens.shape[:2], device=tokens.device)
        sizes = merged_sizes(chosen, count, ones)
        entering = self.backbone.with_class(
            self.prototypes.to(tokens.dtype).expand(tokens.shape[0], -1, -1),
            merge(positions, chosen, count, ones),
        )
        first = entering[0].shape[1] - count
        used = torch.cat([sizes.new_ones(sizes.shape[0], first), sizes], dim=1) > 0
        states = self.encoder.states(
            *entering, bias=key_bias(used, tokens.dtype), generator=generator
        )
        return [state[:, first:] for state in states], chosen, sizes

    def encode(
        self,
        groups: Groups,
        *,
        budget: Budget | None = None,
        generator: torch.Generator | None = None,
    ) -> Tokens:
        """Features of grouped points."""
        refuse_budget(budget)
        states, chosen, sizes = self._states(groups, generator)
        return Tokens(
            features=gather(self.encoder.norm(states[-1]), chosen),
            centers=groups.centers,
            assignment=chosen,
            tokens_used=(sizes > 0).sum(dim=1),
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
        states, chosen, _ = self._states(groups, generator)
        return [gather(states[layer], chosen) for layer in layers]


def nearest_prototype(tokens: Tensor, prototypes: Tensor) -> Tensor:
    """(B, c) int64: the prototype (s, d) nearest to each token (B, c, d)."""
    distance = torch.cdist(
        tokens.float(), prototypes.float(), compute_mode="donot_use_mm_for_euclid_dist"
    )
    return distance.argmin(dim=-1)


def fit_prototypes(
    backbone: Backbone, batches: Iterable[Tensor], count: int, *, seed: int = 0
) -> Tensor:
    """K-means centers (s, d) of all tokens of a training split, without positions.

    One pass of mini-batch k-means with one step per batch of clouds, so that the tokens of a large
    split need not fit into memory.

    Args:
        backbone: in evaluation mode.
        batches: points (B, N, 3), as the backbone reads them.
        count: s, at most the number of tokens in the first batch.
        seed: seed of the initial centers.

    Raises:
        InputError: there is no batch, or the first one has fewer tokens than prototypes.
    """
    from sklearn.cluster import MiniBatchKMeans

    means = MiniBatchKMeans(count, random_state=seed, n_init=3)
    device, seen = next(backbone.parameters()).device, 0
    with torch.inference_mode():
        for points in batches:
            tokens, _ = backbone.embed_groups(backbone.group(points.to(device)))
            rows = tokens.flatten(0, 1).float().cpu().numpy()
            seen = seen or len(rows)
            if seen < count:
                break
            means.partial_fit(rows)
    if seen < count:
        raise InputError(
            f"{count} prototypes need at least as many tokens in the first batch, got {seen}; "
            "use more clouds per batch"
        )
    return torch.from_numpy(means.cluster_centers_).float().to(device)
