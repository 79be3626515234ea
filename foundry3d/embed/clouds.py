"""Features of point clouds from anywhere: files or arrays in, one feature a token out.

A cloud that cannot be used costs itself alone. Clouds may differ in size; those of equal size that
follow one another go through the model together, each normalised on its own, so what a cloud gives
does not depend on its neighbours.

Shapes: n clouds, N points of a cloud, c tokens, d width.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foundry3d.checkpoints.folder import read_config
from foundry3d.data.files import Points
from foundry3d.errors import InputError
from foundry3d.heads.classifier import Inner
from foundry3d.models.backbone import Backbone, Tokens
from foundry3d.models.student import Budgeted, Student
from foundry3d.transforms import normalise as into_sphere

log = logging.getLogger("foundry3d")

AnyModel = Inner | Budgeted
MOST_POINTS = 2**20
"""Clouds go through the model together while they have no more points than this in all."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What happens to clouds before a model reads them.

    Attributes:
        normalise: the mean is moved to the origin, the cloud scaled into the unit sphere.
        turn: x, y, z become the axes this many places further on: a rotation that brings the up
            axis of the clouds to that of the model.
        points: a random subset of this many points; None, or more than there are: all of them.
        seed: of the subset.
    """

    normalise: bool = True
    turn: int = 0
    points: int | None = None
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A cloud as the model reads it, and the way back: own = points * scale + shift, turned back.

    points (N, 3) float32; shift (3,) float64, the file's origin and the mean; source names it.
    """

    points: Tensor
    shift: Tensor
    scale: float
    turn: int
    source: str

    def own(self, centers: Tensor) -> Tensor:
        """Centers (1, c, 3) in the cloud's own coordinates, float64."""
        return (centers.double().cpu() * self.scale + self.shift).roll(-self.turn, dims=-1)


def _checked(points: np.ndarray, source: str, at_least: int) -> np.ndarray:
    """The points (N, 3), any real type, if a model can make something of them.

    Raises:
        InputError: not (N, 3) finite real numbers, fewer than `at_least`, or all the same.
    """
    if points.ndim != 2 or points.shape[1] != 3 or points.dtype.kind not in "fiu":
        raise InputError(
            f"{source}: expected real numbers of shape (N, 3), got {points.dtype} of shape "
            f"{points.shape}"
        )
    if not np.isfinite(points).all():
        raise InputError(f"{source}: expected finite coordinates, got NaN or infinite ones")
    if len(points) < at_least:
        raise InputError(
            f"{source}: expected at least {at_least} points, as many as the model has groups and "
            f"points of a group, got {len(points)}; add points, or raise samples for a mesh"
        )
    if (points == points[0]).all():
        raise InputError(f"{source}: expected points that differ, got {len(points)} times the same")
    return points


def prepare(cloud: Points, policy: Policy, at_least: int) -> Ready:
    """A cloud as the policy wants it.

    Raises:
        InputError: points that `_checked` refuses, or that are masked.
    """
    source = cloud.source
    if np.ma.is_masked(cloud.points):
        raise InputError(
            f"{source}: expected points without a mask, got a masked array; pass the rows that "
            "count, points[~points.mask.any(axis=1)]"
        )
    points = _checked(np.asarray(cloud.points), source, at_least)
    if policy.points is not None and len(points) > policy.points:
        chosen = np.random.default_rng(policy.seed).permutation(len(points))[: policy.points]
        points = points[chosen]
    exact = torch.from_numpy(points.astype(np.float64)).roll(policy.turn, dims=1)
    shift = torch.tensor(cloud.origin, dtype=torch.float64).roll(policy.turn)
    scale = 1.0
    if policy.normalise:
        mean = exact.mean(dim=0)
        shift, scale = shift + mean, float((exact - mean).norm(dim=1).max())
        if not 0 < scale < float("inf"):
            raise InputError(f"{source}: expected differences that can be squared, got {scale}")
        exact = into_sphere(exact[None])[0]
    return Ready(points=exact.float(), shift=shift, scale=scale, turn=policy.turn, source=source)


