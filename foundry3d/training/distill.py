"""Foundation Model Distillation: a student reconstructs every token feature of a frozen teacher."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import torch

from foundry3d.baselines import FPSStudent, Merged
from foundry3d.checkpoints.folder import load
from foundry3d.config import DistillConfig, ReductionConfig, read_for, require_data
from foundry3d.data.clouds import Clouds
from foundry3d.data.loading import Measured, Stream, load_and_measured
from foundry3d.errors import InputError
from foundry3d.models.backbone import Backbone, Teacher, require_teacher
from foundry3d.models.student import Student
from foundry3d.models.truncated import Truncated
from foundry3d.training.distill_task import DistillTask as DistillTask
from foundry3d.training.distill_task import gate_loss as gate_loss
from foundry3d.training.engine import fit, keep
from foundry3d.training.goals import Learner, held_out_losses

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
    require_data(config.data)
    teacher = require_teacher(load(config.teacher)) if teacher is None else teacher
    student = student or student_of(teacher, config)
    config = data_of(config, teacher, student)
    train, held = load_and_measured(config.data, seed=config.train.seed)
    return distill_on(config, teacher, student, train, held)


def distill_on(
    config: DistillConfig,
    teacher: Teacher,
    student: Learner,
    train: Clouds | Stream,
    held: Measured | None,
) -> Learner:
    """`distill` with clouds that are read already.

    Args:
        config: of the run.
        teacher: frozen.
        student: trained in place.
        train: what `load_and_measured` returns for `config.data`, and `held` with it.
        held: clouds on which the trained student is measured; None = it is not.

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
    task.remember(train)
    metrics = fit(task, train, config)
    student = task.final()
    fidelity = measure(task, student, teacher, held, config) if held is not None else {}
    student = student.cpu().eval().requires_grad_(True)
    origin: dict[str, Any] = {"made_by": "distill", "teacher": config.teacher}
    origin["distill_frozen"] = config.frozen_words
    if config.extras:
        origin["distill_extras"] = config.extras
    keep(student, task, train, config.out, origin | {"metrics": metrics} | fidelity)
    return student


def measure(
    task: DistillTask, student: Learner, teacher: Teacher, held: Measured, config: DistillConfig
) -> dict[str, Any]:
    """The fidelity of a trained student as its provenance keeps it; logged and printed.

    Only the first process measures. See `training.fidelity` for the three numbers.
    """
    trainer, (part, clouds) = task.trainer, held
    if not trainer.is_global_zero:
        return {}
    student = student.to(trainer.strategy.root_device).eval()
    found = held_out_losses(
        teacher, student, clouds, config.data.points, normalised=config.augment.normalise
    )
    numbers = {name: found[name] for name in ("unexplained", "cosine", "cka")}
    for logger in trainer.loggers:
        logger.log_metrics({f"fidelity/{k}": v for k, v in numbers.items()}, trainer.global_step)
        logger.save()
    log.info(
        "%d %s: %.1f %% of the variance of the teacher's token features unexplained, cosine %.3f",
        len(clouds),
        part,
        100 * numbers["unexplained"],
        numbers["cosine"],
    )
    rounded = {name: round(value, 5) for name, value in numbers.items()}
    return rounded | {"fidelity_on": f"{len(clouds)} {part} of {clouds.name}"}
