"""Fewer tokens from fewer groups: random sampling and larger groups (Table 5).

Shapes: B clouds, N points, c tokens, k points per group.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from foundry3d.baselines.wrapped import Wrapped
from foundry3d.config import BackboneConfig
from foundry3d.errors import InputError
from foundry3d.geometry import Groups, gather, group_points
from foundry3d.models.attributes import encoded
from foundry3d.models.backbone import Backbone


def random_choice(
    batch: int, tokens: int, keep: int, *, device: torch.device, generator: torch.Generator
) -> Tensor:
    """(B, keep) distinct random token indices on a device, drawn for each cloud separately."""
    draws = torch.rand(batch, tokens, device=generator.device, generator=generator)
    return draws.to(device).argsort(dim=1)[:, :keep]


class RandomSampling(Wrapped):
    """A teacher that encodes a random subset of its tokens at inference.

    Args:
        backbone: the teacher; its weights are shared.
        keep: c_rs, tokens kept in each cloud; only these get features.
        seed: seed of the choice, which is the same in every call.

    Raises:
        InputError: keep is outside 1..c.
    """

    def __init__(self, backbone: Backbone, keep: int, *, seed: int = 0) -> None:
        super().__init__(backbone)
        if not 1 <= keep <= backbone.config.groups:
            raise InputError(f"keep must lie in 1..{backbone.config.groups} tokens, got {keep}")
        self.keep, self.seed = keep, seed

    @property
    def shape(self) -> BackboneConfig:
        """Sizes of the backbone, with the number of groups that are kept."""
        return replace(self.backbone.shape, groups=self.keep)

    def group(
        self, points: Tensor, *, generator: torch.Generator | None = None, drawn: bool = True
    ) -> Groups:
        """The kept groups of points (B, N, 3)."""
        groups = super().group(points, generator=generator, drawn=drawn)
        own = torch.Generator().manual_seed(self.seed)
        batch, count, _ = groups.centers.shape
        chosen = random_choice(batch, count, self.keep, device=points.device, generator=own)
        near = gather(groups.neighborhoods.flatten(2), chosen)
        return Groups(
            gather(groups.centers, chosen), near.unflatten(2, groups.neighborhoods.shape[2:])
        )


def larger_size(points: int, groups: int) -> int:
    """The group size k = 2 N / c with which c groups cover N points twice; at most N."""
    return min(points, 2 * points // groups)


class LargerGroups(Wrapped):
    """A teacher that makes fewer, larger groups at inference: c' groups of k = 2 N / c' points.

    Args:
        backbone: the teacher; its weights are shared.
        groups: c'.
        points: N, points of each cloud it will read.

    Raises:
        InputError: groups is outside 1..N.
    """

    def __init__(self, backbone: Backbone, groups: int, *, points: int) -> None:
        super().__init__(backbone)
        if not 1 <= groups <= points:
            raise InputError(f"groups must lie in 1..{points} (the points), got {groups}")
        self.groups, self.points = groups, points

    @property
    def shape(self) -> BackboneConfig:
        """Sizes of the backbone, with the number and size of the larger groups."""
        size = larger_size(self.points, self.groups)
        return replace(self.backbone.shape, groups=self.groups, group_size=size)

    def group(
        self, points: Tensor, *, generator: torch.Generator | None = None, drawn: bool = True
    ) -> Groups:
        """The larger groups of points (B, N, 3); FPS starts at index 0, in training mode too."""
        shape = self.shape
        points, extra = encoded(points, shape), shape.point_channels - 3
        return group_points(
            points, shape.groups, shape.group_size, radius=shape.radius, attributes=extra
        )
