"""Training batches from tar shards: shuffled, shared among processes, repeatable.

The order of shards comes from (seed, epoch), everything else from (seed, epoch, process), so a run
resumed from the end of an epoch reads what it would have read. A buffer mixes the clouds of
neighbouring shards.

Shapes: B clouds of a batch, N points.
"""

from __future__ import annotations

import logging
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from foundry3d.data.batches import EpochBatches
from foundry3d.data.shards import decode, read_index, samples
from foundry3d.errors import InputError

log = logging.getLogger("foundry3d")

BUFFER = 4096
"""Clouds held at a time to mix those of neighbouring shards."""


@dataclass(kw_only=True)
class Skipped:
    """Samples that could not be used: how many, and why the first was not."""

    found: dict[tuple[str, str], int] = field(default_factory=dict)
    first: str = ""

    def add(self, shard: str, key: str, reason: object, samples: int = 1) -> None:
        """Records a sample once, however often it is read."""
        self.first = self.first or f"{shard}, {key}: {' '.join(str(reason).split())}"
        self.found.setdefault((shard, key), samples)

    def __len__(self) -> int:
        return sum(self.found.values())


@dataclass(frozen=True)
class Part:
    """Samples `first` to `last` (exclusive) of a shard."""

    shard: str
    first: int
    last: int


def share(
    shards: dict[str, int], rng: np.random.Generator, rank: int = 0, world: int = 1
) -> list[Part]:
    """The span that one of `world` processes reads of the shards in random order.

    With generators of the same seed the spans of all processes are disjoint and equally long, and
    each process opens only the shards that its span touches.
    """
    names = sorted(shards)
    size = sum(shards.values()) // world
    low, high, start = rank * size, (rank + 1) * size, 0
    parts = []
    for name in (names[i] for i in rng.permutation(len(names))):
        first, last = max(low - start, 0), min(high - start, shards[name])
        if first < last:
            parts.append(Part(name, first, last))
        start += shards[name]
    return parts


def shuffled(
    clouds: Iterable[np.ndarray], buffer: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """The clouds, each once, mixed with others that are about `buffer` places away at most."""
    held: list[np.ndarray] = []
    for cloud in clouds:
        if len(held) < buffer:
            held.append(cloud)
            continue
        chosen = int(rng.integers(buffer))
        out, held[chosen] = held[chosen], cloud
        yield out
    for chosen in rng.permutation(len(held)):
        yield held[chosen]


class Shards:
    """A folder of shards as training data.

    Every cloud is read with the same number of points: all of them where all clouds are of one
    size, otherwise a random subset as large as the smallest cloud or `points`, whichever is larger.

    Args:
        folder: holds `index.json`.
        points: least number of points; smaller clouds are skipped.
        buffer: clouds held at a time for shuffling.

    Raises:
        InputError: no usable index, or only clouds with fewer points.
    """

    def __init__(self, folder: str | Path, *, points: int, buffer: int = BUFFER) -> None:
        self.folder, self.index, self.buffer = Path(folder), read_index(folder), buffer
        self.name = self.folder.resolve().name
        smallest, largest = self.index.points
        if largest < points:
            raise InputError(
                f"{folder}: its clouds have at most {largest} points, data.points asks for "
                f"{points}; lower data.points"
            )
        self.points = max(points, smallest)

    def __len__(self) -> int:
        return self.index.count

    def batches(self, batch_size: int, *, seed: int, rank: int = 0, world: int = 1) -> ShardBatches:
        """Shuffled training batches; see `ShardBatches`."""
        return ShardBatches(self, batch_size, seed=seed, rank=rank, world=world)

    def read(
        self, parts: list[Part], rng: np.random.Generator, skipped: Skipped
    ) -> Iterator[np.ndarray]:
        """Every usable cloud (self.points, 3) of the parts; `skipped` records the others."""
        for part in parts:
            key, met, fault = "its start", 0, "the archive ends or is damaged there"
            try:
                found = samples(self.folder / part.shard)
                for met, (key, files) in enumerate(islice(found, part.last), 1):
                    if met > part.first:
                        cloud = self._cloud(part.shard, key, files, rng, skipped)
                        if cloud is not None:
                            yield cloud
            except tarfile.ReadError as error:
                fault = str(error)
            missing = part.last - max(met, part.first)
            if missing:
                skipped.add(part.shard, f"after {key}", fault, missing)

    def _cloud(
        self,
        shard: str,
        key: str,
        files: dict[str, bytes | None],
        rng: np.random.Generator,
        skipped: Skipped,
    ) -> np.ndarray | None:
        """`self.points` points of a sample; None, and recorded, if it cannot be used."""
        try:
            points = decode(files, len(self.index.class_names))
            if len(points) < self.points:
                raise InputError(f"expected at least {self.points} points, got {len(points)}")
        except InputError as error:
            skipped.add(shard, key, error)
            return None
        if len(points) == self.points:
            return points
        return points[rng.choice(len(points), self.points, replace=False, shuffle=False)]


class ShardBatches(EpochBatches[Shards]):
    """Shuffled training batches of shards; the order depends on seed, epoch and process alone.

    Iterating yields float32 points (B, N, 3) on the CPU. Samples that cannot be used are skipped
    and reported once per epoch; others are read again in their place, so that every epoch has the
    length that the index promises.

    Raises:
        InputError: while iterating: no sample can be used.
    """

    def __iter__(self) -> Iterator[Tensor]:
        skipped = Skipped()
        clouds = self._clouds(skipped)
        for number in range(len(self)):
            batch = np.stack(list(islice(clouds, self.batch_size))).astype(np.float32)
            if skipped and number == len(self) - 1:
                log.warning(
                    "%s, epoch %d: skipped %d of %d samples, the first in %s",
                    self.clouds.name, self.epoch, len(skipped), len(self.clouds), skipped.first,
                )  # fmt: skip
            yield torch.from_numpy(batch)

    def _clouds(self, skipped: Skipped) -> Iterator[np.ndarray]:
        """This process's share of the epoch, then, for what was skipped, all shards again."""
        rng = np.random.default_rng([self.seed, self.epoch, self.rank])
        counts = self.clouds.index.shards
        order = np.random.default_rng([self.seed, self.epoch])  # the same in every process
        parts = share(counts, order, self.rank, self.world)
        for again in count():
            usable = 0
            for cloud in shuffled(self.clouds.read(parts, rng, skipped), self.clouds.buffer, rng):
                usable += 1
                yield cloud
            if not usable and (again or self.world == 1):
                raise InputError(
                    f"{self.clouds.folder}: not one of {len(skipped)} samples can be used, the "
                    f"first in {skipped.first}; pack the collection again"
                )
            parts = share(counts, rng)
