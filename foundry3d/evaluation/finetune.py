"""Supervised fine-tuning: parts that thaw at epochs of their own, held-out clouds that select.

After every `eval_every` epochs the held-out and the test clouds are scored. The held-out ones
choose the epoch whose weights are kept; test scores are only recorded. Every report names three
epochs: the selected one, the last one, and, as a column to compare with publications that select
on test (field.md B4), the best one on test.

Shapes: B clouds, N points.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from foundry3d.baselines.wrapped import Wrapped
from foundry3d.checkpoints.folder import load_backbone, save
from foundry3d.config import DataConfig, FinetuneConfig
from foundry3d.data.clouds import Clouds
from foundry3d.data.loading import Labelled, LabelledBatches, Splits, load_tested
from foundry3d.errors import InputError
from foundry3d.geometry import farthest_point_sample, gather
from foundry3d.heads.classifier import Headed, Inner, reshaped
from foundry3d.models.backbone import Backbone
from foundry3d.models.student import Student
from foundry3d.report.rows import append
from foundry3d.training.engine import check_batch, make_trainer, retain_memory, run_trainer
from foundry3d.training.run_folder import opened, run_name
from foundry3d.training.task import Task, freeze
from foundry3d.transforms import normalise

log = logging.getLogger("foundry3d")

PARTS = {
    "tokenizer": ("tokenizer", "token_bridge"),
    "position": ("position", "position_bridge"),
    "encoder": ("encoder",),
}


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
    """What a run reports: the selected epoch first, the last, and the best on test."""

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

    def __init__(self, config: FinetuneConfig, model: Headed, splits: Splits) -> None:
        super().__init__(config.train, config.data, config.augment)
        self.config, self.model, self.splits = config, model, splits
        self.history: list[Evaluation] = []
        self.best: dict[str, Tensor] | None = None
        norms = [name for name, part in model.named_modules() if isinstance(part, nn.BatchNorm1d)]
        if any(name.startswith("head.") for name in norms):
            self.least_batch = 2
        for name in PARTS:
            limit = self.limit(name)
            if limit is None or limit >= config.train.epochs:
                for part in self.part(name):
                    freeze(part, True)
                for parameter in self.loose(name):
                    parameter.requires_grad_(False)

    def loss(self, batch: Labelled, generator: torch.Generator) -> Tensor:
        """The loss of a batch, not yet augmented."""
        raise NotImplementedError("each task defines its loss")

    def scores(self, split: str) -> dict[str, float]:
        """Scores of `validation` or `test` clouds; the model is in evaluation mode."""
        raise NotImplementedError("each task defines its scores")

    def rank(self, scores: dict[str, float]) -> tuple[float, ...]:
        """What selects: the epoch of the largest one, the earliest on a tie."""
        raise NotImplementedError("each task defines what it selects by")

    def limit(self, name: str) -> int | None:
        """Epoch from which a part of `PARTS` trains; None = never."""
        return {
            "tokenizer": self.config.unfreeze_tokenizer,
            "position": self.config.unfreeze_position,
            "encoder": self.config.unfreeze_encoder,
        }[name]

    def core(self) -> Backbone | Student:
        """The model under the head, without what is wrapped around it."""
        inner = self.model.backbone
        return inner.backbone if isinstance(inner, Wrapped) else inner

    def undecayed(self) -> Iterable[nn.Parameter]:
        """A gate's parameters (the paper's Table 11)."""
        core = self.core()
        gate = core.gate if isinstance(core, Student) else None
        return () if gate is None else gate.parameters()

    def part(self, name: str) -> list[nn.Module]:
        """The modules of a part of `PARTS`."""
        return [getattr(self.core(), module) for module in PARTS[name]]

    def loose(self, name: str) -> list[nn.Parameter]:
        """Parameters of a part outside its modules: the class token goes with the encoder."""
        core = self.core()
        if name != "encoder" or not isinstance(core, Backbone):
            return []
        return [p for p in (core.class_token, core.class_position) if p is not None]

    def frozen(self) -> list[str]:
        """The parts that do not train in the current epoch."""
        limits = {name: self.limit(name) for name in PARTS}
        return [n for n, limit in limits.items() if limit is None or self.current_epoch < limit]

    def on_train_epoch_start(self) -> None:
        """Frozen parts are in evaluation mode, their BatchNorm statistics included."""
        self.model.train()
        for name in self.frozen():
            for part in self.part(name):
                part.eval()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Frozen parts take no step.

        Their gradients are dropped rather than switched off, because distributed training fixes
        at the start which parameters it synchronises. Dropped ones do not count when clipping.
        """
        for name in self.frozen():
            parameters = [p for part in self.part(name) for p in part.parameters()]
            for parameter in parameters + self.loose(name):
                parameter.grad = None

    def training_step(self, batch: Labelled, index: int) -> Tensor:
        """The loss of a batch."""
        loss = self.loss(batch, self.step_generator())
        self.log("loss", loss)
        return loss

    def on_train_epoch_end(self) -> None:
        """Scores the epoch where it is due and keeps the weights of the best held-out one."""
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
        self.tell(found)

    def tell(self, found: Evaluation) -> None:
        """Sends scores to the loggers and one line to the log."""
        parts = {"validation": found.validation or {}, "test": found.test}
        flat = {f"{part}_{k}": v for part, scores in parts.items() for k, v in scores.items()}
        for logger in self.loggers:
            logger.log_metrics(flat, step=self.global_step)
        if self.trainer.is_global_zero:
            log.info("  %s", "  ".join(f"{name} {value:.4g}" for name, value in flat.items()))

    def outcome(self) -> Outcome:
        """The selected epoch, the last one and the best on test, of those evaluated so far."""
        last = self.history[-1]
        selected = last
        if last.validation is not None:
            selected = max(self.history, key=lambda e: self.rank(e.validation or {}))
        return Outcome(selected, last, max(self.history, key=lambda e: self.rank(e.test)))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Scores so far and the best weights travel with the run."""
        checkpoint["history"] = [tuple(found) for found in self.history]
        checkpoint["best"] = self.best

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes both up again."""
        self.history = [Evaluation(*found) for found in checkpoint["history"]]
        self.best = checkpoint["best"]


