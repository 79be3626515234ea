"""A table in the paper's layout, our numbers next to the printed ones, written to three files."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

from foundry3d.config import SuiteConfig
from foundry3d.paper.suite.captions import CAPTION, caption_of
from foundry3d.paper.suite.cells import Cell, cells_of, columns_of
from foundry3d.paper.suite.grid import Grid, Result, Rows, Shown, grid_of
from foundry3d.paper.suite.records import recipe_of
from foundry3d.paper.suite.tables import table_of
from foundry3d.writing import replacing


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
        words = [text_of(result, digits_of(column, result)) for column, result in shown]
        yield heading, [row.title, row.frozen, gmacs_text(results), *words]


def digits_of(shown: Shown, result: Result) -> int:
    """Decimals of a number: losses, shares and correlations have four."""
    small = shown.score in ("loss", "fusion_ratio") or result.p is not None
    return 4 if small else 2


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
    text = "".join(marks.get(letter, letter) for letter in text)
    return re.sub(r"10\^(-[\d.]+)", r"$10^{\1}$", text)


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
    ends = ["paper_mean", "paper_std", "gmacs_min", "gmacs_max", "p"]
    writer.writerow(["row", "section", "title", "column", *fields, *ends])
    for row, results in grid.lines:
        for shown, result in zip(grid.columns, results, strict=True):
            start = [row.name, row.section, row.title, shown.key]
            end = [*(result.paper or ("", "")), *map(_number, result.gmacs or (None, None))]
            writer.writerow([*start, *map(_number, result[:6]), *end, _number(result.p)])
    return file.getvalue()


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.5g}"


def origins(config: SuiteConfig, rows: Rows) -> str:
    """On what the models of a table were pre-trained and distilled, for its caption."""
    table = table_of(config)
    columns = list(columns_of(config, table))
    cells = (c for row in table.rows for col in columns for c in cells_of(config, table, row, col))
    done = [cell for cell in cells if cell.name in rows]
    taught = [
        cell
        for cell in done
        if recipe_of(cell.model) == "distill" and cell.model != "fps-student-all"
    ]  # of which nothing trains

    def names(some: list[Cell], key: str) -> str:
        found = {rows[cell.name].get(key) or "data that is not recorded" for cell in some}
        return ", ".join(sorted(found))

    parts = [f"teacher pre-trained on {names(done, 'pretrained_on')}"] * bool(done)
    parts += [f"students distilled on {names(taught, 'distilled_on')}"] * bool(taught)
    return f"Data: {'; '.join(parts)}." if parts else ""


def write_tables(config: SuiteConfig, rows: Rows) -> str:
    """Writes `<out>/<name>.md`, `.csv` and `.tex`; returns the Markdown."""
    grid, title = grid_of(config, rows), table_of(config).title
    compared = any(result.paper for _, results in grid.lines for result in results)
    made_on = origins(config, rows)
    caption = " ".join([caption_of(config, compared=compared, measured=grid.caption), made_on])
    shown = markdown(title, grid, caption.strip())
    named = latex(config.name, title, grid, caption.strip())
    written = {"md": shown, "csv": csv_text(grid), "tex": named}
    for suffix, content in written.items():
        with replacing(Path(config.out) / f"{config.name}.{suffix}") as partial:
            partial.write_text(content)
    return shown
