"""Foundation Model Distillation: a student reconstructs every token feature of a frozen teacher."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from foundry3d.backbone import Backbone, Student, require_teacher
from foundry3d.checkpoint import load
from foundry3d.config import DistillConfig
from foundry3d.data.loading import load_splits
from foundry3d.tasks.engine import Task, fit, freeze, keep, open_run


class DistillTask(Task):
    """One step of FMD; teacher and student read the same groups.

    Args:
        config: of the run.
        teacher: frozen, not saved with the run's checkpoints.
        student: trained in place.
    """

    def __init__(self, config: DistillConfig, teacher: Backbone, student: Student) -> None:
        super().__init__(config.train, config.data, config.augment)
        self.config = config
        self.student = student
        freeze(teacher, True)
        self._teacher = [teacher]  # in a list: neither a submodule, nor optimised, nor saved
        self.can_freeze = student.config.backbone.token_dim is None
        if self.can_freeze and config.unfreeze_epoch is None:
            freeze(student.encoder, True)

    def encoder_frozen(self) -> bool:
        """Whether the encoder is frozen in the current epoch."""
        limit = self.config.unfreeze_epoch
        return self.can_freeze and (limit is None or self.current_epoch < limit)

    def on_fit_start(self) -> None:
        """Brings the teacher to the student's device."""
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

    def training_step(self, points: Tensor, index: int) -> Tensor:
        """The reconstruction loss of a batch of points (B, N, 3), equation 1."""
        generator = self.step_generator()
        groups = self.student.group(self.prepared(points, generator), generator=generator)
        with torch.no_grad():
            goal = self._teacher[0].encode(groups).features.float()
        output = self.student.encode(groups, generator=generator)
        features = output.features.float()
        loss = F.mse_loss(features, goal)
        if self.config.loss == "smooth_l1":
            loss = F.smooth_l1_loss(features, goal)
        assert output.assignment is not None
        chosen = output.assignment.flatten().bincount(minlength=self.config.supertokens)
        self.log("loss", loss)
        self.log("supertokens_used", (chosen > 0).float().mean())
        self.log("used_per_cloud", output.tokens_used.float().mean())
        return loss


def distill(config: DistillConfig) -> Student:
    """Distils a student from a saved teacher and saves it as `<out>/model`.

    Returns:
        The student, in evaluation mode.

    Raises:
        InputError: teacher, data, sizes or a run folder that cannot be used.
    """
    teacher = require_teacher(load(config.teacher))
    student = Student.from_teacher(
        teacher,
        supertokens=config.supertokens,
        dim=config.student_dim,
        depth=config.student_depth,
        heads=config.student_heads,
        generator=torch.Generator().manual_seed(config.train.seed),
        soft_assignment=config.soft_assignment,
        dso_bias=config.dso_bias,
        cau_norm=config.cau_norm,
        supertoken_positions=config.supertoken_positions,
        temperature=config.temperature,
    )
    out, resume_from = open_run(config.out, config, resume=config.resume)
    splits = load_splits(config.data, seed=config.train.seed)
    task = DistillTask(config, teacher, student)
    metrics = fit(task, splits.train, out, resume_from=resume_from)
    student = task.student.cpu().eval().requires_grad_(True)
    origin = {"made_by": "distill", "teacher": config.teacher}
    keep(student, out, task, splits.train, origin | {"metrics": metrics})
    return student
