"""What a suite has to run: models and cells, in stages, and what has to be there before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import yaml

from foundry3d.checkpoints.folder import model_folder, read_config
from foundry3d.config import SuiteConfig, to_dict
from foundry3d.config.data import SOURCES
from foundry3d.config.paper import TRAINING
from foundry3d.errors import InputError
from foundry3d.paper.suite.cells import (
    Cell,
    cell_folder,
    cells_of,
    column_tasks,
    columns_of,
    rows_of,
)
from foundry3d.paper.suite.gate_results import best_of
from foundry3d.paper.suite.grid import Rows
from foundry3d.paper.suite.models import is_made
from foundry3d.paper.suite.records import recipe_of
from foundry3d.paper.suite.tables import table_of
from foundry3d.paper.suite.work import require_protocol, settings_of
from foundry3d.training.run_folder import read_settings
from foundry3d.writing import replacing

FIXED = ("teacher", "as_published", "pretrain", "distill", "classify", "segment", "fewshot")


Unit = Cell | str
"""A cell, or the name of a model to make."""


def unit_name(unit: Unit) -> str:
    """Name of a unit in messages."""
    return unit.name if isinstance(unit, Cell) else f"model {unit}"


def unit_folder(config: SuiteConfig, unit: Unit) -> Path:
    """The run folder of a unit."""
    if isinstance(unit, Cell):
        return cell_folder(config, unit)
    return Path(config.out) / "models" / unit


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
    shown = rows_of(config, table)
    names = {row.name for row in shown} | set(columns) | set(config.sources)
    unknown = sorted(set(config.only) - names)
    if unknown:
        raise InputError(
            f"no row or column {', '.join(unknown)} in {config.name}; known are "
            f"{', '.join(sorted(names))}"
        )
    lines = [row for row in shown if row.name in config.only] or shown
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
    table = table_of(config)
    if table.columns and not table.fusion and not column_tasks(config, table):
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
    rivals = {row.model for row in table_of(config).rows if row.rivals}
    for cell in wanted_cells(config):
        if cell.model in rivals and not settings_of(config, cell).data.validation:
            raise InputError(
                f"{config.name} selects its students on held-out clouds, and none of {cell.column} "
                f"are held out; set --{cell.task}.data.validation above 0"
            )
