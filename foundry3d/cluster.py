"""Units of work on an existing engine, submitit: processes here, or an array of Slurm jobs.

A task imports the package once and runs one or more units. The outcome of a unit is a JSON file
in the command's folder: a value, or a sentence on why it failed. Tasks write them, so a command
that is killed finds them when it is given again. A unit is run by one task at a time.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar
from urllib.parse import quote

from foundry3d.config.cluster import ClusterConfig
from foundry3d.errors import InputError
from foundry3d.extras import explained
from foundry3d.writing import held, write_text

U = TypeVar("U")

POLL = {"local": 0.1, "debug": 0.0, "slurm": 5.0}
"""Seconds between two looks at the outcomes, by engine."""
LATE = 15.0
"""Seconds for which a network disk may hide a file that a job has written."""
TASKS_PER_PROCESS = 4
"""Tasks that a local process gets, so that the last ones end at about the same time."""


class Outcome(NamedTuple, Generic[U]):
    """What became of a unit: its value, or a sentence on why it failed."""

    unit: U
    value: Any
    fault: str = ""


def outcome_file(folder: Path, name: str) -> Path:
    """Where a unit's outcome is kept."""
    return folder / f"{quote(name, safe='@= ,')}.json"


def in_words(error: Exception) -> str:
    """One line about an error; the kind of those that are not about an input comes first."""
    said = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
    return " ".join(said.split())


class Task(Generic[U]):
    """Runs units one after another; queued again, it goes on with those that have no outcome.

    Args:
        open_work: called once; returns the function that runs a unit and whose value JSON can hold.
        units: by name.
        folder: of the outcomes.
        apart: whether the task has a process of its own, whose log goes to standard error.
    """

    def __init__(
        self,
        open_work: Callable[[], Callable[[U], Any]],
        units: Mapping[str, U],
        folder: Path,
        *,
        apart: bool = True,
    ) -> None:
        self.open_work, self.units, self.folder = open_work, dict(units), folder
        self.apart = apart

    def __call__(self) -> None:
        """Runs the units; a failure does not stop the others."""
        if self.apart:
            logging.basicConfig(level=logging.INFO, format="%(message)s")
        work: Callable[[U], Any] | None = None
        for name, unit in self.units.items():
            path = outcome_file(self.folder, name)
            with held(path, wait=True):  # a task of an earlier command may still be at it
                if path.exists():
                    continue
                try:
                    work = work or self.open_work()
                    said = {"value": work(unit)}
                except Exception as error:  # of any kind, so that the other units go on
                    if not isinstance(error, InputError):
                        traceback.print_exc()
                    said = {"fault": in_words(error)}
                write_text(path, json.dumps(said))

    def checkpoint(self) -> Any:
        """What is queued again after the time limit or a preemption."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def make_executor(config: ClusterConfig, folder: Path) -> Any:
    """The engine's executor, whose logs lie in `folder`.

    Raises:
        MissingExtra: submitit is not installed.
        InputError: there is no Slurm on this machine.
    """
    with explained():
        import submitit
    assert config.engine is not None
    if config.engine == "slurm" and shutil.which("srun") is None:
        raise InputError(
            "--cluster slurm needs Slurm's srun and sbatch, which are not on this machine; start "
            "it where jobs are submitted, or use --cluster local"
        )
    executor = submitit.AutoExecutor(
        folder, cluster=config.engine, slurm_max_num_timeout=config.retries
    )
    if config.engine != "debug":
        executor.update_parameters(**_parameters(config))
    return executor


def _parameters(config: ClusterConfig) -> dict[str, Any]:
    """A task's needs in the words of submitit."""
    found: dict[str, Any] = {"cpus_per_task": config.cpus, "gpus_per_node": config.gpus}
    if config.engine == "local":
        return found | {"timeout_min": config.time or 60 * 24 * 365}
    extra = dict(pair.split("=", 1) for pair in config.slurm)
    found |= {"timeout_min": config.time or 60, "name": "foundry3d", "mem_gb": config.memory}
    found |= {
        "slurm_partition": config.partition,
        "slurm_array_parallelism": config.parallel,
        "slurm_setup": [*config.setup, f"export OMP_NUM_THREADS={config.cpus}"],
        "slurm_additional_parameters": extra or None,
    }
    return {name: value for name, value in found.items() if value is not None}


