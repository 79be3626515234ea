"""Pictures of a table's cells: figures 2 and 4 of the paper, and Tables 5 and 10 over tokens."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Iterable
from pathlib import Path

from scipy.stats import spearmanr

from foundry3d.config import SuiteConfig
from foundry3d.paper.suite.cells import cell_folder, cells_of, column_tasks, rows_of
from foundry3d.paper.suite.grid import Rows, grid_of
from foundry3d.paper.suite.records import COLUMNS, MODELS, Row
from foundry3d.paper.suite.tables import table_of
from foundry3d.report.figures import Curves, Level, Panel, draw_lines
from foundry3d.report.scatter import Mark, draw_scatter

SUPERTOKENS = ("s = 1", "s = 2", "s = 4", "s = 8", "s = 16")


def training_of(row: Row) -> str:
    """How the encoder of a row's student was trained in distillation."""
    model = MODELS[row.model]
    return ("frozen" if model.stays_frozen else "not frozen") + ", ViT-T" * model.narrow


def losses_and_scores(config: SuiteConfig, rows: Rows) -> list[Mark]:
    """Figure 2: the score of every student over its distillation loss, in each column.

    The shape of a mark is the column, its colour whether the encoder was frozen in distillation,
    its size the number of supertokens.
    """
    grid = grid_of(config, rows)
    place = [shown.key for shown in grid.columns].index("loss")
    return [
        Mark(
            loss,
            score,
            shown.heading,
            training_of(row),
            f"s = {MODELS[row.model].tokens}",
            results[i].std,
        )
        for i, shown in enumerate(grid.columns)
        if shown.key not in ("loss", "avg")
        for row, results in grid.lines
        if (loss := results[place].mean) is not None and (score := results[i].mean) is not None
    ]


def rank_correlation(marks: Iterable[Mark]) -> str:
    """Spearman's rho of loss and score, and the number of marks, as text."""
    found = list(marks)
    xs, ys = [mark.x for mark in found], [mark.y for mark in found]
    if len(set(xs)) < 2 or len(set(ys)) < 2:
        return f"n = {len(found)}"
    return rf"$\rho = {float(spearmanr(xs, ys).statistic):.2f}$, n = {len(found)}"


def with_correlations(marks: list[Mark]) -> list[Mark]:
    """Marks whose shapes are named by column and its rank correlation."""
    names = dict.fromkeys(mark.shape for mark in marks)
    texts = {
        name: f"{name}: {rank_correlation(m for m in marks if m.shape == name)}" for name in names
    }
    return [mark._replace(shape=texts[mark.shape]) for mark in marks]


def loss_axis(rows: Rows) -> str:
    """Name of the loss axis, with the clouds that it was measured on."""
    splits = {row["split"] for row in rows.values() if "split" in row}
    return f"distillation loss ({', '.join(['Smooth L1', *sorted(splits)])})"


def score_axis(config: SuiteConfig) -> str:
    """Name of the axis of scores."""
    tasks = set(column_tasks(config, table_of(config)).values())
    names = ["accuracy"] * bool(tasks - {"segment"}) + ["mIoU"] * ("segment" in tasks)
    return f"test {' or '.join(names)} (%)"


def tokens_left(row: Row, total: int | None) -> int | None:
    """Tokens that a row of Table 5 leaves of the `total` of a cloud; None where it is unknown."""
    if row.at_test:
        return int(row.at_test.rpartition("-")[2])
    model = MODELS[row.model]
    whole = model.how == "teacher" or model.student.get("kind") == "truncated"
    return total if whole else model.tokens


def scores_over_tokens(config: SuiteConfig, rows: Rows) -> list[Panel]:
    """Tables 5 and 10: for each column the score of every section over the tokens left.

    The teacher, which reads all tokens, is a horizontal line.
    """
    total = next((row["tokens"] for row in rows.values() if "tokens" in row), None)
    grid = grid_of(config, rows)
    panels: list[Panel] = []
    for i, shown in enumerate(grid.columns):
        if shown.key in ("loss", "avg"):
            continue
        curves: Curves = {}
        errors: dict[str, list[float | None]] = {}
        levels: dict[str, Level] = {}
        for row, results in grid.lines:
            tokens, model, result = tokens_left(row, total), MODELS[row.model], results[i]
            if result.mean is None or "@" in row.name:
                continue
            section = row.section or row.title
            if model.how == "teacher" and not row.at_test:
                name = "teacher" if total is None else f"teacher, {total} tokens"
                levels[name] = Level(result.mean, result.std)
                continue
            if tokens is None:
                continue
            name = section + ", frozen" * model.stays_frozen + ", ViT-T" * model.narrow
            xs, ys = curves.setdefault(name, ([], []))
            xs.append(float(tokens))
            ys.append(result.mean)
            errors.setdefault(name, []).append(result.std)
        if curves or levels:
            panels.append(Panel(shown.heading, "tokens left per cloud", curves, errors, levels))
    return panels


def validation_curves(config: SuiteConfig, rows: Rows) -> list[Panel]:
    """Figure 4: held-out accuracy over the epochs of fine-tuning, mean and deviation over seeds."""
    table = table_of(config)
    panels: list[Panel] = []
    for column, task in column_tasks(config, table).items():
        curves: Curves = {}
        errors: dict[str, list[float | None]] = {}
        for row in rows_of(config, table) if task == "classify" else ():
            cells = [c for c in cells_of(config, table, row, column) if c.name in rows]
            runs = [logged(cell_folder(config, c), "validation_oa") for c in cells]
            epochs = sorted(set.intersection(*(set(run) for run in runs)) if runs else ())
            if epochs:
                values = [[run[epoch] for run in runs] for epoch in epochs]
                means = [statistics.mean(found) for found in values]
                curves[row.title] = ([float(epoch) for epoch in epochs], means)
                if len(runs) > 1:
                    errors[row.title] = [statistics.stdev(found) for found in values]
        if curves:
            panels.append(Panel(COLUMNS.get(column, column), "epoch", curves, errors))
    return panels


def logged(folder: Path, key: str) -> dict[int, float]:
    """Values of a metric of a run by epoch, the first epoch 1, over all starts of the run."""
    found: dict[int, float] = {}
    for path in sorted(folder.glob("metrics/version_*/metrics.csv")):
        for line in csv.DictReader(path.read_text().splitlines()):
            if line.get(key):
                found[int(line["epoch"]) + 1] = float(line[key])
    return found


def draw(config: SuiteConfig, rows: Rows) -> None:
    """Writes `<out>/<name>.png` and `.svg` of figures 2 and 4 and Tables 5 and 10.

    Nothing is written where there are no results.
    """
    title = table_of(config).title
    for suffix in ("png", "svg"):
        path = Path(config.out) / f"{config.name}.{suffix}"
        if config.name == "figure2":
            marks = with_correlations(losses_and_scores(config, rows))
            if marks:
                draw_scatter(
                    path,
                    marks,
                    title=title,
                    x=loss_axis(rows),
                    y=score_axis(config),
                    sizes=SUPERTOKENS,
                    headings=("data, Spearman's rank correlation", "encoder", "supertokens"),
                )
        elif config.name == "figure4":
            panels = validation_curves(config, rows)
            if panels:
                draw_lines(path, panels, title=title, y="validation accuracy (%)", ticks=False)
        elif config.name in ("table5", "table10"):
            panels = scores_over_tokens(config, rows)
            if panels:
                draw_lines(path, panels, title=title, y=score_axis(config))
