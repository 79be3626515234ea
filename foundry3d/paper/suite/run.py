"""Runs what is missing of a table, in stages: the teacher, models, cells, cells made from cells.

Only the main process writes `results.jsonl`, a row as soon as a cell is done. With workers, models
and cells run in separate processes of one thread each; where one is killed, its cell fails, the
others are not affected, and another process takes its place. Messages of a cell are in `log.txt` in
its folder.
"""

from __future__ import annotations

import logging
import os
import queue
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import redirect_stdout
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from foundry3d.checkpoints.folder import model_folder, read_config
from foundry3d.config import SuiteConfig, to_dict
from foundry3d.config.data import SOURCES
from foundry3d.config.paper import SUITES, TRAINING
from foundry3d.errors import InputError, PartialFailure
from foundry3d.paper.suite.cells import (
    Cell,
    cell_folder,
    cells_of,
    column_tasks,
    columns_of,
    rows_of,
)
from foundry3d.paper.suite.models import is_made, is_reconstructing, make_model
from foundry3d.paper.suite.pictures import draw
from foundry3d.paper.suite.processes import Worker, workers_of
from foundry3d.paper.suite.records import recipe_of
from foundry3d.paper.suite.render import write_tables
from foundry3d.paper.suite.tables import TABLES
from foundry3d.paper.suite.work import require_protocol, run_cell
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


def run_apart(config: SuiteConfig, unit: Unit, worker: Worker) -> Done:
    """Runs a unit in a separate process."""
    folder = unit_folder(config, unit)
    return Done(unit, *worker.run(folder, {"config": to_dict(config), "unit": unit}))


def run_stage(config: SuiteConfig, units: Iterable[Unit], workers: list[Worker]) -> Iterator[Done]:
    """Runs units that do not depend on each other; yields each as soon as it is done.

    Args:
        config: of the suite.
        units: to run.
        workers: that share them; none = they run in this process.
    """
    if not workers:
        yield from (run_here(config, unit) for unit in units)
        return
    idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
    for worker in workers:
        idle.put(worker)

    def run(unit: Unit) -> Done:
        worker = idle.get()
        try:
            return run_apart(config, unit, worker)
        finally:
            idle.put(worker)

    with ThreadPoolExecutor(len(workers)) as pool:
        futures = [pool.submit(run, unit) for unit in units]
        try:
            for future in as_completed(futures):
                log.info("%s", unit_name(future.result().unit))
                yield future.result()
        except BaseException:
            for future in futures:
                future.cancel()
            for worker in workers:
                worker.kill()
            raise


def wanted_cells(config: SuiteConfig) -> list[Cell]:
    """The cells of a table, or those of the rows and columns that `only` names.

    Raises:
        InputError: `only` names neither a row nor a column.
    """
    table = TABLES[config.name]
    columns = list(columns_of(config, table))
    shown = rows_of(config, table)
    names = {row.name for row in shown} | set(columns) | set(config.sources)
    unknown = sorted(set(config.only) - names)
    if unknown:
        raise InputError(
            f"no row or column {', '.join(unknown)} in {config.name}; known are "
            f"{', '.join(sorted(names))}"
        )
    rows = [row for row in shown if row.name in config.only] or shown
    asked = [c for c in columns if {c, c.partition(".")[0]} & set(config.only)] or columns
    found = [
        cell for column in asked for row in rows for cell in cells_of(config, table, row, column)
    ]
    return list(dict.fromkeys(found))


def stages(config: SuiteConfig, known: set[str]) -> list[list[Unit]]:
    """What is missing: the teacher, other models, cells, and cells that start from these.

    Args:
        config: of the suite.
        known: names of the cells that have rows.
    """
    missing = [cell for cell in wanted_cells(config) if cell.name not in known]
    later = [cell for cell in missing if cell.needs() is not None]
    needed = [need for cell in later if (need := cell.needs()) and need.name not in known]
    first = list(dict.fromkeys([*(c for c in missing if c.needs() is None), *needed]))
    names = dict.fromkeys(cell.model for cell in first)
    models = [name for name in names if name != "teacher" and not is_made(config, name)]
    teacher = [] if is_made(config, "teacher") or not first else ["teacher"]
    return [[*teacher], [*models], [*first], [*later]]


def keep_settings(config: SuiteConfig) -> None:
    """Writes the settings that all rows of a folder share to `<out>/suite.yaml`, or compares them.

    Those of recipes without clouds are left out: nothing is made by them.

    Raises:
        InputError: the rows of the folder were made with other settings.
    """
    path, values = Path(config.out) / "suite.yaml", to_dict(config)
    idle = {name for name in TRAINING if not values[name]["data"]["train"]}
    own = {key: values[key] for key in FIXED if key not in idle}
    own |= {f"data {name}": list(source) for name, source in config.sources.items()}
    own |= {f"model {name}": folder for name, folder in config.given.items()}
    before = read_settings(path) or {}
    changed = sorted(key for key in before.keys() & own.keys() if before[key] != own[key])
    if changed:
        raise InputError(f"{path} has other settings of {', '.join(changed)}; choose another --out")
    with replacing(path) as partial:
        partial.write_text(yaml.safe_dump(before | own, sort_keys=False))


