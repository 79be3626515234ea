"""One step of Foundation Model Distillation: the student's loss, what is frozen, what is logged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed
import torch.nn.functional as F
from torch import Tensor, nn

from foundry3d.config import DistillConfig
from foundry3d.data.batches import Numbered
from foundry3d.data.crop_samples import StoredBatch
from foundry3d.geometry import Groups
from foundry3d.models.backbone import Backbone, Teacher, Tokens
from foundry3d.models.budget import Budget
from foundry3d.models.health import choices, noiseless, tokens_read, usage
from foundry3d.models.student import Student
from foundry3d.models.supertokens import annealed
from foundry3d.models.tokenizer import PointModel
from foundry3d.models.truncated import Truncated
from foundry3d.training.averaging import moving_average
from foundry3d.training.dropped import check_dropped, with_points_dropped
from foundry3d.training.freezing import (
    drop_gradients,
    freeze_part,
    require_trainable,
    set_modes,
    still_part,
)
from foundry3d.training.goal_task import GoalTask
from foundry3d.training.goals import Goal, Learner, check_blocks, check_tokens
from foundry3d.training.losses import gate_loss as gate_loss
from foundry3d.training.task import Ready, draw_budget


class DistillTask(GoalTask):
    """One step of FMD; teacher and student read groups of the same centers.

    A lighter tokenizer may first learn the teacher's tokens on its own; see `TokenLossConfig`.

    Args:
        config: of the run.
        teacher: frozen, not saved with the run's checkpoints; a `Backbone`, or any `Teacher`, at
            whose centers the student's groups are then made; None = batches bring its features.
        student: trained in place.
        start: that the student started from; None = the teacher.

    Raises:
        InputError: token_loss for a pair that is not a `Backbone` and a `Student`, whose tokens
            differ in width or whose tokenizer is frozen; loss_blocks or dropped_points
            that the pair cannot do; an encoder to freeze that did not come from the teacher; or
            nothing that would ever train.
    """

    def __init__(
        self,
        config: DistillConfig,
        teacher: Teacher | None,
        student: Learner,
        start: Backbone | None = None,
    ) -> None:
        if config.token_loss.used:
            check_tokens(teacher, student)
        if config.dropped_points:
            check_dropped(student, config.data.points, config.dropped_points)
        own_blocks = check_blocks(config.loss_blocks, teacher, student)
        super().__init__(config, teacher, student)
        self.own_blocks = own_blocks
        """The student's block for each of `loss_blocks`."""
        self.still = still_part(config, start or teacher, student)
        """What of the student came from the teacher and is frozen."""
        self.chosen: Tensor | None = None
        """(s,) how many tokens of the current epoch choose each supertoken, without noise."""
        until = config.limits["encoder"]
        if until is None or until >= config.train.epochs:
            require_trainable(self.still, student)
            freeze_part(self.still)
        self.average = moving_average(student, config.ema) if config.ema else None

    def frozen(self) -> bool:
        """Whether what the configuration freezes is frozen in the current epoch."""
        until = self.config.limits["encoder"]
        return until is None or self.current_epoch < until

    def tokenizer_alone(self) -> bool:
        """Whether only the student's tokenizer trains in the current epoch."""
        return self.current_epoch < self.config.token_loss.epochs

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
        """Averages the weights; after an epoch, logs how its tokens used the supertokens."""
        if self.average is not None:
            self.average.update_parameters(self.student)
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

    def final(self) -> Learner:
        """The student to keep, with the average of its weights where there is one."""
        if self.average is not None:
            self.student.load_state_dict(self.average.module.state_dict())
        return self.student

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

    def training_step(self, batch: Tensor | Numbered | StoredBatch | Ready, index: int) -> Tensor:
        """The reconstruction loss of a batch of points (B, N, 3), equation 1."""
        ready: Ready = self.readied(batch)
        goal, generator = self.goal(ready, features=not self.tokenizer_alone()), ready.generator
        dropped, student = self.config.dropped_points, self.student
        if dropped:
            names = self.data_config.attributes
            goal = with_points_dropped(
                goal, student, ready.points, dropped, generator, attributes=names
            )
        groups = goal.groups
        if not isinstance(student, PointModel):
            output = student.encode(groups, generator=generator)
            self.count(output.assignment)
            return self.feature_loss(output, goal)
        tokens = student.tokenize(groups, generator)
        if self.tokenizer_alone():
            return self.token_loss(tokens, goal) + self.untouched()
        draws, shared = self.config.budgets, self.shared_generator()
        budget = draw_budget(draws, student, len(tokens), generator, shared=shared)
        output, blocks = self.encoded(groups, tokens, budget, generator)
        loss, weight = self.feature_loss(output, goal, blocks), self.config.token_loss.weight
        if self.config.token_loss.used:
            loss = loss + weight * self.token_loss(tokens if weight else tokens.detach(), goal)
        return loss

    def encoded(
        self, groups: Groups, tokens: Tensor, budget: Budget | None, generator: torch.Generator
    ) -> tuple[Tokens, list[Tensor]]:
        """The student's output for groups and their tokens (B, c, width); counts its choices.

        Returns:
            The output, and features (B, c, d) after `own_blocks`.
        """
        student = self.student
        assert isinstance(student, Student | Truncated)

        def run() -> tuple[Tokens, list[Tensor]]:
            given: dict[str, Any] = {"tokens": tokens, "budget": budget, "generator": generator}
            if self.own_blocks:
                return student.encode_blocks(groups, self.own_blocks, **given)
            return student.encode(groups, **given), []

        if not isinstance(student, Student):
            return run()
        with tokens_read(student.dso) as read:
            output, blocks = run()
        assert output.assignment is not None
        self.count(noiseless(student.dso, read[0]).where(output.assignment >= 0, -1))
        return output, blocks

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

    def feature_loss(self, output: Tokens, goal: Goal, blocks: Sequence[Tensor] = ()) -> Tensor:
        """The losses of the student's features, plus the gate's regulariser."""
        loss, found = self.comparison(output.features, blocks, goal)
        for name, value in found.items():
            self.log(name, value)
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
