"""The operators of our geometry, a stable sort and GELU, in ONNX.

They return the indices of the torch form, ties included: distances are direct differences summed
in the same order, ArgMax and TopK prefer the lowest index. Sampling is unrolled.

Shapes: B clouds, N points, M queries, c centers, k neighbours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from onnxscript import opset18

OPSET = 18
op: Any = opset18  # its annotations refuse what its functions return


def whole(*values: int) -> Any:
    """A constant of int64 numbers (n,)."""
    return op.Constant(value_ints=list(values))


def planes(points: Any) -> list[Any]:
    """The coordinates x, y and z of points (..., 3), each (...)."""
    return [op.Gather(points, op.Constant(value_int=i), axis=-1) for i in range(3)]


def squared(differences: list[Any]) -> Any:
    """Squared distances of differences by axis, summed as x + y + z."""
    x, y, z = (op.Mul(d, d) for d in differences)
    return op.Add(op.Add(x, y), z)


def farthest_point_sample(points: Any, count: int, start: Any, backend: str) -> Any:
    """(B, count) indices into points (B, N, 3), from start (B,); see `geometry.reference`."""
    axes = planes(points)
    last = op.Unsqueeze(start, whole(1))
    chosen, nearest = [last], None
    for _ in range(int(count) - 1):
        distance = squared([op.Sub(v, op.GatherElements(v, last, axis=1)) for v in axes])
        nearest = distance if nearest is None else op.Min(nearest, distance)
        last = op.ArgMax(nearest, axis=1, keepdims=1)
        chosen.append(last)
    return op.Concat(*chosen, axis=1)


def nearest_neighbors(queries: Any, points: Any, k: int, backend: str) -> Any:
    """(B, M, k) indices into points (B, N, 3) for queries (B, M, 3), nearest first."""
    pairs = zip(planes(queries), planes(points), strict=True)
    differences = [op.Sub(op.Unsqueeze(q, whole(2)), op.Unsqueeze(p, whole(1))) for q, p in pairs]
    _, index = op.TopK(squared(differences), whole(int(k)), axis=2, largest=0, sorted=1)
    return index


def stable_sort(
    values: Any, *, stable: bool | None = None, dim: int = -1, descending: bool = False
) -> Any:
    """Sorted values (B, n) and their indices; equal values keep their order.

    By rank, which is how many values come earlier: runtimes differ in the order of equal values.
    """
    wide = op.Cast(values, to=1)
    a, b = op.Unsqueeze(wide, whole(2)), op.Unsqueeze(wide, whole(1))
    end = op.Gather(op.Shape(wide), whole(1))
    order = op.Range(op.Constant(value_int=0), op.Squeeze(end), op.Constant(value_int=1))
    before = op.Less(op.Unsqueeze(order, whole(0)), op.Unsqueeze(order, whole(1)))
    ahead = op.Greater(b, a) if descending else op.Less(b, a)
    earlier = op.Or(ahead, op.And(op.Equal(a, b), op.Unsqueeze(before, whole(0))))
    rank = op.ReduceSum(op.Cast(earlier, to=7), whole(2), keepdims=0)
    rows = op.Expand(op.Unsqueeze(order, whole(0)), op.Shape(rank))
    index = op.ScatterElements(rows, rank, rows, axis=1)
    return op.GatherElements(values, index, axis=1), index


def cdist(a: Any, b: Any, p: float, compute_mode: int | None) -> Any:
    """Euclidean distances (..., m, n) of a (..., m, d) and b (n, d), by direct differences."""
    difference = op.Sub(op.Unsqueeze(a, whole(-2)), op.Unsqueeze(b, whole(-3)))
    return op.Sqrt(op.ReduceSum(op.Mul(difference, difference), whole(-1), keepdims=0))


def gelu(x: Any, approximate: str = "none") -> Any:
    """The exact GELU of x (...), in the order of operators that runtimes fuse into one."""
    erf = op.Erf(op.Div(x, op.Constant(value_float=2**0.5)))
    twice = op.Mul(x, op.Add(erf, op.Constant(value_float=1.0)))
    return op.Mul(twice, op.Constant(value_float=0.5))


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """What the ONNX exporter of torch is given for the operators that it does not know."""
    ours = torch.ops.foundry3d
    return {
        ours.farthest_point_sample.default: farthest_point_sample,
        ours.nearest_neighbors.default: nearest_neighbors,
        torch.ops.aten.sort.stable: stable_sort,
        torch.ops.aten._cdist_forward.default: cdist,
        torch.ops.aten.gelu.default: gelu,
    }
