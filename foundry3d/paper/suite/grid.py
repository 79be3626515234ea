"""The numbers of a table: its columns, and for every row our results beside the printed ones."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any, NamedTuple

from foundry3d.config import SuiteConfig
from foundry3d.evaluation.metrics import mean_std
from foundry3d.paper.suite.captions import CAPTION
from foundry3d.paper.suite.cells import cells_of, column_tasks, columns_of, rows_of
from foundry3d.paper.suite.gate_results import STUDENTS, best_of, correlations, selection
from foundry3d.paper.suite.printed import printed
from foundry3d.paper.suite.records import COLUMNS, MODELS, Row, Table
from foundry3d.paper.suite.tables import table_of

Rows = dict[str, dict[str, Any]]


SCORES = {
    "classify": ("oa",),
    "segment": ("miou_c", "miou_i"),
    "probe": ("svm",),
    "loss": ("loss",),
}


HEADINGS = {"miou_c": "mIoU_C", "miou_i": "mIoU_I", "loss": "Distillation loss"}


class Shown(NamedTuple):
    """A column of a printed table.

    Attributes:
        key: in `paper_tables.csv`.
        heading: what the table prints.
        column: whose cells it shows.
        score: key of the score in the rows of these cells.
    """

    key: str
    heading: str
    column: str
    score: str


class Result(NamedTuple):
    """A number of a table.

    Attributes:
        mean: of the runs that are done; None = missing.
        std: sample standard deviation; None for a single value.
        runs: how many are done.
        expected: how many there are in total.
        last: mean over the last epochs; None where the task has none.
        best: mean over the epochs that are best on test; None where the task has none.
        paper: printed mean and deviation, as text.
        gmacs: of the models behind it, smallest and largest; None where no row has them.
        p: of a correlation.
    """

    mean: float | None
    std: float | None
    runs: int
    expected: int
    last: float | None
    best: float | None
    paper: tuple[str, str] | None
    gmacs: tuple[float, float] | None = None
    p: float | None = None


def shown_columns(config: SuiteConfig, table: Table) -> list[Shown]:
    """The columns of a table; part segmentation has two."""
    tasks, found = column_tasks(config, table), []
    for column in columns_of(config, table):
        name, _, episodes = column.partition(".")
        task = "loss" if column == "loss" else tasks[name]
        title = COLUMNS.get(name, name)
        if table.fusion:
            found += fusion_columns(config, column)
            continue
        scores = SCORES.get(task, ("oa",))
        if task == "probe" and config.as_published:
            scores = ("svm_c012",)
        for score in scores:
            key = f"{column}.{score}" if task == "segment" else column
            words = {"loss": HEADINGS["loss"], "segment": f"{title} {HEADINGS.get(score)}"}
            found.append(Shown(key, words.get(task, f"{title} {episodes}".strip()), column, score))
    return found


def fusion_columns(config: SuiteConfig, column: str) -> list[Shown]:
    """Loss and fusion ratio of the distillation's held-out clouds, or of the source `fusion`."""
    where = "held-out clouds"
    if column == "fusion":
        where = Path(config.sources[column].test).stem
    return [
        Shown(column, f"{HEADINGS['loss']}, {where}", column, "loss"),
        Shown(f"{column}.fusion_ratio", f"Fusion ratio, {where}", column, "fusion_ratio"),
    ]


def result_of(config: SuiteConfig, table: Table, row: Row, shown: Shown, rows: Rows) -> Result:
    """Our number for a row and column, from the rows of its cells, with the paper's."""
    candidates = cells_of(config, table, row, shown.column)
    cells = best_of(candidates, rows) if row.rivals else candidates
    expected = len(candidates if cells is None else cells)
    there = [rows[cell.name] for cell in cells or () if cell.name in rows]
    values = [v for r in there for v in r.get("oa_folds", [r.get(shown.score)]) if v is not None]

    def mean(suffix: str) -> float | None:
        found = [r[shown.score + suffix] for r in there if r.get(shown.score + suffix) is not None]
        return mean_std(found).mean if found and len(found) == len(there) else None

    counted = [r["gmacs"] for r in there if r.get("gmacs") is not None]
    center, std = mean_std(values) if values else (None, None)
    return Result(
        center,
        std if len(values) > 1 else None,
        len(there),
        expected,
        mean("_last"),
        mean("_best_on_test"),
        printed(config, table, row, shown.column, shown.key, there),
        (min(counted), max(counted)) if counted else None,
    )


def average_of(results: dict[Shown, Result], table: Table, row: Row) -> Result:
    """The paper's column Avg: the mean over all of its columns, accuracies and mIoU alike.

    Args:
        results: of these columns.
        table: that they stand in.
        row: of the table.
    """
    means = [result.mean for result in results.values() if result.mean is not None]
    whole = len(means) == len(results)
    mean = mean_std(means).mean if whole else None
    papers, paper = [result.paper for result in results.values()], None
    if papers == [table.paper(row.name, shown.key) for shown in results]:
        paper = table.paper(row.name, "avg")
    elif known := [float(one[0]) for one in papers if one is not None]:
        paper = (f"{statistics.mean(known):.2f}", "") if len(known) == len(papers) else None
    return Result(mean, None, int(whole), 1, None, None, paper)


class Grid(NamedTuple):
    """A table with its numbers: the columns, and the results of each row in their order."""

    columns: list[Shown]
    lines: list[tuple[Row, list[Result]]]
    caption: str = CAPTION


def correlated(table: Table, grid: Grid) -> Grid:
    """Table 12: the correlation of lambda with each column of a grid of gated students."""
    models = [MODELS[row.model] for row, _ in grid.lines]
    found = []
    for i in range(len(grid.columns)):
        done = [r[i].mean if r[i].runs == r[i].expected else None for _, r in grid.lines]
        found.append(correlations(zip(models, done, strict=True)))
    lines = []
    for name in STUDENTS:
        own = zip(grid.columns, (column[name] for column in found), strict=True)
        results = [
            Result(c.rho, None, c.n, c.of, None, None, table.paper(name, shown.key), p=c.p)
            for shown, c in own
        ]
        lines.append((Row(name, name.replace("un", "not "), ""), results))
    return grid._replace(lines=lines)


def grid_of(config: SuiteConfig, rows: Rows) -> Grid:
    """All numbers of a table, with an average if it has all of the paper's columns."""
    table = table_of(config)
    columns = shown_columns(config, table)
    scored = [shown for shown in columns if shown.column in COLUMNS]
    averaged = len(table.columns) == len(COLUMNS) == len({shown.column for shown in scored})
    averaged = averaged and not table.correlated
    lines = []
    for row in rows_of(config, table):
        results = {shown: result_of(config, table, row, shown, rows) for shown in columns}
        found = list(results.values())
        if averaged:
            found.append(average_of({shown: results[shown] for shown in scored}, table, row))
        lines.append((row, found))
    caption = (table.caption or CAPTION) + selection(config, table, rows)
    averages = [Shown("avg", "Avg", "avg", "avg")] * averaged
    grid = Grid([*columns, *averages], lines, caption)
    return correlated(table, grid) if table.correlated else grid
