"""Foundation Model Distillation: a student reconstructs every token feature of a frozen teacher."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foundry3d.backbone import Backbone, Teacher, require_teacher
from foundry3d.checkpoint import load
from foundry3d.config import DistillConfig, ReductionConfig
from foundry3d.data.loading import load_train
from foundry3d.errors import InputError
from foundry3d.geometry import Groups, group_at
from foundry3d.reduce import FPSStudent, Merged
from foundry3d.student import Student
from foundry3d.tasks.engine import Task, draw_budget, fit, freeze, keep

Learner = Student | Merged | FPSStudent
"""What can be distilled from a teacher's token features."""


class DistillTask(Task):
    """One step of FMD; teacher and student read the same groups.

    Args:
        config: of the run.
        teacher: frozen, not saved with the run's checkpoints; a `Backbone`, or any `Teacher`,
            whose centers the student's groups are then made at.
        student: trained in place.
    """

    def __init__(self, config: DistillConfig, teacher: Teacher, student: Learner) -> None:
        super().__init__(config.train, config.data, config.augment)
        self.config = config
        self.student = student
        if isinstance(teacher, nn.Module):
            freeze(teacher, True)
        self._teacher = [teacher]  # in a list: neither a submodule, nor optimised, nor saved
        self.can_freeze = (
            isinstance(teacher, Backbone) and student.config.backbone.token_dim is None
        )
        if self.can_freeze and config.unfreeze_epoch is None:
            freeze(student.encoder, True)

    def encoder_frozen(self) -> bool:
        """Whether the encoder is frozen in the current epoch."""
        limit = self.config.unfreeze_epoch
        return self.can_freeze and (limit is None or self.current_epoch < limit)

    def on_fit_start(self) -> None:
        """Brings the teacher to the student's device."""
        if isinstance(self._teacher[0], nn.Module):
            self._teacher[0].to(self.device)

    def on_train_epoch_start(self) -> None:
        """A frozen encoder stays in evaluation mode."""
        self.student.encoder.train(not self.encoder_frozen())

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Until it is unfrozen, the encoder takes no step.

        Its gradients are dropped rather than switched off, because distributed training fixes at
        the start which parameters it synchronises.
        """
        if self.encoder_frozen():
            for parameter in self.student.encoder.parameters():
                parameter.grad = None

    def goal(self, points: Tensor, generator: torch.Generator) -> tuple[Groups, Tensor]:
        """The groups that both read, and the teacher's features (B, c, d) of them.

        Raises:
            InputError: a teacher of one's own returned what a teacher does not return.
        """
        teacher, student = self._teacher[0], self.student
        with torch.no_grad():
            if isinstance(teacher, Backbone):
                groups = student.group(points, generator=generator)
                return groups, teacher.encode(groups).features.float()
            found = teacher(points)
        features, centers = found.features.float(), found.centers.to(points.dtype)
        batch, count, width = features.shape
        if centers.shape != (batch, count, 3) or width != student.output_dim:
            raise InputError(
                f"expected teacher features (B, c, {student.output_dim}) and centers (B, c, 3), "
                f"got {tuple(features.shape)} and {tuple(centers.shape)}"
            )
        shape = student.shape
        return group_at(points, centers, shape.group_size, radius=shape.radius), features

    def training_step(self, points: Tensor, index: int) -> Tensor:
        """The reconstruction loss of a batch of points (B, N, 3), equation 1."""
        generator = self.step_generator()
        groups, goal = self.goal(self.prepared(points, generator), generator)
        if isinstance(self.student, Student):
            budget = draw_budget(self.config.budgets, self.student, len(points), generator)
            output = self.student.encode(groups, generator=generator, **budget)
        else:
            output = self.student.encode(groups, generator=generator)
        features = output.features.float()
        loss = F.mse_loss(features, goal)
        if self.config.loss == "smooth_l1":
            loss = F.smooth_l1_loss(features, goal)
        self.log("loss", loss)
        assert output.assignment is not None
        merged = output.assignment >= 0
        chosen = output.assignment[merged].bincount(minlength=self.student.config.supertokens)
        self.log("supertokens_used", (chosen > 0).float().mean())
        self.log("used_per_cloud", output.tokens_used.float().mean())
        if output.probability is None:
            return loss
        self.log("fusion_ratio", merged.float().mean())
        self.log("probability", output.probability.mean())
        return loss + gate_loss(output.probability, self.config.gate_lambda)

    def undecayed(self) -> Iterable[nn.Parameter]:
        """The gate, unless weight decay on it was asked for (Table 15)."""
        gate = self.student.gate if isinstance(self.student, Student) else None
        return () if gate is None or self.config.gate_decay else gate.parameters()


def gate_loss(probability: Tensor, weight: float) -> Tensor:
    """Equation 6: minus `weight` times the sum of probabilities (B, c), mean over the clouds."""
    return -weight * probability.sum(dim=1).mean()


def student_of(teacher: Teacher, config: DistillConfig) -> Learner:
    """A new student of a `Backbone`, as the configuration describes it.

    Raises:
        InputError: a teacher of one's own, whose student cannot be derived.
    """
    if not isinstance(teacher, Backbone):
        raise InputError(
            "a teacher of your own needs a student: pass student=Student(StudentConfig("
            "backbone=..., output_dim=the teacher's feature width))"
        )
    generator = torch.Generator().manual_seed(config.train.seed)
    if config.student == "fps-student":
        return FPSStudent.from_teacher(
            teacher, supertokens=config.supertokens, points=config.data.points
        )
    if config.student != "supertokens":
        reduction = ReductionConfig(method=config.student, reach=config.supertokens)
        return Merged.from_teacher(teacher, reduction, generator=generator)
    return Student.from_teacher(
        teacher,
        supertokens=config.supertokens,
        dim=config.student_dim,
        depth=config.student_depth,
        heads=config.student_heads,
        generator=generator,
        soft_assignment=config.soft_assignment,
        dso_bias=config.dso_bias,
        cau_norm=config.cau_norm,
        supertoken_positions=config.supertoken_positions,
        assignment_heads=config.assignment_heads,
        temperature=config.temperature,
        gate=config.gate,
        gate_through=config.gate_through,
    )


def distill(
    config: DistillConfig, *, teacher: Teacher | None = None, student: Learner | None = None
) -> Learner:
    """Distils a student from a teacher and saves it as `<out>/model`.

    Args:
        config: of the run.
        teacher: None = the saved one that the configuration names; else a `Backbone` or any
            `Teacher` of one's own.
        student: trained in place; None = `Student.from_teacher` of a `Backbone`.

    Returns:
        The student, in evaluation mode.

    Raises:
        InputError: teacher, data, sizes or a run folder that cannot be used.
    """
    teacher = require_teacher(load(config.teacher)) if teacher is None else teacher
    student = student or student_of(teacher, config)
    train = load_train(config.data, seed=config.train.seed)
    task = DistillTask(config, teacher, student)
    metrics = fit(task, train, config)
    student = task.student.cpu().eval().requires_grad_(True)
    origin = {"made_by": "distill", "teacher": config.teacher}
    keep(student, task, train, config.out, origin | {"metrics": metrics})
    return student
