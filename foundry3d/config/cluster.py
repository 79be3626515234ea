"""Options of commands whose work is shared among processes or the jobs of a cluster."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from typing import Literal, get_args

from foundry3d.config.records import DEEPEST, WIDEST, not_negative, positive_or_null, require

Engine = Literal["local", "slurm", "debug"]


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """Where the units of a command run: parts of features, cells of a suite, runs of a sweep.

    `--cluster local` is short for `--cluster.engine local`.

    Attributes:
        engine: null = this process; local = processes on this machine; slurm = an array of jobs;
            debug = this process, through the same steps as a job.
        parallel: tasks that run at the same time; null = one per processor (local), as many as the
            cluster starts (slurm).
        units: that one task runs, one after another, after importing the package once; null = one
            (slurm), or few enough that every process gets four tasks (local).
        time: minutes after which a task is stopped; on slurm it is queued again and goes on. null =
            no limit (local), 60 (slurm).
        retries: how often a task of slurm is queued again after its time or a preemption.
        partition: of slurm.
        cpus: processors of a task, and its threads.
        gpus: GPUs of a task; 0 hides them from it.
        memory: of a task of slurm, in GB; null = the cluster's default.
        setup: shell commands before a task, such as `module load cuda`.
        slurm: further options of sbatch, as `account=lab`.
    """

    engine: Engine | None = None
    parallel: int | None = None
    units: int | None = None
    time: int | None = None
    retries: int = 3
    partition: str | None = None
    cpus: int = 1
    gpus: int = 0
    memory: float | None = None
    setup: tuple[str, ...] = ()
    slurm: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        known = get_args(Engine)
        require(
            self.engine is None or self.engine in known,
            f"cluster is one of {', '.join(known)}; got {self.engine!r}",
        )
        positive_or_null(self, "parallel", "cpus", most=DEEPEST)
        positive_or_null(self, "units", "time", most=WIDEST)
        positive_or_null(self, "memory")
        not_negative(self, "retries", "gpus", most=DEEPEST)
        for pair in self.slurm:
            require(
                re.fullmatch(r"[a-z_]+=.+", pair) is not None,
                f"slurm takes options of sbatch as NAME=VALUE, got {pair!r}",
            )
        self._check_engine()

    def _check_engine(self) -> None:
        """Options that have no effect without their engine are refused."""
        for name in ("parallel", "units", "time"):
            require(
                self.engine is not None or getattr(self, name) is None,
                f"cluster.{name} needs an engine; add --cluster local or --cluster slurm",
            )
        for name in ("partition", "memory"):
            require(
                self.engine == "slurm" or getattr(self, name) is None,
                f"cluster.{name} is for --cluster slurm",
            )
        require(self.engine == "slurm" or not self.slurm, "cluster.slurm is for --cluster slurm")
        require(
            self.engine is None or sys.platform != "win32",
            "--cluster does not run on Windows; leave it out, and the command does all by itself",
        )
