"""The teacher's part of a distillation step: what the student is to reproduce of a batch."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from itertools import islice

import torch
from torch import Tensor, nn

from foundry3d.config import DistillConfig
from foundry3d.data.batches import Numbered, NumberedBatches, in_order
from foundry3d.data.clouds import Clouds
from foundry3d.data.crop_samples import StoredBatch
from foundry3d.data.loading import Stream
from foundry3d.models.backbone import Backbone, Teacher
from foundry3d.models.tokenizer import PointModel
from foundry3d.training.comparison import Comparison
from foundry3d.training.goals import (
    Goal,
    Learner,
    goal_of,
    joined,
    memory_of,
    own_goal,
    shared_groups,
)
from foundry3d.training.stored_goals import moved, stored_goal
from foundry3d.training.task import Ready, Task, freeze

log = logging.getLogger("foundry3d")
SCALE_BATCHES = 16
"""Batches of training clouds that the scale of the teacher's features is measured on."""


class GoalTask(Task):
    """A task whose batches come with goals of a frozen teacher, computed each step or kept.

    Args:
        config: of the run.
        teacher: frozen, not saved with the run's checkpoints; None = batches bring its features.
        student: that reads the same groups.
    """

    def __init__(self, config: DistillConfig, teacher: Teacher | None, student: Learner) -> None:
        super().__init__(config.train, config.data, config.augment)
        self.config = config
        self.student = student
        if isinstance(teacher, nn.Module):
            freeze(teacher, True)
        self._teacher = [teacher]  # in a list: neither a submodule, nor optimised, nor saved
        self.comparison = Comparison(config, student.output_dim)
        self._train: Clouds | Stream | None = None
        self._remembering: Clouds | None = None
        self.remembered: Goal | None = None
        """The goals of all training clouds, where the teacher read them once."""

    def on_fit_start(self) -> None:
        """Moves the teacher to the student's device, where it computes the goals to remember."""
        if isinstance(self._teacher[0], nn.Module):
            self._teacher[0].to(self.device)
        if self._remembering is not None:
            self.remembered = joined(self.goals(self._remembering), len(self._remembering))
        if self.comparison.unmeasured:  # a resumed run has it from its checkpoint
            self.comparison.measure(self.sampled_goals())

    def remember(self, train: Clouds | Stream) -> None:
        """Has the teacher read all clouds once when the run starts, if nothing about them is drawn.

        They are read in a fixed order, so that a resumed run has the same numbers. The scale for
        `whiten` is measured on these clouds too.
        """
        self._train = train
        teacher = self._teacher[0]
        if teacher is None or not (self.augmentation.still and self.config.starts == "first"):
            return
        size, why_not = memory_of(self.config, train, teacher, self.student)
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

    def sampled_goals(self) -> Iterator[Goal]:
        """The goals of the first training batches, the same in every process."""
        train, seed = self._train, self.train_config.seed
        assert train is not None, "remember names the clouds to measure"
        size = self.train_config.batch_size
        batches: Iterable[Tensor | Numbered | StoredBatch]
        if isinstance(train, Clouds):
            batches = NumberedBatches(train, size, seed=seed)
        else:
            batches = train.batches(size, seed=seed, rank=0, world=1)
        generator = torch.Generator(device=self.device).manual_seed(seed)
        for batch in islice(batches, SCALE_BATCHES):
            moved = self.transfer_batch_to_device(batch, self.device, 0)
            with self.trainer.precision_plugin.forward_context():
                converted = self.trainer.precision_plugin.convert_input(moved)
                goal = self.goal(self.ready(converted, generator), features=True)
            yield goal

    def ready(self, batch: Tensor | Numbered | StoredBatch, generator: torch.Generator) -> Ready:
        """A batch of points (B, N, 3), augmented, and grouped where the teacher is a `Backbone`."""
        if isinstance(batch, StoredBatch):
            return self.stored_ready(batch, generator)
        points, which = batch if isinstance(batch, Numbered) else (batch, None)
        points, groups, teacher = self.prepared(points, generator), None, self._teacher[0]
        if self.remembered is None and isinstance(teacher, Backbone):
            drawn = self.config.starts == "random"
            groups = shared_groups(teacher, self.student, points, generator, drawn=drawn)
        return Ready(groups, generator, points, which)

    def stored_ready(self, batch: StoredBatch, generator: torch.Generator) -> Ready:
        """A batch with stored features, augmented, with its goal."""
        assert isinstance(self.student, PointModel)
        batch = moved(batch, self.augmentation, self.data_config.up, generator)
        drawn = self.config.starts == "random"
        goal = stored_goal(self.student, batch, generator, drawn=drawn)
        return Ready(goal.groups, generator, batch.points, goal=goal)

    def goal(self, ready: Ready, *, features: bool) -> Goal:
        """What the student has to reproduce for a batch.

        Args:
            ready: from `ready`.
            features: False = only tokens are needed.

        Raises:
            InputError: another `Teacher` returned features or centers of wrong shape.
        """
        if ready.goal is not None:
            return ready.goal
        teacher, student = self._teacher[0], self.student
        assert teacher is not None, "without a teacher, batches bring goals"
        if self.remembered is not None and ready.which is not None:
            return self.remembered.take(ready.which)
        if not isinstance(teacher, Backbone):
            return own_goal(teacher, student, ready.points)
        assert ready.groups is not None
        return goal_of(
            teacher,
            student,
            ready.groups,
            features=features,
            tokens=self.config.token_loss.used,
            blocks=self.config.loss_blocks,
        )