def fit_and_select(task: FinetuneTask) -> Outcome:
    """Trains a task; afterwards its model has the selected weights and is in evaluation mode.

    Raises:
        InputError: a run folder, data or a machine that cannot be used.
    """
    config, train = task.config, task.splits.train
    retain_memory()
    check_batch(task)
    few = len(train) < 20 * config.train.batch_size
    trainer = make_trainer(Path(config.out), config.train, few_batches=few)
    task.train()
    batches = LabelledBatches(
        train,
        config.train.batch_size,
        seed=config.train.seed,
        rank=trainer.global_rank,
        world=trainer.world_size,
    )
    with opened(Path(config.out), config) as last:
        run_trainer(trainer, task, batches, last)
    if task.best is not None:
        task.model.load_state_dict(task.best)
    task.model.cpu().eval().requires_grad_(True)
    return task.outcome()


def start_model(config: FinetuneConfig) -> Inner:
    """The model a run starts from, with the run's groups and dropout.

    Raises:
        InputError: a checkpoint or sizes that cannot be used.
    """
    fresh = torch.Generator().manual_seed(config.train.seed) if config.scratch else None
    return reshaped(
        load_backbone(config.model),
        generator=fresh,
        groups=config.groups,
        group_size=config.group_size,
        dropout=config.dropout,
        attention_dropout=config.attention_dropout,
        drop_path=config.drop_path,
    )


def deliver(task: FinetuneTask, row: dict[str, Any], *, made_by: str, shown: str) -> None:
    """Saves the model as `<out>/model`, appends the result row and prints, on the first process."""
    if not task.trainer.is_global_zero:
        return
    config = task.config
    save(task.model, Path(config.out) / "model", provenance={"made_by": made_by} | row)
    if config.results is not None:
        append(config.results, [row | {"run": run_name(Path(config.out))}])
    print(shown)


def labelled_splits(data: DataConfig, *, seed: int) -> Splits:
    """Splits with a test part whose classes are those of training, every cloud labelled.

    Raises:
        InputError: they are not.
    """
    splits, train, test = load_tested(data, seed=seed)
    for clouds in (train, test):
        if clouds.labels.min() < 0 or len(train.class_names) < 2:
            raise InputError(f"{clouds.name}: expected a label of one of two or more classes")
    shared = min(len(train.class_names), len(test.class_names))
    surplus = test.labels.max() >= len(train.class_names)
    if surplus or train.class_names[:shared] != test.class_names[:shared]:
        raise InputError(
            f"{test.name}: its classes {', '.join(test.class_names[:5])} are not those of "
            f"{train.name}, {', '.join(train.class_names[:5])}, in the same order"
        )
    return splits


def still_points(clouds: Clouds, data: DataConfig, *, center: bool) -> Tensor:
    """The points (n, N, 3) float32 that evaluation reads, the same every time.

    The first `data.points` of each cloud, or a farthest point sample from the first one, centred
    and scaled into the unit sphere if `center`.
    """
    points = torch.from_numpy(clouds.points.astype("float32"))
    if data.subsample == "fps" and points.shape[1] > data.points:
        points = gather(points, farthest_point_sample(points, data.points))
    points = points[:, : data.points]
    return normalise(points) if center else points
