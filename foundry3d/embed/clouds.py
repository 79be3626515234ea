"""Features of point clouds: arrays in, one feature per token out.

Clouds may differ in size. Consecutive clouds of equal size go through the model in one batch; each
is normalised on its own, so its features do not depend on the others.

Shapes: n clouds, N points of a cloud, c tokens, d width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foundry3d.checkpoints.policy import Policy as Policy
from foundry3d.checkpoints.policy import read_policy as read_policy
from foundry3d.checkpoints.policy import stored_facts as stored_facts
from foundry3d.data.files import Points
from foundry3d.embed.objects import points_of
from foundry3d.errors import InputError
from foundry3d.heads.classifier import Inner
from foundry3d.models.backbone import Tokens
from foundry3d.models.student import Budgeted
from foundry3d.transforms import normalise as into_sphere

AnyModel = Inner | Budgeted
MOST_POINTS = 2**20
"""Points in one batch, at most, unless a single cloud has more."""


@dataclass(frozen=True, kw_only=True)
class PreparedCloud:
    """A cloud as the model reads it, and how to get back to the coordinates it came in.

    Attributes:
        points: (N, 3) float32.
        shift: (3,) float64, the mean plus the origin that the file's reader subtracted.
        scale: original = points * scale + shift, with the axes rolled back.
        turn: how many places the axes were rolled.
        source: name of the cloud in messages.
    """

    points: Tensor
    shift: Tensor
    scale: float
    turn: int
    source: str

    def original(self, centers: Tensor) -> Tensor:
        """Centers (1, c, 3) in the coordinates that the cloud came in, float64."""
        return (centers.double().cpu() * self.scale + self.shift).roll(-self.turn, dims=-1)


def _checked(points: np.ndarray, source: str, at_least: int) -> np.ndarray:
    """The points (N, 3), of any real type, if a model can read them.

    Raises:
        InputError: points that are not (N, 3) finite real numbers, fewer than `at_least` of them,
            or all at the same place.
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
            f"{source}: expected at least {at_least} points, the larger of the model's number of "
            f"groups and its group size, got {len(points)}; add points, or raise samples for a mesh"
        )
    if (points == points[0]).all():
        raise InputError(f"{source}: expected points that differ, got {len(points)} equal ones")
    return points


def as_array(cloud: object, source: str) -> np.ndarray:
    """An array of what was handed in: a tensor of any device and type, an array, or rows.

    Raises:
        InputError: rows of different lengths, masked points, a sparse or nested tensor, or
            something that is no array of numbers.
    """
    if isinstance(cloud, Tensor):
        if cloud.layout is not torch.strided or cloud.is_nested:
            raise InputError(f"{source}: expected a dense tensor, got a sparse or nested one")
        plain = cloud.detach().cpu()
        short = plain.dtype in (torch.bfloat16, torch.float16)
        return (plain.float() if short else plain).numpy()
    if np.ma.is_masked(cloud):
        raise InputError(f"{source}: expected all points to count, got masked ones; remove them")
    try:
        return np.asarray(cloud)
    except (ValueError, TypeError, RuntimeError) as error:
        raise InputError(
            f"{source}: expected an array of shape (N, 3), got a {type(cloud).__name__} that is "
            f"none ({str(error).splitlines()[0]})"
        ) from None


def prepare(cloud: Points, policy: Policy, at_least: int) -> PreparedCloud:
    """A cloud prepared for a model.

    Raises:
        InputError: points that `_checked` refuses, or a size that overflows.
    """
    source = cloud.source
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
            raise InputError(f"{source}: expected a finite size above 0, got a radius of {scale}")
        exact = into_sphere(exact[None])[0]
    return PreparedCloud(
        points=exact.float(), shift=shift, scale=scale, turn=policy.turn, source=source
    )


def _together(clouds: Iterable[PreparedCloud], batch: int) -> Iterator[list[PreparedCloud]]:
    """Batches of consecutive clouds of equal size, at most `batch` clouds and `MOST_POINTS`."""
    group: list[PreparedCloud] = []
    for cloud in clouds:
        size = len(cloud.points)
        full = len(group) == batch or (len(group) + 1) * size > MOST_POINTS
        if group and (full or len(group[0].points) != size):
            yield group
            group = []
        group.append(cloud)
    if group:
        yield group


def in_batches(
    model: AnyModel, clouds: Iterable[PreparedCloud], batch: int
) -> Iterator[tuple[PreparedCloud, Tokens]]:
    """Each cloud with its tokens, a batch of one on the CPU, in order."""
    device = next(model.parameters()).device
    for group in _together(clouds, batch):
        with torch.no_grad():
            found = model(torch.stack([cloud.points for cloud in group]).to(device))
        for i, cloud in enumerate(group):
            this = slice(i, i + 1)
            yield (
                cloud,
                Tokens(
                    features=found.features[this].float().cpu(),
                    centers=cloud.original(found.centers[this]),
                    assignment=None if found.assignment is None else found.assignment[this].cpu(),
                    tokens_used=found.tokens_used[this].cpu(),
                ),
            )


def fewest(model: AnyModel) -> int:
    """The fewest points that a cloud may have: enough for every group, and to fill one."""
    return max(model.shape.groups, model.shape.group_size)


def finite(cloud: PreparedCloud, tokens: Tokens) -> Tokens:
    """The tokens of a cloud, unchanged.

    Raises:
        InputError: features that are not finite.
    """
    if not bool(tokens.features.isfinite().all()):
        raise InputError(
            f"{cloud.source}: the model returned features that are not finite; normalise the "
            "cloud, or check the model's weights"
        )
    return tokens


def _named_points(clouds: Sequence[Any], seed: int) -> Iterator[tuple[str, object]]:
    """The name in messages and the points of each cloud."""
    for i, cloud in enumerate(clouds):
        yield f"cloud {i}", points_of(cloud, f"cloud {i}", seed=seed)


def embed_clouds(
    model: Inner,
    clouds: Sequence[Any],
    *,
    policy: Policy | None = None,
    batch: int = 16,
) -> list[Tokens]:
    """Features of point clouds of any sizes.

    Args:
        model: in evaluation mode, on any device.
        clouds: n arrays, tensors or lists of rows (N_i, 3) of real numbers, or point clouds and
            meshes of Open3D and trimesh, see `embed.objects`; they are not changed. N_i is at
            least the model's number of groups and its group size.
        policy: how clouds are prepared; None = normalised. `read_policy` returns what a saved
            model was trained with. Its seed is also that of the points drawn from meshes.
        batch: how many clouds of equal size go through the model at once.

    Returns:
        The `Tokens` of each cloud, a batch of one on the CPU: features (1, c, d), and centers
        (1, c, 3) float64 in the coordinates of the cloud.

    Raises:
        InputError: a model in training mode, or a cloud that cannot be used, named by its index.
    """
    if model.training:
        raise InputError("expected a model in evaluation mode; call model.eval() first")
    policy, least = policy or Policy(), fewest(model)
    prepared = (
        prepare(Points(points=as_array(points, name), source=name), policy, least)
        for name, points in _named_points(clouds, policy.seed)
    )
    return [finite(cloud, tokens) for cloud, tokens in in_batches(model, prepared, batch)]
