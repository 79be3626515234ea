"""One step of Foundation Model Distillation: the student's loss, what is frozen, what is logged."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.distributed
import torch.nn.functional as F
from torch import Tensor, nn

from foundry3d.config import DistillConfig
from foundry3d.data.clouds import Clouds
from foundry3d.data.loading import Numbered, Stream, in_order
from foundry3d.geometry import Groups
from foundry3d.models.backbone import Backbone, Teacher, Tokens
from foundry3d.models.budget import Budget
from foundry3d.models.health import choices, noiseless, tokens_read, usage
from foundry3d.models.student import Student
from foundry3d.models.supertokens import annealed
from foundry3d.models.tokenizer import PointModel
from foundry3d.models.truncated import Truncated
from foundry3d.training.freezing import (
    drop_gradients,
    freeze_part,
    require_trainable,
    set_modes,
    still_part,
)
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
        InputError: token_loss for a pair that is not a `Backbone` and a `Student`, whose tokens
            differ in width or whose tokenizer is frozen; an encoder to freeze that did not come
            from the teacher; or nothing that would ever train.
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
        self.still = still_part(config, teacher, student)
        """What of the student came from the teacher and is frozen."""
        self.chosen: Tensor | None = None
        """(s,) how many tokens of the current epoch choose each supertoken, without noise."""
        self._remembering: Clouds | None = None
        self.remembered: Goal | None = None
        """The goals of all training clouds, where the teacher read them once."""
        until = config.limits["encoder"]
        if until is None or until >= config.train.epochs:
            require_trainable(self.still, student)
            freeze_part(self.still)

    def frozen(self) -> bool:
        """Whether what the configuration freezes is frozen in the current epoch."""
        until = self.config.limits["encoder"]
        return until is None or self.current_epoch < until

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
        """What is frozen stays in evaluation mode, its BatchNorm statistics with it."""
        set_modes(self.still, self.frozen())

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Sets the temperature of this step, where it is annealed."""
        self.set_temperature(self.global_step / self.trainer.estimated_stepping_batches)

    def set_temperature(self, progress: float) -> None:
        """Sets the temperature at a share `progress` of the run."""
        if isinstance(self.student, Student):
            sizes = self.student.config
            self.student.dso.temperature = annealed(
                sizes.temperature, sizes.temperature_end, progress
            )

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """After the last batch of an epoch, logs how all of its tokens used the supertokens."""
        if self.chosen is None or not self.trainer.is_last_batch:
            return
        found = usage(self.trainer.strategy.reduce(self.chosen, reduce_op="sum"))
        self.chosen = None
        named = {
            "epoch_supertokens_used": found.share,
            "assignment_entropy": found.entropy,
            "dead_supertokens": float(found.dead),
        }
        self.log_dict(named, on_step=False, on_epoch=True, batch_size=1)

    def on_train_end(self) -> None:
        """The student keeps the last temperature."""
        self.set_temperature(1.0)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Drops the gradients of what is frozen in this epoch."""
        if self.tokenizer_alone():
            drop_gradients(self.outside_tokenizer())
        if self.frozen():
            drop_gradients(self.still.parameters)

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
            output = student.encode(groups, generator=generator)
            self.count(output.assignment)
            return self.feature_loss(output, goal)
        tokens = student.tokenizer(groups.neighborhoods)
        if self.tokenizer_alone():
            return self.token_loss(tokens, goal) + self.untouched()
        budget = draw_budget(self.config.budgets, student, len(tokens), generator)
        output = self.encoded(groups, tokens, budget, generator)
        loss, weight = self.feature_loss(output, goal), self.config.token_loss.weight
        if self.config.token_loss.used:
            loss = loss + weight * self.token_loss(tokens if weight else tokens.detach(), goal)
        return loss

    def encoded(
        self, groups: Groups, tokens: Tensor, budget: Budget | None, generator: torch.Generator
    ) -> Tokens:
        """The student's output for groups and their tokens (B, c, width); counts its choices."""
        student = self.student
        assert isinstance(student, PointModel)
        if not isinstance(student, Student):
            return student.encode(groups, tokens=tokens, budget=budget, generator=generator)
        with tokens_read(student.dso) as read:
            output = student.encode(groups, tokens=tokens, budget=budget, generator=generator)
        assert output.assignment is not None
        self.count(noiseless(student.dso, read[0]).where(output.assignment >= 0, -1))
        return output

    def count(self, assignment: Tensor | None) -> None:
        """Adds the choices of a batch, (B, c), to those of the epoch."""
        assert assignment is not None
        assert not isinstance(self.student, Truncated)
        chosen = choices(assignment, self.student.config.supertokens)
        self.chosen = chosen if self.chosen is None else self.chosen + chosen

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
        chosen = choices(output.assignment, self.student.config.supertokens)
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