def require_published(config: SuiteConfig) -> None:
    """Looks for the protocols of all cells.

    Raises:
        InputError: a cell has none, or the table has none of its columns.
    """
    table = TABLES[config.name]
    if table.columns and not column_tasks(config, table):
        raise InputError(
            f"{config.name} as published has the columns {', '.join(table.columns)}; name one of "
            "them with --data"
        )
    for cell in wanted_cells(config):
        if cell.task != "loss":
            require_protocol(config, cell)


def training_clouds(config: SuiteConfig, units: Iterable[Unit]) -> set[str]:
    """The clouds that missing models are made on, and distillation losses read on.

    Args:
        config: of the suite.
        units: what is missing.

    Raises:
        InputError: a model has to be made, or a loss read, on clouds that were not named.
    """
    found = set()
    for unit in units:
        if isinstance(unit, Cell) and unit.task != "loss":
            continue
        name = "distill" if isinstance(unit, Cell) else recipe_of(unit)
        train = (config.pretrain if name == "pretrain" else config.distill).data.train
        if not train:
            raise InputError(
                f"{unit_name(unit)} needs training clouds; name them with "
                f"--data {name}=TRAIN or --{name}.data.train ({SOURCES})"
            )
        found.add(train)
    return found


def require_inputs(config: SuiteConfig, units: Iterable[Unit]) -> None:
    """Looks for the teacher and the archives before anything is trained.

    Args:
        config: of the suite.
        units: what is missing.

    Raises:
        InputError: one of them is missing, or clouds to train on were not named.
    """
    if config.teacher != "pretrain" and not Path(config.teacher).is_file():
        read_config(model_folder(config.teacher))
    read = {path for source in config.sources.values() for path in source}
    for path in sorted(read | training_clouds(config, units)):
        if path.endswith(".npz") and not Path(path).is_file():
            raise InputError(f"{path}: no such archive; check --data")
    if config.as_published:
        require_published(config)


def suite(config: SuiteConfig) -> list[dict[str, Any]]:
    """Runs what is missing of a table, or of all; writes tables and draws figures.

    Returns:
        The rows of the tables' cells, as far as they are done.

    Raises:
        InputError: the folder has other settings, `only` names unknown rows or columns, or a model
            has to be made and its training clouds are not named.
        PartialFailure: some cells, or some of all tables, failed; the others are done.
    """
    config = config.with_training_clouds()
    with workers_of(config.workers or os.cpu_count() or 1) as workers:
        if config.name != "all":
            return one_table(config, workers)
        return all_tables(config, workers)


def all_tables(config: SuiteConfig, workers: list[Worker]) -> list[dict[str, Any]]:
    """Every table and figure of `SUITES`, in one folder; a failure does not stop the others.

    Raises:
        PartialFailure: some of them failed.
    """
    rows: dict[str, dict[str, Any]] = {}
    faults: dict[str, str] = {}
    for number, name in enumerate(SUITES, 1):
        log.info("%d/%d  %s", number, len(SUITES), name)
        try:
            found = one_table(replace(config, name=name), workers)
        except Exception as error:  # of any kind, so that the other tables go on
            faults[name] = str(error)
            log.error("%s: %s", name, error)
        else:
            rows |= {row["cell"]: row for row in found}
    if faults:
        first = next(iter(faults))
        raise PartialFailure(
            f"{len(faults)} of {len(SUITES)} tables and figures are not complete "
            f"({', '.join(faults)}), {first} first: {faults[first]}"
        )
    return list(rows.values())


def one_table(config: SuiteConfig, workers: list[Worker]) -> list[dict[str, Any]]:
    """Runs what is missing of a table; writes it as Markdown, CSV and LaTeX, and draws figures."""
    path = Path(config.out) / "results.jsonl"
    faults: list[Done] = []
    if not config.render:
        known = {row["cell"] for row in read_rows(path, keys=["cell"])}
        missing = stages(config, known)
        require_inputs(config, chain(*missing))
        retain_memory()
        keep_settings(config)
        for units in missing:
            for done in run_stage(config, units, workers):
                if done.fault:
                    log.error("%s failed: %s", unit_name(done.unit), done.fault)
                    faults.append(done)
                elif done.row is not None:
                    append(path, [done.row])
    if config.name == "table9" and is_reconstructing(config):
        log.warning(
            "the teacher was pre-trained by reconstruction, but its counterpart with supertokens "
            "by Point-JEPA; the paper compares --teacher pretrain --pretrain.objective jepa"
        )
    rows = {row["cell"]: row for row in read_rows(path, keys=["cell"])}
    print(write_tables(config, rows))
    draw(config, rows)
    if faults:
        raise PartialFailure(
            f"{len(faults)} parts of {config.name} failed, {unit_name(faults[0].unit)} first: "
            f"{faults[0].fault}; run the command again to continue"
        )
    names = {cell.name for cell in wanted_cells(config)}
    return [row for name, row in rows.items() if name in names]
