"""Foundation Model Distillation: a student reconstructs every token feature of a frozen teacher."""

from __future__ import annotations

from typing import Any

import torch

from foundry3d.baselines import FPSStudent, Merged
from foundry3d.checkpoints.folder import load
from foundry3d.config import DistillConfig, ReductionConfig, require_data
from foundry3d.data.loading import load_train
from foundry3d.errors import InputError
from foundry3d.models.backbone import Backbone, Teacher, require_teacher
from foundry3d.models.student import Student
from foundry3d.models.truncated import Truncated
from foundry3d.training.distill_task import DistillTask as DistillTask
from foundry3d.training.distill_task import gate_loss as gate_loss
from foundry3d.training.engine import fit, keep
from foundry3d.training.goals import (
    Learner,
)


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
    train = load_train(config.data, seed=config.train.seed)
    task = DistillTask(config, teacher, student)
    task.remember(train)
    metrics = fit(task, train, config)
    student = task.final().cpu().eval().requires_grad_(True)
    origin: dict[str, Any] = {"made_by": "distill", "teacher": config.teacher}
    origin["distill_frozen"] = config.frozen_words
    if config.extras:
        origin["distill_extras"] = config.extras
    keep(student, task, train, config.out, origin | {"metrics": metrics})
    return student
