"""The training engine: one Lightning trainer, from a task and clouds to a model that is saved.

The order of an epoch comes from (seed, epoch) and the draws of a step from the task, so a run
resumed from the end of an epoch continues as if it had never stopped.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, LearningRateMonitor
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from foundry3d.checkpoints.folder import save
from foundry3d.checkpoints.origin import with_origin
from foundry3d.config import DistillConfig, PretrainConfig, TrainConfig
from foundry3d.data.ahead import Loader
from foundry3d.data.batches import Batches, NumberedBatches
from foundry3d.data.clouds import Clouds
from foundry3d.data.loading import Stream
from foundry3d.errors import InputError
from foundry3d.inference.allocator import retain_memory
from foundry3d.report.rows import code_version
from foundry3d.training.callbacks import Files, Finite, KeepLast, Progress
from foundry3d.training.resuming import check_resumable, refuse
from foundry3d.training.run_folder import opened
from foundry3d.training.stopping import Stopped, Stopping
from foundry3d.training.task import Task

log = logging.getLogger("foundry3d")
T = TypeVar("T")


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


def make_trainer(
    out: Path, config: TrainConfig, *, few_batches: bool, progress: Callback | None = None
) -> L.Trainer:
    """The Lightning trainer of a run.

    Args:
        out: run folder.
        config: of the run.
        few_batches: log every step.
        progress: shows how far the run is; None = `callbacks.Progress`.

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
            strategy=config.strategy,
            precision=config.precision,  # type: ignore[arg-type]
            max_epochs=config.epochs,
            gradient_clip_val=config.clip,
            sync_batchnorm=torch.cuda.is_available() and config.accelerator != "cpu",
            use_distributed_sampler=False,
            logger=_loggers(out, config),
            log_every_n_steps=1 if few_batches else 10,
            enable_progress_bar=False,
            enable_model_summary=False,
            plugins=[Files()],
            callbacks=[
                Finite(),
                Stopping(),
                KeepLast(out / "checkpoints" / "last.ckpt", every=config.checkpoint_every),
                LearningRateMonitor("epoch"),
                progress or Progress(config.batch_size),
            ],
        )
    except (MisconfigurationException, ModuleNotFoundError, ValueError) as error:
        raise InputError(f"the trainer cannot be set up: {error}") from None


def fit(
    task: Task,
    train: Clouds | Stream,
    run: PretrainConfig | DistillConfig,
    *,
    progress: Callback | None = None,
) -> dict[str, float]:
    """Trains the task and leaves the run folder complete but for the final model.

    Args:
        task: what to train; changed in place.
        train: training clouds, in memory or as a stream.
        run: the run's configuration: its folder, whether to resume, and what is kept in it.
        progress: as for `make_trainer`.

    Returns:
        The last logged metrics.

    Raises:
        InputError: a run folder, data or a machine that cannot be used.
    """
    config = task.train_config
    retain_memory()
    few = len(train) < 20 * config.batch_size
    trainer = make_trainer(Path(run.out), config, few_batches=few, progress=progress)
    if config.precision == "bf16-mixed" and trainer.strategy.root_device.type == "cpu":
        warn_of_slow_bf16(product_seconds(torch.bfloat16) / product_seconds(torch.float32))
    task.train()
    kind = NumberedBatches if task.numbered else Batches
    make = partial(kind, train) if isinstance(train, Clouds) else train.batches
    batches = make(
        config.batch_size,
        seed=config.seed,
        rank=trainer.global_rank,
        world=trainer.world_size,
    )
    with opened(Path(run.out), run) as last:
        run_trainer(trainer, task, batches, last)
    found = trainer.callback_metrics.items()
    return {name: float(value) for name, value in found if not name.startswith("lr")}


