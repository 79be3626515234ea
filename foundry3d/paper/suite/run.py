"""Runs what is missing of a table, in stages: the teacher, models, cells, cells made from cells.

Only the main process writes `results.jsonl`, a row as soon as a cell is done. With workers, every
model and every cell runs in a separate process on one thread, so one that is killed does not affect
the others; its messages are in `log.txt` in its folder.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from foundry3d.checkpoints.folder import model_folder, read_config
from foundry3d.config import SuiteConfig, to_dict
from foundry3d.errors import InputError, PartialFailure
from foundry3d.paper.suite.cells import Cell, cell_folder, cells_of, columns_of
from foundry3d.paper.suite.gate_figures import draw_gate
from foundry3d.paper.suite.gate_results import best_of
from foundry3d.paper.suite.models import is_made, is_reconstructing, make_model
from foundry3d.paper.suite.pictures import draw
from foundry3d.paper.suite.render import Rows, write_tables
from foundry3d.paper.suite.tables import table_of
from foundry3d.paper.suite.work import run_cell, settings_of
from foundry3d.report.rows import append, read_rows
from foundry3d.training.engine import retain_memory
from foundry3d.training.run_folder import read_settings
from foundry3d.writing import replacing

log = logging.getLogger("foundry3d")

FIXED = ("teacher", "as_published", "pretrain", "distill", "classify", "segment", "fewshot")
Unit = Cell | str
"""A cell, or the name of a model to make."""


class Done(NamedTuple):
    """The outcome of a unit: its row (models have none), or a sentence on why it failed."""

    unit: Unit
    row: dict[str, Any] | None
    fault: str = ""


def unit_name(unit: Unit) -> str:
    """Name of a unit in messages."""
    return unit.name if isinstance(unit, Cell) else f"model {unit}"


def unit_folder(config: SuiteConfig, unit: Unit) -> Path:
    """The run folder of a unit."""
    if isinstance(unit, Cell):
        return cell_folder(config, unit)
    return Path(config.out) / "models" / unit


def run_unit(config: SuiteConfig, unit: Unit) -> dict[str, Any] | None:
    """Runs a cell and returns its row, or makes a model."""
    if isinstance(unit, Cell):
        return run_cell(config, unit)
    make_model(config, unit)
    return None


def run_here(config: SuiteConfig, unit: Unit) -> Done:
    """Runs a unit in this process; any failure becomes a sentence."""
    log.info("%s", unit_name(unit))
    folder = unit_folder(config, unit)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with open(folder / "log.txt", "a") as file, redirect_stdout(file):
            return Done(unit, run_unit(config, unit))
    except Exception as error:  # of any kind, so that the other cells go on
        return Done(unit, None, f"{type(error).__name__}: {error}")


def run_apart(config: SuiteConfig, unit: Unit) -> Done:
    """Runs a unit in a separate process, on one thread."""
    folder = unit_folder(config, unit)
    folder.mkdir(parents=True, exist_ok=True)
    job, answer = folder / "job.json", folder / "row.json"
    answer.unlink(missing_ok=True)
    with replacing(job) as partial:
        partial.write_text(json.dumps({"config": to_dict(config), "unit": unit}))
    words = [sys.executable, "-m", "foundry3d.paper.suite.worker", str(job), str(answer)]
    one = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    # The pipe closes however this process ends, and the worker ends with it.
    with (
        open(folder / "log.txt", "a") as file,
        subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=file, stderr=file, env=os.environ | one
        ) as process,
    ):
        status = process.wait()
    if status == 0:
        return Done(unit, json.loads(answer.read_text()))
    lines = (folder / "log.txt").read_text().splitlines() or ["no message"]
    return Done(unit, None, f"{lines[-1]} (status {status}; {folder / 'log.txt'})")


def run_stage(config: SuiteConfig, units: Iterable[Unit]) -> Iterator[Done]:
    """Runs units that do not depend on each other; yields each as soon as it is done."""
    workers = config.workers or os.cpu_count() or 1
    if workers == 1:
        yield from (run_here(config, unit) for unit in units)
        return
    with ThreadPoolExecutor(workers) as pool:
        futures: list[Future[Done]] = [pool.submit(run_apart, config, unit) for unit in units]
        try:
            for future in as_completed(futures):
                log.info("%s", unit_name(future.result().unit))
                yield future.result()
        finally:
            for future in futures:
                future.cancel()


def wanted_cells(config: SuiteConfig, rows: Rows | None = None) -> list[Cell]:
    """The cells of a table, or those of the rows and columns that `only` names.

    Args:
        config: of the suite.
        rows: of the cells that are done, which select among rivals; None = the cells of all rivals.

    Raises:
        InputError: `only` names neither a row nor a column.
    """
    table = table_of(config)
    columns = list(columns_of(config, table))
    names = {row.name for row in table.rows} | set(columns) | set(config.sources)
    unknown = sorted(set(config.only) - names)
    if unknown:
        raise InputError(
            f"no row or column {', '.join(unknown)} in {config.name}; known are "
            f"{', '.join(sorted(names))}"
        )
    lines = [row for row in table.rows if row.name in config.only] or table.rows
    asked = [c for c in columns if {c, c.partition(".")[0]} & set(config.only)] or columns
    found: list[Cell] = []
    for column in asked:
        for line in lines:
            cells = cells_of(config, table, line, column)
            selects = rows is not None and line.rivals
            found += (best_of(cells, rows or {}) or []) if selects else cells
    return list(dict.fromkeys(found))


def stages(config: SuiteConfig, known: Rows) -> Iterator[list[Unit]]:
    """What is missing: the teacher, other models, cells, and cells that start from these.

    Args:
        config: of the suite.
        known: rows of the cells that are done, by name; new ones are added between the stages.
    """
    missing = [cell for cell in wanted_cells(config) if cell.name not in known]
    later = [cell for cell in missing if cell.needs() is not None]
    needed = [need for cell in later if (need := cell.needs()) and need.name not in known]
    first = list(dict.fromkeys([*(c for c in missing if c.needs() is None), *needed]))
    names = dict.fromkeys(cell.model for cell in first)
    models = [name for name in names if name != "teacher" and not is_made(config, name)]
    teacher = [] if is_made(config, "teacher") or not first else ["teacher"]
    yield [*teacher]
    yield [*models]
    yield [*first]
    yield [
        cell
        for cell in wanted_cells(config, known)
        if cell.needs() is not None and cell.name not in known
    ]


def keep_settings(config: SuiteConfig) -> None:
    """Writes the settings that all rows of a folder share to `<out>/suite.yaml`, or compares them.

    Raises:
        InputError: the rows of the folder were made with other settings.
    """
    path, values = Path(config.out) / "suite.yaml", to_dict(config)
    own = {key: values[key] for key in FIXED}
    own |= {f"data {name}": list(source) for name, source in config.sources.items()}
    own |= {f"model {name}": folder for name, folder in config.given.items()}
    before = read_settings(path) or {}
    changed = sorted(key for key in before.keys() & own.keys() if before[key] != own[key])
    if changed:
        raise InputError(f"{path} has other settings of {', '.join(changed)}; choose another --out")
    with replacing(path) as partial:
        partial.write_text(yaml.safe_dump(before | own, sort_keys=False))


def require_inputs(config: SuiteConfig) -> None:
    """Looks for the teacher and the archives before anything is trained.

    Raises:
        InputError: one of them is missing.
    """
    if config.teacher != "pretrain" and not Path(config.teacher).is_file():
        read_config(model_folder(config.teacher))
    for path in {path for source in config.sources.values() for path in source}:
        if path.endswith(".npz") and not Path(path).is_file():
            raise InputError(f"{path}: no such archive; check --data")
    rivals = {row.model for row in table_of(config).rows if row.rivals}
    for cell in wanted_cells(config):
        if cell.model in rivals and not settings_of(config, cell).data.validation:
            raise InputError(
                f"{config.name} selects its students on held-out clouds, and none of {cell.column} "
                f"are held out; set --{cell.task}.data.validation above 0"
            )


def suite(config: SuiteConfig) -> list[dict[str, Any]]:
    """Runs what is missing of a table; writes it as Markdown, CSV and LaTeX, and draws figures.

    Returns:
        The rows of the table's cells, as far as they are done.

    Raises:
        InputError: the folder has other settings, or `only` names unknown rows or columns.
        PartialFailure: some cells failed; all others are done.
    """
    path = Path(config.out) / "results.jsonl"
    faults: list[Done] = []
    if not config.render:
        require_inputs(config)
        retain_memory()
        keep_settings(config)
        known = {row["cell"]: row for row in read_rows(path, keys=["cell"])}
        for units in stages(config, known):
            for done in run_stage(config, units):
                if done.fault:
                    log.error("%s failed: %s", unit_name(done.unit), done.fault)
                    faults.append(done)
                elif done.row is not None:
                    append(path, [done.row])
                    known[done.row["cell"]] = done.row
    if config.name == "table9" and is_reconstructing(config):
        log.warning(
            "the teacher was pre-trained by reconstruction, but its counterpart with supertokens "
            "by Point-JEPA; the paper compares --teacher pretrain --pretrain.objective jepa"
        )
    rows = {row["cell"]: row for row in read_rows(path, keys=["cell"])}
    print(write_tables(config, rows))
    draw(config, rows)
    draw_gate(config, rows)
    if faults:
        raise PartialFailure(
            f"{len(faults)} parts of {config.name} failed, {unit_name(faults[0].unit)} first: "
            f"{faults[0].fault}; run the command again to continue"
        )
    names = {cell.name for cell in wanted_cells(config, rows)}
    return [row for name, row in rows.items() if name in names]
