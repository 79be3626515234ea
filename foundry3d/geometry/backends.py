"""Picks the fastest form for the points at hand; all give the same indices, ties included.

In float32 the compiled twins of `cpu` are taken on the CPU where numba is installed, the Triton
twins of `cuda` on CUDA where Triton is; everything else takes the torch form of `reference`. Both
are imported by the first call that takes them.

Shapes: B clouds, N points, M queries, c centers, k neighbours.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from foundry3d.errors import InputError
from foundry3d.geometry import reference

if TYPE_CHECKING:
    from foundry3d.geometry.tree import Tree

log = logging.getLogger("foundry3d")

Backend = Literal["auto", "torch", "compiled", "triton"]
MOST_SAMPLED, MOST_NEIGHBORS, MOST_ORDERED = 2**20, 64, 8192
"""What the Triton twins take: points of a sampled cloud, k, and centers to order."""
Trees = Sequence["Tree"]


@cache
def compiled_form() -> ModuleType | None:
    """The compiled twins; None, with one warning, where numba is missing or does not fit numpy."""
    try:
        from foundry3d.geometry import cpu
    except ImportError as error:
        log.warning(
            "numba cannot be imported (%s); sampling and neighbours take the torch form, which "
            "gives the same results and is several times slower",
            error,
        )
        return None
    return cpu


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
    if kind == "cpu" and backend != "triton" and (form := compiled_form()):
        return form
    found = _triton(points.device) if kind == "cuda" and backend != "compiled" and triton else None
    if found is None and backend != "auto":
        takes = {
            "compiled": "float32 points on the CPU, where numba is installed",
            "triton": f"float32 points on CUDA, up to {MOST_SAMPLED} to sample, up to "
            f"{MOST_NEIGHBORS} neighbours and {MOST_ORDERED} centers, where Triton is installed",
        }
        raise InputError(
            f"the {backend} backend takes {takes[backend]}, got {points.dtype} of shape "
            f"{tuple(points.shape)} on {points.device}; use backend='torch'"
        )
    return found


def on_cpu(points: Tensor, backend: str) -> ModuleType | None:
    """The compiled twins, if they take these points."""
    form = twin(points, backend, triton=False) if backend in ("auto", "compiled") else None
    return form if _is_compiled(form) else None


def _is_compiled(form: ModuleType | None) -> bool:
    return form is not None and form is compiled_form()


def farthest_point_sample(
    points: Tensor, count: int, start: Tensor, backend: str, trees: Trees | None = None
) -> Tensor:
    """(B, count) int64 indices into points (B, N, 3), from start (B,)."""
    form = twin(points, backend, triton=points.shape[1] <= MOST_SAMPLED)
    if form is None:
        return reference.farthest_point_sample(points, count, start)
    more = (trees,) if _is_compiled(form) else ()
    return form.farthest_point_sample(points, count, start, *more)


def nearest_neighbors(
    queries: Tensor, points: Tensor, k: int, backend: str, trees: Trees | None = None
) -> Tensor:
    """(B, M, k) int64 indices into points (B, N, 3), nearest to queries (B, M, 3) first."""
    form = twin(points, backend, triton=k <= MOST_NEIGHBORS)
    if form is None or queries.dtype != torch.float32:
        return reference.nearest_neighbors(queries, points, k)
    more = (trees,) if _is_compiled(form) else ()
    return form.nearest_neighbors(queries, points, k, *more)


def greedy_order(centers: Tensor, backend: str) -> Tensor:
    """(B, c) int64 chain of nearest centers (B, c, 3)."""
    x, y, z = centers.unbind(-1)
    first = (x + y + z).argmin(dim=1)
    form = twin(centers, backend, triton=centers.shape[1] <= MOST_ORDERED)
    return (form or reference).greedy_order(centers, first)
