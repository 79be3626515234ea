"""`foundry3d bench export`: exported files beside torch, on this machine.

Every file is verified when it is written. Each row is measured in a process of its own that
imports no more than the runtime needs: time to load, time of calls, peak memory.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from dataclasses import asdict
from functools import partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from foundry3d.bench.exported_process import Job
from foundry3d.bench.measure import machine
from foundry3d.bench.subjects import cloud_points
from foundry3d.config import BenchExportConfig, ExportConfig
from foundry3d.data.progress import with_progress
from foundry3d.errors import InputError
from foundry3d.evaluation.exported import scores
from foundry3d.export.delivery import calibration, deliver, files_of, network_of
from foundry3d.export.formats import FORMATS
from foundry3d.export.metadata import Origin
from foundry3d.export.network import Network, example
from foundry3d.report.rows import append, table

log = logging.getLogger("foundry3d")


def bench_export(config: BenchExportConfig) -> list[dict[str, Any]]:
    """Measures eager and compiled torch and every format and precision; prints a table.

    Combinations that cannot be written are named with the reason.

    Returns:
        A row for every form that runs.

    Raises:
        InputError: the model cannot be loaded or exported.
    """
    network, origin = network_of(settings(config, "onnx", "fp32"))
    facts = machine("cpu")
    print(f"{facts['processor']}, torch {facts['torch']}, foundry3d {facts['code']}\n")
    rows: list[dict[str, Any]] = []
    forms: list[tuple[Any, Any]] = [("eager", None), ("compiled", None)]
    forms += product(config.formats, config.precisions)
    with TemporaryDirectory() as folder:
        batches = points_files(network, config, Path(folder))
        for form, precision in with_progress(forms, "measured", "forms"):
            if precision is None:
                path, row = config.model, {"form": f"torch, {form}", "precision": "fp32"}
            else:
                try:
                    row = exported_row(network, origin, config, form, precision, Path(folder))
                except InputError as error:
                    log.warning("%s %s: %s", form, precision, error)
                    continue
                path = str(Path(folder) / f"{precision}{FORMATS[form].suffix}")
            job = Job(form=form, path=path, batches=batches, **shared(config))
            rows.append(row | measured(job, config))
    rows = [{"bench": "export", "model": config.model} | row | facts for row in rows]
    if config.results is not None:
        append(config.results, rows)
    print(table(rows, columns(config, rows)))
    return rows


def settings(config: BenchExportConfig, to: Any, precision: Any) -> ExportConfig:
    """The options of `foundry3d export` for one file of a run.

    Raises:
        InputError: int8 without calibration.
    """
    return ExportConfig(
        model=config.model,
        to=to,
        precision=precision,
        geometry=config.geometry,
        token_budget=config.token_budget,
        supertokens=config.supertokens,
        calibration=config.calibration,
        data=config.data,
        seed=config.seed,
    )


def shared(config: BenchExportConfig) -> dict[str, Any]:
    """The fields that all jobs of a run have in common."""
    return {
        "geometry": config.geometry,
        "token_budget": config.token_budget,
        "supertokens": config.supertokens,
        "repeats": config.repeats,
        "limit": config.limit,
    }


def points_files(
    network: Network, config: BenchExportConfig, folder: Path
) -> tuple[tuple[int, str], ...]:
    """The inputs of every batch size in a file, so that no measured process has to make them."""
    found = []
    for batch in config.batches:
        clouds = cloud_points(batch, config.points, config.seed)
        path = folder / f"{batch}.npz"
        arrays = (tensor.numpy() for tensor in example(network, clouds))
        np.savez(path, **dict(zip(network.inputs, arrays, strict=True)))  # type: ignore[arg-type]
        found.append((batch, str(path)))
    return tuple(found)


def exported_row(
    network: Network,
    origin: Origin,
    config: BenchExportConfig,
    name: Any,
    precision: Any,
    folder: Path,
) -> dict[str, Any]:
    """Writes a file; its size, and how it compares with torch.

    Raises:
        InputError: the format or a package does not allow it, or the file differs from torch.
    """
    options = settings(config, name, precision)
    out = folder / f"{precision}{FORMATS[name].suffix}"
    samples = calibration(network, origin, options) if precision == "int8" else ()
    score = partial(scores, network, origin, config=options) if options.data else None
    report = deliver(network, origin, options, out, samples, score)
    shown = "features" if "features" in network.outputs else "logits"
    agreed = [row["assignment"] for row in report["cases"] if "assignment" in row]
    row = {
        "form": name,
        "precision": precision,
        "size_mb": sum(path.stat().st_size for path in files_of(out)) / 1e6,
        "error": max(row[shown] for row in report["cases"]),
        "agreement": float(np.mean(agreed)) if agreed else None,
    }
    scored = {score["form"]: score["svm"] for score in report.get("scores", [])}
    return row | {"svm": scored.get("exported"), "svm_torch": scored.get("torch")}


def measured(job: Job, config: BenchExportConfig) -> dict[str, Any]:
    """The measurements of a job at every number of threads; memory and load time at the first.

    Raises:
        InputError: the process failed; the message quotes its last line.
    """
    found: dict[str, Any] = {}
    for threads in config.threads:
        text = json.dumps(asdict(job) | {"threads": threads})
        done = subprocess.run(
            [sys.executable, "-m", "foundry3d.bench.exported_process"],
            input=text,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
            raise InputError(f"the process that measures {job.form} stopped: {last}")
        row = json.loads(done.stdout.splitlines()[-1])
        found |= {key: value for key, value in row.items() if key not in found}
    return found


def columns(config: BenchExportConfig, rows: list[dict[str, Any]]) -> dict[str, str]:
    """Headings of the table, of what some row has."""
    times = {
        f"{kind}_ms_{batch}_{threads}": f"{kind}, {batch} clouds, {threads} threads, ms"
        for threads in config.threads
        for batch in config.batches
        for kind in ("median", "p95")
    }
    known = {
        "form": "form",
        "precision": "precision",
        "size_mb": "MB",
        "load_s": "load s",
        **times,
        "peak_mb": "peak MB",
        "error": "error",
        "agreement": "same choice",
        "svm": "SVM",
        "svm_torch": "SVM, torch",
    }
    return {k: v for k, v in known.items() if any(row.get(k) is not None for row in rows)}
