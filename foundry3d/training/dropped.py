"""Students that read fewer points of a cloud than their teacher did.

Shapes: B clouds, N points.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from foundry3d.baselines import FPSStudent
from foundry3d.errors import InputError
from foundry3d.geometry import group_at
from foundry3d.models.attributes import encoded, select
from foundry3d.training.goals import Goal, Learner
from foundry3d.transforms import subsample


def with_points_dropped(
    goal: Goal,
    student: Learner,
    points: Tensor,
    share: float,
    generator: torch.Generator,
    *,
    attributes: Sequence[str] = (),
) -> Goal:
    """The same goal for a student that reads only some of the points, at the same centers.

    Args:
        goal: of the points.
        student: whose groups are made again.
        points: (B, N, 3) that the teacher read.
        share: of the points that are dropped, drawn for each cloud.
        generator: of the draws.
        attributes: of the points.
    """
    shape, kept = student.shape, points_kept(points.shape[1], share)
    read = subsample(points, kept, how="random", generator=generator)
    read = encoded(select(read, attributes, shape.attributes), shape)
    groups = group_at(read, goal.groups.centers, shape.group_size, radius=shape.radius)
    return goal._replace(groups=groups)


def points_kept(points: int, share: float) -> int:
    """How many of a cloud's points the student reads where a share of them is dropped."""
    return points - int(share * points)


def check_dropped(student: Learner, points: int, share: float) -> None:
    """Refuses to drop points where the student cannot do with what is left.

    Raises:
        InputError: its groups are not made around given centers, or need more points.
    """
    if isinstance(student, FPSStudent):
        raise InputError(
            "dropped_points needs a student that reads groups around the teacher's "
            "centers, got a FPSStudent"
        )
    kept, size = points_kept(points, share), student.shape.group_size
    if kept < size:
        raise InputError(
            f"dropped_points {share} leaves {kept} of {points} points, the student's "
            f"groups have {size}; drop fewer"
        )
