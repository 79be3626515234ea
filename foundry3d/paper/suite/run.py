"""Runs what is missing of a table, in stages: the teacher, models, cells, cells made from cells.

Only the main process writes `results.jsonl`, a row as soon as a cell is done. With `--cluster`
models and cells run in separate tasks; where one is killed, its cells fail and the others are not
affected. Messages of a cell are in `log.txt` in its folder.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from foundry3d.cluster import Outcome, run_units
from foundry3d.config import SuiteConfig
from foundry3d.config.paper import SUITES
from foundry3d.errors import PartialFailure
from foundry3d.inference.allocator import retain_memory
from foundry3d.paper.suite.cells import Cell
from foundry3d.paper.suite.gate_figures import draw_gate
from foundry3d.paper.suite.models import is_reconstructing, make_model
from foundry3d.paper.suite.pictures import draw
from foundry3d.paper.suite.render import write_tables
from foundry3d.paper.suite.units import (
    Unit,
    keep_settings,
    require_inputs,
    stages,
    unit_folder,
    unit_name,
    wanted_cells,
)
from foundry3d.paper.suite.work import run_cell
from foundry3d.report.rows import append, read_rows

log = logging.getLogger("foundry3d")


def run_unit(config: SuiteConfig, unit: Unit) -> dict[str, Any] | None:
    """Runs a cell and returns its row, or makes a model."""
    if isinstance(unit, Cell):
        return run_cell(config, unit)
    make_model(config, unit)
    return None


def run_here(config: SuiteConfig, unit: Unit) -> Outcome[Unit]:
    """Runs a unit in this process; any failure becomes a sentence."""
    log.info("%s", unit_name(unit))
    folder = unit_folder(config, unit)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with open(folder / "log.txt", "a") as file, redirect_stdout(file):
            return Outcome(unit, run_unit(config, unit))
    except Exception as error:  # of any kind, so that the other cells go on
        return Outcome(unit, None, f"{type(error).__name__}: {error}")


def run_logged(config: SuiteConfig, unit: Unit) -> dict[str, Any] | None:
    """Runs a unit in a task, whose messages all go to `log.txt` in the unit's folder."""
    folder = unit_folder(config, unit)
    folder.mkdir(parents=True, exist_ok=True)
    with (
        open(folder / "log.txt", "a", buffering=1) as file,
        redirect_stdout(file),
        redirect_stderr(file),
    ):
        handler = logging.StreamHandler(file)
        log.addHandler(handler)
        try:
            return run_unit(config, unit)
        finally:
            log.removeHandler(handler)


def open_units(config: SuiteConfig) -> Callable[[Unit], dict[str, Any] | None]:
    """What a task opens once: the function that runs a unit."""
    retain_memory()
    return partial(run_logged, config)


def run_stage(config: SuiteConfig, units: Iterable[Unit]) -> Iterator[Outcome[Unit]]:
    """Runs units that do not depend on each other; yields each as soon as it is done."""
    if config.cluster.engine is None:
        yield from (run_here(config, unit) for unit in units)
        return
    named = {unit_name(unit): unit for unit in units}
    folder = Path(config.out) / "cluster"
    for outcome in run_units(partial(open_units, config), named, config.cluster, folder):
        log.info("%s", unit_name(outcome.unit))
        yield outcome


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
    return all_tables(config) if config.name == "all" else one_table(config)


def all_tables(config: SuiteConfig) -> list[dict[str, Any]]:
    """Every table and figure of `SUITES`, in one folder; a failure does not stop the others.

    Raises:
        PartialFailure: some of them failed.
    """
    rows: dict[str, dict[str, Any]] = {}
    faults: dict[str, str] = {}
    for number, name in enumerate(SUITES, 1):
        log.info("%d/%d  %s", number, len(SUITES), name)
        try:
            found = one_table(replace(config, name=name))
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


def one_table(config: SuiteConfig) -> list[dict[str, Any]]:
    """Runs what is missing of a table; writes it as Markdown, CSV and LaTeX, and draws figures."""
    path = Path(config.out) / "results.jsonl"
    faults: list[Outcome[Unit]] = []
    if not config.render:
        known = {row["cell"]: row for row in read_rows(path, keys=["cell"])}
        require_inputs(config, chain(*stages(config, known)))
        retain_memory()
        keep_settings(config)
        for units in stages(config, known):
            for done in run_stage(config, units):
                if done.fault:
                    log.error("%s failed: %s", unit_name(done.unit), done.fault)
                    faults.append(done)
                elif done.value is not None:
                    append(path, [done.value])
                    known[done.value["cell"]] = done.value
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