def most_at_once(config: ClusterConfig) -> float:
    """How many tasks are submitted at a time; Slurm gets all, and limits them by itself."""
    match config.engine:
        case "slurm":
            return math.inf
        case "local":
            return config.parallel or max(1, (os.cpu_count() or 1) // config.cpus)
    return 1


def shares(units: Mapping[str, U], config: ClusterConfig) -> list[dict[str, U]]:
    """The units of each task, in order."""
    size = config.units or 1
    if config.units is None and config.engine == "local":
        size = max(1, math.ceil(len(units) / (TASKS_PER_PROCESS * most_at_once(config))))
    names = list(units)
    return [{n: units[n] for n in names[i : i + size]} for i in range(0, len(names), size)]


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Processes started in the block use this many threads."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(count)
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


class _Running(NamedTuple, Generic[U]):
    """A submitted task, and its units without a known outcome."""

    job: Any
    units: dict[str, U]


def _submit(executor: Any, tasks: list[Task[U]], config: ClusterConfig) -> list[_Running[U]]:
    with _threads(config.cpus):
        if config.engine == "slurm":
            with executor.batch():
                jobs = [executor.submit(task) for task in tasks]
        else:
            jobs = [executor.submit(task) for task in tasks]
    return [_Running(job, dict(task.units)) for job, task in zip(jobs, tasks, strict=True)]


def _kept(folder: Path, name: str) -> dict[str, Any] | None:
    """The outcome of a unit; None where there is none."""
    try:
        return json.loads(outcome_file(folder, name).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def _last_words(job: Any) -> str:
    """Why a task ended without a result: the last line of its errors, and where they are."""
    path = Path(job.paths.stderr)
    lines = path.read_text(errors="replace").split("\n") if path.is_file() else []
    said = next((line.strip() for line in reversed(lines) if line.strip()), "no message")
    return f"its task ended without a result ({said[:200]}; {path})"


def _collect(running: _Running[U], folder: Path, patience: float) -> Iterator[Outcome[U]]:
    """The outcomes that have appeared of a task; when it has ended, those of all its units."""
    ended = running.job.done()
    limit = time.monotonic() + patience
    while True:
        for name, unit in list(running.units.items()):
            said = _kept(folder, name)
            if said is not None:
                yield Outcome(unit, said.get("value"), said.get("fault", ""))
                del running.units[name]
                outcome_file(folder, name).unlink(missing_ok=True)
        if not ended or not running.units or time.monotonic() >= limit:
            break
        time.sleep(0.5)
    if ended:
        for unit in running.units.values():
            yield Outcome(unit, None, _last_words(running.job))
        running.units.clear()


def run_units(
    open_work: Callable[[], Callable[[U], Any]],
    units: Mapping[str, U],
    config: ClusterConfig,
    folder: Path,
) -> Iterator[Outcome[U]]:
    """Runs units that do not depend on each other; yields each when its outcome is known.

    Outcomes that an earlier command left behind are taken over. Where the caller stops, or an
    error is raised in it, running tasks are cancelled; where it is killed, they end what they have.

    Args:
        open_work: called once in every task; returns the function that runs a unit. Both are
            pickled, so they must be importable; the function's value must be one that JSON holds.
        units: by name.
        config: names the engine.
        folder: for outcomes, and for the tasks' logs.

    Raises:
        InputError: the engine is not installed, or not on this machine.
    """
    if not units:
        return
    folder = folder.resolve()
    executor = make_executor(config, folder)
    left = dict(units)
    for name, unit in units.items():
        said = _kept(folder, name)
        if said is not None and "value" in said:
            yield Outcome(unit, said["value"])
            del left[name]
        outcome_file(folder, name).unlink(missing_ok=True)
    waiting = [
        Task(open_work, share, folder, apart=config.engine != "debug")
        for share in shares(left, config)
    ]
    assert config.engine is not None
    patience = LATE if config.engine == "slurm" else 0.0
    most, running = most_at_once(config), list[_Running[U]]()
    try:
        while waiting or running:
            count = min(len(waiting), most - len(running))
            start, waiting = waiting[: int(count)], waiting[int(count) :]
            running += _submit(executor, start, config) if start else []
            for task in running:
                yield from _collect(task, folder, patience)
            running = [task for task in running if task.units or not task.job.done()]
            if running:
                time.sleep(POLL[config.engine])
    except BaseException:
        for task in running:
            task.job.cancel(check=False)
        raise
