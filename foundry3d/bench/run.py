"""The command `foundry3d bench`: measures, prints tables, writes rows."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch

from foundry3d.bench.forms import forget
from foundry3d.bench.measure import columns, machine
from foundry3d.bench.paper import CPU, GPU, with_paper
from foundry3d.bench.targets import target_rows
from foundry3d.config import BenchConfig
from foundry3d.errors import InputError
from foundry3d.inference.allocator import retain_memory
from foundry3d.report.rows import append, table

COLUMNS = columns(
    *("name", "precision", "median_s", "iqr_s", "ratio", "clouds_s", "gmacs", "floor_percent"),
    *("peak_mb", "working_mb", "error", "agreement"),
)
PAPER_COLUMNS = {
    "method": "method",
    "supertokens": "s",
    "token_budget": "budget",
    "ratio": "r",
    "encoded": "encoded here",
    "gpu_clouds_s": "paper, GPU: clouds/s",
    "gpu_s": "s",
    "gpu_mib": "MiB",
    "cpu_clouds_s": "paper, CPU: clouds/s",
    "cpu_s": "s",
    "plain_clouds_s": "here, plain: clouds/s",
    "plain_s": "s",
    "plain_mb": "MB",
    "fp32_clouds_s": "here, fp32: clouds/s",
    "fp32_s": "s",
    "fp32_mb": "MB",
    "bf16_clouds_s": "here, bf16: clouds/s",
    "bf16_s": "s",
    "bf16_mb": "MB",
    "note": "paper",
}
TARGET_COLUMNS = {"what": "what", "reach": "reach", "reached": "reached", "met": "met"}
MEASURES = ("objects", "scene", "geometry", "train", "scaling")
"""Modules of this package with `measure`, and `COLUMNS` where they differ from the ones above."""


def shown(rows: list[dict[str, Any]], columns: dict[str, str]) -> str:
    """A Markdown table of the columns that have a value in some row."""
    rows = [
        row | {"floor_percent": 100 * row["floor_share"]} if row.get("floor_share") else row
        for row in rows
    ]
    used = {k: v for k, v in columns.items() if any(row.get(k) is not None for row in rows)}
    return table(rows, used)


def notes(rows: list[dict[str, Any]]) -> list[str]:
    """Sentences that explain a table."""
    found = [
        f"Ratios are relative to {row['name']!r}, the fastest plain form."
        for row in rows
        if row.get("baseline")
    ]
    slower = [
        r["name"] for r in rows if r.get("computed_in", r.get("precision")) != r.get("precision")
    ]
    if slower:
        found.append(f"bf16 is not faster here and was computed in fp32: {', '.join(slower)}.")
    return found


def bench(config: BenchConfig) -> list[dict[str, Any]]:
    """Measures what the configuration names, prints tables, and returns the rows.

    Raises:
        InputError: the model cannot be loaded, does not fit the options, or the device is missing.
    """
    if config.device != "cpu" and not torch.cuda.is_available():
        raise InputError(f"--device {config.device}: torch finds no such device; leave it out")
    names = [name for name in MEASURES if config.what in (name, "all")]
    facts = machine(config.device)
    retain_memory()
    print(
        f"{facts['processor']}, {facts['threads']} threads, torch {facts['torch']}, "
        f"foundry3d {facts['code']}\n"
    )
    rows: list[dict[str, Any]] = []
    for name in names:
        module = import_module(f"foundry3d.bench.{name}")
        measure: Callable[[BenchConfig], list[dict[str, Any]]] = module.measure
        found = [row | facts for row in measure(config)]
        forget()
        rows += found
        if config.results is not None:  # after each part, so that nothing measured is lost
            append(config.results, found)
        print(shown(found, getattr(module, "COLUMNS", COLUMNS)))
        print("".join(f"\n{note}" for note in notes(found)))
        if name in ("objects", "scene"):
            lines = with_paper(found, 6 if name == "objects" else 7)
            if lines:
                print(f"\nThe paper's GPU: {GPU}; CPU: {CPU}.\n\n{shown(lines, PAPER_COLUMNS)}\n")
    reached = target_rows(rows)
    if reached:
        print(f"\n{table(reached, TARGET_COLUMNS)}")
    return rows
