"""The training engine: one Lightning trainer, one run folder, randomness that survives a restart.

A run folder holds `config.yaml`, `command.txt`, `metrics/` and `tensorboard/` (one version a
start), `checkpoints/last.ckpt` (everything to resume) and, at the end, `model/` (own format).

Every random draw of a step comes from a generator seeded by (seed, step, process), and the order
of an epoch from (seed, epoch). So a run resumed from the end of an epoch continues as if it had
never stopped.
"""

from __future__ import annotations

import ctypes
import logging
import math
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import lightning as L
import torch
import yaml
from lightning.pytorch.callbacks import Callback, Checkpoint, LearningRateMonitor
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from foundry3d.backbone import Backbone
from foundry3d.checkpoint import save
from foundry3d.config import (
    AugmentConfig,
    BudgetDraws,
    DataConfig,
    DistillConfig,
    PretrainConfig,
    TrainConfig,
    to_dict,
)
from foundry3d.data.ahead import Loader, pinned
from foundry3d.data.clouds import Clouds
from foundry3d.data.loading import Batches, NumberedBatches, Stream
from foundry3d.errors import InputError
from foundry3d.gate import draw_merged, draw_supertokens
from foundry3d.geometry import Groups
from foundry3d.results import code_version
from foundry3d.student import Student
from foundry3d.transforms import augment, subsample

log = logging.getLogger("foundry3d")


def rate(progress: float, config: TrainConfig) -> float:
    """Learning rate after `progress` epochs: linear warm-up, then cosine to `final_lr`."""
    warm = min(config.warmup_epochs, config.epochs)
    if progress < warm:
        return config.start_lr + (config.lr - config.start_lr) * progress / warm
    left = (progress - warm) / max(config.epochs - warm, 1e-12)
    return config.final_lr + (config.lr - config.final_lr) * 0.5 * (1 + math.cos(math.pi * left))


class Ready(NamedTuple):
    """A batch of which everything is done that does not need the weights.

    Attributes:
        groups: of the augmented points, None where they cannot or need not be made yet.
        generator: the step's, as those draws left it.
        points: (B, N, 3) augmented.
        which: (B,) which clouds of the split these are; None where that does not matter.
    """

    groups: Groups | None
    generator: torch.Generator
    points: Tensor
    which: Tensor | None = None


class Task(L.LightningModule):
    """What the trainable tasks share: optimiser, schedule, augmentation, per-step randomness.

    Tasks whose batches are made ready ahead define `ready`, and begin a step with `readied`.

    Args:
        train: optimiser and schedule.
        data: number of points and the up axis.
        augmentation: drawn per cloud.
    """

    def __init__(self, train: TrainConfig, data: DataConfig, augmentation: AugmentConfig) -> None:
        super().__init__()
        self.train_config, self.data_config, self.augmentation = train, data, augmentation

    numbered = False
    """Whether batches in memory say which clouds they hold."""

    def step_generator(self, step: int | None = None) -> torch.Generator:
        """The generator of a step (None = this one) and process, on the model's device."""
        step = self.global_step if step is None else step
        seed = (self.train_config.seed * 1_000_003 + step) * 4099 + self.global_rank
        return torch.Generator(device=self.device).manual_seed(seed)

    def ready(self, batch: Any, generator: torch.Generator) -> Any:
        """What a step can have done for it: a `Ready` record; here the batch as it is."""
        return batch

    def readied(self, batch: Any) -> Any:
        """The batch made ready, unless that has been done ahead."""
        return batch if isinstance(batch, Ready) else self.ready(batch, self.step_generator())

    def begin(self) -> Callable[[int, Any], Any]:
        """What makes a batch of the coming epoch ready, in another thread.

        Ahead of a step on the CPU in float32 that is `ready`. An accelerator samples, augments and
        groups by itself with draws of its own generator, in float64 the trainer converts the
        points first: there a batch only becomes ready to be copied.
        """
        if self.device.type == "cpu" and self.train_config.precision != "64-true":
            first = self.global_step
            return lambda i, batch: self.ready(batch, self.step_generator(first + i))
        return lambda _, batch: pinned(batch) if self.device.type == "cuda" else batch

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Batches that are ready are where they belong."""
        if isinstance(batch, Ready):
            return batch
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def prepared(self, points: Tensor, generator: torch.Generator) -> Tensor:
        """Points (B, N, 3) taken from a batch and augmented."""
        points = subsample(
            points, self.data_config.points, how=self.data_config.subsample, generator=generator
        )
        return augment(points, self.augmentation, up=self.data_config.up, generator=generator)

    def undecayed(self) -> Iterable[nn.Parameter]:
        """Parameters without weight decay."""
        return ()

    def configure_optimizers(self) -> Any:
        """AdamW on everything that may train, with a schedule by step."""
        config = self.train_config
        steps = max(1, int(self.trainer.estimated_stepping_batches) // config.epochs)
        apart = list(self.undecayed())
        known = {id(parameter) for parameter in apart}
        groups: list[dict[str, Any]] = [
            {"params": [p for p in self.parameters() if id(p) not in known]}
        ]
        if apart:
            groups.append({"params": apart, "weight_decay": 0.0})
        optimizer = torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: rate(step / steps, config) / config.lr
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class KeepLast(Checkpoint):
    """Writes everything a resumed run needs at the end of epochs, over the one before."""

    def __init__(self, path: Path, *, every: int) -> None:
        self.path, self.every = path, every

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Every `every` epochs, and after the last one; a file appears complete or not at all."""
        done = trainer.current_epoch + 1
        if done % self.every and done != trainer.max_epochs:
            return
        partial = self.path.with_suffix(".partial")
        try:
            trainer.save_checkpoint(partial)
            if trainer.is_global_zero:
                os.replace(partial, self.path)
        finally:
            if trainer.is_global_zero:
                partial.unlink(missing_ok=True)


