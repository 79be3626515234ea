"""Clouds of random programs by number: as many as one likes, none of them stored.

Shapes: B clouds of a batch, N points.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cached_property
from itertools import islice
from multiprocessing import get_context

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


def stacked(seed: int, indices: np.ndarray, points: int) -> np.ndarray:
    """Points (B, points, 3) float32 of the shapes with these indices (B,); see `program`."""
    return np.stack([program(seed, index, points) for index in indices.tolist()])


class Programs:
    """Random shapes without labels as training data, generated when they are read.

    `programs[i]` are the points (N, 3) float32 of shape i.

    Args:
        count: number of shapes.
        points: N of each.
        seed: of the source.
        workers: processes that draw the batches; 0 = the one that reads them does.
    """

    def __init__(self, count: int, *, points: int, seed: int = 0, workers: int = 0) -> None:
        self.count, self.points, self.seed, self.workers = count, points, seed, workers
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
        points = stacked(self.seed, np.arange(self.count), self.points)
        return Clouds(points=points, labels=np.full(self.count, -1, np.int64), name=self.name)


class ProgramBatches(EpochBatches[Programs]):
    """Shuffled training batches of programs; the order depends on seed and epoch alone.

    Iterating yields float32 points (B, N, 3) on the CPU; an incomplete last batch is dropped.
    """

    @cached_property
    def pool(self) -> ProcessPoolExecutor:
        """The processes that draw; they stay from epoch to epoch and end with this object."""
        return ProcessPoolExecutor(self.clouds.workers, mp_context=get_context("spawn"))

    def __iter__(self) -> Iterator[Tensor]:
        seed, points, workers = self.clouds.seed, self.clouds.points, self.clouds.workers
        indices = self.indices()
        if not workers:
            yield from (torch.from_numpy(stacked(seed, index, points)) for index in indices)
            return
        drawn = (self.pool.submit(stacked, seed, index, points) for index in indices)
        waiting: deque[Future[np.ndarray]] = deque()
        try:
            waiting.extend(islice(drawn, 2 * workers))
            while waiting:
                yield torch.from_numpy(waiting.popleft().result())
                waiting.extend(islice(drawn, 1))
        except BrokenProcessPool:
            raise InputError(
                "a process that draws random shapes has ended, perhaps for want of memory; lower "
                "data.workers"
            ) from None
        finally:
            for future in waiting:
                future.cancel()
