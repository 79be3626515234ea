"""What a student is to reproduce: the teacher's features and tokens of groups that both read.

Shapes: B clouds of a batch, n clouds of a split, N points, c tokens, k points a group, d width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from foundry3d.baselines import FPSStudent, Merged
from foundry3d.config import DistillConfig
from foundry3d.data.batches import in_order
from foundry3d.data.clouds import Clouds
from foundry3d.data.loading import Stream
from foundry3d.errors import InputError
from foundry3d.geometry import Groups, group_at, nearest_of
from foundry3d.models.attributes import encoded, select_groups
from foundry3d.models.backbone import Backbone, Teacher, pool
from foundry3d.models.student import Student
from foundry3d.models.tokenizer import PointModel
from foundry3d.models.truncated import Truncated
from foundry3d.training.fidelity import TokenFidelity, linear_cka
from foundry3d.training.losses import distance, matching_block, plain_norm
from foundry3d.transforms import normalise

Learner = Student | Truncated | Merged | FPSStudent
"""What can be distilled from a teacher's token features."""


class Goal(NamedTuple):
    """What a student is to reproduce of a batch, or of a whole split.

    Attributes:
        groups: that the student reads.
        features: (B, c, d) the teacher's; None while the tokenizer trains alone.
        tokens: (B, c, width) the teacher's tokens, before positions; None where they play no part.
        blocks: (B, c, n, d) the teacher's features after n blocks, each layer-normed without
            parameters; None where there is no loss for them.
        weight: (B, c) of each token in the losses, the share of its points that have a stored
            feature; None = all count the same.
    """

    groups: Groups
    features: Tensor | None
    tokens: Tensor | None
    blocks: Tensor | None = None
    weight: Tensor | None = None

    def take(self, index: Tensor) -> Goal:
        """The goal of the clouds at index (B,)."""
        rest = (None if part is None else part[index] for part in self[1:])
        return Goal(Groups(*(part[index] for part in self.groups)), *rest)


def shared_groups(
    teacher: Backbone,
    student: Learner,
    points: Tensor,
    generator: torch.Generator,
    *,
    drawn: bool = True,
) -> Groups:
    """Groups of points (B, N, 3) large enough for both, of which each reads its nearest points.

    Args:
        teacher: with groups of k points, and attributes among which are the student's.
        student: in training mode.
        points: (B, N, 3), with the teacher's attributes.
        generator: of the FPS starts.
        drawn: False = FPS starts at index 0.
    """
    if not isinstance(student, PointModel):
        return student.group(points, generator=generator, drawn=drawn)
    size = max(teacher.shape.group_size, student.shape.group_size)
    return student.group(
        points, generator=generator, group_size=size, drawn=drawn, like=teacher.shape
    )


def goal_of(
    teacher: Backbone,
    student: Learner,
    groups: Groups,
    *,
    features: bool,
    tokens: bool,
    blocks: Sequence[int] = (),
) -> Goal:
    """The goal of groups from `shared_groups`, as far as it is asked for.

    Args:
        teacher: in evaluation mode.
        student: that is to read the groups.
        groups: of B clouds.
        features: the teacher's final features, and those after `blocks`.
        tokens: the teacher's tokens.
        blocks: of the teacher, from 0.
    """
    read = own = groups
    if isinstance(student, PointModel):
        read = nearest_of(groups, teacher.shape.group_size)
        own = nearest_of(groups, student.shape.group_size)
        own = select_groups(own, teacher.shape.attributes, student.shape.attributes)
    with torch.no_grad():
        found = teacher.tokenizer(read.neighborhoods)
        encoded = after = None
        if features and blocks:
            output, states = teacher.encode_blocks(read, blocks, tokens=found)
            encoded = output.features.float()
            after = plain_norm(torch.stack(states, dim=-2).float())
        elif features:
            encoded = teacher.encode(read, tokens=found).features.float()
    return Goal(own, encoded, found.float() if tokens else None, after)


