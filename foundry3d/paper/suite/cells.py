"""A cell: one model, fine-tuned or probed on the data of one column with one seed.

A cell is known by its name, so that tables with the same rows share it. Its folder is
`<out>/cells/<name>`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from foundry3d.config import SuiteConfig
from foundry3d.paper.suite.tables import COLUMNS, EPISODES, MODELS, Row, Table


class Cell(NamedTuple):
    """One result.

    Attributes:
        model: in `MODELS`.
        column: name of the data; `loss` for the distillation loss.
        task: classify, segment, probe, `5way-10shot` or the like, loss.
        seed: of the run.
        thaw: start, late or never; empty where nothing is fine-tuned here.
        at_test: what is done to the fine-tuned model at test time.
    """

    model: str
    column: str
    task: str
    seed: int
    thaw: str = ""
    at_test: str = ""

    @property
    def name(self) -> str:
        """What rows and folders call it."""
        how = (f"+{self.at_test}" * bool(self.at_test)) + (f"@{self.thaw}" * bool(self.thaw))
        return f"{self.model}{how}/{self.column}/{self.task}/seed{self.seed}"

    def needs(self) -> Cell | None:
        """The cell whose fine-tuned model this one starts from."""
        if self.task not in ("classify", "segment"):
            return None
        if MODELS[self.model].how == "specialist":
            thaw = "late" if self.task == "classify" else "start"
            return self._replace(model="teacher", thaw=thaw)
        return self._replace(at_test="") if self.at_test else None


def cell_folder(config: SuiteConfig, cell: Cell) -> Path:
    """The run folder of a cell."""
    return Path(config.out) / "cells" / cell.name


def column_tasks(config: SuiteConfig, table: Table) -> dict[str, str]:
    """How each column of a suite is measured, in the paper's order, other columns last."""
    known = [name for name in COLUMNS if name in config.sources]
    others = [name for name in config.sources if name not in COLUMNS]
    return {name: config.chosen_tasks.get(name, table.task(name)) for name in known + others}


def cells_of(config: SuiteConfig, table: Table, row: Row, column: str) -> list[Cell]:
    """The cells behind a row in a column (its name; `loss`; `NAME.5way-10shot`), all seeds."""
    if column == "loss":
        known = MODELS[row.model].how in ("student", "merged", "fps")
        return [Cell(row.model, "loss", "loss", 0)] if known else []
    name, _, episodes = column.partition(".")
    task = episodes or column_tasks(config, table)[name]
    wanted = row.thaws.get(task, ()) if task in ("classify", "segment") else ("",)
    if len(wanted) > 1 and config.unfreeze:
        wanted = tuple(thaw for thaw in wanted if thaw in config.unfreeze)
    return [
        Cell(row.model, name, task, seed, thaw, row.at_test)
        for seed in config.seeds
        for thaw in wanted
    ]


def episode_name(way: int, shot: int) -> str:
    """The task of a cell of Table 3."""
    return f"{way}way-{shot}shot"


def columns_of(config: SuiteConfig, table: Table) -> Iterator[str]:
    """What cells are made for: names of data, with episodes for Table 3, and the loss."""
    if table.loss:
        yield "loss"
    for name, task in column_tasks(config, table).items():
        if task == "fewshot":
            yield from (f"{name}.{episode_name(way, shot)}" for way, shot in EPISODES)
        elif table.columns:
            yield name
