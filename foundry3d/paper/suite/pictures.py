"""Pictures of a table's cells: figures 2 and 4 of the paper, and Tables 5 and 10 over tokens."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

from foundry3d.config import SuiteConfig
from foundry3d.paper.suite.cells import cell_folder, cells_of, column_tasks
from foundry3d.paper.suite.records import MODELS, Row
from foundry3d.paper.suite.render import Grid, Result, Rows, grid_of
from foundry3d.paper.suite.tables import TABLES
from foundry3d.report.figures import Curves, curves_of, draw_lines

Panel = tuple[str, str, Curves]
Marks = dict[tuple[float, float], str]


def score_panels(
    grid: Grid, axis: str, place: Callable[[Row, list[Result]], tuple[str, float] | None]
) -> list[Panel]:
    """A panel for each column of data: the scores of the rows, where `place` puts them.

    Args:
        grid: the table.
        axis: name of the x axis.
        place: returns the curve of a row and its x; None = the row is not drawn.
    """
    panels: list[Panel] = []
    for i, shown in enumerate(grid.columns):
        if shown.key in ("loss", "avg"):
            continue
        curves = curves_of(
            (*at, score)
            for row, results in grid.lines
            if (at := place(row, results)) and (score := results[i].mean) is not None
        )
        if curves:
            panels.append((shown.heading, axis, curves))
    return panels


def losses_and_scores(config: SuiteConfig, rows: Rows) -> tuple[list[Panel], Marks]:
    """Figure 2: for each column the score of every student over its distillation loss.

    Returns:
        The panels, and a label with the number of supertokens for each point.
    """
    grid, marks = grid_of(config, rows), Marks()

    def place(row: Row, results: list[Result]) -> tuple[str, float] | None:
        loss, model = results[0].mean, MODELS[row.model]
        if loss is None:
            return None
        for result in results[1:]:
            if result.mean is not None:
                marks[loss, result.mean] = f"s = {model.tokens}"
        return ("frozen" if model.frozen else "not frozen") + ", ViT-T" * model.narrow, loss

    return score_panels(grid, "distillation loss", place), marks


def scores_over_tokens(config: SuiteConfig, rows: Rows) -> list[Panel]:
    """Tables 5 and 10: for each column the score of every section over the tokens left."""
    total = next((row["tokens"] for row in rows.values() if "tokens" in row), None)

    def place(row: Row, results: list[Result]) -> tuple[str, float] | None:
        tokens, model = tokens_left(row, total), MODELS[row.model]
        if tokens is None or "@" in row.name:
            return None
        name = (row.section or row.title) + ", frozen" * model.frozen + ", ViT-T" * model.narrow
        return name, float(tokens)

    return score_panels(grid_of(config, rows), "tokens left", place)


def tokens_left(row: Row, total: int | None) -> int | None:
    """Tokens that a row of Table 5 leaves of the `total` of a cloud; None where it is unknown."""
    if row.at_test:
        return int(row.at_test.rpartition("-")[2])
    model = MODELS[row.model]
    whole = model.how == "teacher" or model.student.get("kind") == "truncated"
    return total if whole else model.tokens


def validation_curves(config: SuiteConfig, rows: Rows) -> list[Panel]:
    """Figure 4: held-out accuracy over the steps of fine-tuning, the first seed of each row."""
    table, panels = TABLES[config.name], []
    for column, task in column_tasks(config, table).items():
        curves: Curves = {}
        for row in table.rows:
            cells = [c for c in cells_of(config, table, row, column) if c.name in rows]
            if cells and task == "classify":
                curves[row.title] = logged(cell_folder(config, cells[0]), "validation_oa")
        if any(xs for xs, _ in curves.values()):
            panels.append((column, "step", curves))
    return panels


def logged(folder: Path, key: str) -> tuple[list[float], list[float]]:
    """Steps and values of a metric of a run, over all of its starts."""
    found: dict[int, float] = {}
    for path in sorted(folder.glob("metrics/version_*/metrics.csv")):
        for line in csv.DictReader(path.read_text().splitlines()):
            if line.get(key):
                found[int(line["step"])] = float(line[key])
    steps = sorted(found)
    return [float(step) for step in steps], [found[step] for step in steps]


def draw(config: SuiteConfig, rows: Rows) -> None:
    """Writes `<out>/<name>.png` for figures 2 and 4 and Tables 5 and 10, if there are results."""
    panels: list[Panel] = []
    marks: Marks = {}
    if config.name == "figure2":
        panels, marks = losses_and_scores(config, rows)
    elif config.name == "figure4":
        panels = validation_curves(config, rows)
    elif config.name in ("table5", "table10"):
        panels = scores_over_tokens(config, rows)
    if panels:
        path, title = Path(config.out) / f"{config.name}.png", TABLES[config.name].title
        ticks = config.name.startswith("table")
        draw_lines(path, panels, title=title, y="score (%)", ticks=ticks, marks=marks)
