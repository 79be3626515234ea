"""A cell: one model, fine-tuned or probed on the data of one column with one seed.

Cells are identified by name, so that tables with the same rows share them. The folder of a cell is
`<out>/cells/<name>`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from foundry3d.config import SuiteConfig
from foundry3d.paper.suite.records import COLUMNS, EPISODES, MODELS, Row, Table


class Cell(NamedTuple):
    """One result.

    Attributes:
        model: in `MODELS`.
        column: name of the data; `loss` for the distillation loss.
        task: classify, segment, probe, loss, or episodes such as `5way-10shot`.
        seed: of the run.
        unfreeze: when the encoder is unfrozen: start, late or never; empty without fine-tuning.
        at_test: how the fine-tuned model is changed at test time.
    """

    model: str
    column: str
    task: str
    seed: int
    unfreeze: str = ""
    at_test: str = ""

    @property
    def name(self) -> str:
        """Name of the cell in rows and folders."""
        how = (f"+{self.at_test}" * bool(self.at_test)) + (
            f"@{self.unfreeze}" * bool(self.unfreeze)
        )
        return f"{self.model}{how}/{self.column}/{self.task}/seed{self.seed}"

    def needs(self) -> Cell | None:
        """The cell whose fine-tuned model this one starts from."""
        if self.task not in ("classify", "segment"):
            return None
        if MODELS[self.model].how == "specialist":
            unfreeze = "late" if self.task == "classify" else "start"
            return self._replace(model="teacher", unfreeze=unfreeze)
        return self._replace(at_test="") if self.at_test else None


def cell_folder(config: SuiteConfig, cell: Cell) -> Path:
    """The run folder of a cell."""
    return Path(config.out) / "cells" / cell.name


def column_tasks(config: SuiteConfig, table: Table) -> dict[str, str]:
    """How each column is measured: the paper's columns in its order, then the others.

    As published, a table has none of the paper's columns that it does not have in the paper.
    """
    if table.fusion:
        return {"fusion": "loss"} if "fusion" in config.sources else {}
    wanted = table.columns if config.as_published else COLUMNS
    known = [name for name in COLUMNS if name in config.sources and name in wanted]
    others = [name for name in config.sources if name not in (*COLUMNS, "fusion")]
    return {name: config.chosen_tasks.get(name, table.task(name)) for name in known + others}


def rows_of(config: SuiteConfig, table: Table) -> list[Row]:
    """The rows of a table; those of Table 10 for one time of unfreezing only where it is chosen."""
    return [
        row
        for row in table.rows
        if not config.unfreeze or "@" not in row.name or set(row.times) & set(config.unfreeze)
    ]


def times_of(config: SuiteConfig, row: Row, task: str) -> tuple[str, ...]:
    """When the encoder is unfrozen in the runs that a row averages over."""
    times = row.unfreeze.get(task, ())
    if len(times) > 1 and config.unfreeze:
        return tuple(time for time in times if time in config.unfreeze)
    return times


def cells_of(config: SuiteConfig, table: Table, row: Row, column: str) -> list[Cell]:
    """The cells behind a row in a column (its name; `loss`; `NAME.5way-10shot`), all seeds.

    Of a row with rivals those of all rivals; probed columns have none, they select nothing.
    """
    if column in ("loss", "fusion"):
        known = MODELS[row.model].how in ("student", "reducer", "fps")
        return [Cell(row.model, column, "loss", 0)] if known else []
    name, _, episodes = column.partition(".")
    task = episodes or column_tasks(config, table)[name]
    if row.rivals and task == "probe":
        return []
    wanted = times_of(config, row, task) if task in ("classify", "segment") else ("",)
    return [
        Cell(model, name, task, seed, unfreeze, row.at_test)
        for model in (row.model, *row.rivals)
        for seed in config.seeds
        for unfreeze in wanted
    ]


def episode_name(way: int, shot: int) -> str:
    """The task of the cells of Table 3."""
    return f"{way}way-{shot}shot"


def columns_of(config: SuiteConfig, table: Table) -> Iterator[str]:
    """Columns that have cells: the loss, and names of data, with episodes for Table 3."""
    if table.loss:
        yield "loss"
    for name, task in column_tasks(config, table).items():
        if task == "fewshot":
            yield from (f"{name}.{episode_name(way, shot)}" for way, shot in EPISODES)
        elif table.columns:
            yield name