class Progress(Callback):
    """One line an epoch (and at most every half minute within one): loss, speed, time left."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the clock."""
        self.began = self.told = time.monotonic()
        self.first = trainer.global_step

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the clock of an epoch."""
        self.epoch_began, self.waited = time.monotonic(), _waited(trainer)

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Speaks up in long epochs."""
        if time.monotonic() - self.told > 30:
            self._tell(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Speaks up after every epoch; the loggers get its speed and share of waiting for data."""
        self._tell(trainer)
        seconds = time.monotonic() - self.epoch_began
        clouds = int(trainer.num_training_batches) * self.batch_size * trainer.world_size
        found = {
            "clouds_per_second": clouds / seconds,
            "data_wait": (_waited(trainer) - self.waited) / seconds,
        }
        for logger in trainer.loggers:
            logger.log_metrics(found, step=trainer.global_step)

    def _tell(self, trainer: L.Trainer) -> None:
        if not trainer.is_global_zero:
            return
        self.told = time.monotonic()
        done = max(trainer.global_step - self.first, 1)
        pace = (self.told - self.began) / done
        left = round((int(trainer.estimated_stepping_batches) - trainer.global_step) * pace)
        epochs = trainer.global_step / max(int(trainer.num_training_batches), 1)
        numbers = trainer.callback_metrics
        shown = ", ".join(
            f"{k} {float(v):.4f}" for k, v in numbers.items() if not k.startswith("lr")
        )
        log.info(
            "epoch %.1f/%s  %s  %.0f clouds/s  %d:%02d left",
            epochs,
            trainer.max_epochs,
            shown,
            self.batch_size * trainer.world_size / pace,
            left // 60,
            left % 60,
        )


def _waited(trainer: L.Trainer) -> float:
    """Seconds the run has waited for its batches so far."""
    loader = trainer.train_dataloader
    return loader.waited if isinstance(loader, Loader) else 0.0


class Resumable(Protocol):
    """A run's configuration record: any of `config/` that has `resume`."""

    @property
    def resume(self) -> bool:
        """Continue what the run folder holds."""
        ...


def _rank() -> int:
    """This process's rank before the trainer exists, from what launchers set."""
    named = (os.environ.get(name) for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"))
    return next((int(value) for value in named if value is not None), 0)


def open_run(out: Path, config: Resumable) -> Path | None:
    """Makes a run folder with its configuration and command, or finds where to resume.

    Args:
        out: the folder.
        config: the run's configuration record; its `resume` allows to continue what is there.

    Returns:
        The checkpoint to resume from; None = from the start.

    Raises:
        InputError: the folder already holds a run and `resume` is off, or it holds a run of
            another configuration.
    """
    last = out / "checkpoints" / "last.ckpt"
    resume_from = last if config.resume and last.exists() else None
    if _rank() != 0:  # the first process prepares the folder
        return resume_from
    written = out / "config.yaml"
    values = to_dict(config)
    values.pop("resume")
    if written.exists():
        if not config.resume:
            raise InputError(f"{out} already holds a run; choose another --out or add --resume")
        before = yaml.safe_load(written.read_text())
        changed = sorted(k for k in values | before if values.get(k) != before.get(k))
        if changed:
            raise InputError(
                f"{out} holds a run with other settings of {', '.join(changed)}; resume with "
                f"--config {written}"
            )
        return resume_from
    out.mkdir(parents=True, exist_ok=True)
    (out / "command.txt").write_text(shlex.join(["foundry3d", *sys.argv[1:]]) + "\n")
    written.write_text(yaml.safe_dump(values, sort_keys=False))
    return None


def _loggers(out: Path, config: TrainConfig) -> list[Logger]:
    loggers: list[Logger] = [
        CSVLogger(out, name="metrics"),
        TensorBoardLogger(out, name="tensorboard"),
    ]
    if config.logger == "wandb":
        from lightning.pytorch.loggers import WandbLogger

        loggers.append(WandbLogger(save_dir=out, name=out.name))
    elif config.logger == "mlflow":
        from lightning.pytorch.loggers import MLFlowLogger

        loggers.append(MLFlowLogger(save_dir=str(out / "mlflow")))
    return loggers


def make_trainer(out: Path, config: TrainConfig, *, few_batches: bool) -> L.Trainer:
    """The Lightning trainer of a run.

    Raises:
        InputError: devices, precision or a logger that this machine does not have.
    """
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        return L.Trainer(
            accelerator=config.accelerator,
            devices=config.devices,
            num_nodes=config.nodes,
            precision=config.precision,  # type: ignore[arg-type]
            max_epochs=config.epochs,
            gradient_clip_val=config.clip,
            sync_batchnorm=torch.cuda.is_available() and config.accelerator != "cpu",
            use_distributed_sampler=False,
            logger=_loggers(out, config),
            log_every_n_steps=1 if few_batches else 10,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[
                KeepLast(out / "checkpoints" / "last.ckpt", every=config.checkpoint_every),
                LearningRateMonitor("epoch"),
                Progress(config.batch_size),
            ],
        )
    except (MisconfigurationException, ModuleNotFoundError, ValueError) as error:
        raise InputError(f"the trainer cannot be set up: {error}") from None


def fit(
    task: Task, train: Clouds | Stream, run: PretrainConfig | DistillConfig
) -> dict[str, float]:
    """Trains the task and leaves the run folder complete but for the final model.

    Args:
        task: what to train; changed in place.
        train: training clouds, in memory or as a stream.
        run: the run's configuration: its folder, whether to resume, and what is kept in it.

    Returns:
        The last logged metrics.

    Raises:
        InputError: a run folder, data or a machine that cannot be used.
    """
    config = task.train_config
    retain_memory()
    trainer = make_trainer(Path(run.out), config, few_batches=len(train) < 20 * config.batch_size)
    task.train()
    kind = NumberedBatches if task.numbered else Batches
    make = partial(kind, train) if isinstance(train, Clouds) else train.batches
    batches = make(
        config.batch_size,
        seed=config.seed,
        rank=trainer.global_rank,
        world=trainer.world_size,
    )
    last = open_run(Path(run.out), run)
    run_trainer(trainer, task, batches, last)
    found = trainer.callback_metrics.items()
    return {name: float(value) for name, value in found if not name.startswith("lr")}


def run_trainer(trainer: L.Trainer, task: Task, batches: Any, last: Path | None) -> None:
    """Trains on batches made ready ahead, from the checkpoint `last` if there is one."""
    loader = Loader(batches, task.begin, depth=task.train_config.ahead)
    try:
        trainer.fit(task, train_dataloaders=loader, ckpt_path=last, weights_only=True)
    finally:
        loader.close()


def keep(
    model: nn.Module, task: Task, train: Clouds | Stream, out: str, origin: dict[str, Any]
) -> None:
    """Saves a trained model as `<out>/model` with what its training was, on the first process."""
    if not task.trainer.is_global_zero:
        return
    protocol = {
        "data": train.name,
        "clouds": len(train),
        "points": task.data_config.points,
        "up": task.data_config.up,
        "normalise": task.augmentation.center,
        "epochs": task.train_config.epochs,
        "batch_size": task.train_config.batch_size,
        "seed": task.train_config.seed,
        "code": code_version(),
    }
    save(model, Path(out) / "model", provenance=origin | protocol)


def draw_budget(
    draws: BudgetDraws, model: Backbone | Student, batch: int, generator: torch.Generator
) -> dict[str, Any]:
    """The budget of a step: numbers of merged tokens and of supertokens, where they are drawn.

    Raises:
        InputError: draws for a model without supertokens.
    """
    budget: dict[str, Any] = {}
    if draws.random_ratio or draws.nested:
        if not isinstance(model, Student):
            raise InputError("budgets are drawn for students; a teacher encodes all of its tokens")
        if draws.random_ratio:
            budget["merged"] = draw_merged(
                batch, model.shape.groups, all_merged=draws.all_merged, generator=generator
            )
        if draws.nested:
            budget["supertokens"] = draw_supertokens(
                model.config.supertokens, whole=draws.whole, generator=generator
            )
    return budget


def retain_memory() -> None:
    """Lets the allocator keep freed memory; without it a CPU step spends half its time on pages.

    glibc only; elsewhere nothing happens.
    """
    if platform.libc_ver()[0] == "glibc":
        allocator = ctypes.CDLL(None)
        allocator.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        allocator.mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD


def freeze(module: nn.Module, frozen: bool) -> None:
    """Frozen means: no gradients and evaluation mode. Works in place."""
    module.requires_grad_(not frozen)
    module.train(not frozen)
