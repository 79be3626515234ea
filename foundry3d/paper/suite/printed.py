"""Where a printed number of the paper stands next to ours: only where it measured the same."""

from __future__ import annotations

import statistics
from typing import Any

from foundry3d.config import RECIPES, SuiteConfig, to_dict
from foundry3d.config.protocols import dotted
from foundry3d.config.settings import read_yaml
from foundry3d.paper.suite.cells import column_tasks, times_of
from foundry3d.paper.suite.records import Row, Table, paper_figures

TEACHER = {"groups": 64, "group_size": 32, "dim": 384, "depth": 12, "heads": 6}
"""Sizes of the paper's teacher, ViT-S of 64 tokens of 32 points."""

FREE = ("data.train", "data.test", "student.supertokens", "frozen", "unfreeze_epoch")
"""Settings of `paper/distill` that rows of a table change, or that name places on this machine."""


def is_table_15(config: SuiteConfig) -> bool:
    """Whether the suite distils as published: `paper/distill` in all settings that it names."""
    own = dict(dotted(to_dict(config.distill)))
    published = dotted(read_yaml(RECIPES / "paper" / "distill.yaml"))
    return all(own[name] == value for name, value in published if name not in FREE)


def is_papers_loss(config: SuiteConfig, row: dict[str, Any]) -> bool:
    """Whether a loss is of a teacher of the paper's sizes, distilled as published on ShapeNet55."""
    sizes = row.get("teacher_sizes") or {}
    right = all(sizes.get(name) == value for name, value in TEACHER.items())
    data = row.get("distilled_on") == "shapenet55 train"
    return right and data and config.as_published and is_table_15(config)


def printed(
    config: SuiteConfig, table: Table, row: Row, column: str, key: str, there: list[dict[str, Any]]
) -> tuple[str, str] | None:
    """The paper's mean and deviation, as text, for a row and column; None = it measured otherwise.

    A loss is compared only where teacher, data and settings are the paper's; a score where the
    column is measured as in the paper, on other clouds than the built-in ones. Where `unfreeze`
    leaves times out, the paper's number is the mean over those that are left.

    Args:
        config: of the suite.
        table: that the number stands in.
        row: of the table.
        column: whose cells it shows.
        key: of the number in `paper_tables.csv`.
        there: result rows of the cells.
    """
    if column == "loss":
        same = bool(there) and all(is_papers_loss(config, found) for found in there)
        return table.paper(row.name, key) if same else None
    name = column.partition(".")[0]
    task = column_tasks(config, table)[name]
    if task != table.task(name) or config.sources[name].train == "procedural":
        return None
    times, chosen = row.unfreeze.get(task, ()), times_of(config, row, task)
    if chosen == times:
        return table.paper(row.name, key)
    found = [paper_figures().get(("10", f"{row.name}@{time}", key)) for time in chosen]
    values = [float(one[0]) for one in found if one is not None]
    if not values or len(values) < len(chosen):
        return None
    std = f"{statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}", std
