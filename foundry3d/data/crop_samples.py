"""One draw of a cloud: whole or a crop, with as many points and stored features as a model reads.

Shapes: B clouds of a batch, N points, c tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from foundry3d.config import DataConfig
from foundry3d.config.crops import crop_of
from foundry3d.data.crops import Crop, draw_crop
from foundry3d.data.stored import FeatureCloud
from foundry3d.geometry import farthest_point_sample

if TYPE_CHECKING:
    from foundry3d.geometry.tree import Tree


class StoredBatch(NamedTuple):
    """Points and features that a model computed elsewhere.

    Attributes:
        points: (B, N, 3) float32.
        features: (B, N, D) of the points, or (B, c, D) of tokens.
        centers: (B, c, 3) float32 of the tokens; None = features of points.
        present: (B, N) or (B, c) bool, the rows that have features; None = all.
    """

    points: Tensor
    features: Tensor
    centers: Tensor | None
    present: Tensor | None


class Cloud(NamedTuple):
    """A cloud in memory, with its search tree where it is large."""

    points: np.ndarray
    stored: FeatureCloud | None
    tree: Tree | None

    @property
    def size(self) -> int:
        """Bytes."""
        parts = [self.points]
        if self.stored is not None:
            centers = self.stored.centers
            parts += [self.stored.features, *([] if centers is None else [centers])]
        if self.tree is not None:
            parts += [self.tree.xyz, self.tree.order]
        return sum(part.nbytes for part in parts)


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a model needs of a cloud.

    Attributes:
        points: distinct points of a crop, at least.
        tokens: tokens with stored features that it reads of a cloud, at most.
    """

    points: int = 1
    tokens: int = 1


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """How clouds are drawn.

    Attributes:
        config: points per cloud, crops and how points are taken.
        needs: of the model.
        tokens: c, tokens with stored features that a draw has; 0 = points have them.
    """

    config: DataConfig
    needs: Needs
    tokens: int = 0

    def crop(self, cloud: Cloud, generator: np.random.Generator) -> Crop | None:
        """A crop that holds what the model needs; None = clouds are read whole.

        Raises:
            InputError: crops of the cloud are too small.
        """
        if self.config.crop is None:
            return None
        return draw_crop(
            cloud.points,
            crop_of(self.config.crop),
            generator,
            at_least=self.needs.points,
            up=self.config.up,
            tree=cloud.tree,
            places=None if cloud.stored is None else cloud.stored.centers,
            places_at_least=max(1, self.tokens),
        )

    def draw(self, cloud: Cloud, generator: np.random.Generator) -> StoredBatch:
        """One draw of a cloud, without batch axis; features are empty where none are stored."""
        crop = self.crop(cloud, generator)
        index = np.arange(len(cloud.points)) if crop is None else crop.rows
        index = self._points(cloud.points, index, generator)
        points, stored = torch.from_numpy(cloud.points[index]), cloud.stored
        if stored is None:
            return StoredBatch(points, torch.empty(0), None, None)
        rows, centers = index, None
        if stored.centers is not None:
            rows = np.arange(len(stored.centers))
            if crop is not None:
                rows = rows[crop.holds(stored.centers)]
            rows = rows[_spread(stored.centers[rows], self.tokens, generator)]
            centers = torch.from_numpy(stored.centers[rows])
        present = torch.from_numpy(stored.present[rows])
        return StoredBatch(points, torch.from_numpy(stored.features[rows]), centers, present)

    def _points(
        self, points: np.ndarray, index: np.ndarray, generator: np.random.Generator
    ) -> np.ndarray:
        """`config.points` of the points at index; of fewer all of them, some repeated."""
        wanted, how = self.config.points, self.config.subsample
        if len(index) < wanted:
            return np.concatenate([index, generator.choice(index, wanted - len(index))])
        if len(index) == wanted or how == "first":
            return index[:wanted]
        if how == "fps":
            return index[_spread(points[index], wanted, generator)]
        return generator.choice(index, wanted, replace=False)


def _spread(points: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Indices of a farthest point sample of points (n, 3) from a random start; all of `count`."""
    if len(points) == count:
        return np.arange(count)
    start = torch.tensor([int(generator.integers(len(points)))])
    cloud = torch.from_numpy(np.ascontiguousarray(points))[None]
    return farthest_point_sample(cloud, count, start=start)[0].numpy()


def stacked(samples: Sequence[StoredBatch]) -> Tensor | StoredBatch:
    """A batch of draws: with features, or the points (B, N, 3) alone."""
    points = torch.stack([one.points for one in samples])
    if samples[0].present is None:
        return points
    centers = [one.centers for one in samples if one.centers is not None]
    present = torch.stack([one.present for one in samples if one.present is not None])
    return StoredBatch(
        points,
        torch.stack([one.features for one in samples]),
        torch.stack(centers) if centers else None,
        None if bool(present.all()) else present,
    )