def _together(ready: Iterable[Ready], batch: int) -> Iterator[list[Ready]]:
    """Clouds of equal size that follow one another, at most `batch` and `MOST_POINTS`."""
    group: list[Ready] = []
    for one in ready:
        size = len(one.points)
        full = len(group) == batch or (len(group) + 1) * size > MOST_POINTS
        if group and (full or len(group[0].points) != size):
            yield group
            group = []
        group.append(one)
    if group:
        yield group


def in_batches(
    model: AnyModel, ready: Iterable[Ready], batch: int
) -> Iterator[tuple[Ready, Tokens]]:
    """Each cloud with its tokens (a batch of one, on the CPU), in order."""
    device = next(model.parameters()).device
    for group in _together(ready, batch):
        with torch.no_grad():
            found = model(torch.stack([one.points for one in group]).to(device))
        for i, one in enumerate(group):
            this = slice(i, i + 1)
            yield (
                one,
                Tokens(
                    features=found.features[this].float().cpu(),
                    centers=one.own(found.centers[this]),
                    assignment=None if found.assignment is None else found.assignment[this].cpu(),
                    tokens_used=found.tokens_used[this].cpu(),
                ),
            )


def fewest(model: AnyModel) -> int:
    """Points that a cloud must have at the least: as many as groups and as a group."""
    return max(model.shape.groups, model.shape.group_size)


def finite(one: Ready, tokens: Tokens) -> Tokens:
    """The tokens of a cloud.

    Raises:
        InputError: features that are not finite.
    """
    if not bool(tokens.features.isfinite().all()):
        raise InputError(
            f"{one.source}: expected finite features, the model gave others; normalise the "
            "cloud, or check the model's weights"
        )
    return tokens


def embed_clouds(
    model: Backbone | Student,
    clouds: Sequence[np.ndarray],
    *,
    policy: Policy | None = None,
    batch: int = 16,
) -> list[Tokens]:
    """Features of point clouds of any sizes.

    Args:
        model: in evaluation mode, on any device.
        clouds: n arrays (N_i, 3) of real numbers, at least as many points as the model has groups
            and points of a group; not changed.
        policy: how clouds are prepared; None = normalised. `read_policy` gives a saved model's.
        batch: clouds of equal size that go through the model together.

    Returns:
        For each cloud its `Tokens`, a batch of one on the CPU: features (1, c, d), centers
        (1, c, 3) float64 in the cloud's own coordinates.

    Raises:
        InputError: a model in training mode, or a cloud that cannot be used; it is named by its
            number.
    """
    if model.training:
        raise InputError("expected a model in evaluation mode; call model.eval() first")
    policy, least = policy or Policy(), fewest(model)
    ready = (
        prepare(Points(points=cloud, source=f"cloud {i}"), policy, least)
        for i, cloud in enumerate(clouds)
    )
    return [finite(one, tokens) for one, tokens in in_batches(model, ready, batch)]


def stored_facts(path: str | Path) -> dict[str, Any]:
    """What a saved model says of its training; nothing for files of other projects."""
    found = {} if Path(path).is_file() else read_config(path).get("provenance")
    return found if isinstance(found, dict) else {}


def read_policy(
    path: str | Path, *, up: str | None = None, normalise: bool | None = None
) -> tuple[Policy, str | None]:
    """How the clouds of a saved model's training were prepared.

    Args:
        path: a model folder, or a checkpoint file of another project, which does not say.
        up: the axis that points up in the clouds to come; None = as in training.
        normalise: overrides what is stored.

    Returns:
        The policy, and a sentence about what the model does not say (None when it says all).

    Raises:
        InputError: not a checkpoint.
    """
    stored, missing = stored_facts(path), []
    if normalise is None:
        normalise = stored.get("normalise")
    if not isinstance(normalise, bool):
        normalise = True
        missing.append("whether clouds are centred and scaled (they are; see --normalise)")
    own_up, turn = stored.get("up"), 0
    if own_up not in ("x", "y", "z"):
        missing.append("which axis points up (axes are taken as they are)")
    elif up is not None:
        turn = "xyz".index(own_up) - "xyz".index(up)
    notice = f"{path} does not say " + " and ".join(missing) if missing else None
    return Policy(normalise=normalise, turn=turn), notice
