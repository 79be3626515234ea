"""Clouds of any size as training data: whole, or random crops of them, with features or without.

All files are read once when a run begins, which finds those that cannot be used. What fits into
memory stays there; the others are read again in every epoch, some at a time, and the crops of those
in memory together are mixed. The order comes from (seed, epoch), and every draw has a generator of
its own from (seed, epoch, cloud, draw).

Shapes: B clouds of a batch, N points, c tokens, D width.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from foundry3d.config import DataConfig
from foundry3d.config.crops import crop_of
from foundry3d.data.batches import EpochBatches
from foundry3d.data.crops import Crop, draw_crop, tree_for
from foundry3d.data.progress import with_progress
from foundry3d.data.stored import FeatureCloud
from foundry3d.errors import InputError
from foundry3d.geometry import farthest_point_sample
from foundry3d.geometry.tree import Tree

log = logging.getLogger("foundry3d")

MEMORY = 2048
"""MB of clouds that stay in memory, and as many that are read again together."""
MEASURED = 2**20
"""Stands for the epoch of the crops that a trained model is measured on."""


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


Read = Callable[[Path], Sequence[np.ndarray | FeatureCloud]]
"""Reads the clouds of a file: points (N, 3) float32, or with features."""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a model needs of a cloud.

    Attributes:
        points: distinct points of a crop, at least.
        tokens: tokens with stored features that it reads of a cloud, at most.
    """

    points: int = 1
    tokens: int = 1


