"""Fair timing: interleaved candidates, a warm-up, medians and quartiles, errors, the machine.

Candidates are called in rounds, one call each, so that other load on the machine affects all of
them alike. Each round starts with another candidate, so none always follows the same one.
"""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from foundry3d.config import BenchConfig
from foundry3d.models.backbone import Tokens
from foundry3d.report.rows import code_version

log = logging.getLogger("foundry3d")

Key = TypeVar("Key", bound=Hashable)
TITLES = {
    "sweep": "over", "x": "value", "name": "name", "form": "form", "precision": "precision",
    "median_s": "median s", "iqr_s": "IQR s", "repeats": "calls", "percent": "% of stages",
    "ratio": "ratio", "clouds_s": "clouds/s", "gmacs": "GMACs", "floor_percent": "% of floor",
    "peak_mb": "peak MB", "working_mb": "working MB", "stated_mb": "stated MB",
    "error": "error", "agreement": "same choice",
    "of": "fit of", "exponent": "exponent", "r2": "R2",
}  # fmt: skip
"""Titles of the columns of a row, in the order of the tables."""


def columns(*names: str) -> dict[str, str]:
    """The titles of some columns of a table, in the order of `TITLES`."""
    return {name: title for name, title in TITLES.items() if name in names}


class Timed(NamedTuple):
    """Times of a candidate's calls, in seconds.

    Attributes:
        median: of the calls.
        iqr: interquartile range: third quartile minus first.
        repeats: how many calls were measured.
    """

    median: float
    iqr: float
    repeats: int


def summary(times: list[float]) -> Timed:
    """Median and interquartile range of one or more times."""
    low, middle, high = np.percentile(times, [25, 50, 75])
    return Timed(float(middle), float(high - low), len(times))


def interleaved(
    candidates: Mapping[Key, Callable[[], object]],
    *,
    repeats: int,
    limit: float = float("inf"),
    turning: bool = True,
    finish: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Key, Timed]:
    """Times every candidate `repeats` times, round by round, after one warm-up call each.

    Args:
        candidates: calls by name or subject.
        repeats: rounds, at least 1.
        limit: seconds that a candidate may take in total. It is left out of rounds that would
            exceed the limit; if its warm-up call exceeds it, that call is its only measurement.
        turning: each round starts with another candidate; off for calls that depend on the
            previous one.
        finish: waits for work that a call has started, e.g. on a GPU.
        clock: returns the time in seconds.

    Returns:
        Times by the same keys, in the order of the candidates.
    """

    def once(name: Key) -> float:
        began = clock()
        candidates[name]()
        finish()
        return clock() - began

    names = list(candidates)
    warm = {name: once(name) for name in names}
    taken = {name: [warm[name]] if warm[name] > limit else [] for name in names}
    going = [name for name in names if not taken[name]]
    expected = repeats * sum(warm[name] for name in going)
    if expected > 5:
        log.info("timing %d forms, %d rounds, about %s", len(names), repeats, minutes(expected))
    logged = clock()
    for round_ in range(repeats):
        turn = round_ % max(len(going), 1) if turning else 0
        for name in going[turn:] + going[:turn]:
            if not taken[name] or sum(taken[name]) + taken[name][-1] <= limit:
                taken[name].append(once(name))
        if clock() - logged > 30:
            logged = clock()
            left = minutes(expected * (1 - (round_ + 1) / repeats))
            log.info("round %d of %d, about %s left", round_ + 1, repeats, left)
    return {name: summary(taken[name]) for name in names}


def timed(
    calls: Mapping[Key, Callable[[], object]], config: BenchConfig, *, share: float = 1.0
) -> dict[Key, Timed]:
    """Times of calls, `interleaved` with the settings of a run; `share` of its limit each."""
    wait, limit = waiting(config.device), share * config.limit
    return interleaved(calls, repeats=config.sizes.repeats, limit=limit, finish=wait)


def timings(
    timed: Timed, *, baseline: float | None = None, clouds: int | None = None
) -> dict[str, Any]:
    """The columns of a row that hold its times.

    `baseline`, in seconds, adds `ratio`, how many times faster than it the row is; `clouds`, of one
    call, adds `clouds_s`, clouds per second.
    """
    found = {"median_s": timed.median, "iqr_s": timed.iqr, "repeats": timed.repeats}
    if baseline is not None:
        found["ratio"] = baseline / timed.median
    if clouds is not None:
        found["clouds_s"] = clouds / timed.median
    return found


def minutes(seconds: float) -> str:
    """`3:05` for 185 seconds."""
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02d}"


def relative_error(found: Tensor, wanted: Tensor) -> float:
    """Norm of the difference over the norm of `wanted`, in float64."""
    wanted = wanted.double()
    return float((found.double() - wanted).norm() / wanted.norm())


def agreement(found: Tensor | None, wanted: Tensor | None) -> float | None:
    """Share of equal assignments; None where there are none."""
    if found is None or wanted is None:
        return None
    return float((found == wanted).double().mean())


def differences(found: Tokens, wanted: Tokens) -> dict[str, float | None]:
    """The columns of a row that compare its output with that of the training form."""
    return {
        "error": relative_error(found.features, wanted.features),
        "agreement": agreement(found.assignment, wanted.assignment),
    }


def waiting(device: str) -> Callable[[], None]:
    """A call that waits until the device has finished its work."""
    return torch.cuda.synchronize if device.startswith("cuda") else lambda: None


def _processor() -> str:
    """The name of the processor, as the operating system reports it."""
    known = Path("/proc/cpuinfo")
    for line in known.read_text().splitlines() if known.is_file() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def machine(device: str) -> dict[str, Any]:
    """The columns of a row that say where it was measured: device, processor, threads, versions."""
    capability = torch.backends.cpu.get_cpu_capability()
    name = f"{_processor()} ({os.cpu_count()} cores, {capability})"
    if device.startswith("cuda"):
        name = torch.cuda.get_device_name(device)
    return {
        "device": device,
        "processor": name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "code": code_version(),
    }
