"""Foundation Model Distillation: a student reconstructs every token feature of a frozen teacher."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback

from foundry3d.baselines import FPSStudent, Merged
from foundry3d.checkpoints.folder import load
from foundry3d.config import DistillConfig, ReductionConfig, read_for, require_data
from foundry3d.data.clouds import Clouds
from foundry3d.data.loading import Measured, Stream
from foundry3d.data.scenes import load_for_distillation, load_stored
from foundry3d.data.stored import stored_facts
from foundry3d.errors import InputError
from foundry3d.models.backbone import Backbone, Teacher, require_teacher
from foundry3d.models.student import Student
from foundry3d.models.truncated import Truncated
from foundry3d.training.distill_task import DistillTask as DistillTask
from foundry3d.training.distill_task import gate_loss as gate_loss
from foundry3d.training.engine import fit, keep
from foundry3d.training.goals import Goal, Learner, goals_on, losses_of
from foundry3d.training.stored_goals import new_student, stored_goals
from foundry3d.training.task import needs_of

log = logging.getLogger("foundry3d")


def student_of(teacher: Teacher, config: DistillConfig) -> Learner:
    """A new student of a `Backbone`, as `config.student` describes it.

    Raises:
        InputError: the teacher is no `Backbone`, so no sizes can be taken from it.
    """
    if not isinstance(teacher, Backbone):
        raise InputError(
            "a teacher that is no Backbone needs a student: pass "
            "student=Student(StudentConfig(backbone=..., output_dim=the teacher's feature width))"
        )
    generator = torch.Generator().manual_seed(config.train.seed)
    options = config.student
    match options.kind:
        case "supertokens":
            return Student.from_teacher(teacher, options, generator=generator)
        case "truncated":
            return Truncated.from_teacher(teacher, options, generator=generator)
        case "fps-student":
            return FPSStudent.from_teacher(
                teacher, supertokens=options.supertokens, points=config.data.points
            )
        case method:
            reduction = ReductionConfig(method=method, reach=options.supertokens)
            return Merged.from_teacher(teacher, reduction, generator=generator)


def data_of(config: DistillConfig, teacher: Teacher, student: Learner) -> DistillConfig:
    """The configuration with the attributes of points that teacher and student read.

    Raises:
        InputError: the student reads an attribute that its teacher does not, or the data leaves
            one out.
    """
    own = student.shape
    if not isinstance(teacher, Backbone):
        return replace(config, data=read_for(config.data, own))
    surplus = [name for name in own.attributes if name not in teacher.shape.attributes]
    if surplus:
        raise InputError(
            f"the student reads {', '.join(surplus)}, its teacher does not; extend the teacher "
            "first (foundry3d.with_attributes)"
        )
    return replace(config, data=read_for(config.data, teacher.shape))


def distill(
    config: DistillConfig, *, teacher: Teacher | None = None, student: Learner | None = None
) -> Learner:
    """Distils a student from a teacher and saves it as `<out>/model`.

    Args:
        config: of the run.
        teacher: a `Backbone` or any `Teacher`; None = the saved one named by the configuration.
        student: trained in place; None = as `config.student` describes it, for a `Backbone`.

    Returns:
        The student, in evaluation mode.

    Raises:
        InputError: unusable teacher, data, sizes or run folder.
    """
    if config.teacher_features is not None:
        return distill_stored(config, start=teacher, student=student)
    require_data(config.data)
    teacher = require_teacher(load(config.teacher_path)) if teacher is None else teacher
    student = student or student_of(teacher, config)
    config = data_of(config, teacher, student)
    shapes = (student.shape, *((teacher.shape,) if isinstance(teacher, Backbone) else ()))
    needs = needs_of(*shapes)
    train, held = load_for_distillation(config.data, seed=config.train.seed, needs=needs)
    return distill_on(config, teacher, student, train, held)


def distill_stored(
    config: DistillConfig, *, start: Teacher | None = None, student: Learner | None = None
) -> Learner:
    """`distill` from the features in `config.teacher_features`.

    Args:
        config: of the run.
        start: a `Backbone` that the student starts from; None = the saved one that `config.teacher`
            names, if it names one.
        student: trained in place, with features of the stored width; None = as the configuration
            describes it.

    Raises:
        InputError: no file of features can be used, or unusable sizes or run folder.
    """
    folder, seed = config.teacher_features, config.train.seed
    assert folder is not None
    if start is None and config.teacher and student is None:
        start = load(config.teacher)
    begun = None if start is None else require_teacher(start)
    if student is not None and not isinstance(student, Student | Truncated):
        raise InputError(
            f"expected a Student or Truncated for stored features, got a {type(student).__name__}"
        )
    needs = needs_of((student or new_student(begun, config, 1)).shape)
    memory = config.teacher_cache
    train, held = load_stored(folder, config.data, seed=seed, needs=needs, memory=memory)
    student = student or new_student(begun, config, train.width)
    if student.output_dim != train.width:
        raise InputError(
            f"{folder} has features of width {train.width}, the student returns "
            f"{student.output_dim}; give it output_dim {train.width}"
        )
    task = DistillTask(config, None, student, begun)
    found = partial(stored_goals, held=held, config=config)
    made = f"{len(held)} {held.part} of {held.stream.name}"
    origin = {"teacher": str(stored_facts(folder).get("model", "")) or None}
    origin |= {"teacher_features": folder, "started_from": config.teacher or None}
    return _trained(task, train, origin, found, made)


def distill_on(
    config: DistillConfig,
    teacher: Teacher,
    student: Learner,
    train: Clouds | Stream,
    held: Measured | None,
    *,
    progress: Callback | None = None,
) -> Learner:
    """`distill` with clouds that are read already.

    Args:
        config: of the run.
        teacher: frozen.
        student: trained in place.
        train: what `load_and_measured` returns for `config.data`, and `held` with it.
        held: clouds on which the trained student is measured; None = it is not.
        progress: shows how far the run is; None = a line after each epoch.

    Raises:
        InputError: unusable sizes or run folder.
    """
    config = data_of(config, teacher, student)
    if isinstance(train, Clouds) and train.attributes != config.data.attributes:
        raise InputError(
            f"expected clouds with the attributes {list(config.data.attributes)}, got "
            f"{list(train.attributes)}; load them with data.attributes"
        )
    task = DistillTask(config, teacher, student)
    origin: dict[str, Any] = {"teacher": config.teacher_path}
    if held is None:
        return _trained(task, train, origin, progress=progress)
    part, clouds = held

    def goals(student: Learner) -> Iterator[Goal]:
        normalised = config.augment.normalise
        return goals_on(teacher, student, clouds, config.data.points, normalised=normalised)

    made = f"{len(clouds)} {part} of {clouds.name}"
    return _trained(task, train, origin, goals, made, progress=progress)


def _trained(
    task: DistillTask,
    train: Clouds | Stream,
    origin: dict[str, Any],
    goals: Callable[[Any], Iterable[Goal]] | None = None,
    on: str = "",
    *,
    progress: Callback | None = None,
) -> Learner:
    """Trains the student of a task, measures it on `goals` of the clouds `on`, and saves it."""
    config = task.config
    task.remember(train)
    metrics = fit(task, train, config, progress=progress)
    student = task.final()
    fidelity = {} if goals is None else measure(task, student, goals, on)
    student = student.cpu().eval().requires_grad_(True)
    facts: dict[str, Any] = {"made_by": "distill", **origin}
    facts["distill_frozen"] = config.frozen_words
    if config.extras:
        facts["distill_extras"] = config.extras
    keep(student, task, train, config.out, facts | {"metrics": metrics} | fidelity)
    return student


def measure(
    task: DistillTask, student: Learner, goals: Callable[[Any], Iterable[Goal]], on: str
) -> dict[str, Any]:
    """The fidelity of a trained student as its provenance keeps it; logged and printed.

    Only the first process measures. See `training.fidelity` for the three numbers.

    Args:
        task: that trained it.
        student: moved to the trainer's device.
        goals: of the student on that device.
        on: the clouds that they are of, e.g. `20 held-out clouds of shapes`.
    """
    trainer = task.trainer
    if not trainer.is_global_zero:
        return {}
    student = student.to(trainer.strategy.root_device).eval()
    found = losses_of(student, goals(student))
    numbers = {name: found[name] for name in ("unexplained", "cosine", "cka")}
    for logger in trainer.loggers:
        logger.log_metrics({f"fidelity/{k}": v for k, v in numbers.items()}, trainer.global_step)
        logger.save()
    log.info(
        "%s: %.1f %% of the variance of the teacher's token features unexplained, cosine %.3f",
        *(on, 100 * numbers["unexplained"], numbers["cosine"]),
    )
    rounded = {name: round(value, 5) for name, value in numbers.items()}
    return rounded | {"fidelity_on": on}
