"""Supervised fine-tuning: parts unfreeze at different epochs, held-out clouds select the epoch.

The held-out and the test clouds are scored every `eval_every` epochs. The held-out clouds select
the epoch whose weights are kept; test scores are only recorded. Every report has three epochs: the
selected one, the last one and, to compare with publications that select on test
(`docs/method.md`, "Published protocols"), the best on test.

Shapes: B clouds, N points.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from foundry3d.baselines import KMeansStudent
from foundry3d.config import DataConfig, HeadedRunConfig
from foundry3d.config.freezing import Limits, limits_of, words_of
from foundry3d.data.batches import Labelled
from foundry3d.data.clouds import Clouds
from foundry3d.data.loading import Splits
from foundry3d.errors import InputError
from foundry3d.geometry import coordinates, farthest_point_sample, gather
from foundry3d.heads.classifier import Headed, Inner
from foundry3d.models.budget import Budget
from foundry3d.models.student import Student
from foundry3d.models.tokenizer import PointModel
from foundry3d.training.freezing import (
    Part,
    core_of,
    drop_gradients,
    freeze_part,
    part_of,
    set_modes,
)
from foundry3d.training.task import Task
from foundry3d.transforms import normalise

log = logging.getLogger("foundry3d")


class Evaluation(NamedTuple):
    """Scores after an epoch.

    Attributes:
        epoch: epochs done, from 1.
        validation: of the held-out clouds; None where nothing is held out.
        test: of the test clouds.
    """

    epoch: int
    validation: dict[str, float] | None
    test: dict[str, float]


class Outcome(NamedTuple):
    """What a run reports: the selected epoch, the last one, and the best on test."""

    selected: Evaluation
    last: Evaluation
    best_on_test: Evaluation


class FinetuneTask(Task):
    """A supervised step on `Labelled` batches; subclasses define `loss`, `scores` and `rank`.

    Args:
        config: of the run.
        model: trained in place.
        splits: with test; `validation` None = the last epoch is the selected one.
    """

    def __init__(self, config: HeadedRunConfig, model: Headed, splits: Splits) -> None:
        super().__init__(config.train, config.data, config.augment)
        self.config, self.model, self.splits = config, model, splits
        self.history: list[Evaluation] = []
        self.best: dict[str, Tensor] | None = None
        norms = [name for name, part in model.named_modules() if isinstance(part, nn.BatchNorm1d)]
        if any(name.startswith("head.") for name in norms):
            self.least_batch = 2
        self.limits = limits_under(config, model.backbone)
        self.parts = {name: part_of(self.core(), name) for name in self.limits}
        for name, limit in self.limits.items():
            if limit is None or limit >= config.train.epochs:
                freeze_part(self.parts[name])

    def loss(self, batch: Labelled, generator: torch.Generator) -> Tensor:
        """The loss of a batch, not yet augmented."""
        raise NotImplementedError("each task defines its loss")

    def scores(self, split: str, *, budget: Budget | None = None) -> dict[str, float]:
        """Scores of `validation` or `test` clouds; the model is in evaluation mode."""
        raise NotImplementedError("each task defines its scores")

    def rank(self, scores: dict[str, float]) -> tuple[float, ...]:
        """The key that selects: the epoch with the largest, and the earliest on a tie."""
        raise NotImplementedError("each task defines what it selects by")

    def core(self) -> PointModel:
        """The model under the head, without a token reducer around it."""
        return core_of(self.model.backbone)

    def undecayed(self) -> Iterable[nn.Parameter]:
        """The parameters of a gate (the paper's Table 11)."""
        core = self.core()
        gate = core.gate if isinstance(core, Student) else None
        return () if gate is None else gate.parameters()

    def frozen(self) -> list[Part]:
        """The parts that do not train in the current epoch."""
        epoch, limits = self.current_epoch, self.limits
        return [self.parts[n] for n in limits if (until := limits[n]) is None or epoch < until]

    def on_train_epoch_start(self) -> None:
        """Puts frozen parts into evaluation mode, their BatchNorm statistics included."""
        self.model.train()
        for part in self.frozen():
            set_modes(part, True)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Drops the gradients of frozen parts."""
        for part in self.frozen():
            drop_gradients(part.parameters)

    def training_step(self, batch: Labelled, index: int) -> Tensor:
        """The loss of a batch."""
        loss = self.loss(batch, self.step_generator())
        self.log("loss", loss)
        return loss

    def on_train_epoch_end(self) -> None:
        """Scores the epoch if it is due, and keeps the weights if it is the best held-out one."""
        epoch = self.current_epoch + 1
        if epoch % self.config.eval_every and epoch != self.train_config.epochs:
            return
        self.model.eval()
        with torch.inference_mode():
            held = None if self.splits.validation is None else self.scores("validation")
            found = Evaluation(epoch, held, self.scores("test"))
        self.history.append(found)
        if held is not None and self.outcome().selected is found:
            self.best = {k: v.detach().cpu().clone() for k, v in self.model.state_dict().items()}
        self.report(found)

    def report(self, found: Evaluation) -> None:
        """Sends scores to the loggers, and one line to the log."""
        parts = {"validation": found.validation or {}, "test": found.test}
        flat = {f"{part}_{k}": v for part, scores in parts.items() for k, v in scores.items()}
        for logger in self.loggers:
            logger.log_metrics(flat | {"epoch": found.epoch - 1}, step=self.global_step)
        if self.trainer.is_global_zero:
            log.info("  %s", "  ".join(f"{name} {value:.4g}" for name, value in flat.items()))

    def outcome(self) -> Outcome:
        """The selected, the last and the best-on-test epoch of those evaluated so far."""
        last = self.history[-1]
        selected = last
        if last.validation is not None:
            selected = max(self.history, key=lambda e: self.rank(e.validation or {}))
        return Outcome(selected, last, max(self.history, key=lambda e: self.rank(e.test)))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Stores the scores so far and the best weights with the run."""
        checkpoint["history"] = [tuple(found) for found in self.history]
        checkpoint["best"] = self.best

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores both."""
        self.history = [Evaluation(*found) for found in checkpoint["history"]]
        self.best = checkpoint["best"]


def limits_under(config: HeadedRunConfig, model: Inner) -> Limits:
    """The epoch from which each part of a model under a head trains; None = never.

    Raises:
        InputError: the encoder of a `KMeansStudent` is to train, away from its prototypes.
    """
    if not isinstance(model, KMeansStudent):
        return config.limits
    until = config.limits["encoder"]
    if until is not None and until < config.train.epochs:
        raise InputError(
            "the prototypes of a KMeans-Student fit its backbone as it is, so all of it stays "
            "frozen; add --frozen all"
        )
    return limits_of("all")


def frozen_words(config: HeadedRunConfig, model: Inner) -> str:
    """What a run freezes of the model under the head, e.g. `encoder until epoch 100`."""
    return words_of(limits_under(config, model), config.train.epochs)


def still_points(clouds: Clouds, data: DataConfig, *, center: bool) -> Tensor:
    """The points (n, N, 3) float32 that evaluation reads, the same every time.

    The first `data.points` of each cloud, or a farthest point sample from the first one, centred
    and scaled into the unit sphere if `center`.
    """
    points = torch.from_numpy(clouds.points.astype("float32"))
    if data.subsample == "fps" and points.shape[1] > data.points:
        points = gather(points, farthest_point_sample(coordinates(points), data.points))
    points = points[:, : data.points]
    return normalise(points) if center else points
