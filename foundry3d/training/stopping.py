"""Ctrl-C and SIGTERM (Slurm, `docker stop`): a run ends after its step and says how to go on.

A second signal, or a step that takes longer than `GRACE`, ends the process at once. Either way the
last checkpoint stays, and the exit status is 128 plus the signal's number: 130 or 143.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

GRACE = 10.0
"""Seconds a step may take after a signal."""
TWICE = 0.5
"""Seconds within which a launcher and a terminal may send the same signal twice."""


class Stopped(SystemExit):
    """A signal ended the run; `code` is what shells expect."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.name = signal.Signals(number).name


class Stopping(Callback):
    """Ends a run after the step in which a signal came, all of its processes after the same step.

    Attributes:
        number: of the signal that came; 0 = none.
        stepping: whether steps are being taken.
    """

    def __init__(self) -> None:
        self.number = 0
        self._since = 0.0
        self.stepping = False
        self._kinds: list[signal.Signals] = []
        self._clock: threading.Timer | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Takes signals while the block runs; only the main thread of a process gets any.

        Raises:
            Stopped: one came.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {kind: signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)}
        self._kinds = [k for k, handler in before.items() if handler is not signal.SIG_IGN]  # nohup
        self._listen()
        try:
            yield
            self._require(self.number)
        finally:
            if self._clock is not None:
                self._clock.cancel()
            for kind in self._kinds:
                signal.signal(kind, before[kind] or signal.SIG_DFL)
            self._kinds, self.stepping = [], False

    def _listen(self) -> None:
        for kind in self._kinds:
            signal.signal(kind, self._asked)

    def _asked(self, number: int, _: Any) -> None:
        if self.number:
            if time.monotonic() - self._since > TWICE:
                self._end()
            return
        self.number, self._since = number, time.monotonic()
        self._clock = threading.Timer(GRACE, self._end)
        self._clock.daemon = True
        self._clock.start()
        if not self.stepping:
            self._require(number)

    def _end(self) -> None:
        os.write(2, b"ended at once; the last checkpoint is kept, --resume goes on from it\n")
        os._exit(128 + self.number)

    def _require(self, number: int) -> None:
        if number:
            raise Stopped(number)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """From here on signals wait for the end of a step."""
        self._listen()  # the trainer has put handlers of its own in front
        self.stepping = True

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Ends the run if a signal came to any of its processes.

        Raises:
            Stopped: one came.
        """
        number = self.number
        if trainer.world_size > 1:
            asked = torch.tensor(float(number), device=trainer.strategy.root_device)
            number = int(trainer.strategy.reduce(asked, reduce_op="max"))
        self._require(number)