class CropStream:
    """Files of clouds as training data.

    Args:
        files: to read.
        read: the clouds of a file.
        config: points per cloud, crops and how points are taken; its sources are not read.
        needs: of the model that is trained.
        name: how reports refer to this data.
        memory: MB of clouds that stay in memory.

    Attributes:
        items: the clouds that can be used: a file, and which of its clouds.
        width: D of the stored features, 0 = there are none.
        tokens: c, tokens per cloud that have stored features; 0 = points have.

    Raises:
        InputError: no cloud can be used.
    """

    def __init__(
        self,
        files: Sequence[Path],
        read: Read,
        config: DataConfig,
        *,
        needs: Needs,
        name: str,
        memory: int = MEMORY,
    ) -> None:
        self.read, self.config, self.needs, self.name = read, config, needs, name
        self.crop = None if config.crop is None else crop_of(config.crop)
        self.memory = memory * 1_000_000
        self.items: list[tuple[Path, int]] = []
        self.width = self.tokens = 0
        self._kept: dict[tuple[Path, int], Cloud] = {}
        self._scan(files)

    def _scan(self, files: Sequence[Path]) -> None:
        """Reads every file once."""
        left_out: list[str] = []
        size = 0
        for path in with_progress(files, f"{self.name}: read"):
            try:
                found = self.read(path)
            except InputError as error:
                left_out.append(str(error))
                continue
            for i, part in enumerate(found):
                cloud = self._cloud(part)
                try:
                    self._check(cloud)
                except InputError as error:
                    left_out.append(f"{path}: {error}")
                    continue
                self.items.append((path, i))
                if size + cloud.size <= self.memory:
                    self._kept[path, i] = cloud
                    size += cloud.size
        if not self.items:
            raise InputError(f"{self.name}: no cloud can be used; the first: {left_out[0]}")
        if left_out:
            log.warning(
                "%s: %d clouds left out, the other %d are used; the first: %s",
                *(self.name, len(left_out), len(self.items), left_out[0]),
            )

    def _cloud(self, part: np.ndarray | FeatureCloud) -> Cloud:
        stored = part if isinstance(part, FeatureCloud) else None
        points = part.points if isinstance(part, FeatureCloud) else part
        return Cloud(points, stored, None if self.crop is None else tree_for(points))

    def _check(self, cloud: Cloud) -> None:
        """Refuses a cloud that is too small or whose features differ in kind from the first's."""
        least = self.config.points if self.crop is None else self.needs.points
        if len(cloud.points) < least:
            raise InputError(f"expected at least {least} points, got {len(cloud.points)}")
        stored = cloud.stored
        if stored is not None:
            rows, width = stored.features.shape
            tokens = 0 if stored.centers is None else min(rows, self.needs.tokens)
            if not self.items:
                self.width, self.tokens = width, tokens
            if width != self.width:
                raise InputError(f"expected features of width {self.width}, got {width}")
            if tokens < self.tokens or bool(tokens) != bool(self.tokens):
                raise InputError(
                    f"expected {_kind(self.tokens)}, as the first cloud has, got {_kind(tokens)}"
                )
        if self.crop is not None:
            self._taken(cloud, np.random.default_rng(0))

    def __len__(self) -> int:
        return len(self.items) * self.draws

    @property
    def draws(self) -> int:
        """How often each cloud is read in an epoch."""
        return 1 if self.crop is None else self.config.crops

    def batches(self, batch_size: int, *, seed: int, rank: int = 0, world: int = 1) -> CropBatches:
        """Shuffled training batches; see `CropBatches`."""
        return CropBatches(self, batch_size, seed=seed, rank=rank, world=world)

    def in_order(self, batch_size: int, *, seed: int, most: int) -> Iterator[Tensor | StoredBatch]:
        """Batches to measure a model on, always the same: at most `most` draws, of clouds in order.

        The draws are others than those of training.
        """
        each = max(1, min(self.draws, -(-most // len(self.items))))
        count = min(most, len(self.items) * each)
        chosen = np.linspace(0, len(self.items) * each - 1, count).astype(int).tolist()

        def drawn() -> Iterator[StoredBatch]:
            for i, numbers in groupby(chosen, lambda j: j // each):
                cloud = self.load(i)
                for j in numbers:
                    generator = np.random.default_rng([seed, MEASURED, i, j % each])
                    yield self.sample(cloud, generator)

        samples = drawn()
        while batch := list(islice(samples, batch_size)):
            yield stacked(batch)

    def load(self, i: int) -> Cloud:
        """Cloud i, from memory or from its file.

        Raises:
            InputError: the file has changed since the run began.
        """
        path, which = self.items[i]
        kept = self._kept.get((path, which))
        return self._cloud(self.read(path)[which]) if kept is None else kept

    def is_kept(self, i: int) -> bool:
        """Whether cloud i stays in memory."""
        return self.items[i] in self._kept

    def _taken(self, cloud: Cloud, generator: np.random.Generator) -> Crop:
        """A crop that holds what the model needs."""
        assert self.crop is not None
        return draw_crop(
            cloud.points,
            self.crop,
            generator,
            at_least=self.needs.points,
            up=self.config.up,
            tree=cloud.tree,
            places=None if cloud.stored is None else cloud.stored.centers,
            places_at_least=max(1, self.tokens),
        )

    def sample(self, cloud: Cloud, generator: np.random.Generator) -> StoredBatch:
        """One draw of a cloud, without batch axis; features are empty where none are stored."""
        crop = None if self.crop is None else self._taken(cloud, generator)
        index = np.arange(len(cloud.points)) if crop is None else crop.index
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
        """`config.points` of the points at index; all of them, some repeated, if there are fewer."""
        wanted, how = self.config.points, self.config.subsample
        if len(index) < wanted:
            return np.concatenate([index, generator.choice(index, wanted - len(index))])
        if len(index) == wanted or how == "first":
            return index[:wanted]
        if how == "fps":
            return index[_spread(points[index], wanted, generator)]
        return generator.choice(index, wanted, replace=False)


def _kind(tokens: int) -> str:
    return f"features of {tokens} tokens" if tokens else "features of points"


def _spread(points: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Indices of a farthest point sample of points (n, 3) from a random start; all if n == count."""
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


class CropBatches(EpochBatches[CropStream]):
    """Shuffled training batches; the order depends on seed and epoch, not on the process.

    Iterating yields points (B, N, 3), or a `StoredBatch` where features are stored.
    """

    def __iter__(self) -> Iterator[Tensor | StoredBatch]:
        draws = self._draws()
        step = self.batch_size * self.world
        for _ in range(len(self)):
            mine = list(islice(draws, step))[self.rank :: self.world]
            yield stacked([self._sample(*draw) for draw in mine])

    def _sample(self, cloud: Cloud, i: int, k: int) -> StoredBatch:
        return self.clouds.sample(cloud, np.random.default_rng([self.seed, self.epoch, i, k]))

    def _draws(self) -> Iterator[tuple[Cloud, int, int]]:
        """Every draw of the epoch: the cloud, its number, and which of its draws."""
        rng, stream = np.random.default_rng([self.seed, self.epoch]), self.clouds
        order = rng.permutation(len(stream.items))
        for block in self._blocks(order.tolist()):
            pairs = [(i, k) for i in block for k in range(stream.draws)]
            if stream.draws > 1:
                pairs = [pairs[j] for j in rng.permutation(len(pairs))]
            for i, k in pairs:
                yield block[i], i, k

    def _blocks(self, order: Sequence[int]) -> Iterator[dict[int, Cloud]]:
        """The clouds in order, as many together as fit into memory."""
        stream, size = self.clouds, 0
        block: dict[int, Cloud] = {}
        for i in order:
            cloud = stream.load(i)
            new = 0 if stream.is_kept(i) else cloud.size
            if block and new and size + new > stream.memory:
                yield block
                block, size = {}, 0
            block[i] = cloud
            size += new
        yield block
