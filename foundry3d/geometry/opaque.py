"""Sampling, neighbours and order as operators of torch that no compiler looks into.

Compilers have been seen to change which point is the farthest. Under `torch.compile`,
`torch.export`, tracing and fake tensors each function here is therefore one operator, whose body
is what an eager call runs. Eager calls run that body directly, without torch's dispatcher.

Shapes: B clouds, N points, M queries, c centers, k neighbours.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from foundry3d.geometry import backends
from foundry3d.geometry.backends import Trees


def traced(values: Tensor) -> bool:
    """Whether a call is recorded, or its tensors hold no numbers, rather than computed."""
    return torch.compiler.is_compiling() or isinstance(values, FakeTensor) or torch.jit.is_tracing()


_sample = torch.library.custom_op(
    "foundry3d::farthest_point_sample",
    backends.farthest_point_sample,
    mutates_args=(),
    schema="(Tensor points, SymInt count, Tensor start, str backend) -> Tensor",
)
_neighbors = torch.library.custom_op(
    "foundry3d::nearest_neighbors",
    backends.nearest_neighbors,
    mutates_args=(),
    schema="(Tensor queries, Tensor points, SymInt k, str backend) -> Tensor",
)
_order = torch.library.custom_op(
    "foundry3d::greedy_order",
    backends.greedy_order,
    mutates_args=(),
    schema="(Tensor centers, str backend) -> Tensor",
)


@_sample.register_fake
def _sampled(points: Tensor, count: int, start: Tensor, backend: str) -> Tensor:
    return points.new_empty((points.shape[0], count), dtype=torch.int64)


@_neighbors.register_fake
def _found(queries: Tensor, points: Tensor, k: int, backend: str) -> Tensor:
    return points.new_empty((*queries.shape[:2], k), dtype=torch.int64)


@_order.register_fake
def _ordered(centers: Tensor, backend: str) -> Tensor:
    return centers.new_empty(centers.shape[:2], dtype=torch.int64)


def farthest_point_sample(
    points: Tensor, count: int, start: Tensor, backend: str, trees: Trees | None
) -> Tensor:
    """See `geometry.farthest_point_sample`; trees only save time, so a trace leaves them out."""
    if traced(points):
        return _sample(points, count, start, backend)
    return backends.farthest_point_sample(points, count, start, backend, trees)


def nearest_neighbors(
    queries: Tensor, points: Tensor, k: int, backend: str, trees: Trees | None
) -> Tensor:
    """See `geometry.nearest_neighbors`; trees as above."""
    if traced(points):
        return _neighbors(queries, points, k, backend)
    return backends.nearest_neighbors(queries, points, k, backend, trees)


def greedy_order(centers: Tensor, backend: str) -> Tensor:
    """See `geometry.greedy_order`."""
    return _order(centers, backend) if traced(centers) else backends.greedy_order(centers, backend)
