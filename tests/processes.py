"""Commands in processes of their own, forked from a server that has imported everything once."""

import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from foundry3d import cli

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        "foundry3d.training.distill",
        "foundry3d.training.pretrain",
        "jsonargparse",
        "torch.utils.tensorboard",
    ]
)


def frozen_batchnorm(norm: nn.BatchNorm1d, x: Tensor) -> Tensor:
    """BatchNorm as in evaluation mode, whatever the mode."""
    return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias)


def freeze_batchnorm() -> None:
    """Keeps the statistics of every BatchNorm of this process as they are."""
    nn.BatchNorm1d.forward = frozen_batchnorm  # type: ignore


def _main(
    words: list[str],
    said: Path,
    environment: dict[str, str],
    first: Callable[[], None] | None,
) -> None:
    with open(said, "w") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run behind
    sys.argv = ["foundry3d", *words]  # what a run that starts further processes repeats
    sys.modules["__main__"].__spec__ = find_spec("foundry3d.__main__")
    if first is not None:
        first()
    cli.main(words)


def start(
    words: list[str],
    said: Path,
    *,
    environment: dict[str, str] | None = None,
    first: Callable[[], None] | None = None,
) -> BaseProcess:
    """Starts `foundry3d WORDS`, after a call of `first`; what it prints goes to the file `said`."""
    process = FORKS.Process(target=_main, args=(words, said, environment or {}, first))
    process.start()
    return process


def two_ranks(
    words: list[str], said: Path, *, first: Callable[[], None] | None = None
) -> list[BaseProcess]:
    """Starts both processes of a run on two devices, as a launcher of a cluster would."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [
        start(
            words,
            said.with_suffix(f".{rank}"),
            environment=place | {"LOCAL_RANK": str(rank)},
            first=first,
        )
        for rank in (0, 1)
    ]


def wait_for(path: Path, process: BaseProcess) -> None:
    """Waits until a file is there; fails if the process ends before."""
    limit = time.monotonic() + 240
    while not path.exists() and process.is_alive() and time.monotonic() < limit:
        time.sleep(0.02)
    assert path.exists(), f"{path} did not appear"


def ended(process: BaseProcess) -> int:
    """The status a process ends with; it is killed if it does not end."""
    process.join(240)
    if process.exitcode is None:
        process.kill()
        raise AssertionError("the process did not end")
    return process.exitcode
