"""A table in the paper's layout, our numbers next to the printed ones, written to three files."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from foundry3d.config import SuiteConfig
from foundry3d.evaluation.metrics import mean_std
from foundry3d.paper.suite.cells import cells_of, column_tasks, columns_of
from foundry3d.paper.suite.gate_results import STUDENTS, best_of, correlations, selection
from foundry3d.paper.suite.records import COLUMNS, MODELS, Row, Table
from foundry3d.paper.suite.tables import table_of
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
    "Scores in percent on test clouds, at the epoch selected on held-out training clouds; mean ± "
    "sample standard deviation over seeds and times of unfreezing (few-shot: folds, last epoch); "
    "[n/m] = n of m runs are done. In parentheses the paper's number, where it measured the same; "
    "the paper selected epochs on test."
)


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
        p: of a correlation.
    """

    mean: float | None
    std: float | None
    runs: int
    expected: int
    last: float | None
    best: float | None
    paper: tuple[str, str] | None
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
        for score in SCORES.get(task, ("oa",)):
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

    name = shown.column.partition(".")[0]
    same = name == "loss" or column_tasks(config, table)[name] == table.task(name)
    center, std = mean_std(values) if values else (None, None)
    return Result(
        center,
        std if len(values) > 1 else None,
        len(there),
        expected,
        mean("_last"),
        mean("_best_on_test"),
        table.paper(row.name, shown.key) if same else None,
    )


def average_of(results: list[Result], table: Table, row: Row) -> Result:
    """The paper's column Avg: the mean over all of its columns, accuracies and mIoU alike."""
    means = [result.mean for result in results if result.mean is not None]
    whole = len(means) == len(results)
    mean = mean_std(means).mean if whole else None
    return Result(mean, None, int(whole), 1, None, None, table.paper(row.name, "avg"))


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
        if result.p is not None:
            ours += f" [n = {result.runs}, p = {result.p:.2g}]"
        elif result.runs < result.expected:
            ours += f" [{result.runs}/{result.expected}]"
    elif not result.expected:
        ours = "-"
    return ours if result.paper is None else f"{ours} (paper {with_std(*result.paper)})"


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
            Result(c.rho, None, c.n, c.of, None, None, table.paper(name, shown.key), c.p)
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
    for row in table.rows:
        results = {shown: result_of(config, table, row, shown, rows) for shown in columns}
        found = list(results.values())
        if averaged:
            found.append(average_of([results[shown] for shown in scored], table, row))
        lines.append((row, found))
    caption = (table.caption or CAPTION) + selection(config, table, rows)
    averages = [Shown("avg", "Avg", "avg", "avg")] * averaged
    grid = Grid([*columns, *averages], lines, caption)
    return correlated(table, grid) if table.correlated else grid


def texts(grid: Grid) -> Iterator[tuple[str, list[str]]]:
    """For each row the heading of its section, empty unless a section starts, and its texts."""
    section = ""
    for row, results in grid.lines:
        heading = row.section if row.section != section else ""
        section = row.section
        shown = zip(grid.columns, results, strict=True)
        words = [text_of(result, digits_of(column, result)) for column, result in shown]
        yield heading, [row.title, row.frozen, *words]


def digits_of(shown: Shown, result: Result) -> int:
    """Decimals of a number: losses, shares and correlations have four."""
    small = shown.score in ("loss", "fusion_ratio") or result.p is not None
    return 4 if small else 2


def headings(grid: Grid) -> list[str]:
    """The headings of a printed table."""
    return ["Model", "Frozen student", *(shown.heading for shown in grid.columns)]


def markdown(title: str, grid: Grid) -> str:
    """The table as Markdown, with a caption."""
    head = headings(grid)
    lines = [head, ["---"] * len(head)]
    for section, words in texts(grid):
        if section:
            lines.append([f"*{section}*", *[""] * (len(head) - 1)])
        lines.append(words)
    body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"{title}\n\n{body}\n\n{grid.caption}\n"


def latex(title: str, grid: Grid) -> str:
    """The table as a LaTeX tabular; needs amssymb for the check mark."""
    marks = {"_": r"\_", "%": r"\%", "±": r"$\pm$", "✓": r"$\checkmark$", "✗": r"$\times$"}
    marks |= {"λ": r"$\lambda$"}
    head = headings(grid)

    def line(words: list[str]) -> str:
        text = "".join(marks.get(c, c) for c in " & ".join(words)) + r" \\"
        return re.sub(r"10\^(-[\d.]+)", r"$10^{\1}$", text)

    lines = [f"% {title}", r"\begin{tabular}{ll" + "c" * (len(head) - 2) + "}", r"\hline"]
    lines += [line(head), r"\hline"]
    for section, words in texts(grid):
        if section:
            wide = rf"\multicolumn{{{len(head)}}}{{l}}{{\textit{{{section}}}}} \\"
            lines += [r"\hline", wide]
        lines.append(line(words))
    return "\n".join([*lines, r"\hline", r"\end{tabular}", ""])


def csv_text(grid: Grid) -> str:
    """A line for every number: ours with last and best-on-test epochs, and the paper's."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    fields = ["mean", "std", "runs", "expected", "mean_last", "mean_best_on_test"]
    fields += ["paper_mean", "paper_std", "p"]
    writer.writerow(["row", "section", "title", "column", *fields])
    for row, results in grid.lines:
        for shown, result in zip(grid.columns, results, strict=True):
            start = [row.name, row.section, row.title, shown.key]
            paper = result.paper or ("", "")
            writer.writerow([*start, *map(_number, result[:6]), *paper, _number(result.p)])
    return file.getvalue()


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.5g}"


def write_tables(config: SuiteConfig, rows: Rows) -> str:
    """Writes `<out>/<name>.md`, `.csv` and `.tex`; returns the Markdown."""
    grid, title = grid_of(config, rows), table_of(config).title
    shown = markdown(title, grid)
    written = {"md": shown, "csv": csv_text(grid), "tex": latex(title, grid)}
    for suffix, content in written.items():
        with replacing(Path(config.out) / f"{config.name}.{suffix}") as partial:
            partial.write_text(content)
    return shown
