"""Batches of clouds in memory, and what they have in common with those of shards.

Shapes: B clouds of a batch, N points.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from foundry3d.data.clouds import Clouds
from foundry3d.errors import InputError


class Collection(Protocol):
    """Clouds with a name and a number."""

    @property
    def name(self) -> str:
        """Name of the collection in messages."""

    def __len__(self) -> int: ...


C = TypeVar("C", bound=Collection)


class EpochBatches(Generic[C]):
    """The number of batches in an epoch of one process, and which epoch it is.

    Args:
        clouds: to draw from.
        batch_size: B, of each process.
        seed: of the shuffling.
        rank: index of this process.
        world: number of processes; each reads its own share of every epoch.

    Raises:
        InputError: there are fewer clouds than one batch of all processes.
    """

    def __init__(
        self, clouds: C, batch_size: int, *, seed: int, rank: int = 0, world: int = 1
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


class Batches(EpochBatches[Clouds]):
    """Shuffled training batches of an in-memory split; the order depends on seed and epoch alone.

    Iterating yields float32 points (B, N, 3) on the CPU; an incomplete last batch is dropped.
    """

    def __iter__(self) -> Iterator[Any]:
        for index in self.indices():
            yield torch.from_numpy(self.clouds.points[index].astype(np.float32))


class Numbered(NamedTuple):
    """A batch and the indices of its clouds in the split.

    Attributes:
        points: (B, N, 3) float32.
        which: (B,) int64.
    """

    points: Tensor
    which: Tensor


class NumberedBatches(Batches):
    """`Batches` that yield `Numbered` records, to look up what was computed per cloud before."""

    def __iter__(self) -> Iterator[Numbered]:
        for index, points in zip(self.indices(), super().__iter__(), strict=True):
            yield Numbered(points, torch.from_numpy(index))


class Labelled(NamedTuple):
    """A batch with its labels.

    Attributes:
        points: (B, N, 3) float32.
        labels: (B,) int64 class of each cloud, -1 = none.
        parts: (B, N) int64 part of each point; None without part labels.
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
