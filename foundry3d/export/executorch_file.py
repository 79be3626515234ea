"""A network as an ExecuTorch file, with its description in a file beside it.

Sampling, neighbours and sorting become operators that ExecuTorch has, and return the same indices.
Linear layers go to XNNPACK; geometry does not, so that no distance is rounded differently. Memory
is planned when the file is written, so clouds and points have upper limits.

Shapes: B clouds, N points, M queries, n values.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from executorch.backends.xnnpack.partition.config import AddmmConfig, LinearConfig
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower
from torch import Tensor

from foundry3d.errors import InputError
from foundry3d.export.network import Network, exported_program
from foundry3d.export.runners import Arrays
from foundry3d.geometry.reference import squared_distances
from foundry3d.writing import write_text

MOST_CLOUDS, MOST_POINTS = 4, 2048
"""Upper limits of B and N; N may be four times what the model needs at least."""


def farthest_point_sample(points: Tensor, count: int, start: Tensor, backend: str) -> Tensor:
    """(B, count) indices into points (B, N, 3); see `geometry.reference`."""
    axes = points.unbind(-1)
    last = start[:, None]
    chosen, nearest = [last], None
    for _ in range(count - 1):
        dx, dy, dz = (v - v.gather(1, last) for v in axes)
        distance = dx * dx + dy * dy + dz * dz
        nearest = distance if nearest is None else torch.minimum(nearest, distance)
        last = nearest.argmax(dim=1, keepdim=True)
        chosen.append(last)
    return torch.cat(chosen, dim=1)


def nearest_neighbors(queries: Tensor, points: Tensor, k: int, backend: str) -> Tensor:
    """(B, M, k) indices into points (B, N, 3), one smallest distance after the other."""
    distance = squared_distances(queries, points)
    far = torch.full_like(distance, float("inf"))
    found = []
    for _ in range(k):
        found.append(distance.argmin(dim=-1, keepdim=True))
        distance = distance.scatter(2, found[-1], far)
    return torch.cat(found, dim=-1)


def stable_sort(
    values: Tensor, *, stable: bool | None = None, dim: int = -1, descending: bool = False
) -> tuple[Tensor, Tensor]:
    """Sorted values (B, n) and their indices; equal values keep their order."""
    order = torch.arange(values.shape[1], device=values.device)
    a, b = values[:, :, None], values[:, None, :]
    earlier = (b > a if descending else b < a) | ((b == a) & (order < order[:, None]))
    rank = earlier.to(torch.int64).sum(dim=2)
    index = order.expand(values.shape[0], -1).contiguous()
    index = torch.zeros_like(index).scatter(1, rank, index)
    return values.gather(1, index), index


def stable_argsort(
    values: Tensor, *, stable: bool = True, dim: int = -1, descending: bool = False
) -> Tensor:
    """The indices of `stable_sort`."""
    return stable_sort(values, dim=dim, descending=descending)[1]


def decompositions() -> dict[Any, Any]:
    """What takes the place of operators that ExecuTorch lacks."""
    ours = torch.ops.foundry3d
    return {
        ours.farthest_point_sample.default: farthest_point_sample,
        ours.nearest_neighbors.default: nearest_neighbors,
        torch.ops.aten.sort.stable: stable_sort,
        torch.ops.aten.argsort.stable: stable_argsort,
    }


def write(network: Network, path: Path, precision: str, samples: Iterable[Arrays]) -> None:
    """Writes a network in fp32, the only precision of this format.

    Raises:
        InputError: the geometry is inside.
    """
    if network.geometry == "inside":
        raise InputError(
            "ExecuTorch has no operator for sampling or neighbours, and takes minutes to plan "
            "them in single steps; add --geometry outside"
        )
    most = max(MOST_POINTS, 4 * network.least)
    program = exported_program(network, most_clouds=MOST_CLOUDS, most_points=most)
    lowered = to_edge_transform_and_lower(
        program.run_decompositions(decompositions()),
        partitioner=[XnnpackPartitioner(configs=[LinearConfig, AddmmConfig])],
        compile_config=EdgeCompileConfig(_check_ir_validity=False),
    )
    with open(path, "wb") as stream:
        lowered.to_executorch().write_to_file(stream)


def describe(path: Path, metadata: dict[str, Any]) -> None:
    """Writes metadata into NAME.json beside the file NAME."""
    write_text(path.with_name(f"{path.name}.json"), json.dumps(metadata, indent=2) + "\n")
