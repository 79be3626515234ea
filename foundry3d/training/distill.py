"""Foundation Model Distillation: a student reconstructs every token feature of a frozen teacher."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator

import torch
import torch.distributed
import torch.nn.functional as F
from torch import Tensor, nn

from foundry3d.baselines import FPSStudent, Merged
from foundry3d.checkpoints.folder import load
from foundry3d.config import DistillConfig, ReductionConfig
from foundry3d.data.clouds import Clouds
from foundry3d.data.loading import Numbered, Stream, in_order, load_train
from foundry3d.errors import InputError
from foundry3d.models.backbone import Backbone, Teacher, Tokens, require_teacher
from foundry3d.models.student import Student
from foundry3d.models.tokenizer import PointModel
from foundry3d.models.truncated import Truncated
from foundry3d.training.engine import fit, keep
from foundry3d.training.goals import (
    Goal,
    Learner,
    check_tokens,
    goal_of,
    joined,
    memory_of,
    own_goal,
    shared_groups,
)
from foundry3d.training.task import Ready, Task, draw_budget, freeze

log = logging.getLogger("foundry3d")


class DistillTask(Task):
    """One step of FMD; teacher and student read groups of the same centers.

    A lighter tokenizer may first learn the teacher's tokens on its own; see `TokenLossConfig`.

    Args:
        config: of the run.
        teacher: frozen, not saved with the run's checkpoints; a `Backbone`, or any `Teacher`, at
            whose centers the student's groups are then made.
        student: trained in place.

    Raises:
        InputError: token_loss for a pair that is not a `Backbone` and a `Student`, or whose tokens
            differ in width.
    """

    def __init__(self, config: DistillConfig, teacher: Teacher, student: Learner) -> None:
        super().__init__(config.train, config.data, config.augment)
        if config.token_loss.used:
            check_tokens(teacher, student)
        self.config = config
        self.student = student
        if isinstance(teacher, nn.Module):
            freeze(teacher, True)
        self._teacher = [teacher]  # in a list: neither a submodule, nor optimised, nor saved
        self.can_freeze = (
            isinstance(teacher, Backbone) and student.config.backbone.token_dim is None
        )
        self._remembering: Clouds | None = None
        self.remembered: Goal | None = None
        """The goals of all training clouds, where the teacher read them once."""
        if self.can_freeze and config.unfreeze_encoder is None:
            freeze(student.encoder, True)

    def encoder_frozen(self) -> bool:
        """Whether the encoder is frozen in the current epoch."""
        limit = self.config.unfreeze_encoder
        return self.can_freeze and (limit is None or self.current_epoch < limit)

    def tokenizer_alone(self) -> bool:
        """Whether only the student's tokenizer trains in the current epoch."""
        return self.current_epoch < self.config.token_loss.epochs

    def on_fit_start(self) -> None:
        """Moves the teacher to the student's device, where it computes the goals to remember."""
        if isinstance(self._teacher[0], nn.Module):
            self._teacher[0].to(self.device)
        if self._remembering is not None:
            self.remembered = joined(self.goals(self._remembering), len(self._remembering))

    def on_train_epoch_start(self) -> None:
        """A frozen encoder stays in evaluation mode."""
        self.student.encoder.train(not self.encoder_frozen())

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Drops the gradients of what is frozen in this epoch.

        They are dropped rather than switched off, because distributed training fixes at the start
        which parameters it synchronises.
        """
        still: Iterable[nn.Parameter] = ()
        if self.tokenizer_alone():
            still = self.outside_tokenizer()
        elif self.encoder_frozen():
            still = self.student.encoder.parameters()
        for parameter in still:
            parameter.grad = None

    def outside_tokenizer(self) -> list[nn.Parameter]:
        """The student's parameters outside its tokenizer."""
        own = {id(parameter) for parameter in self.student.tokenizer.parameters()}
        return [p for p in self.student.parameters() if id(p) not in own]

    def remember(self, train: Clouds | Stream) -> None:
        """Has the teacher read all clouds once when the run starts, if nothing about them is drawn.

        They are read in a fixed order, so that a resumed run has the same numbers.
        """
        if not (self.augmentation.still and self.config.starts == "first"):
            return
        size, why_not = memory_of(self.config, train, self._teacher[0], self.student)
        if why_not is not None:
            log.info("the teacher's features of %s are not kept: %s", train.name, why_not)
            return
        assert isinstance(train, Clouds)
        self._remembering, self.numbered = train, True
        log.info("the teacher's features are computed once and take %.0f MB", size)

    def goals(self, train: Clouds) -> Iterator[Goal]:
        """The goals of clouds in order, one batch at a time, complete for every phase."""
        generator = self.step_generator()
        for points in in_order(train, self.train_config.batch_size, train.points.shape[1]):
            on_device = self.trainer.precision_plugin.convert_input(points.to(self.device))
            ready = self.ready(on_device, generator)
            with self.trainer.precision_plugin.forward_context():
                yield self.goal(ready, features=True)

    def ready(self, batch: Tensor | Numbered, generator: torch.Generator) -> Ready:
        """A batch of points (B, N, 3), augmented, and grouped where the teacher is a `Backbone`."""
        points, which = batch if isinstance(batch, Numbered) else (batch, None)
        points, groups, teacher = self.prepared(points, generator), None, self._teacher[0]
        if self.remembered is None and isinstance(teacher, Backbone):
            drawn = self.config.starts == "random"
            groups = shared_groups(teacher, self.student, points, generator, drawn=drawn)
        return Ready(groups, generator, points, which)

    def goal(self, ready: Ready, *, features: bool) -> Goal:
        """What the student has to reproduce for a batch.

        Args:
            ready: from `ready`.
            features: False = only tokens are needed.

        Raises:
            InputError: another `Teacher` returned features or centers of wrong shape.
        """
        teacher, student = self._teacher[0], self.student
        if self.remembered is not None and ready.which is not None:
            return self.remembered.take(ready.which)
        if not isinstance(teacher, Backbone):
            return own_goal(teacher, student, ready.points)
        assert ready.groups is not None
        tokens = self.config.token_loss.used
        return goal_of(teacher, student, ready.groups, features=features, tokens=tokens)

    def training_step(self, batch: Tensor | Numbered | Ready, index: int) -> Tensor:
        """The reconstruction loss of a batch of points (B, N, 3), equation 1."""
        ready: Ready = self.readied(batch)
        goal, generator = self.goal(ready, features=not self.tokenizer_alone()), ready.generator
        student, groups = self.student, goal.groups
        if not isinstance(student, PointModel):
            return self.feature_loss(student.encode(groups, generator=generator), goal)
        tokens = student.tokenizer(groups.neighborhoods)
        if self.tokenizer_alone():
            return self.token_loss(tokens, goal) + self.untouched()
        budget = draw_budget(self.config.budgets, student, len(tokens), generator)
        output = student.encode(groups, tokens=tokens, budget=budget, generator=generator)
        loss, weight = self.feature_loss(output, goal), self.config.token_loss.weight
        if self.config.token_loss.used:
            loss = loss + weight * self.token_loss(tokens if weight else tokens.detach(), goal)
        return loss

    def token_loss(self, tokens: Tensor, goal: Goal) -> Tensor:
        """Smooth L1 between the tokenizer's tokens (B, c, width) and the teacher's."""
        assert goal.tokens is not None
        loss = F.smooth_l1_loss(tokens.float(), goal.tokens)
        self.log("token_loss", loss)
        return loss

    def untouched(self) -> Tensor | float:
        """Zero; with several processes as a function of all parameters outside the tokenizer.

        Distributed training waits for a gradient of every parameter.
        """
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return 0.0
        rest = [p for p in self.outside_tokenizer() if p.requires_grad]
        return 0.0 * torch.stack([parameter.float().sum() for parameter in rest]).sum()

    def feature_loss(self, output: Tokens, goal: Goal) -> Tensor:
        """The loss of the student's features, plus the gate's regulariser."""
        features = output.features.float()
        assert goal.features is not None
        loss = F.mse_loss(features, goal.features)
        if self.config.loss == "smooth_l1":
            loss = F.smooth_l1_loss(features, goal.features)
        self.log("loss", loss)
        self.log("used_per_cloud", output.tokens_used.float().mean())
        if output.assignment is None or isinstance(self.student, Truncated):
            return loss
        merged = output.assignment >= 0
        chosen = output.assignment[merged].bincount(minlength=self.student.config.supertokens)
        self.log("supertokens_used", (chosen > 0).float().mean())
        if output.probability is None:
            return loss
        self.log("fusion_ratio", merged.float().mean())
        self.log("probability", output.probability.mean())
        return loss + gate_loss(output.probability, self.config.gate_lambda)

    def undecayed(self) -> Iterable[nn.Parameter]:
        """The gate's parameters, unless `gate_decay` is on (Table 15)."""
        gate = self.student.gate if isinstance(self.student, Student) else None
        return () if gate is None or self.config.gate_decay else gate.parameters()


def gate_loss(probability: Tensor, weight: float) -> Tensor:
    """Equation 6: minus `weight` times the sum of probabilities (B, c), averaged over clouds."""
    return -weight * probability.sum(dim=1).mean()


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
    teacher = require_teacher(load(config.teacher)) if teacher is None else teacher
    student = student or student_of(teacher, config)
    train = load_train(config.data, seed=config.train.seed)
    task = DistillTask(config, teacher, student)
    task.remember(train)
    metrics = fit(task, train, config)
    student = task.student.cpu().eval().requires_grad_(True)
    origin = {"made_by": "distill", "teacher": config.teacher}
    keep(student, task, train, config.out, origin | {"metrics": metrics})
    return student
