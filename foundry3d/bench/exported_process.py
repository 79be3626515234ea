"""Measures one exported file, or torch, in a fresh process that reads its job as JSON.

`python -m foundry3d.bench.exported_process < JOB.json`. It imports the runtime of the file alone.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from foundry3d.bench.memory import peak_so_far
from foundry3d.export.runners import (
    Arrays,
    Run,
    run_executorch,
    run_onnx,
    run_openvino,
    run_torch,
)

RUNS: dict[str, Callable[[Path, int], Run]] = {
    "onnx": run_onnx,
    "openvino": run_openvino,
    "executorch": run_executorch,
    "torch": run_torch,
}


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a process measures.

    Attributes:
        form: a format, or eager or compiled for torch itself.
        path: the file, or the saved model for torch itself.
        batches: numbers of clouds, and the file of each that holds the inputs.
        geometry: inside or outside.
        token_budget: for torch itself.
        supertokens: likewise.
        repeats: measured calls, at most.
        limit: seconds after which no call is started.
        threads: of the runtime.
    """

    form: str
    path: str
    batches: tuple[tuple[int, str], ...]
    geometry: Literal["inside", "outside"] = "inside"
    token_budget: int | None = None
    supertokens: int | None = None
    repeats: int = 50
    limit: float = 20.0
    threads: int = 1


def torch_run(job: Job) -> Run:
    """Torch itself: the model as it is trained, or its inference form."""
    import torch

    from foundry3d.checkpoints.folder import load
    from foundry3d.export.network import Network
    from foundry3d.inference.compiled import compile
    from foundry3d.models.budget import Budget

    torch.set_num_threads(job.threads)
    model = load(job.path)
    budget = Budget(token_budget=job.token_budget, supertokens=job.supertokens)
    model = compile(model) if job.form == "compiled" else model
    network = Network(model, budget if budget.asked() else None, job.geometry).eval()

    def run(arrays: Arrays) -> Arrays:
        with torch.inference_mode():
            return tuple(t.numpy() for t in network(*map(torch.from_numpy, arrays)))

    return run


def timed(run: Run, arrays: Arrays, repeats: int, limit: float) -> list[float]:
    """Milliseconds of calls, after one that is not counted; at least three."""
    run(arrays)
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < repeats and (len(times) < 3 or time.perf_counter() - began < limit):
        start = time.perf_counter()
        run(arrays)
        times.append(1000 * (time.perf_counter() - start))
    return times


def measure(job: Job) -> dict[str, Any]:
    """The columns of a row: load time, latencies by clouds and threads, peak memory."""
    began = time.perf_counter()
    run = RUNS[job.form](Path(job.path), job.threads) if job.form in RUNS else torch_run(job)
    row: dict[str, Any] = {"load_s": time.perf_counter() - began}
    for batch, path in job.batches:
        with np.load(path) as archive:
            arrays = tuple(archive[name] for name in archive.files)
        try:
            times = timed(run, arrays, job.repeats, job.limit)
        except Exception as error:  # whatever the runtime raises, e.g. above its limit of clouds
            print(f"{job.form}, {batch} clouds: {error}", file=sys.stderr)
            continue
        row[f"median_ms_{batch}_{job.threads}"] = float(np.median(times))
        row[f"p95_ms_{batch}_{job.threads}"] = float(np.percentile(times, 95))
    return row | {"peak_mb": peak_so_far()}


def main() -> None:
    """Reads a job and prints its row."""
    print(json.dumps(measure(Job(**json.load(sys.stdin)))))


if __name__ == "__main__":
    main()