def product_seconds(dtype: torch.dtype) -> float:
    """Shortest time of five for a matrix product (1024, 128) x (128, 128) on this processor."""
    rows, columns = torch.ones(1024, 128, dtype=dtype), torch.ones(128, 128, dtype=dtype)
    times = []
    for _ in range(5):
        began = time.perf_counter()
        torch.mm(rows, columns)
        times.append(time.perf_counter() - began)
    return min(times)


def warn_of_slow_bf16(ratio: float) -> None:
    """Logs a warning where bf16 products take more than 1.5 times as long as float32 ones."""
    if ratio > 1.5:
        log.warning(
            "this processor multiplies bf16 matrices %.0f times slower than float32 ones; "
            "--train.precision 32-true trains faster here",
            ratio,
        )


def callback(trainer: L.Trainer, kind: type[T]) -> T:
    """The callback of a kind that `make_trainer` gave a trainer."""
    return next(found for found in trainer.callbacks if isinstance(found, kind))  # type: ignore


def run_trainer(trainer: L.Trainer, task: Task, batches: Any, last: Path | None) -> None:
    """Trains on batches made ready ahead, from the checkpoint `last` if there is one.

    Raises:
        InputError: a checkpoint that cannot be resumed from, or numbers that are no longer finite.
        Stopped: a signal came; see `training.stopping`.
    """
    if last is not None:
        check_resumable(last, task)
    stopping = callback(trainer, Stopping)
    loader = Loader(batches, task.begin, depth=task.train_config.ahead)
    try:
        with stopping.listening(), quiet_writers():
            trainer.fit(task, train_dataloaders=loader, ckpt_path=last, weights_only=True)
    except Stopped as stop:
        if trainer.is_global_zero:
            log.warning("%s", farewell(stop, callback(trainer, KeepLast).path))
        raise
    except RuntimeError as error:
        if trainer.world_size == 1 or not re.search("(?i)gloo|nccl|connection", str(error)):
            raise
        reason = " ".join(str(error).split())[:120]
        kept = callback(trainer, KeepLast).path
        raise InputError(
            f"another process of this run has ended or cannot be reached ({reason}), "
            + way_back(kept)
        ) from None
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        if last is None or stopping.stepping or isinstance(error, InputError):
            raise
        refuse(last, f"cannot be resumed from ({type(error).__name__}: {error})")
    finally:
        loader.close()


@contextmanager
def quiet_writers() -> Iterator[None]:
    """A full disk, met by a logger's thread, is raised again by the main one and said once."""
    usual = threading.excepthook
    threading.excepthook = lambda e: None if issubclass(e.exc_type, OSError) else usual(e)
    try:
        yield
    finally:
        threading.excepthook = usual


def farewell(stop: Stopped, kept: Path) -> str:
    """What a run says that a signal ended."""
    return f"stopped by {stop.name}, {way_back(kept)}"


def way_back(kept: Path) -> str:
    """What a run that has ended keeps, and how it goes on."""
    folder = kept.parent.parent
    state = f"{kept} is kept" if kept.exists() else "before its first checkpoint"
    return f"{state}; go on with --config {folder}/config.yaml --resume"


def seconds(task: Task, began: float) -> float:
    """Seconds since `began` (of `time.monotonic`), and those of the processes resumed from."""
    return round(callback(task.trainer, KeepLast).before + time.monotonic() - began, 1)


def check_batch(task: Task) -> None:
    """Refuses batches too small for BatchNorm before a run starts.

    Raises:
        InputError: batches of one cloud for a task that normalises over the clouds of a batch.
    """
    if task.train_config.batch_size < task.least_batch:
        raise InputError(
            f"expected train.batch_size of at least {task.least_batch}, got "
            f"{task.train_config.batch_size}: the head normalises over the clouds of a batch"
        )


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
        "normalise": task.augmentation.normalise,
        "epochs": task.train_config.epochs,
        "batch_size": task.train_config.batch_size,
        "seed": task.train_config.seed,
        "code": code_version(),
    }
    facts = origin | protocol
    save(model, Path(out) / "model", provenance=with_origin(facts))
