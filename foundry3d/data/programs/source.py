"""Clouds of random programs by number: as many as one likes, none of them stored.

Shapes: B clouds of a batch, N points.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from foundry3d.data.batches import EpochBatches
from foundry3d.data.clouds import Clouds
from foundry3d.data.programs.grammar import written
from foundry3d.data.programs.parts import Draw
from foundry3d.data.programs.running import run
from foundry3d.errors import InputError

MOST_SHAPES = 10**9
_SOURCE = re.compile(r"programs(?::(\d+))?")
_BITS = 2**53


def program(seed: int, index: int, points: int) -> np.ndarray:
    """Points (points, 3) float32 of shape `index`, the same for the same arguments.

    The mean lies at the origin, the farthest point has norm 1, z is up for most, and points are in
    random order.

    Args:
        seed: of the source, at least 0.
        index: of the shape, in 0..2**64 - 1.
        points: N, at least 1.

    Raises:
        InputError: a number out of its range.
    """
    for what, value, least in (("seed", seed, 0), ("index", index, 0), ("points", points, 1)):
        if value < least:
            raise InputError(f"programs: {what} must be at least {least}, got {value}")
    draw = Draw((seed << 64) + index)
    return run(written(draw), points, int(draw.random() * _BITS))


def programs_in(source: str, otherwise: int) -> int | None:
    """The number of shapes that `programs` (`otherwise`) or `programs:COUNT` stands for, or None.

    Raises:
        InputError: a count that is no whole number from 1 to `MOST_SHAPES`.
    """
    if source != "programs" and not source.startswith("programs:"):
        return None
    found = _SOURCE.fullmatch(source)
    count = otherwise if source == "programs" else int(found[1]) if found else 0
    if not 1 <= count <= MOST_SHAPES:
        raise InputError(
            f"expected programs:COUNT with a count from 1 to {MOST_SHAPES:,}, e.g. "
            f"programs:200000, got {source}"
        )
    return count


class Programs:
    """Random shapes without labels as training data, generated when they are read.

    `programs[i]` are the points (N, 3) float32 of shape i.

    Args:
        count: number of shapes.
        points: N of each.
        seed: of the source.
    """

    def __init__(self, count: int, *, points: int, seed: int = 0) -> None:
        self.count, self.points, self.seed = count, points, seed
        self.name = f"programs ({count:,} shapes, seed {seed})"

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> np.ndarray:
        if not 0 <= index < self.count:
            raise IndexError(f"{self.name}: no shape {index}")
        return program(self.seed, int(index), self.points)

    def batches(
        self, batch_size: int, *, seed: int, rank: int = 0, world: int = 1
    ) -> ProgramBatches:
        """Shuffled training batches; see `ProgramBatches`."""
        return ProgramBatches(self, batch_size, seed=seed, rank=rank, world=world)

    def in_memory(self) -> Clouds:
        """All shapes as one record without labels."""
        points = np.stack([self[i] for i in range(self.count)])
        return Clouds(points=points, labels=np.full(self.count, -1, np.int64), name=self.name)


class ProgramBatches(EpochBatches[Programs]):
    """Shuffled training batches of programs; the order depends on seed and epoch alone.

    Iterating yields float32 points (B, N, 3) on the CPU; an incomplete last batch is dropped.
    """

    def __iter__(self) -> Iterator[Tensor]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(len(self.clouds))
        step = self.batch_size * self.world
        for first in range(0, len(self) * step, step):
            index = order[first + self.rank : first + step : self.world]
            yield torch.from_numpy(np.stack([self.clouds[i] for i in index.tolist()]))