def own_goal(teacher: Teacher, student: Learner, points: Tensor) -> Goal:
    """The goal of a teacher that is not a `Backbone`, and the student's groups at its centers.

    Raises:
        InputError: the teacher returned what a teacher does not return.
    """
    with torch.no_grad():
        found = teacher(points)
    features, centers = found.features.float(), found.centers.to(points.dtype)
    batch, count, width = features.shape
    if centers.shape != (batch, count, 3) or width != student.output_dim:
        raise InputError(
            f"expected teacher features (B, c, {student.output_dim}) and centers (B, c, 3), "
            f"got {tuple(features.shape)} and {tuple(centers.shape)}"
        )
    shape = student.shape
    points = encoded(points, shape)
    groups = group_at(points, centers, shape.group_size, radius=shape.radius)
    return Goal(groups, features, None)


def check_blocks(blocks: Sequence[int], teacher: Teacher | None, student: Learner) -> list[int]:
    """The student's block for each of these blocks of the teacher.

    Raises:
        InputError: one of the two has no such block, or is not a model whose blocks are known.
    """
    if not blocks:
        return []
    if not (isinstance(teacher, Backbone) and isinstance(student, Student | Truncated)):
        raise InputError(
            f"loss_blocks compares blocks of a Backbone and of a Student or Truncated, got a "
            f"{type(teacher).__name__} and a {type(student).__name__}; leave it out"
        )
    depth, own = teacher.shape.depth, student.shape.depth
    if max(blocks) >= depth:
        raise InputError(
            f"loss_blocks are counted from 0 and the teacher has {depth} blocks, got {list(blocks)}"
        )
    if not isinstance(student, Truncated):
        return [matching_block(block, teacher=depth, student=own) for block in blocks]
    if max(blocks) >= own - 1:
        raise InputError(
            "loss_blocks of a truncated student are counted from 0 and end before its last block, "
            f"whose features are the final ones; it has {own} of {depth} blocks, got {list(blocks)}"
        )
    return list(blocks)


def check_tokens(teacher: Teacher | None, student: Learner) -> None:
    """Refuses a pair whose tokens cannot be compared.

    Raises:
        InputError: they cannot be.
    """
    if not (isinstance(teacher, Backbone) and isinstance(student, PointModel)):
        raise InputError(
            f"token_loss compares the tokens of a Backbone and a Student or Truncated, "
            f"got a {type(teacher).__name__} and a {type(student).__name__}; leave it out"
        )
    theirs, own = (m.shape.token_dim or m.shape.dim for m in (teacher, student))
    if theirs != own:
        raise InputError(f"expected student tokens as wide as the teacher's {theirs}, got {own}")


def memory_of(
    config: DistillConfig, train: Clouds | Stream, teacher: Teacher, student: Learner
) -> tuple[float, str | None]:
    """What the goals of all training clouds take, and why they cannot be kept.

    Returns:
        MB (10^6 bytes, float32), 0 where they cannot be kept; and the reason, None if they can.
    """
    if not isinstance(train, Clouds):
        return 0.0, "its clouds are streamed"
    if train.points.shape[1] != config.data.points and config.data.subsample != "first":
        return 0.0, "points are drawn from its clouds; add --data.subsample first"
    if not (isinstance(teacher, Backbone) and isinstance(student, PointModel)):
        return 0.0, "that is for a Backbone and students that read its groups"
    numbers = 3 + student.shape.point_channels * student.shape.group_size + teacher.output_dim
    if config.token_loss.used:
        numbers += teacher.shape.token_dim or teacher.shape.dim
    numbers += len(config.loss_blocks) * teacher.output_dim
    size = 4 * len(train) * student.shape.groups * numbers / 1e6
    if size > config.teacher_cache:
        return 0.0, f"they would take {size:.1f} MB and teacher_cache is {config.teacher_cache}"
    return size, None


