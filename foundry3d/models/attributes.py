"""Attributes on their way into a model: absent values become zeros with a presence channel.

A cloud with attributes is (B, N, 3 + m), see `config.attributes`; NaN says that a point lacks an
attribute. What a tokenizer reads is (..., 3 + m + a), with the values of each of the a attributes,
zero where it is absent, followed by a channel that is 1 where it is present and 0 where not.

Shapes: B clouds, N points, c tokens, k points per group, a attributes with m channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from foundry3d.config import BackboneConfig
from foundry3d.config.attributes import COORDINATES, channels, columns_of, width_of
from foundry3d.errors import InputError
from foundry3d.geometry import Groups
from foundry3d.geometry.opaque import traced


def encoded(points: Tensor, shape: BackboneConfig) -> Tensor:
    """Points as a model of these sizes groups them: its attributes with their presence.

    Args:
        points: (B, N, 3 + m) with the model's attributes, or (B, N, 3) without any of them.
        shape: of the model; one without attributes leaves the points as they are.

    Returns:
        (B, N, 3 + m + a); the input itself for a model without attributes.

    Raises:
        InputError: another number of columns; or, for a model that was made without
            `attribute_dropout`, a cloud without one of its attributes (values are only looked at
            on the CPU).
    """
    if not shape.attributes:
        return points
    width = width_of(shape.attributes)
    shaped = isinstance(points, Tensor) and points.ndim == 3 and points.is_floating_point()
    if not shaped or points.shape[-1] not in (COORDINATES, width):
        got = tuple(points.shape) if isinstance(points, Tensor) else type(points).__name__
        raise InputError(
            f"expected floating-point points of shape (B, N, {width}), coordinates followed by "
            f"{', '.join(shape.attributes)}, or (B, N, 3) without them, got {got}"
        )
    parts = [points[..., :COORDINATES]]
    bare = points.shape[-1] == COORDINATES
    seen = points.device.type == "cpu" and not traced(points)
    for name, where in columns_of(shape.attributes).items():
        if bare:
            values = points.new_zeros(*points.shape[:2], channels(name))
            there = torch.zeros_like(values[..., :1], dtype=torch.bool)
        else:
            values = points[..., where]
            there = values.isfinite().all(dim=-1, keepdim=True)
            values = values.where(there, 0)
        if not shape.attribute_dropout and (bare or (seen and not bool(there.any(dim=1).all()))):
            raise InputError(
                f"this model reads {', '.join(shape.attributes)} of every point and was made "
                f"without attribute_dropout, but a cloud has no {name}; give it, or train with "
                "--backbone.attribute_dropout"
            )
        parts += [values, there.to(points.dtype)]
    return torch.cat(parts, dim=-1)


def select(points: Tensor, had: Sequence[str], wanted: Sequence[str]) -> Tensor:
    """Points (..., 3 + m) of clouds with some attributes, with the wanted ones instead.

    Args:
        points: coordinates and the attributes `had`, or coordinates alone.
        had: attributes of the points, in order.
        wanted: attributes to return, in order; those that the points lack are NaN.
    """
    if tuple(had) == tuple(wanted) or points.shape[-1] == COORDINATES:
        return points
    known = columns_of(had)
    parts = [points[..., :COORDINATES]]
    for name in wanted:
        nothing = (*points.shape[:-1], channels(name))
        lacking = name not in known
        parts.append(points.new_full(nothing, torch.nan) if lacking else points[..., known[name]])
    return torch.cat(parts, dim=-1)


def select_groups(groups: Groups, had: Sequence[str], wanted: Sequence[str]) -> Groups:
    """The groups that a model with the attributes `had` made, for one that reads fewer."""
    if tuple(had) == tuple(wanted):
        return groups
    known, near = columns_of(had, presence=True), groups.neighborhoods
    parts = [near[..., :COORDINATES], *(near[..., known[name]] for name in wanted)]
    return Groups(groups.centers, torch.cat(parts, dim=-1))


def dropped(
    neighborhoods: Tensor, shape: BackboneConfig, generator: torch.Generator | None
) -> Tensor:
    """Neighborhoods (B, c, k, 3 + m + a) in which each attribute of each cloud may be absent.

    Args:
        neighborhoods: of B clouds.
        shape: its `attribute_dropout` is the probability.
        generator: of the draws; None = torch's default one.
    """
    device, batch = neighborhoods.device, len(neighborhoods)
    count = len(shape.attributes)
    draws = torch.rand(batch, count, device=device, generator=generator)
    stays = (draws >= shape.attribute_dropout).to(neighborhoods.dtype)
    mask = [stays.new_ones(batch, COORDINATES)]
    for i, name in enumerate(shape.attributes):
        mask.append(stays[:, i : i + 1].expand(-1, channels(name) + 1))
    return neighborhoods * torch.cat(mask, dim=1)[:, None, None]


def carried(weight: Tensor, had: Sequence[str], wanted: Sequence[str]) -> Tensor:
    """Weights (w, 3 + m + a) of a tokenizer's first layer for other attributes; zero for new ones.

    Args:
        weight: for coordinates and the attributes `had`.
        had: attributes that the weights read.
        wanted: attributes that the new weights read.
    """
    if tuple(had) == tuple(wanted):
        return weight
    old, new = columns_of(had, presence=True), columns_of(wanted, presence=True)
    found = weight.new_zeros(len(weight), width_of(wanted) + len(wanted))
    found[:, :COORDINATES] = weight[:, :COORDINATES]
    for name in old.keys() & new.keys():
        found[:, new[name]] = weight[:, old[name]]
    return found
