"""Sampling, neighbours, grouping and ordering of points: pure functions, one obvious form each.

The torch form runs on any device and is the definition; in float32 the compiled twins of
`cpu` are taken instead on the CPU, the Triton twins of `cuda` on CUDA where
Triton is installed, and give the same indices, ties included. Distances are direct differences,
never the matrix product, which returns wrong neighbours far from the origin. On an accelerator
nothing here waits for a result.

Shapes: B clouds, N points, M queries, c tokens (centers), k points a group.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache
from types import ModuleType
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from foundry3d.errors import InputError
from foundry3d.geometry import cpu, reference
from foundry3d.geometry.reference import gather
from foundry3d.geometry.tree import Tree

log = logging.getLogger("foundry3d")

Backend = Literal["auto", "torch", "compiled", "triton"]
MOST_SAMPLED, MOST_NEIGHBORS, MOST_ORDERED = 2**20, 64, 8192
"""What the Triton twins take: points of a sampled cloud, k, and centers to order."""
Trees = Sequence[Tree]


class Groups(NamedTuple):
    """Point groups of a batch, what a tokenizer reads.

    Attributes:
        centers: (B, c, 3) sampled centers.
        neighborhoods: (B, c, k, 3) the k nearest points of each center, nearest first, relative
            to it.
    """

    centers: Tensor
    neighborhoods: Tensor


def _looked_at(values: Tensor) -> bool:
    """Whether values are checked: an accelerator would have to be waited for."""
    return values.device.type == "cpu" and not torch.compiler.is_compiling()


def check_points(points: Tensor, *, at_least: int = 1) -> None:
    """Refuses what no model here can read.

    Coordinates are only looked at on the CPU, because an accelerator would have to be waited for:
    there a cloud with NaN or infinite coordinates gets NaN features, and the other clouds of the
    batch theirs. Files, data sets and `embed` check theirs before they move.

    Raises:
        InputError: not (B, N, 3), not floating point, empty, fewer than `at_least` points a cloud,
            or, on the CPU, NaN or infinite coordinates.
    """
    if points.ndim != 3 or points.shape[-1] != 3 or not points.is_floating_point():
        raise InputError(
            f"expected floating-point points of shape (B, N, 3), got {points.dtype} of shape "
            f"{tuple(points.shape)}"
        )
    if points.shape[0] == 0 or points.shape[1] < max(at_least, 1):
        raise InputError(
            f"expected at least one cloud of at least {max(at_least, 1)} points, got "
            f"{points.shape[0]} of {points.shape[1]}; add points or lower groups and group_size"
        )
    if _looked_at(points) and not bool(torch.isfinite(points).all()):
        raise InputError("the points have NaN or infinite coordinates; remove those points first")


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


def _twin(points: Tensor, backend: Backend, *, triton: bool) -> ModuleType | None:
    """The module whose twins take these points, None = the torch form; `triton`: sizes fit it."""
    known = ("auto", "torch", "compiled", "triton")
    if backend not in known:
        raise InputError(f"backend is one of {', '.join(known)}; got {backend!r}")
    if backend == "torch" or torch.compiler.is_compiling():
        return None
    kind = points.device.type if points.dtype == torch.float32 else ""
    if kind == "cpu" and backend != "triton":
        return cpu
    twin = _triton(points.device) if kind == "cuda" and backend != "compiled" and triton else None
    if twin is None and backend != "auto":
        takes = {
            "compiled": "float32 points on the CPU",
            "triton": f"float32 points on CUDA, up to {MOST_SAMPLED} to sample, up to "
            f"{MOST_NEIGHBORS} neighbours and {MOST_ORDERED} centers, where Triton is installed",
        }
        raise InputError(
            f"the {backend} backend takes {takes[backend]}, got {points.dtype} of shape "
            f"{tuple(points.shape)} on {points.device}; use backend='torch'"
        )
    return twin


def _on_cpu(points: Tensor, backend: Backend) -> bool:
    """Whether the compiled twins take these points."""
    asked = backend in ("auto", "compiled")
    return asked and _twin(points, backend, triton=False) is cpu


def build_trees(points: Tensor, *, backend: Backend = "auto") -> Trees | None:
    """Search trees of points (B, N, 3), for calls that sample or search the same points.

    Results are the same with trees and without; they save time from some thousand points on.
    None where the compiled form does not apply (other devices and types, the torch form).
    """
    return cpu.build_trees(points.detach()) if _on_cpu(points, backend) else None


def farthest_point_sample(
    points: Tensor,
    count: int,
    *,
    start: Tensor | None = None,
    trees: Trees | None = None,
    backend: Backend = "auto",
) -> Tensor:
    """Farthest point sampling: each new point is the one farthest from all chosen before.

    Args:
        points: (B, N, 3).
        count: how many indices, 1 to N.
        start: (B,) int64 first index of each cloud; None = index 0 (inference).
        trees: of the points, from `build_trees`; None = made here where that is faster.
        backend: `auto` picks the compiled or the Triton form where it applies.

    Returns:
        (B, count) int64 indices, in the order of choice; ties go to the lowest index.

    Raises:
        InputError: count outside 1..N, or, on the CPU, starts that are not B indices of 0..N-1.
    """
    batch, size, _ = points.shape
    if not 1 <= count <= size:
        raise InputError(f"cannot sample {count} of {size} points; ask for 1 to {size}")
    if start is None:
        start = torch.zeros(batch, dtype=torch.int64, device=points.device)
    elif _looked_at(points):
        inside = start.shape == (batch,) and bool(((start >= 0) & (start < size)).all())
        if not inside or start.dtype != torch.int64:
            raise InputError(
                f"expected {batch} int64 starts in 0..{size - 1}, got {start.dtype} of shape "
                f"{tuple(start.shape)} with values {start.flatten()[:4].tolist()}"
            )
    twin = _twin(points, backend, triton=size <= MOST_SAMPLED)
    if twin is not None:
        more = (trees,) if twin is cpu else ()
        return twin.farthest_point_sample(points.detach(), count, start, *more)
    return reference.farthest_point_sample(points.detach(), count, start)


def nearest_neighbors(
    queries: Tensor,
    points: Tensor,
    k: int,
    *,
    trees: Trees | None = None,
    backend: Backend = "auto",
) -> Tensor:
    """The k nearest points of each query, nearest first; ties go to the lowest index.

    Args:
        queries: (B, M, 3).
        points: (B, N, 3).
        k: 1 to N.
        trees: of the points, as in `farthest_point_sample`.
        backend: as in `farthest_point_sample`.

    Returns:
        (B, M, k) int64 indices into points.

    Raises:
        InputError: k outside 1..N.
    """
    size = points.shape[1]
    if not 1 <= k <= size:
        raise InputError(f"cannot take the {k} nearest of {size} points; ask for 1 to {size}")
    twin = _twin(points, backend, triton=k <= MOST_NEIGHBORS)
    if twin is not None and queries.dtype == torch.float32:
        more = (trees,) if twin is cpu else ()
        return twin.nearest_neighbors(queries.detach(), points.detach(), k, *more)
    return reference.nearest_neighbors(queries.detach(), points.detach(), k)


def draw_start(
    batch: int, size: int, *, device: torch.device, generator: torch.Generator | None
) -> Tensor:
    """(B,) random FPS start indices, each cloud its own (training)."""
    return torch.randint(size, (batch,), device=device, generator=generator)


def group_points(
    points: Tensor,
    groups: int,
    group_size: int,
    *,
    start: Tensor | None = None,
    radius: float | None = None,
    backend: Backend = "auto",
) -> Groups:
    """FPS centers with their nearest points, relative to the center.

    Args:
        points: (B, N, 3).
        groups: c, number of centers.
        group_size: k, points a group; a center is its own nearest point.
        start: (B,) FPS start indices; None = 0.
        radius: divides the relative coordinates when given (radius scaling).
        backend: as in `farthest_point_sample`.

    Returns:
        `Groups` with centers (B, c, 3) and neighborhoods (B, c, k, 3).

    Raises:
        InputError: points that `check_points` refuses, fewer points than groups or group_size, or
            a radius that is not positive.
    """
    check_points(points, at_least=max(groups, group_size))
    pays = cpu.tree_pays(points.shape[1], groups)
    trees = build_trees(points, backend=backend) if pays else None
    chosen = farthest_point_sample(points, groups, start=start, trees=trees, backend=backend)
    centers = gather(points, chosen)
    return group_at(points, centers, group_size, radius=radius, trees=trees, backend=backend)


def group_at(
    points: Tensor,
    centers: Tensor,
    group_size: int,
    *,
    radius: float | None = None,
    trees: Trees | None = None,
    backend: Backend = "auto",
) -> Groups:
    """The points nearest to given centers, relative to them.

    Args:
        points: (B, N, 3).
        centers: (B, c, 3), points of the clouds or not.
        group_size: k, points a group.
        radius: divides the relative coordinates when given (radius scaling).
        trees: of the points, as in `farthest_point_sample`.
        backend: as in `farthest_point_sample`.

    Returns:
        `Groups` with centers (B, c, 3) and neighborhoods (B, c, k, 3).

    Raises:
        InputError: fewer points than group_size, or a radius that is not positive.
    """
    if radius is not None and not radius > 0:
        raise InputError(f"radius must be positive, got {radius}")
    index = nearest_neighbors(centers, points, group_size, trees=trees, backend=backend)
    learns = torch.is_grad_enabled() and (points.requires_grad or centers.requires_grad)
    if _on_cpu(points, backend) and centers.dtype == points.dtype and not learns:
        neighborhoods = cpu.offsets(points.detach(), centers.detach(), index)
    else:
        neighborhoods = gather(points, index) - centers[:, :, None]
    return Groups(centers, neighborhoods if radius is None else neighborhoods / radius)


def nearest_of(groups: Groups, group_size: int) -> Groups:
    """The groups with the nearest `group_size` points of each: those of a smaller k.

    Raises:
        InputError: more points than the groups have.
    """
    size = groups.neighborhoods.shape[2]
    if not 1 <= group_size <= size:
        raise InputError(
            f"cannot take {group_size} of groups of {size} points; ask for 1 to {size}"
        )
    if group_size == size:
        return groups
    return Groups(groups.centers, groups.neighborhoods[:, :, :group_size])


def greedy_order(centers: Tensor, *, backend: Backend = "auto") -> Tensor:
    """Nearest-neighbour chain from the center with the smallest coordinate sum (Point-JEPA).

    Args:
        centers: (B, c, 3).
        backend: as in `farthest_point_sample`.

    Returns:
        (B, c) int64 permutation.
    """
    count = centers.shape[1]
    x, y, z = centers.unbind(-1)
    first = (x + y + z).argmin(dim=1)
    twin = _twin(centers, backend, triton=count <= MOST_ORDERED)
    if twin is not None:
        return twin.greedy_order(centers.detach(), first)
    return reference.greedy_order(centers.detach(), first)
