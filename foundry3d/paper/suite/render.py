"""A table in the paper's layout, each of our figures beside the printed one, as three files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from foundry3d.config import SuiteConfig
from foundry3d.evaluation.metrics import mean_std
from foundry3d.paper.suite.cells import cells_of, column_tasks, columns_of
from foundry3d.paper.suite.tables import COLUMNS, TABLES, Row, Table
from foundry3d.writing import replacing

Rows = dict[str, dict[str, Any]]
SCORES = {
    "classify": ("oa",),
    "segment": ("miou_c", "miou_i"),
    "probe": ("svm",),
    "loss": ("loss",),
}
HEADINGS = {"miou_c": "mIoU_C", "miou_i": "mIoU_I", "loss": "Distillation loss"}
CAPTION = (
    "Scores in percent on test clouds, of the epoch that held-out training clouds choose; mean ± "
    "sample deviation over seeds and epochs of thawing (few-shot: folds, last epoch); [n/m] = n of "
    "m runs are there. In brackets what the paper printed, where it measured the same; it chose "
    "epochs on test."
)


class Shown(NamedTuple):
    """A column as it is shown.

    Attributes:
        key: in `paper_tables.csv`.
        heading: what the table prints.
        column: whose cells.
        score: key of their rows.
    """

    key: str
    heading: str
    column: str
    score: str


class Entry(NamedTuple):
    """A figure of a table.

    Attributes:
        mean: of the runs that are there; None = missing.
        std: sample deviation; None of a single value.
        runs: how many are there.
        expected: of so many.
        last: mean over the last epochs, where there are such.
        best: mean over the epochs that are best on test, likewise.
        paper: printed mean and deviation, as text.
    """

    mean: float | None
    std: float | None
    runs: int
    expected: int
    last: float | None
    best: float | None
    paper: tuple[str, str] | None


def shown_columns(config: SuiteConfig, table: Table) -> list[Shown]:
    """The columns of a table, two for part segmentation."""
    tasks, found = column_tasks(config, table), []
    for column in columns_of(config, table):
        name, _, episodes = column.partition(".")
        task = "loss" if column == "loss" else tasks[name]
        title = COLUMNS.get(name, name)
        for score in SCORES.get(task, ("oa",)):
            key = f"{column}.{score}" if task == "segment" else column
            words = {"loss": HEADINGS["loss"], "segment": f"{title} {HEADINGS.get(score)}"}
            found.append(Shown(key, words.get(task, f"{title} {episodes}".strip()), column, score))
    return found


def entry_of(config: SuiteConfig, table: Table, row: Row, shown: Shown, rows: Rows) -> Entry:
    """Our figure of a row and column from the rows of its cells, with the paper's."""
    cells = cells_of(config, table, row, shown.column)
    there = [rows[cell.name] for cell in cells if cell.name in rows]
    values = [v for r in there for v in r.get("oa_folds", [r.get(shown.score)]) if v is not None]

    def mean(suffix: str) -> float | None:
        found = [r[shown.score + suffix] for r in there if r.get(shown.score + suffix) is not None]
        return mean_std(found).mean if found and len(found) == len(there) else None

    name = shown.column.partition(".")[0]
    same = name == "loss" or column_tasks(config, table)[name] == table.task(name)
    center, spread = mean_std(values) if values else (None, None)
    return Entry(
        center,
        spread if len(values) > 1 else None,
        len(there),
        len(cells),
        mean("_last"),
        mean("_best_on_test"),
        table.paper(row.name, shown.key) if same else None,
    )


def average_of(entries: list[Entry], table: Table, row: Row) -> Entry:
    """The paper's column Avg: the plain mean over all of its columns, mIoU among accuracies."""
    means = [entry.mean for entry in entries if entry.mean is not None]
    whole = len(means) == len(entries)
    mean = mean_std(means).mean if whole else None
    return Entry(mean, None, int(whole), 1, None, None, table.paper(row.name, "avg"))


def figure(mean: str, std: str) -> str:
    """Mean and deviation as text."""
    return f"{mean} ± {std}" if std else mean