def joined(goals: Iterable[Goal], clouds: int) -> Goal:
    """One goal of all clouds, in memory taken once, from goals of consecutive batches.

    Args:
        goals: of at least one batch.
        clouds: n, of all batches together.
    """
    whole: list[Tensor | None] = []
    first = 0
    for goal in goals:
        parts = (*goal.groups, *goal[1:])
        whole = whole or [None if p is None else p.new_empty(clouds, *p.shape[1:]) for p in parts]
        last = first + len(goal.groups.centers)
        for into, part in zip(whole, parts, strict=True):
            if into is not None and part is not None:
                into[first:last] = part
        first = last
    centers, neighborhoods, *rest = whole
    assert centers is not None and neighborhoods is not None
    return Goal(Groups(centers, neighborhoods), *rest)


def evaluation_goal(teacher: Teacher, student: Learner, points: Tensor) -> Goal:
    """The goal of points (B, N, 3) in evaluation: sampling of centers starts at index 0."""
    if not isinstance(teacher, Backbone):
        return own_goal(teacher, student, points)
    unused = torch.Generator()
    groups = shared_groups(teacher, student, points, unused, drawn=False)
    return goal_of(teacher, student, groups, features=True, tokens=False)


def held_out_losses(
    teacher: Teacher,
    student: Learner,
    clouds: Clouds,
    points: int,
    *,
    normalised: bool = True,
) -> dict[str, float]:
    """The distillation loss and the fidelity on clouds without augmentation.

    Args:
        teacher: in evaluation mode.
        student: in evaluation mode, on the device of the teacher.
        clouds: usually held out of training.
        points: how many points of each cloud are read.
        normalised: whether clouds are centred and scaled into the unit sphere, as in training.

    Returns:
        `loss`, Smooth L1 (equation 1); `unexplained` and `cosine` of all tokens, `cka` of pooled
        features (see `training.fidelity`); `fusion_ratio`, the share of tokens that are merged (1
        without a gate, 0 without supertokens); with a gate also `probability`, its mean.
    """
    return losses_of(student, goals_on(teacher, student, clouds, points, normalised=normalised))


def goals_on(
    teacher: Teacher, student: Learner, clouds: Clouds, points: int, *, normalised: bool
) -> Iterator[Goal]:
    """The goals of clouds in batches, as `held_out_losses` reads them."""
    weight = next(student.parameters())
    kind = weight.dtype if weight.dtype == torch.float64 else torch.float32
    for batch in in_order(clouds, 64, points):
        batch = batch.to(weight.device, kind)
        yield evaluation_goal(teacher, student, normalise(batch) if normalised else batch)


def losses_of(student: Learner, goals: Iterable[Goal]) -> dict[str, float]:
    """What `held_out_losses` returns, for goals of batches on the student's device.

    Tokens of weight 0 do not count; in the loss the others count by their weight.
    """
    sums: dict[str, float] = {}
    count, tokens, pooled = 0, TokenFidelity(), []
    with torch.inference_mode():
        for goal in goals:
            output, wanted = student.encode(goal.groups), goal.features
            assert wanted is not None
            count += len(wanted)
            has = wanted.new_ones(wanted.shape[:2]) if goal.weight is None else goal.weight
            pairs = output.features, wanted
            tokens.add(*(features[has > 0] for features in pairs))
            pooled.append([pool_present(features, has > 0).cpu() for features in pairs])
            found = {
                "loss": distance(output.features, wanted, "smooth_l1", goal.weight),
                "fusion_ratio": wanted.new_zeros(()),
            }
            if output.assignment is not None:
                found["fusion_ratio"] = (output.assignment >= 0).float().mean()
            if output.probability is not None:
                found["probability"] = output.probability.mean()
            for name, value in found.items():
                sums[name] = sums.get(name, 0.0) + float(value) * len(wanted)
    means = {name: total / count for name, total in sums.items()}
    cka = linear_cka(*(torch.cat(parts) for parts in zip(*pooled, strict=True)))
    return means | {"unexplained": tokens.unexplained, "cosine": tokens.cosine, "cka": cka}


def pool_present(features: Tensor, present: Tensor) -> Tensor:
    """`pool` (B, 2d) over the tokens that are present (B, c), of all in clouds that have none."""
    if bool(present.all()):
        return pool(features)
    rows = [
        one[has] if bool(has.any()) else one for one, has in zip(features, present, strict=True)
    ]
    return torch.cat([pool(one[None]) for one in rows])
