"""Peak memory of a subject, in a fresh process: `python -m foundry3d.bench.memory < SUBJECT.json`.

A process that has measured other subjects still holds the memory they freed, so each gets its own.
On the CPU the numbers are the peak resident size of the process, everything included, and how much
the call added to what was there before (weights, points, libraries). On a GPU they are what torch
has allocated.
"""

from __future__ import annotations

import ctypes
import gc
import json
import platform
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from foundry3d.config import BenchConfig, from_dict, to_dict
from foundry3d.errors import InputError

if TYPE_CHECKING:
    from foundry3d.bench.subjects import Subject

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")


class Peak(NamedTuple):
    """Memory in MB of 10^6 bytes.

    Attributes:
        peak: largest resident size of the process (on a GPU: allocated memory) during the call.
        working: the part of it that the call added.
    """

    peak: float
    working: float


def _resident(field: str) -> float | None:
    """A field of /proc/self/status (`VmHWM`, `VmRSS`) in MB; None on systems without it."""
    if not STATUS.is_file():
        return None
    for line in STATUS.read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024 / 1e6
    return None


def _since_start() -> float:
    """The largest resident size of the process since its start, in MB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def peak_so_far() -> float:
    """The largest resident size of this process in MB.

    What getrusage reports would start at the size of the process that started this one.
    """
    return _resident("VmHWM") or _since_start()


def return_freed() -> None:
    """Returns freed memory to the system, so that it does not hide what a call needs (glibc)."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def peak_of(run: Callable[[], object], device: str = "cpu") -> Peak:
    """Peak memory while `run` runs, in this process.

    On Linux the high-water mark is reset first; elsewhere it is the peak since the process started,
    which is the same unless something before needed more.
    """
    if device.startswith("cuda"):
        import torch

        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() / 1e6
        run()
        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated() / 1e6
        return Peak(peak, peak - before)
    gc.collect()
    return_freed()
    try:
        CLEAR.write_text("5")
    except OSError:  # not Linux, or not permitted: use the peak since the start
        before = _resident("VmRSS") or _since_start()
        run()
        return Peak(_since_start(), _since_start() - before)
    before = _resident("VmRSS") or 0.0
    run()
    peak = _resident("VmHWM") or _since_start()
    return Peak(peak, peak - before)


def peak_apart(subject: Subject, threads: int) -> Peak:
    """Peak memory of a `Subject`, measured in a new process.

    Raises:
        InputError: the process failed; the message quotes its last line.
    """
    job = json.dumps({"subject": to_dict(subject), "threads": threads})
    done = subprocess.run(
        [sys.executable, "-m", "foundry3d.bench.memory"], input=job, capture_output=True, text=True
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        raise InputError(f"the process that measures memory stopped: {last}")
    return Peak(*json.loads(done.stdout.splitlines()[-1]))


def measured(subject: Subject, config: BenchConfig) -> dict[str, float | None]:
    """The columns of a row that hold peak memory; None where memory is not measured."""
    import torch

    wanted = config.measures_memory
    peak, working = peak_apart(subject, torch.get_num_threads()) if wanted else (None, None)
    return {"peak_mb": peak, "working_mb": working}


def call_of(subject: Subject) -> Callable[[], object]:
    """The subject's call, after a small one that loads and compiles what it needs.

    Training code is imported only for training steps, because a trainer's libraries are large.
    """
    from foundry3d.bench import forms, scene_forms

    small = replace(subject, clouds=min(2, subject.clouds))
    make: Callable[[Subject], Callable[[], object]] = forms.runner
    if subject.form in ("pretrain", "distill"):
        from foundry3d.bench.steps import Step

        make = Step
    elif subject.form in scene_forms.FORMS:
        small = replace(subject, points=2**14, groups=2**10)
        make = scene_forms.runner
    make(small)()
    return make(subject)


def main() -> None:
    """Reads a job from standard input and prints its peak memory."""
    import torch

    from foundry3d.bench.subjects import Subject

    job = json.load(sys.stdin)
    torch.set_num_threads(job["threads"])
    subject = from_dict(Subject, job["subject"])
    print(json.dumps(peak_of(call_of(subject), subject.device)))


if __name__ == "__main__":
    main()
