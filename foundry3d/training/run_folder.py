"""A run folder: what it holds, and whether a run may go on in it.

`config.yaml`, `command.txt`, `metrics/` and `tensorboard/` (one version for each start),
`checkpoints/last.ckpt` (everything to resume) with `previous.ckpt` before it and, at the end,
`model/` (own format). While a process works in it, `run.lock` names that process.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any, Protocol

import yaml

from foundry3d.config import to_dict
from foundry3d.config.earlier import left_out
from foundry3d.errors import InputError
from foundry3d.writing import held, write_text

PREVIOUS = "previous.ckpt"


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


def read_settings(path: Path) -> dict[str, Any] | None:
    """The settings that a run wrote, with what earlier runs left out; None where it wrote none.

    Raises:
        InputError: the file is damaged, or holds something else.
    """
    if not path.is_file():
        return None
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(
            f"{path} is damaged ({reason}); restore it, or choose another --out"
        ) from None
    if values is None:
        return None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise InputError(f"{path} does not hold settings; restore it, or choose another --out")
    for (*groups, name), value in list(left_out(values)):
        reduce(getitem, groups, values)[name] = value
    return values


def run_name(out: Path) -> str:
    """The name drawn for the run in a folder, the first line of its `config.yaml`."""
    found = re.match(r"# run (\w+)", (out / "config.yaml").read_text(encoding="utf-8"))
    return found[1] if found else str(out.resolve())


def checkpoint_of(out: Path) -> Path | None:
    """The checkpoint to resume from: the last one, or the one before where that is missing."""
    kept = (out / "checkpoints" / name for name in ("last.ckpt", PREVIOUS))
    return next((path for path in kept if path.exists()), None)


def open_run(out: Path, config: Resumable) -> Path | None:
    """Makes a run folder with its configuration and command, or finds where to resume.

    Args:
        out: the folder.
        config: the run's configuration record; its `resume` allows to continue what is there.

    Returns:
        The checkpoint to resume from; None = from the start.

    Raises:
        InputError: the folder already holds a run and `resume` is off, or it holds a run of
            another configuration, or its configuration is damaged.
    """
    last = checkpoint_of(out)
    if _rank() != 0:  # the first process prepares the folder
        return last if config.resume else None
    written = out / "config.yaml"
    values = to_dict(config)
    values.pop("resume")
    before = read_settings(written)
    if not config.resume and (before is not None or last is not None):
        raise InputError(f"{out} already holds a run; choose another --out or add --resume")
    if before is not None:
        changed = sorted(k for k in values | before if values.get(k) != before.get(k))
        if changed:
            raise InputError(
                f"{out} holds a run with other settings of {', '.join(changed)}; resume with "
                f"--config {written}"
            )
        return last
    write_text(out / "command.txt", shlex.join(["foundry3d", *sys.argv[1:]]) + "\n")
    named = f"# run {secrets.token_hex(8)}\n"
    write_text(written, named + yaml.safe_dump(values, sort_keys=False))
    return last


@contextmanager
def opened(out: Path, config: Resumable) -> Iterator[Path | None]:
    """`open_run`, with the folder held against other processes until the block ends.

    Raises:
        InputError: as `open_run`, or another process works in the folder.
    """
    if _rank() != 0:
        yield open_run(out, config)
        return
    with held(out / "run"):
        yield open_run(out, config)