def text_of(entry: Entry, digits: int) -> str:
    """An entry as a table shows it; empty where neither we nor the paper measure."""
    if not entry.expected and entry.paper is None:
        return "-"
    ours = "missing"
    if entry.mean is not None:
        std = "" if entry.std is None else f"{entry.std:.{digits}f}"
        ours = figure(f"{entry.mean:.{digits}f}", std)
        if entry.runs < entry.expected:
            ours += f" [{entry.runs}/{entry.expected}]"
    elif not entry.expected:
        ours = "-"
    return ours if entry.paper is None else f"{ours} (paper {figure(*entry.paper)})"


class Grid(NamedTuple):
    """A table with its figures: headings, and for each row its entries in their order."""

    columns: list[Shown]
    lines: list[tuple[Row, list[Entry]]]


def grid_of(config: SuiteConfig, rows: Rows) -> Grid:
    """All figures of a table; with an average where all of the paper's columns are there."""
    table = TABLES[config.name]
    columns = shown_columns(config, table)
    scored = [shown for shown in columns if shown.column in COLUMNS]
    averaged = len(table.columns) == len(COLUMNS) == len({shown.column for shown in scored})
    lines = []
    for row in table.rows:
        entries = {shown: entry_of(config, table, row, shown, rows) for shown in columns}
        found = list(entries.values())
        if averaged:
            found.append(average_of([entries[shown] for shown in scored], table, row))
        lines.append((row, found))
    return Grid([*columns, Shown("avg", "Avg", "avg", "avg")] if averaged else columns, lines)


def texts(grid: Grid) -> Iterator[tuple[str, list[str]]]:
    """For each row its section's heading where a section starts, else nothing, and its cells."""
    section = ""
    for row, entries in grid.lines:
        heading = row.section if row.section != section else ""
        section = row.section
        shown = zip(grid.columns, entries, strict=True)
        cells = [text_of(entry, 4 if column.key == "loss" else 2) for column, entry in shown]
        yield heading, [row.title, row.frozen, *cells]


def headings(grid: Grid) -> list[str]:
    """The head of a table."""
    return ["Model", "Frozen student", *(shown.heading for shown in grid.columns)]


def markdown(title: str, grid: Grid) -> str:
    """The table as Markdown, with what its figures are."""
    head = headings(grid)
    lines = [head, ["---"] * len(head)]
    for section, cells in texts(grid):
        if section:
            lines.append([f"*{section}*", *[""] * (len(head) - 1)])
        lines.append(cells)
    body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"{title}\n\n{body}\n\n{CAPTION}\n"


def latex(title: str, grid: Grid) -> str:
    """The table as a LaTeX tabular; needs amssymb for the check mark."""
    marks = {"_": r"\_", "%": r"\%", "±": r"$\pm$", "✓": r"$\checkmark$", "✗": r"$\times$"}
    head = headings(grid)

    def line(cells: list[str]) -> str:
        return "".join(marks.get(c, c) for c in " & ".join(cells)) + r" \\"

    lines = [f"% {title}", r"\begin{tabular}{ll" + "c" * (len(head) - 2) + "}", r"\hline"]
    lines += [line(head), r"\hline"]
    for section, cells in texts(grid):
        if section:
            wide = rf"\multicolumn{{{len(head)}}}{{l}}{{\textit{{{section}}}}} \\"
            lines += [r"\hline", wide]
        lines.append(line(cells))
    return "\n".join([*lines, r"\hline", r"\end{tabular}", ""])


def csv_text(grid: Grid) -> str:
    """A line for every figure: ours with last and best-on-test epochs, and the paper's."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    fields = ["mean", "std", "runs", "expected", "mean_last", "mean_best_on_test"]
    writer.writerow(["row", "section", "title", "column", *fields, "paper_mean", "paper_std"])
    for row, entries in grid.lines:
        for shown, entry in zip(grid.columns, entries, strict=True):
            start = [row.name, row.section, row.title, shown.key]
            writer.writerow([*start, *map(_cell, entry[:6]), *(entry.paper or ("", ""))])
    return file.getvalue()


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.5g}"


def write_tables(config: SuiteConfig, rows: Rows) -> str:
    """Writes `<out>/<name>.md`, `.csv` and `.tex`; the Markdown."""
    grid, title = grid_of(config, rows), TABLES[config.name].title
    shown = markdown(title, grid)
    written = {"md": shown, "csv": csv_text(grid), "tex": latex(title, grid)}
    for suffix, content in written.items():
        with replacing(Path(config.out) / f"{config.name}.{suffix}") as partial:
            partial.write_text(content)
    return shown
