"""Normalisation and augmentation of batches: never in place, with separate draws for each cloud.

Shapes: B clouds, N points; points with attributes are (B, N, 3 + m), and the geometry is that of
the first three columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from foundry3d.config import AugmentConfig
from foundry3d.config.attributes import columns_of
from foundry3d.geometry import coordinates, draw_start, farthest_point_sample, gather

Axis = Literal["x", "y", "z"]


def _uniform(
    shape: tuple[int, ...], low: float, high: float, like: Tensor, g: torch.Generator | None
) -> Tensor:
    return torch.rand(shape, dtype=like.dtype, device=like.device, generator=g) * (high - low) + low


def normalise(points: Tensor, first: int | None = None) -> Tensor:
    """Points (B, N, 3) with their mean at the origin, scaled into the unit sphere.

    A cloud of one repeated point stays at the origin; attributes stay as they are.

    Args:
        points: (B, N, 3), or (B, N, 3 + m) with attributes.
        first: only the mean and radius of this many first points count; None = of all.
    """
    if points.shape[-1] != 3:
        return torch.cat([normalise(points[..., :3], first), points[..., 3:]], dim=-1)
    centred = points - points[:, :first].mean(dim=1, keepdim=True)
    radius = centred[:, :first].norm(dim=-1).amax(dim=1)[:, None, None]
    return centred / torch.where(radius > 0, radius, torch.ones_like(radius))


def subsample(
    points: Tensor,
    count: int,
    *,
    how: Literal["random", "fps", "first"],
    generator: torch.Generator | None,
) -> Tensor:
    """`count` points of each cloud (B, N, 3), without replacement; the input itself if N == count.

    `fps` takes a farthest point sample from a random start, `random` a uniform choice, `first` the
    first points.
    """
    batch, size = points.shape[:2]
    if size == count:
        return points
    if how == "first":
        return points[:, :count]
    if how == "fps":
        start = draw_start(batch, size, device=points.device, generator=generator)
        chosen = farthest_point_sample(coordinates(points), count, start=start)
        return gather(points, chosen)
    keys = torch.rand(batch, size, device=points.device, generator=generator)
    return gather(points, keys.topk(count, dim=1).indices)


def rotate_about(points: Tensor, angle: Tensor, up: Axis) -> Tensor:
    """Points (B, N, 3) rotated about the up axis by angle (B,) in radians."""
    a, b = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[up]
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]
    turned = points.clone()
    turned[..., a] = cos * points[..., a] - sin * points[..., b]
    turned[..., b] = sin * points[..., a] + cos * points[..., b]
    return turned


def augment(
    points: Tensor,
    config: AugmentConfig,
    *,
    up: Axis,
    generator: torch.Generator | None = None,
    first: int | None = None,
    attributes: Sequence[str] = (),
) -> Tensor:
    """A randomly augmented copy of points (B, N, 3), with steps in the order of Point-JEPA.

    Scale along each axis, flip across a vertical plane, centre and scale into the unit sphere,
    shift, rotate about `up`. Normals stay perpendicular to the surface: they are mirrored and
    rotated with it, and a scale that differs between axes tilts them. Other attributes stay as
    they are.

    Args:
        points: (B, N, 3), or (B, N, 3 + m) with attributes.
        config: what is drawn.
        up: the axis to rotate about.
        generator: of the draws; None = torch's default one.
        first: the points of the cloud, by which it is normalised; the others (centers of tokens)
            only move with them. None = all.
        attributes: of the points.
    """
    points, rest = points[..., :3], points[..., 3:]
    where = columns_of(attributes).get("normal")
    normals = None if where is None else rest[..., where.start - 3 : where.stop - 3]
    batch = points.shape[0]
    low, high = config.scale
    factor = _uniform((batch, 1, 3), low, high, points, generator)
    points = points * factor
    if normals is not None:
        normals = F.normalize(normals / factor, dim=-1)
    if config.flip:
        mirrored = _uniform((batch, 1), 0.0, 1.0, points, generator) < 0.5
        axis = {"x": 1, "y": 2, "z": 0}[up]
        sign = torch.ones_like(points[:, :1])
        sign[..., axis] = torch.where(mirrored, -1.0, 1.0)
        points = points * sign
        normals = None if normals is None else normals * sign
    if config.normalise:
        points = normalise(points, first)
    if config.translate:
        shift = config.translate
        points = points + _uniform((batch, 1, 3), -shift, shift, points, generator)
    if config.rotate:
        angle = _uniform((batch,), -math.pi, math.pi, points, generator)
        points = rotate_about(points, angle, up)
        normals = None if normals is None else rotate_about(normals, angle, up)
    if not rest.shape[-1]:
        return points
    if where is not None and normals is not None:
        start, stop = where.start - 3, where.stop - 3
        rest = torch.cat([rest[..., :start], normals, rest[..., stop:]], dim=-1)
    return torch.cat([points, rest], dim=-1)
