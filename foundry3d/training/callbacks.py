"""What happens at the ends of epochs: the state to resume from, and a line of progress."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, Checkpoint

from foundry3d.data.ahead import Loader

log = logging.getLogger("foundry3d")


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
