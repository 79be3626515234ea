"""A run folder: what it holds, and whether a run may go on in it.

`config.yaml`, `command.txt`, `metrics/` and `tensorboard/` (one version a start),
`checkpoints/last.ckpt` (everything to resume) and, at the end, `model/` (own format).
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Protocol

import yaml

from foundry3d.config import to_dict
from foundry3d.errors import InputError


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
