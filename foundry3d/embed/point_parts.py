"""The part of every point of a cloud: of an object as a whole, of a scene in windows.

Shapes: N points, n of a window or chunk, c tokens, w tokens per window, d token width, P parts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from foundry3d.data.progress import with_progress
from foundry3d.embed.clouds import PreparedCloud
from foundry3d.errors import InputError
from foundry3d.geometry import Groups, nearest_neighbors
from foundry3d.heads.segmenter import Segmenter
from foundry3d.scenes.dense import SEARCHED
from foundry3d.scenes.scene import SceneModel, group_scene
from foundry3d.scenes.windows import fitted, reach, split_windows

AT_ONCE = 2**14
"""Points that the head labels together."""


def category_number(model: Segmenter, name: str | None) -> int:
    """The category of this name; the only one of a segmenter that knows one.

    Raises:
        InputError: the name is unknown, or there are several categories and none is named.
    """
    known = model.config.categories
    if name is None and len(known) == 1:
        return 0
    if name not in known:
        got = "none" if name is None else repr(name)
        raise InputError(f"--category is one of {', '.join(known)} for this model, got {got}")
    return known.index(name)


@torch.inference_mode()
def point_parts(
    model: Segmenter, points: Tensor, groups: Groups, category: int
) -> tuple[Tensor, Tensor]:
    """The part of each point, and its probability, from the groups of one cloud.

    The encoder runs once; the head goes through the points in chunks.

    Args:
        model: in evaluation mode.
        points: (1, n, 3), not necessarily those of the groups.
        groups: of one cloud, in the same coordinates.
        category: of the cloud.

    Returns:
        (n,) int64 and (n,) float32.
    """
    features = model.token_features(groups)
    categories = torch.tensor([category], device=points.device)
    other = ~model.allowed[category]
    parts, shares = [], []
    for some in points.split(AT_ONCE, dim=1):
        logits = model.head(some, groups.centers, features, categories)[0]
        share, part = logits.float().masked_fill(other, float("-inf")).softmax(-1).max(-1)
        parts.append(part)
        shares.append(share)
    return torch.cat(parts), torch.cat(shares)


def object_parts(
    model: Segmenter, cloud: PreparedCloud, category: int, *, points: int, seed: int
) -> tuple[Tensor, Tensor]:
    """The part of each point of an object and its probability, each (N,).

    Args:
        model: in evaluation mode.
        cloud: with all of its points.
        category: of the object.
        points: size of the random subset that is grouped and encoded; all points are labelled.
        seed: of the subset.
    """
    every, size = cloud.points[None], len(cloud.points)
    drawn = torch.Generator().manual_seed(seed)
    some = every if size <= points else every[:, torch.randperm(size, generator=drawn)[:points]]
    return point_parts(model, every, model.backbone.group(some), category)


def scene_parts(
    model: Segmenter, cloud: PreparedCloud, category: int, *, points_per_token: int, fit: bool
) -> tuple[Tensor, Tensor]:
    """The part of each point of a scene and its probability, each (N,).

    Windows of as many neighbouring tokens as the model was trained on are objects of their own;
    a point belongs to the window of its nearest center.

    Args:
        model: in evaluation mode.
        cloud: with all of its points.
        category: of all windows.
        points_per_token: N / c.
        fit: each window is moved and scaled into the unit sphere.

    Raises:
        InputError: the model under the head does not read scenes.
    """
    backbone = model.backbone
    if not isinstance(backbone, SceneModel):
        raise InputError(
            f"scenes are for teachers and students, got a {type(backbone).__name__}; leave "
            "--points_per_token out"
        )
    points = cloud.points[None]
    scene = group_scene(backbone, points, points_per_token=points_per_token)
    windows = split_windows(scene.centers[0], backbone.shape.groups)
    members = _members(points, scene.centers, windows)
    parts = torch.empty(points.shape[1], dtype=torch.int64)
    shares = torch.empty(points.shape[1])
    numbers = range(len(windows))
    for i in with_progress(numbers, f"{cloud.source}: labelled", "windows"):
        own, groups = points[:, members[i]], scene.groups(windows[i][None])
        if fit:
            mean, radius = reach(groups.centers)
            own, groups = (own - mean) / radius, fitted(groups)
        parts[members[i]], shares[members[i]] = point_parts(model, own, groups, category)
    return parts, shares


def _members(points: Tensor, centers: Tensor, windows: Sequence[Tensor]) -> list[Tensor]:
    """The points (1, N, 3) of each window: those whose nearest of centers (1, c, 3) is in it."""
    window_of = torch.empty(centers.shape[1], dtype=torch.int64)
    for i, rows in enumerate(windows):
        window_of[rows] = i
    nearest = [
        nearest_neighbors(some, centers, 1)[0, :, 0] for some in points.split(SEARCHED, dim=1)
    ]
    found = window_of[torch.cat(nearest)]
    sizes = torch.bincount(found, minlength=len(windows)).tolist()
    return list(found.argsort(stable=True).split(sizes))
