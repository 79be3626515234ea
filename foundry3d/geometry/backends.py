"""Picks the fastest form for the points at hand; all give the same indices, ties included.

In float32 the compiled twins of `cpu` are taken on the CPU, the Triton twins of `cuda` on CUDA
where Triton is installed; everything else takes the torch form of `reference`.

Shapes: B clouds, N points, M queries, c centers, k neighbours.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache
from types import ModuleType
from typing import Literal

import torch
from torch import Tensor

from foundry3d.errors import InputError
from foundry3d.geometry import cpu, reference
from foundry3d.geometry.tree import Tree

log = logging.getLogger("foundry3d")

Backend = Literal["auto", "torch", "compiled", "triton"]
MOST_SAMPLED, MOST_NEIGHBORS, MOST_ORDERED = 2**20, 64, 8192
"""What the Triton twins take: points of a sampled cloud, k, and centers to order."""
Trees = Sequence[Tree]


@cache
def _triton(device: torch.device) -> ModuleType | None:
    """The Triton twins, if they exist and are right on this device."""
    try:
        from foundry3d.geometry import cuda
    except ImportError:
        return None
    try:
        right = cuda.agrees(device)
    except Exception as error:  # no compiler, too old a device: whatever Triton raises
        log.warning("Triton does not run on %s (%s); geometry takes the torch form", device, error)
        return None
    if not right:
        log.warning("Triton gives other indices on %s; geometry takes the torch form", device)
    return cuda if right else None


def twin(points: Tensor, backend: str, *, triton: bool) -> ModuleType | None:
    """The module whose twins take these points, None = the torch form; `triton`: sizes fit it.

    Raises:
        InputError: an unknown backend, or one that does not take these points.
    """
    known = ("auto", "torch", "compiled", "triton")
    if backend not in known:
        raise InputError(f"backend is one of {', '.join(known)}; got {backend!r}")
    if backend == "torch":
        return None
    kind = points.device.type if points.dtype == torch.float32 else ""
    if kind == "cpu" and backend != "triton":
        return cpu
    found = _triton(points.device) if kind == "cuda" and backend != "compiled" and triton else None
    if found is None and backend != "auto":
        takes = {
            "compiled": "float32 points on the CPU",
            "triton": f"float32 points on CUDA, up to {MOST_SAMPLED} to sample, up to "
            f"{MOST_NEIGHBORS} neighbours and {MOST_ORDERED} centers, where Triton is installed",
        }
        raise InputError(
            f"the {backend} backend takes {takes[backend]}, got {points.dtype} of shape "
            f"{tuple(points.shape)} on {points.device}; use backend='torch'"
        )
    return found


def on_cpu(points: Tensor, backend: str) -> bool:
    """Whether the compiled twins take these points."""
    return backend in ("auto", "compiled") and twin(points, backend, triton=False) is cpu


def farthest_point_sample(
    points: Tensor, count: int, start: Tensor, backend: str, trees: Trees | None = None
) -> Tensor:
    """(B, count) int64 indices into points (B, N, 3), from start (B,)."""
    form = twin(points, backend, triton=points.shape[1] <= MOST_SAMPLED)
    if form is None:
        return reference.farthest_point_sample(points, count, start)
    more = (trees,) if form is cpu else ()
    return form.farthest_point_sample(points, count, start, *more)


def nearest_neighbors(
    queries: Tensor, points: Tensor, k: int, backend: str, trees: Trees | None = None
) -> Tensor:
    """(B, M, k) int64 indices into points (B, N, 3), nearest to queries (B, M, 3) first."""
    form = twin(points, backend, triton=k <= MOST_NEIGHBORS)
    if form is None or queries.dtype != torch.float32:
        return reference.nearest_neighbors(queries, points, k)
    more = (trees,) if form is cpu else ()
    return form.nearest_neighbors(queries, points, k, *more)


def greedy_order(centers: Tensor, backend: str) -> Tensor:
    """(B, c) int64 chain of nearest centers (B, c, 3)."""
    x, y, z = centers.unbind(-1)
    first = (x + y + z).argmin(dim=1)
    form = twin(centers, backend, triton=centers.shape[1] <= MOST_ORDERED)
    return (form or reference).greedy_order(centers, first)
