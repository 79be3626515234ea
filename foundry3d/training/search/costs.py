"""What candidates cost, counted or measured before anything of them is trained."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

import torch

from foundry3d.config.search import Limit
from foundry3d.errors import InputError
from foundry3d.inference.compiled import compile
from foundry3d.inference.cost import count
from foundry3d.models.tokenizer import PointModel

REPEATS = 9


class CandidateCost(NamedTuple):
    """What a student costs.

    Attributes:
        gmacs: 10^9 multiply-accumulates for one cloud, tokenizer included.
        mb: 10^6 bytes of weights in float16.
        ms: median milliseconds for one cloud on this machine, compiled; None = not measured.
    """

    gmacs: float
    mb: float
    ms: float | None = None

    def of(self, limit: Limit) -> float | None:
        """The cost in the unit of a limit."""
        value: float | None = getattr(self, limit.unit)
        return value

    def within(self, limit: Limit) -> bool:
        """Whether the cost is known to be within a limit."""
        value = self.of(limit)
        return value is not None and value <= limit.value


def counted(model: PointModel) -> CandidateCost:
    """What can be counted: GMACs and megabytes."""
    found = count(model)
    return CandidateCost(round(found.macs / 1e9, 6), round(2 * found.params / 1e6, 6))


def milliseconds(model: PointModel, points: int) -> float:
    """Median time of the compiled form on one cloud, in milliseconds, after a warm-up call.

    Args:
        model: on the CPU, in evaluation mode; not changed.
        points: N, of the cloud.
    """
    fast = compile(model)
    cloud = torch.randn(1, points, 3, generator=torch.Generator().manual_seed(0))
    times = []
    with torch.inference_mode():
        for _ in range(REPEATS + 1):
            began = time.perf_counter()
            fast(cloud)
            times.append(1000 * (time.perf_counter() - began))
    return round(median(times[1:]), 4)


def full_cost(model: PointModel, points: int) -> CandidateCost:
    """GMACs, megabytes and milliseconds."""
    return counted(model)._replace(ms=milliseconds(model, points))


def require_possible(
    limit: Limit, smallest: dict[str, PointModel], cost: Callable[[PointModel], CandidateCost]
) -> None:
    """Refuses a limit that no candidate keeps.

    Args:
        limit: of the search.
        smallest: candidates of which one is the cheapest, by name.
        cost: counts or measures one of them.

    Raises:
        InputError: all of them cost more.
    """
    costs = {name: cost(model).of(limit) for name, model in smallest.items()}
    known = {name: value for name, value in costs.items() if value is not None}
    name = min(known, key=lambda name: known[name])
    if known[name] > limit.value:
        raise InputError(
            f"no student of this teacher costs at most {limit}: the cheapest candidate, {name}, "
            f"costs {known[name]:.3g}{limit.unit}; raise --limit, or take a smaller teacher"
        )
