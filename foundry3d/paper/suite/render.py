"""A table in the paper's layout, our numbers next to the printed ones, written to three files."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from foundry3d.config import SuiteConfig
from foundry3d.evaluation.metrics import mean_std
from foundry3d.paper.suite.captions import CAPTION, caption_of
from foundry3d.paper.suite.cells import Cell, cells_of, column_tasks, columns_of, rows_of
from foundry3d.paper.suite.printed import printed
from foundry3d.paper.suite.records import COLUMNS, Row, Table, recipe_of
from foundry3d.paper.suite.tables import TABLES
from foundry3d.writing import replacing

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
    """

    mean: float | None
    std: float | None
    runs: int
    expected: int
    last: float | None
    best: float | None
    paper: tuple[str, str] | None
    gmacs: tuple[float, float] | None = None


def shown_columns(config: SuiteConfig, table: Table) -> list[Shown]:
    """The columns of a table; part segmentation has two."""
    tasks, found = column_tasks(config, table), []
    for column in columns_of(config, table):
        name, _, episodes = column.partition(".")
        task = "loss" if column == "loss" else tasks[name]
        title = COLUMNS.get(name, name)
        scores = SCORES.get(task, ("oa",))
        if task == "probe" and config.as_published:
            scores = ("svm_c012",)
        for score in scores:
            key = f"{column}.{score}" if task == "segment" else column
            words = {"loss": HEADINGS["loss"], "segment": f"{title} {HEADINGS.get(score)}"}
            found.append(Shown(key, words.get(task, f"{title} {episodes}".strip()), column, score))
    return found


def result_of(config: SuiteConfig, table: Table, row: Row, shown: Shown, rows: Rows) -> Result:
    """Our number for a row and column, from the rows of its cells, with the paper's."""
    cells = cells_of(config, table, row, shown.column)
    there = [rows[cell.name] for cell in cells if cell.name in rows]
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
        len(cells),
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


def with_std(mean: str, std: str) -> str:
    """Mean and deviation as text."""
    return f"{mean} ± {std}" if std else mean


def text_of(result: Result, digits: int) -> str:
    """A result as text; "-" where neither we nor the paper measure."""
    if not result.expected and result.paper is None:
        return "-"
    ours = "missing"
    if result.mean is not None:
        std = "" if result.std is None else f"{result.std:.{digits}f}"
        ours = with_std(f"{result.mean:.{digits}f}", std)
        if result.runs < result.expected:
            ours += f" [{result.runs}/{result.expected}]"
    elif not result.expected:
        ours = "-"
    return ours if result.paper is None else f"{ours} (paper {with_std(*result.paper)})"


class Grid(NamedTuple):
    """A table with its numbers: the columns, and the results of each row in their order."""

    columns: list[Shown]
    lines: list[tuple[Row, list[Result]]]


def grid_of(config: SuiteConfig, rows: Rows) -> Grid:
    """All numbers of a table, with an average if it has all of the paper's columns."""
    table = TABLES[config.name]
    columns = shown_columns(config, table)
    scored = [shown for shown in columns if shown.column in COLUMNS]
    averaged = len(table.columns) == len(COLUMNS) == len({shown.column for shown in scored})
    lines = []
    for row in rows_of(config, table):
        results = {shown: result_of(config, table, row, shown, rows) for shown in columns}
        found = list(results.values())
        if averaged:
            found.append(average_of({shown: results[shown] for shown in scored}, table, row))
        lines.append((row, found))
    return Grid([*columns, Shown("avg", "Avg", "avg", "avg")] if averaged else columns, lines)


def gmacs_text(results: list[Result]) -> str:
    """GMACs of a row's models; a range where its columns have different numbers of tokens."""
    counted = sorted(value for result in results if result.gmacs for value in result.gmacs)
    return "-".join(dict.fromkeys(f"{value:.3g}" for value in counted[:1] + counted[-1:])) or "-"


def texts(grid: Grid) -> Iterator[tuple[str, list[str]]]:
    """For each row the heading of its section, empty unless a section starts, and its texts."""
    section = ""
    for row, results in grid.lines:
        heading = row.section if row.section != section else ""
        section = row.section
        shown = zip(grid.columns, results, strict=True)
        words = [text_of(result, 4 if column.key == "loss" else 2) for column, result in shown]
        yield heading, [row.title, row.frozen, gmacs_text(results), *words]


def headings(grid: Grid) -> list[str]:
    """The headings of a printed table."""
    return ["Model", "Frozen student", "GMACs", *(shown.heading for shown in grid.columns)]


