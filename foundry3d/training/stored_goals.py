"""What a student is to reproduce where its teacher's features are stored, and such a student.

Shapes: B clouds, N points, c tokens, k points per group, D width of the stored features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from foundry3d.config import (
    AugmentConfig,
    DistillConfig,
    StudentConfig,
    TruncatedConfig,
)
from foundry3d.data.crop_samples import StoredBatch
from foundry3d.data.scenes import MeasuredStream
from foundry3d.errors import InputError
from foundry3d.geometry import group_at, nearest_neighbors
from foundry3d.models.backbone import Backbone
from foundry3d.models.inherit import copy_weights, student_config, truncated_config
from foundry3d.models.student import Student
from foundry3d.models.tokenizer import PointModel
from foundry3d.models.truncated import Truncated
from foundry3d.training.goals import Goal
from foundry3d.transforms import Axis, augment

STILL = AugmentConfig(scale=(1, 1), flip=False, rotate=False, translate=0.0)


def student_sizes(
    start: Backbone | None, config: DistillConfig, width: int
) -> StudentConfig | TruncatedConfig:
    """Sizes of a student whose features have the width of the stored ones.

    Args:
        start: that it differs from by `config.student`; None = a model of sizes `config.backbone`.
        config: of the run.
        width: D.

    Raises:
        InputError: options that do not fit, or a student of another kind.
    """
    base, options = config.backbone if start is None else start.config, config.student
    if options.kind not in ("supertokens", "truncated"):
        raise InputError(
            "stored features are for students of kind supertokens or truncated, got kind "
            f"{options.kind}"
        )
    sizes: StudentConfig | TruncatedConfig = (
        student_config(base, options)
        if options.kind == "supertokens"
        else truncated_config(base, options)
    )
    return replace(sizes, output_dim=None if width == sizes.backbone.dim else width)


def new_student(start: Backbone | None, config: DistillConfig, width: int) -> Student | Truncated:
    """A student of `student_sizes`, with the weights of `start` where sizes agree.

    Where its encoder has another width than the stored features, a linear head leads to theirs.

    Raises:
        InputError: as `student_sizes`.
    """
    sizes = student_sizes(start, config, width)
    generator = torch.Generator().manual_seed(config.train.seed)
    student: Student | Truncated
    if isinstance(sizes, StudentConfig):
        student = Student(sizes, generator=generator)
    else:
        student = Truncated(sizes, generator=generator)
    if start is not None:
        shallower = isinstance(student, Truncated)
        copy_weights(start, start.config, student, sizes.backbone, shallower=shallower)
    return student.eval()


def moved(
    batch: StoredBatch, config: AugmentConfig, up: Axis, generator: torch.Generator | None
) -> StoredBatch:
    """The batch augmented: centers move with the points, features stay as they are."""
    centers = batch.centers
    if centers is None:
        return batch._replace(points=augment(batch.points, config, up=up, generator=generator))
    count = batch.points.shape[1]
    both = torch.cat([batch.points, centers], dim=1)
    both = augment(both, config, up=up, generator=generator, first=count)
    return batch._replace(points=both[:, :count], centers=both[:, count:])


def stored_goal(
    student: PointModel, batch: StoredBatch, generator: torch.Generator | None, *, drawn: bool
) -> Goal:
    """The goal of a batch: stored features at the centers of tokens, or pooled in groups.

    Args:
        student: whose groups are made.
        batch: of B clouds.
        generator: of the starts of farthest point sampling.
        drawn: False = they are at index 0.
    """
    shape, points = student.shape, batch.points
    if batch.centers is not None:
        groups = group_at(points, batch.centers, shape.group_size, radius=shape.radius)
        weight = None if batch.present is None else batch.present.to(points.dtype)
        return Goal(groups, batch.features.float(), None, weight=weight)
    groups = student.group(points, generator=generator, drawn=drawn)
    index = nearest_neighbors(groups.centers, points, shape.group_size)
    features, share = pooled_in(batch.features, index, batch.present)
    return Goal(groups, features, None, weight=share)


def pooled_in(
    features: Tensor, index: Tensor, present: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Means of the features of each group's points, and the share of points that have one.

    Args:
        features: (B, N, D), of which only those present count.
        index: (B, c, k) the points of each group.
        present: (B, N) bool; None = all.

    Returns:
        (B, c, D) float32, 0 for groups without any; and (B, c), None where all have one.
    """
    batch, size, width = features.shape
    rows = (index + size * torch.arange(batch, device=index.device)[:, None, None]).flatten(0, 1)
    flat = features.float().flatten(0, 1)
    if present is None:
        return F.embedding_bag(rows, flat, mode="mean").view(batch, -1, width), None
    has = present.flatten().to(flat.dtype)
    total = F.embedding_bag(rows, flat * has[:, None], mode="sum").view(batch, -1, width)
    count = has[rows].sum(dim=-1).view(batch, -1)
    return total / count.clamp_min(1)[..., None], count / index.shape[-1]


def stored_goals(
    student: PointModel, held: MeasuredStream, config: DistillConfig
) -> Iterator[Goal]:
    """The goals of what a student is measured on, without augmentation, on its device."""
    weight = next(student.parameters())
    kind = torch.float64 if weight.dtype == torch.float64 else torch.float32
    still = replace(STILL, normalise=config.augment.normalise)
    for batch in held.batches():
        assert isinstance(batch, StoredBatch)
        centers, present = batch.centers, batch.present
        batch = StoredBatch(
            batch.points.to(weight.device, kind),
            batch.features.to(weight.device),
            None if centers is None else centers.to(weight.device, kind),
            None if present is None else present.to(weight.device),
        )
        yield stored_goal(student, moved(batch, still, "z", None), None, drawn=False)
