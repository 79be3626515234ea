"""What happens between steps and epochs: the state to resume from, progress, a check of numbers."""

from __future__ import annotations

import io
import logging
import os
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

from foundry3d.data.ahead import Loader
from foundry3d.errors import InputError
from foundry3d.report.bar import Bar
from foundry3d.training.run_folder import PREVIOUS
from foundry3d.writing import replacing, synced

log = logging.getLogger("foundry3d")


class Files(TorchCheckpointIO):
    """Writes checkpoints in their own folder, on the disk before they are named; keeps two."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Replaces the checkpoint at `path`, which becomes `PREVIOUS` in the same folder."""
        path, stream = Path(path), io.BytesIO()
        torch.save(checkpoint, stream)
        with replacing(path) as partial:
            partial.write_bytes(stream.getbuffer())
            synced(partial)
            if path.exists():
                os.replace(path, path.with_name(PREVIOUS))


class KeepLast(Checkpoint):
    """Writes everything a resumed run needs at the end of epochs.

    Args:
        path: of the checkpoint.
        every: epochs between two.
    """

    def __init__(self, path: Path, *, every: int) -> None:
        self.path, self.every = path, every
        self.began, self.before = time.monotonic(), 0.0

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Every `every` epochs, and after the last one."""
        done = trainer.current_epoch + 1
        if done % self.every == 0 or done == trainer.max_epochs:
            trainer.save_checkpoint(self.path)

    def state_dict(self) -> dict[str, float]:
        """Seconds of the run so far, all its processes one after the other."""
        return {"seconds": self.before + time.monotonic() - self.began}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Counts on from a checkpoint, whose time is `before`."""
        self.before = float(state_dict["seconds"])


class Finite(Callback):
    """Ends a run whose loss or weights are no finite numbers any more, before they are saved."""

    EVERY = 50  # steps; asking an accelerator makes it wait

    def __init__(self) -> None:
        self._sum: Tensor | None = None

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        """Looks at the losses since it last did, on the CPU after every step.

        Raises:
            InputError: one was NaN or infinite.
        """
        loss = outputs["loss"].detach().float()
        self._sum = loss if self._sum is None else self._sum + loss
        if self._sum.device.type == "cpu" or index % self.EVERY == self.EVERY - 1:
            self._require(trainer, self._sum, "loss")

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Looks at the weights.

        Raises:
            InputError: one is NaN or infinite.
        """
        values = [v for v in pl_module.state_dict().values() if v.is_floating_point()]
        found = torch.stack([value.isfinite().all() for value in values])
        self._require(trainer, torch.where(found.all(), 0.0, torch.nan), "weights")

    def _require(self, trainer: L.Trainer, value: Tensor, what: str) -> None:
        total = trainer.strategy.reduce(value.clone(), reduce_op="sum")
        if not bool(torch.isfinite(total)):
            raise InputError(
                f"NaN or infinite {what} in epoch {trainer.current_epoch + 1}, step "
                f"{trainer.global_step}; nothing was saved since the last checkpoint. Lower "
                "train.lr, set train.clip, or check the data and the teacher, and start again in "
                "another --out"
            )


class OneLine(Callback):
    """The whole run as a bar in a terminal, and as one line elsewhere.

    Args:
        text: what the run does.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.bar: Bar | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begins the line, on the first process."""
        if trainer.is_global_zero:
            left = int(trainer.estimated_stepping_batches) - trainer.global_step
            self.bar = Bar(self.text, left)

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Shows a step and its loss."""
        loss = trainer.callback_metrics.get("loss")
        if self.bar is not None:
            self.bar.step("" if loss is None else f"loss {float(loss):.4f}")

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Ends the line."""
        if self.bar is not None:
            self.bar.close()

    def on_exception(self, trainer: L.Trainer, *_: Any) -> None:
        """Ends the line of a run that was stopped."""
        if self.bar is not None:
            self.bar.close()


class Progress(Callback):
    """One line an epoch (and at most every half minute within one): loss, speed, time left."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the clock."""
        self.began = self.reported = time.monotonic()
        self.first = trainer.global_step

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the clock of an epoch."""
        self.epoch_began, self.waited = time.monotonic(), _waited(trainer)

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Speaks up in long epochs."""
        if time.monotonic() - self.reported > 30:
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
        self.reported = time.monotonic()
        done = max(trainer.global_step - self.first, 1)
        pace = (self.reported - self.began) / done
        left = round((int(trainer.estimated_stepping_batches) - trainer.global_step) * pace)
        steps = max(int(trainer.num_training_batches), 1)
        epochs, within = divmod(trainer.global_step, steps)
        shown_epoch = f"{epochs + bool(within)}/{trainer.max_epochs}"
        if within:
            shown_epoch += f", step {within}/{steps}"
        numbers = trainer.callback_metrics
        shown = ", ".join(
            f"{k} {float(v):.4f}" for k, v in numbers.items() if not k.startswith("lr")
        )
        log.info(
            "epoch %s  %s  %.0f clouds/s  %d:%02d left",
            shown_epoch,
            shown,
            self.batch_size * trainer.world_size / pace,
            left // 60,
            left % 60,
        )


def _waited(trainer: L.Trainer) -> float:
    """Seconds the run has waited for its batches so far."""
    loader = trainer.train_dataloader
    return loader.waited if isinstance(loader, Loader) else 0.0
