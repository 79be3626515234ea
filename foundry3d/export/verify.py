"""An exported file against torch, on clouds of sizes that it was not recorded with.

Shapes: B clouds, N points.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from foundry3d.errors import InputError
from foundry3d.export.network import Network, example, inner_of
from foundry3d.export.runners import Run
from foundry3d.models.student import Student

TOLERANCE = 1e-4
"""Largest difference of features and logits, relative to the root of their mean square."""


class Case(NamedTuple):
    """Clouds to verify a file on.

    Attributes:
        cloud: their kind.
        points: (B, N, 3) within the unit cube.
    """

    cloud: str
    points: Tensor


def cases(network: Network, seed: int) -> Iterator[Case]:
    """Five sizes, from the fewest points that the network takes.

    Points drawn from a normal distribution; two small clusters far from each other; every point
    several times; and a grid, whose distances are mostly equal. Tokens of a grid are equal too,
    and a gate may merge any of those, so that gated students get drawn points instead. For the
    same reason the clusters are no tighter: where a gate's probabilities are equal up to their last
    bit, runtimes that differ in it merge other tokens.
    """
    generator, least = torch.Generator().manual_seed(seed), network.least

    def drawn(batch: int, count: int) -> Tensor:
        return torch.randn(batch, count, 3, generator=generator) / 4

    yield Case("random", drawn(1, least))
    side = torch.randint(2, (2, 2 * least, 1), generator=generator)
    yield Case("clustered", drawn(2, 2 * least) / 10 + side - 0.5)
    few = drawn(3, max(least, (3 * least) // 2))
    yield Case("duplicated", few[:, torch.arange(3 * least + 1) % few.shape[1]])
    yield Case("random", drawn(4, least + 7))
    inner = inner_of(network.model)
    if isinstance(inner, Student) and inner.gate is not None:
        yield Case("random", drawn(1, max(1024, 4 * least)))
    else:
        yield Case("grid", grid(max(1000, 4 * least), generator))


def grid(count: int, generator: torch.Generator) -> Tensor:
    """(1, count, 3) points of a cubic grid in random order, exact in float32."""
    size = 1
    while size**3 < count:
        size += 1
    points = torch.cartesian_prod(*[torch.arange(size) / 2 ** size.bit_length()] * 3)
    return points[torch.randperm(len(points), generator=generator)[:count]][None]


def error(found: np.ndarray, wanted: np.ndarray) -> float:
    """The largest difference, relative to the root mean square of `wanted`."""
    scale = float(np.sqrt(np.mean(np.square(wanted, dtype=np.float64)))) or 1.0
    return float(np.abs(found.astype(np.float64) - wanted).max()) / scale


def compare(network: Network, run: Run, case: Case) -> dict[str, Any]:
    """The row of a case: errors of features, pooled and logits, shares of equal other values.

    Raises:
        InputError: the file refuses the clouds, or returns other shapes.
    """
    given = example(network, case.points)
    with torch.no_grad():
        wanted = network(*given)
    where = f"{case.cloud} clouds of shape {tuple(case.points.shape[:2])}"
    try:
        found = run(tuple(tensor.numpy() for tensor in given))
    except Exception as problem:  # whatever the runtime raises
        reason = next(iter(str(problem).splitlines()), type(problem).__name__)
        raise InputError(f"the exported file does not run on {where}: {reason}") from problem
    row: dict[str, Any] = {
        "batch": case.points.shape[0],
        "points": case.points.shape[1],
        "cloud": case.cloud,
    }
    for name, a, b in zip(network.outputs, found, wanted, strict=True):
        if a.shape != b.shape:
            raise InputError(
                f"the exported file returns {name} of shape {a.shape} for {where}, torch "
                f"{tuple(b.shape)}"
            )
        exact = name in ("centers", "assignment")
        row[name] = float(np.mean(a == b.numpy())) if exact else error(a, b.numpy())
    return row


def verify(network: Network, run: Run, precision: str, *, seed: int = 0) -> dict[str, Any]:
    """The report on an exported file, with a row for every case.

    In fp32 centers and assignment have to be those of torch and features and logits within
    `TOLERANCE`; in other precisions centers have to, and the rest finite.

    Args:
        network: in evaluation mode.
        run: the file.
        precision: of the file.
        seed: of the clouds.

    Raises:
        InputError: the file is not equal to the network.
    """
    tolerance = TOLERANCE if precision == "fp32" else float("inf")
    rows = []
    for case in cases(network, seed):
        row = compare(network, run, case)
        rows.append(row)
        for name in network.outputs:
            exact = name == "centers" or (name == "assignment" and precision == "fp32")
            if name == "assignment" and not exact:
                continue
            good = row[name] == 1 if exact else row[name] <= tolerance and row[name] < np.inf
            if not good:
                what = f"{row[name]:.1%} equal" if exact else f"an error of {row[name]:.2g}"
                raise InputError(
                    f"the exported file differs from torch: {name} of {case.cloud} clouds of shape "
                    f"{tuple(case.points.shape[:2])} have {what}; nothing is written"
                )
    return {"tolerance": None if tolerance == float("inf") else tolerance, "cases": rows}