def markdown(title: str, grid: Grid, caption: str = CAPTION) -> str:
    """The table as Markdown, with a caption."""
    head = headings(grid)
    lines = [head, ["---"] * len(head)]
    for section, words in texts(grid):
        if section:
            lines.append([f"*{section}*", *[""] * (len(head) - 1)])
        lines.append(words)
    body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"{title}\n\n{body}\n\n{caption}\n"


def escaped(text: str) -> str:
    """Text for LaTeX."""
    marks = {"±": r"$\pm$", "✓": r"$\checkmark$", "✗": r"$\times$", "%": r"\%", "_": r"\_"}
    marks |= {"&": r"\&", "#": r"\#", "λ": r"$\lambda$"}
    return "".join(marks.get(letter, letter) for letter in text)


def latex(name: str, title: str, grid: Grid, caption: str = CAPTION) -> str:
    """The table as LaTeX with the label `tab:NAME`; needs the packages amssymb and graphicx."""
    head = headings(grid)

    def line(words: list[str]) -> str:
        return " & ".join(map(escaped, words)) + r" \\"

    kind = "table*" if len(head) > 5 else "table"
    number, _, what = title.partition(": ")
    below = escaped(f"{what[:1].upper()}{what[1:]} ({number} of the paper). {caption}")
    lines = ["% needs amssymb and graphicx", rf"\begin{{{kind}}}[t]", r"\centering"]
    lines += [rf"\caption{{{below}}}", rf"\label{{tab:{name}}}"]
    lines += [r"\resizebox{\linewidth}{!}{%", r"\begin{tabular}{ll" + "c" * (len(head) - 2) + "}"]
    lines += [r"\hline", line(head), r"\hline"]
    for section, words in texts(grid):
        if section:
            wide = rf"\multicolumn{{{len(head)}}}{{l}}{{\textit{{{escaped(section)}}}}} \\"
            lines += [r"\hline", wide]
        lines.append(line(words))
    return "\n".join([*lines, r"\hline", r"\end{tabular}}", rf"\end{{{kind}}}", ""])


def csv_text(grid: Grid) -> str:
    """A line for every number: ours with last and best-on-test epochs, and the paper's."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    fields = ["mean", "std", "runs", "expected", "mean_last", "mean_best_on_test"]
    ends = ["paper_mean", "paper_std", "gmacs_min", "gmacs_max"]
    writer.writerow(["row", "section", "title", "column", *fields, *ends])
    for row, results in grid.lines:
        for shown, result in zip(grid.columns, results, strict=True):
            start = [row.name, row.section, row.title, shown.key]
            end = [*(result.paper or ("", "")), *map(_number, result.gmacs or (None, None))]
            writer.writerow([*start, *map(_number, result[:6]), *end])
    return file.getvalue()


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.5g}"


def origins(config: SuiteConfig, rows: Rows) -> str:
    """On what the models of a table were pre-trained and distilled, for its caption."""
    table = TABLES[config.name]
    columns = list(columns_of(config, table))
    cells = (c for row in table.rows for col in columns for c in cells_of(config, table, row, col))
    done = [cell for cell in cells if cell.name in rows]
    taught = [cell for cell in done if recipe_of(cell.model) == "distill"]

    def names(some: list[Cell], key: str) -> str:
        found = {rows[cell.name].get(key) or "data that is not recorded" for cell in some}
        return ", ".join(sorted(found))

    parts = [f"teacher pre-trained on {names(done, 'pretrained_on')}"] * bool(done)
    parts += [f"students distilled on {names(taught, 'distilled_on')}"] * bool(taught)
    return f"Data: {'; '.join(parts)}." if parts else ""


def write_tables(config: SuiteConfig, rows: Rows) -> str:
    """Writes `<out>/<name>.md`, `.csv` and `.tex`; returns the Markdown."""
    grid, title = grid_of(config, rows), TABLES[config.name].title
    compared = any(result.paper for _, results in grid.lines for result in results)
    made_on = origins(config, rows)
    caption = " ".join(filter(None, [caption_of(config, compared=compared), made_on]))
    shown = markdown(title, grid, caption)
    named = latex(config.name, title, grid, caption)
    written = {"md": shown, "csv": csv_text(grid), "tex": named}
    for suffix, content in written.items():
        with replacing(Path(config.out) / f"{config.name}.{suffix}") as partial:
            partial.write_text(content)
    return shown
