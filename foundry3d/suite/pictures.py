"""Pictures of a table's cells: figures 2 and 4 of the paper, and Tables 5 and 10 over tokens."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from foundry3d.config import SuiteConfig
from foundry3d.figures import Curves, draw_lines
from foundry3d.suite.cells import cell_folder, cells_of, column_tasks
from foundry3d.suite.render import Rows, grid_of
from foundry3d.suite.tables import MODELS, TABLES, Row

Panel = tuple[str, str, Curves]
Marks = dict[tuple[float, float], str]


def losses_and_scores(config: SuiteConfig, rows: Rows) -> tuple[list[Panel], Marks]:
    """Figure 2: for each column the score of every student over its distillation loss.

    Returns:
        The panels, and the number of supertokens beside each point.
    """
    grid = grid_of(config, rows)
    panels: list[Panel] = []
    marks: Marks = {}
    for i, shown in enumerate(grid.columns[1:], 1):
        curves: Curves = {}
        for row, entries in grid.lines:
            loss, score = entries[0].mean, entries[i].mean
            if loss is not None and score is not None and shown.key != "avg":
                kind = {"✓": "frozen", "✗": "not frozen"}[row.frozen]
                xs, ys = curves.setdefault(kind + ", ViT-T" * ("ViT-T" in row.title), ([], []))
                xs.append(loss)
                ys.append(score)
                marks[loss, score] = f"s = {MODELS[row.model].tokens}"
        if curves:
            panels.append((shown.heading, "distillation loss", curves))
    return panels, marks


def scores_over_tokens(config: SuiteConfig, rows: Rows) -> list[Panel]:
    """Tables 5 and 10: for each column the score of every section over the tokens left."""
    grid, table = grid_of(config, rows), TABLES[config.name]
    panels: list[Panel] = []
    for i, shown in enumerate(grid.columns):
        curves: Curves = {}
        for row, entries in grid.lines:
            score = entries[i].mean
            cells = [c for c in cells_of(config, table, row, shown.column) if c.name in rows]
            if score is None or not cells or shown.column == "loss" or "@" in row.name:
                continue
            tokens = tokens_left(row, rows[cells[0].name])
            if tokens is None:
                continue
            words = [row.section or row.title]
            words += ["frozen"] * (row.frozen == "✓") + ["ViT-T"] * ("ViT-T" in row.title)
            xs, ys = curves.setdefault(", ".join(words), ([], []))
            xs.append(float(tokens))
            ys.append(score)
        if curves:
            panels.append((shown.heading, "tokens left", curves))
    return panels


def tokens_left(row: Row, result: dict[str, Any]) -> int | None:
    """Tokens that a row of Table 5 leaves: of its model, of what is done at test, or all.

    Args:
        row: of the table.
        result: of one of its cells, whose `tokens` are a teacher's; None where it has none.
    """
    if row.at_test:
        return int(row.at_test.rpartition("-")[2])
    model = MODELS[row.model]
    return result.get("tokens") if model.how == "teacher" else model.tokens


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
    """Steps and values of a metric of a run, all of its starts together."""
    found: dict[int, float] = {}
    for path in sorted(folder.glob("metrics/version_*/metrics.csv")):
        for line in csv.DictReader(path.read_text().splitlines()):
            if line.get(key):
                found[int(line["step"])] = float(line[key])
    steps = sorted(found)
    return [float(step) for step in steps], [found[step] for step in steps]


def draw(config: SuiteConfig, rows: Rows) -> None:
    """Writes `<out>/<name>.png` for figures 2 and 4 and Tables 5 and 10, where there are cells."""
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
