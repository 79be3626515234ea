"""Sampling, neighbours, grouping and ordering of points: pure functions, one obvious form each.

Checks what is asked for and hands it on: `reference` is the definition, `backends` picks the
fastest form that gives the same indices, `opaque` keeps compilers out of it.

Coordinates beyond `FARTHEST` have squared distances that float32 cannot hold. `check_points`
refuses them; in the other functions such distances count as equal, so ties go to the lowest index
and the indices are valid but need not be those of the farthest or nearest points.

Shapes: B clouds, N points, M queries, c tokens (centers), k points per group.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from foundry3d.errors import InputError
from foundry3d.geometry import backends, opaque
from foundry3d.geometry.backends import Backend, Trees
from foundry3d.geometry.opaque import traced
from foundry3d.geometry.reference import gather

FARTHEST = 5e18
"""Squared distances of coordinates up to this size are finite in float32."""


class Groups(NamedTuple):
    """Point groups of a batch, what a tokenizer reads.

    Attributes:
        centers: (B, c, 3) sampled centers.
        neighborhoods: (B, c, k, 3) the k nearest points of each center, nearest first, relative
            to it; further channels, where points have attributes, as they are.
    """

    centers: Tensor
    neighborhoods: Tensor


def coordinates(points: Tensor) -> Tensor:
    """The first three channels (..., 3) of points; the input itself if it has no others."""
    return points if points.shape[-1] == 3 else points[..., :3].contiguous()


def _looked_at(values: Tensor) -> bool:
    """Whether values are checked: an accelerator would have to be waited for."""
    return values.device.type == "cpu" and not traced(values)


def _exact(points: Tensor) -> Tensor:
    """Points as distances are computed from them: without gradient, at least float32."""
    exact = points.detach()
    return exact if points.dtype in (torch.float32, torch.float64) else exact.float()


def check_points(points: Tensor, *, at_least: int = 1, attributes: int = 0) -> None:
    """Refuses points that no model here can read.

    Coordinates are only looked at on the CPU, because an accelerator would have to be waited for:
    there a cloud with NaN or infinite coordinates gets NaN features, and the other clouds of the
    batch theirs. Files, data sets and `embed` check theirs before they move.

    Args:
        points: (B, N, 3), or with further channels (B, N, 3 + attributes).
        at_least: N.
        attributes: channels behind the coordinates.

    Raises:
        InputError: not a dense tensor (B, N, 3) of real floating-point numbers, empty, fewer than
            `at_least` points in a cloud, or, on the CPU, coordinates that are NaN, infinite or
            beyond `FARTHEST`.
    """
    if not isinstance(points, Tensor):
        raise InputError(
            f"expected a floating-point tensor of shape (B, N, 3), got a {type(points).__name__}; "
            "convert it, e.g. torch.as_tensor(points, dtype=torch.float32)"
        )
    if points.layout is not torch.strided or points.is_nested:
        raise InputError("expected a dense tensor of shape (B, N, 3), got a sparse or nested one")
    if points.ndim != 3 or points.shape[-1] != 3 + attributes or not points.is_floating_point():
        raise InputError(
            f"expected floating-point points of shape (B, N, {3 + attributes}), got "
            f"{points.dtype} of shape "
            f"{tuple(points.shape)}"
        )
    if points.shape[0] == 0 or points.shape[1] < max(at_least, 1):
        raise InputError(
            f"expected at least one cloud of at least {max(at_least, 1)} points, got "
            f"{points.shape[0]} of {points.shape[1]}; add points or lower groups and group_size"
        )
    if _looked_at(points):
        low, high = (float(bound) for bound in coordinates(points).detach().aminmax())
        if not (low > -float("inf") and high < float("inf")):
            raise InputError("the points have NaN or infinite coordinates; remove those points")
        if not (low >= -FARTHEST and high <= FARTHEST):
            raise InputError(
                f"expected coordinates within {FARTHEST:g}, whose distances can be squared in "
                f"float32, got {low:g} to {high:g}; scale the clouds"
            )


def build_trees(points: Tensor, *, backend: Backend = "auto") -> Trees | None:
    """Search trees of points (B, N, 3), for calls that sample or search the same points.

    Results are the same with trees and without; they save time from some thousand points on.
    None where the compiled form does not apply (other devices and types, the torch form).
    """
    exact = _exact(points)
    form = None if traced(exact) else backends.on_cpu(exact, backend)
    return form.build_trees(exact) if form else None


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
    return opaque.farthest_point_sample(_exact(points), count, start, backend, trees=trees)


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
    return opaque.nearest_neighbors(_exact(queries), _exact(points), k, backend, trees=trees)


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
    attributes: int = 0,
    backend: Backend = "auto",
) -> Groups:
    """FPS centers with their nearest points, relative to the center.

    Args:
        points: (B, N, 3), or with further channels (B, N, 3 + attributes), which the geometry
            ignores and the neighborhoods keep as they are.
        groups: c, number of centers.
        group_size: k, points per group; a center is its own nearest point.
        start: (B,) FPS start indices; None = 0.
        radius: divides the relative coordinates when given (radius scaling).
        attributes: channels behind the coordinates.
        backend: as in `farthest_point_sample`.

    Returns:
        `Groups` with centers (B, c, 3) and neighborhoods (B, c, k, 3 + attributes).

    Raises:
        InputError: points that `check_points` refuses, fewer points than groups or group_size, or
            a radius that is not positive.
    """
    check_points(points, at_least=max(groups, group_size), attributes=attributes)
    xyz = coordinates(points)
    form = None if traced(points) else backends.on_cpu(_exact(xyz), backend)
    pays = form is not None and form.tree_pays(points.shape[1], groups)
    trees = build_trees(xyz, backend=backend) if pays else None
    chosen = farthest_point_sample(xyz, groups, start=start, trees=trees, backend=backend)
    centers = gather(xyz, chosen)
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
        points: (B, N, 3), or with further channels.
        centers: (B, c, 3), points of the clouds or not.
        group_size: k, points per group.
        radius: divides the relative coordinates when given (radius scaling).
        trees: of the points, as in `farthest_point_sample`.
        backend: as in `farthest_point_sample`.

    Returns:
        `Groups` with centers (B, c, 3) and neighborhoods (B, c, k, 3 + attributes).

    Raises:
        InputError: fewer points than group_size, or a radius that is not positive.
    """
    if radius is not None and not radius > 0:
        raise InputError(f"radius must be positive, got {radius}")
    points, whole = coordinates(points), points
    index = nearest_neighbors(centers, points, group_size, trees=trees, backend=backend)
    learns = torch.is_grad_enabled() and (points.requires_grad or centers.requires_grad)
    single = points.dtype == centers.dtype == torch.float32
    eager = single and not learns and not traced(points)
    if eager and (form := backends.on_cpu(points, backend)):
        neighborhoods = form.offsets(points.detach(), centers.detach(), index)
    else:
        neighborhoods = gather(points, index) - centers[:, :, None]
    near = neighborhoods if radius is None else neighborhoods / radius
    if whole is not points:
        near = torch.cat([near, gather(whole[..., 3:], index)], dim=-1)
    return Groups(centers, near)


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
        (B, c) int64 permutation, whatever the coordinates.
    """
    return opaque.greedy_order(_exact(centers), backend)
