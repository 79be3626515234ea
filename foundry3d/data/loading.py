"""From a data configuration to splits in memory, and from a split to batches.

Shapes: B clouds of a batch, N points.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from foundry3d.config import DataConfig
from foundry3d.config.reading import column_names
from foundry3d.data import procedural
from foundry3d.data.archive import read_archive
from foundry3d.data.clouds import Clouds
from foundry3d.data.folder import read_folder
from foundry3d.data.published.sources import is_published, read_published
from foundry3d.data.shards import is_sharded
from foundry3d.data.streaming import Shards
from foundry3d.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Splits:
    """Training, validation (held out of training) and test clouds; the last two may be None."""

    train: Clouds
    validation: Clouds | None
    test: Clouds | None


class Stream(Protocol):
    """Training data that makes its own batches, for collections larger than memory."""

    @property
    def name(self) -> str:
        """What reports call this data."""

    def __len__(self) -> int: ...

    def batches(self, batch_size: int, *, seed: int, rank: int, world: int) -> Iterable[Tensor]:
        """What `Batches` is for clouds in memory, `sampler` and `set_epoch` included."""


def _read(
    config: DataConfig,
    source: str,
    count: int,
    seed: int,
    class_names: tuple[str, ...] | None = None,
    *,
    train: bool,
) -> Clouds:
    if source == "procedural":
        return procedural.generate(count, points=config.points, seed=seed)
    if is_sharded(source):
        raise InputError(
            f"{source} holds shards, which only training streams, as data.train; name the archive "
            "or folder they were packed from"
        )
    if Path(source).is_dir():
        return read_folder(
            source,
            points=config.points,
            seed=seed,
            class_names=class_names,
            columns=column_names(config.columns),
            invalid=config.invalid,
        )
    published = is_published(source)
    clouds = read_published(source, train=train) if published else read_archive(source)
    if clouds.points.shape[1] < config.points:
        raise InputError(
            f"{source}: its clouds have {clouds.points.shape[1]} points, data.points asks for "
            f"{config.points}; lower data.points"
        )
    return clouds


def hold_out(labels: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices (kept, held out) of labels (n,), the same share of every class, in order."""
    generator = np.random.default_rng(seed)
    held = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = min(round(share * len(members)), len(members) - 1)
        held[generator.permutation(members)[:count]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def load_splits(config: DataConfig, *, seed: int = 0) -> Splits:
    """Reads or generates what the configuration names.

    Procedural test clouds come from another seed than the training ones. The held-out clouds are
    drawn from training, never from test.

    Raises:
        InputError: a source that cannot be read, clouds with fewer points than asked for, or a test
            folder with a class that training does not have.
    """
    train = _read(config, config.train, config.train_clouds, 2 * seed, train=True)
    test = (
        None
        if config.test is None
        else _read(
            config,
            config.test,
            config.test_clouds,
            2 * seed + 1,
            train.class_names or None,
            train=False,
        )
    )
    kept, held = hold_out(train.labels, config.validation, seed)
    return Splits(
        train=train.take(kept) if len(held) else train,
        validation=train.take(held) if len(held) else None,
        test=test,
    )


def load_tested(config: DataConfig, *, seed: int = 0) -> tuple[Splits, Clouds, Clouds]:
    """The splits that `load_splits` gives, and of them training and test clouds.

    Raises:
        InputError: as `load_splits`, or there are no test clouds.
    """
    splits = load_splits(config, seed=seed)
    if splits.test is None:
        raise InputError("scores need test clouds; name them with data.test")
    return splits, splits.train, splits.test


def load_train(config: DataConfig, *, seed: int = 0) -> Clouds | Shards:
    """The training data alone: shards as a stream, anything else without the held-out clouds.

    Raises:
        InputError: a source that cannot be read, or clouds with fewer points than asked for.
    """
    if is_sharded(config.train):
        return Shards(config.train, points=config.points)
    return load_splits(replace(config, test=None), seed=seed).train


class Batches:
    """Shuffled training batches of an in-memory split; the order depends on seed and epoch alone.

    Iterating yields float32 points (B, N, 3) on the CPU; an incomplete last batch is dropped.

    Args:
        clouds: the split.
        batch_size: B, of each process.
        seed: of the shuffling.
        rank: index of this process.
        world: number of processes; each sees its own share of every epoch.

    Raises:
        InputError: fewer clouds than one batch of all processes.
    """

    def __init__(
        self, clouds: Clouds, batch_size: int, *, seed: int, rank: int = 0, world: int = 1
    ) -> None:
        if len(clouds) < batch_size * world:
            raise InputError(
                f"{clouds.name} has {len(clouds)} training clouds, one step takes "
                f"{batch_size * world}; lower train.batch_size"
            )
        self.clouds, self.batch_size, self.seed = clouds, batch_size, seed
        self.rank, self.world, self.epoch = rank, world, 0
        self.sampler = self  # where Lightning looks for set_epoch

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order of the coming epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.clouds) // (self.batch_size * self.world)

    def indices(self) -> Iterator[np.ndarray]:
        """Indices (B,) of the clouds of each batch of this epoch and process."""
        order = np.random.default_rng([self.seed, self.epoch]).permutation(len(self.clouds))
        step = self.batch_size * self.world
        for first in range(0, len(self) * step, step):
            yield order[first + self.rank : first + step : self.world]

    def __iter__(self) -> Iterator[Any]:
        for index in self.indices():
            yield torch.from_numpy(self.clouds.points[index].astype(np.float32))


class Numbered(NamedTuple):
    """A batch that says which clouds of the split it holds.

    Attributes:
        points: (B, N, 3) float32.
        which: (B,) int64.
    """

    points: Tensor
    which: Tensor


class NumberedBatches(Batches):
    """`Batches` that yield `Numbered` records, for what is known about each cloud already."""

    def __iter__(self) -> Iterator[Numbered]:
        for index, points in zip(self.indices(), super().__iter__(), strict=True):
            yield Numbered(points, torch.from_numpy(index))


class Labelled(NamedTuple):
    """A batch with what is known about it.

    Attributes:
        points: (B, N, 3) float32.
        labels: (B,) int64 class of each cloud, -1 = none.
        parts: (B, N) int64 part of each point; None where the data has none.
    """

    points: Tensor
    labels: Tensor
    parts: Tensor | None


class LabelledBatches(Batches):
    """`Batches` that yield `Labelled` records, for fine-tuning."""

    def __iter__(self) -> Iterator[Labelled]:
        for index in self.indices():
            parts = self.clouds.parts
            yield Labelled(
                torch.from_numpy(self.clouds.points[index].astype(np.float32)),
                torch.from_numpy(self.clouds.labels[index].astype(np.int64)),
                None if parts is None else torch.from_numpy(parts[index].astype(np.int64)),
            )


def in_order(clouds: Clouds, batch_size: int, points: int) -> Iterator[Tensor]:
    """All clouds in order, for evaluation: float32 (B, points, 3), the first points of each.

    Points of a cloud are in random order, so the first ones are a uniform subsample.
    """
    for first in range(0, len(clouds), batch_size):
        batch = clouds.points[first : first + batch_size, :points]
        yield torch.from_numpy(np.ascontiguousarray(batch, dtype=np.float32))
