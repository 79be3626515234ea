"""The groups of one large cloud, and windows of nearby groups.

Shapes: N points, c tokens, w tokens per window, k points per group, B windows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from foundry3d.errors import InputError
from foundry3d.geometry import (
    Groups,
    build_trees,
    check_points,
    coordinates,
    farthest_point_sample,
    gather,
    nearest_neighbors,
)
from foundry3d.models.attributes import encoded
from foundry3d.models.backbone import Backbone
from foundry3d.models.student import Student
from foundry3d.models.truncated import Truncated

SceneModel = Backbone | Student | Truncated
Walk = Callable[[Sequence[Tensor], str], Iterator[Tensor]]
"""Iterates over the chunks of a named stage, e.g. to report progress."""


def quietly(chunks: Sequence[Tensor], doing: str) -> Iterator[Tensor]:
    """Iterates without reporting progress."""
    return iter(chunks)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """The groups of one large cloud as indices; neighbourhoods are gathered when they are needed.

    Attributes:
        points: (1, N, 3), with attributes as `models.attributes.encoded` makes them.
        centers: (1, c, 3).
        index: (1, c, k) int64, the k nearest points of each center.
        scale: factor on the neighbourhoods; see `windows.zoom`.
    """

    points: Tensor
    centers: Tensor
    index: Tensor
    scale: float = 1.0

    def groups(self, rows: Tensor) -> Groups:
        """The groups at rows (B, n), as B clouds of n groups."""
        centers = self.centers[0][rows]
        found = self.points[0][self.index[0][rows]]
        near = found[..., :3] - centers[..., None, :]
        return Groups(centers, rejoined(near if self.scale == 1 else near * self.scale, found))


def rejoined(near: Tensor, found: Tensor) -> Tensor:
    """Coordinates (..., 3) with the attributes behind those of found (..., 3 and more)."""
    return near if found.shape[-1] == 3 else torch.cat([near, found[..., 3:]], dim=-1)


def group_scene(model: SceneModel, points: Tensor, *, points_per_token: int = 16) -> Scene:
    """Centers of a cloud of any size by farthest point sampling, and their nearest points.

    Args:
        model: its group size and radius apply; its number of groups does not.
        points: (1, N, 3) floating point, N at least the group size and points_per_token; with the
            model's attributes (1, N, 3 + m).
        points_per_token: N / c; 16 gives 64 tokens for 1024 points, and 16,384 for 2^18 as in the
            paper.

    Raises:
        InputError: `geometry.check_points` refuses the points, there are fewer than a group or a
            token needs, or there is more than one cloud.
    """
    shape = model.shape
    if points_per_token < 1:
        raise InputError(f"points_per_token must be at least 1, got {points_per_token}")
    points = encoded(points, shape)
    least = max(shape.group_size, points_per_token)
    check_points(points, at_least=least, attributes=shape.point_channels - 3)
    if len(points) != 1:
        raise InputError(f"a scene is one cloud (1, N, 3), got {len(points)}; take them in turn")
    xyz = coordinates(points)
    trees = build_trees(xyz)
    chosen = farthest_point_sample(xyz, xyz.shape[1] // points_per_token, trees=trees)
    centers = gather(xyz, chosen)
    index = nearest_neighbors(centers, xyz, shape.group_size, trees=trees)
    return Scene(points=points, centers=centers, index=index, scale=1 / (shape.radius or 1.0))


def split_windows(centers: Tensor, most: int) -> list[Tensor]:
    """Splits centers into boxes of nearby centers, by halving along the longest side.

    There are as few windows as `most` centers per window allow, and their sizes are about equal.

    Args:
        centers: (c, 3).
        most: w, 1 or more.

    Returns:
        (w_i,) int64 indices of every window; each center is in exactly one.

    Raises:
        InputError: most is below 1.
    """
    if most < 1:
        raise InputError(f"windows must hold at least 1 token, got {most}")
    found: list[Tensor] = []
    open_boxes = [(torch.arange(len(centers), device=centers.device), -(-len(centers) // most))]
    while open_boxes:
        rows, parts = open_boxes.pop()
        if parts == 1:
            found.append(rows)
            continue
        box = centers[rows]
        side = int((box.amax(dim=0) - box.amin(dim=0)).argmax())
        order = rows[box[:, side].argsort(stable=True)]
        cut = -(-len(rows) * (parts // 2) // parts)
        open_boxes += [(order[cut:], parts - parts // 2), (order[:cut], parts // 2)]
    return found


def together(windows: list[Tensor], most: int) -> list[Tensor]:
    """Windows of equal size in batches (B, w) of at most `most` tokens, at least one window."""
    sizes: dict[int, list[Tensor]] = {}
    for rows in windows:
        sizes.setdefault(len(rows), []).append(rows)
    return [
        part
        for size, equal in sizes.items()
        for part in torch.stack(equal).split(max(1, most // size))
    ]
