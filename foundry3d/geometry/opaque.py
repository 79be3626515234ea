"""Sampling, neighbours and order as operators of torch that compilers do not look into.

Compilers have been seen to change which point is the farthest. Under `torch.compile`,
`torch.export`, tracing and fake tensors each function here is therefore one operator, whose body
is what an eager call runs. Eager calls run that body directly, without torch's dispatcher.

Shapes: B clouds, N points, M queries, c centers, k neighbours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from foundry3d.geometry import backends


def traced(values: Tensor) -> bool:
    """Whether a call is recorded, or its tensors hold no numbers, rather than computed."""
    return torch.compiler.is_compiling() or isinstance(values, FakeTensor) or torch.jit.is_tracing()


def _hidden(
    form: Callable[..., Tensor], schema: str, shape: Callable[..., tuple[int, ...]]
) -> Callable[..., Tensor]:
    """A function that is one operator in a trace, and otherwise calls a form of `backends`.

    Args:
        form: of `backends`; what it takes by name (trees) only saves time: a trace leaves it out.
        schema: of the operator.
        shape: of its result, from the same arguments.
    """
    operator = torch.library.custom_op(
        f"foundry3d::{form.__name__}", form, mutates_args=(), schema=schema
    )
    operator.register_fake(lambda *given: given[0].new_empty(shape(*given), dtype=torch.int64))

    def call(*given: Any, **faster: Any) -> Tensor:
        return operator(*given) if traced(given[0]) else form(*given, **faster)

    return call


farthest_point_sample = _hidden(
    backends.farthest_point_sample,
    "(Tensor points, SymInt count, Tensor start, str backend) -> Tensor",
    lambda points, count, start, backend: (points.shape[0], count),
)
nearest_neighbors = _hidden(
    backends.nearest_neighbors,
    "(Tensor queries, Tensor points, SymInt k, str backend) -> Tensor",
    lambda queries, points, k, backend: (*queries.shape[:2], k),
)
greedy_order = _hidden(
    backends.greedy_order,
    "(Tensor centers, str backend) -> Tensor",
    lambda centers, backend: centers.shape[:2],
)
