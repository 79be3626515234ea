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
from dataclasses import replace
from itertools import groupby, islice
from pathlib import Path

import numpy as np
from torch import Tensor

from foundry3d.config import DataConfig
from foundry3d.data.batches import EpochBatches
from foundry3d.data.crop_samples import Cloud, Needs, Sampler, StoredBatch, stacked
from foundry3d.data.crops import tree_for
from foundry3d.data.progress import with_progress
from foundry3d.data.stored import FeatureCloud
from foundry3d.errors import InputError

log = logging.getLogger("foundry3d")

MEMORY = 2048
"""MB of clouds that stay in memory, and as many that are read again together."""
MEASURED = 2**20
"""Stands for the epoch of the crops that a trained model is measured on."""


Part = np.ndarray | FeatureCloud | InputError
"""A cloud of a file: points (N, 3) float32, or with features; or why it cannot be read."""
Read = Callable[[Path], Sequence[Part]]
"""Reads the clouds of a file."""


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
        sampler: how they are drawn, with the number of their tokens.

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
        self.read, self.name = read, name
        self.sampler = Sampler(config=config, needs=needs)
        self.memory = memory * 1_000_000
        self.items: list[tuple[Path, int]] = []
        self.width = 0
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
                try:
                    cloud = self._cloud(part)
                    self._check(cloud)
                except InputError as error:
                    named = str(error).startswith(str(path))
                    left_out.append(str(error) if named else f"{path}: {error}")
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

    def _cloud(self, part: Part) -> Cloud:
        if isinstance(part, InputError):
            raise part
        stored = part if isinstance(part, FeatureCloud) else None
        points = part.points if isinstance(part, FeatureCloud) else part
        return Cloud(points, stored, tree_for(points) if self.cropped else None)

    def _check(self, cloud: Cloud) -> None:
        """Refuses a cloud that is too small or whose features differ in kind from the first's."""
        sampler, stored = self.sampler, cloud.stored
        least = sampler.needs.points if self.cropped else sampler.config.points
        if len(cloud.points) < least:
            raise InputError(f"expected at least {least} points, got {len(cloud.points)}")
        if stored is not None:
            rows, width = stored.features.shape
            tokens = 0 if stored.centers is None else min(rows, sampler.needs.tokens)
            if not self.items:
                self.width, self.sampler = width, replace(sampler, tokens=tokens)
            wanted = self.sampler.tokens
            if width != self.width:
                raise InputError(f"expected features of width {self.width}, got {width}")
            if tokens < wanted or bool(tokens) != bool(wanted):
                raise InputError(
                    f"expected {_kind(wanted)}, as the first cloud has, got {_kind(tokens)}"
                )
        self.sampler.crop(cloud, np.random.default_rng(0))

    def __len__(self) -> int:
        return len(self.items) * self.draws

    @property
    def cropped(self) -> bool:
        """Whether crops are read in place of whole clouds."""
        return self.sampler.config.crop is not None

    @property
    def draws(self) -> int:
        """How often each cloud is read in an epoch."""
        return self.sampler.config.crops if self.cropped else 1

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
                    yield self.sampler.draw(cloud, generator)

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


def _kind(tokens: int) -> str:
    return f"features of {tokens} tokens" if tokens else "features of points"


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
        return self.clouds.sampler.draw(cloud, np.random.default_rng([self.seed, self.epoch, i, k]))

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
