"""Fair timing: interleaved candidates, a warm-up, medians with their spread, errors, the machine.

Candidates are called in rounds, one call each, so that what the machine does meanwhile meets all
of them alike; a round starts with another candidate each time, so none always follows the same one.
"""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

log = logging.getLogger("foundry3d")


class Timed(NamedTuple):
    """What a candidate's calls took, in seconds.

    Attributes:
        median: of the calls.
        spread: third quartile minus first.
        repeats: how many calls were measured.
    """

    median: float
    spread: float
    repeats: int


def summary(times: list[float]) -> Timed:
    """Median and interquartile range of at least one time."""
    low, middle, high = np.percentile(times, [25, 50, 75])
    return Timed(float(middle), float(high - low), len(times))


def interleaved(
    candidates: Mapping[str, Callable[[], object]],
    *,
    repeats: int,
    limit: float = float("inf"),
    turning: bool = True,
    finish: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timed]:
    """Times every candidate `repeats` times, round by round, after one call each to warm up.

    Args:
        candidates: calls by name.
        repeats: rounds, at least 1.
        limit: seconds that a candidate may take in all. One that takes longer is left out of the
            rounds that would pass it; one whose first call alone does is judged by that call.
        turning: another candidate starts each round; off for calls that need the one before them.
        finish: waits for what a call has started, e.g. on a GPU.
        clock: seconds.

    Returns:
        Times by name, in the order of the candidates.
    """

    def once(name: str) -> float:
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
    told = clock()
    for round_ in range(repeats):
        turn = round_ % max(len(going), 1) if turning else 0
        for name in going[turn:] + going[:turn]:
            if not taken[name] or sum(taken[name]) + taken[name][-1] <= limit:
                taken[name].append(once(name))
        if clock() - told > 30:
            told = clock()
            log.info(
                "round %d of %d, about %s left",
                round_ + 1,
                repeats,
                minutes(expected * (1 - (round_ + 1) / repeats)),
            )
    return {name: summary(taken[name]) for name in names}


def timings(timed: Timed, baseline: float) -> dict[str, Any]:
    """What a row says of its times; `ratio` is how many times quicker than the baseline it is."""
    return {
        "median_s": timed.median,
        "spread_s": timed.spread,
        "repeats": timed.repeats,
        "ratio": baseline / timed.median,
    }


def minutes(seconds: float) -> str:
    """`3:05` for 185 seconds."""
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02d}"


def relative_error(found: Tensor, wanted: Tensor) -> float:
    """Norm of the difference over the norm of what is wanted, in float64."""
    wanted = wanted.double()
    return float((found.double() - wanted).norm() / wanted.norm())


def agreement(found: Tensor | None, wanted: Tensor | None) -> float | None:
    """Share of equal assignments; None where there are none."""
    if found is None or wanted is None:
        return None
    return float((found == wanted).double().mean())


def waiting(device: str) -> Callable[[], None]:
    """What waits until the device has done what it was given."""
    return torch.cuda.synchronize if device.startswith("cuda") else lambda: None


def _processor() -> str:
    """The processor's name as its system gives it."""
    known = Path("/proc/cpuinfo")
    if known.is_file():
        for line in known.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def machine(device: str) -> dict[str, Any]:
    """Facts that a number needs beside it: device, processor, threads, versions."""
    capability = torch.backends.cpu.get_cpu_capability()
    name = f"{_processor()} ({os.cpu_count()} cores, {capability})"
    if device.startswith("cuda"):
        name = torch.cuda.get_device_name(device)
    return {
        "device": device,
        "processor": name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
