"""Pictures of the gate's tables: Figures 3 and 7 over budgets, 5 and 6 over lambda."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from foundry3d.config import SuiteConfig
from foundry3d.paper.suite.grid import HEADINGS, Grid, Rows, Shown, grid_of
from foundry3d.paper.suite.records import MODELS, Model
from foundry3d.paper.suite.tables import table_of
from foundry3d.report.error_bars import Panel, Point, draw_panels

LAMBDA = "λ of the gate"
ZOOM = (1e-12, 1e-10)
"""Where the fusion ratio rises (right half of Figure 6)."""
Curves = dict[str, list[Point]]


def kind_name(model: Model) -> str:
    """The curve of a gated student in pictures over lambda."""
    return ("frozen" if model.stays_frozen else "not frozen") + ", gate decay" * model.gate_decay


def over_lambda(grid: Grid, index: int) -> Curves:
    """A column of a grid of gated students over lambda: a curve for each kind of student."""
    curves: Curves = {}
    for row, results in grid.lines:
        model, result = MODELS[row.model], results[index]
        if model.gate_lambda is not None and result.mean is not None:
            point = Point(model.gate_lambda, result.mean, result.std)
            curves.setdefault(kind_name(model), []).append(point)
    return curves


def score_axis(shown: Shown) -> str:
    """Name of the y axis of a column of scores."""
    name = {"oa": "accuracy", "svm": "probe accuracy"}.get(shown.score)
    return f"test {name or HEADINGS[shown.score]} (%)"


def scores_over_lambda(grid: Grid) -> list[Panel]:
    """Figure 5: a panel for each column of data."""
    return [
        Panel(shown.heading, LAMBDA, score_axis(shown), curves, decades=True)
        for i, shown in enumerate(grid.columns)
        if shown.key != "avg" and (curves := over_lambda(grid, i))
    ]


def losses_over_lambda(grid: Grid) -> list[Panel]:
    """Figure 6: losses and fusion ratios over all lambdas, then where the fusion ratio rises."""
    names = {"loss": "Smooth L1 loss", "fusion_ratio": "share of tokens merged"}
    panels = [
        Panel(shown.heading, LAMBDA, names[shown.score], curves, decades=True)
        for i, shown in enumerate(grid.columns)
        if (curves := over_lambda(grid, i))
    ]
    return [*panels, *(part for panel in panels if (part := zoomed(panel)).curves)]


def zoomed(panel: Panel) -> Panel:
    """The part of a panel in `ZOOM`, without curves of a single point."""
    low, high = ZOOM[0] * 0.999, ZOOM[1] * 1.001
    inside = {
        name: [point for point in curve if low <= point.x <= high]
        for name, curve in panel.curves.items()
    }
    curves = {name: curve for name, curve in inside.items() if len(curve) > 1}
    return panel._replace(heading=f"{panel.heading}: the rise", curves=curves)


def scores_over_budgets(grid: Grid) -> list[Panel]:
    """Figures 3 and 7: a curve for each column of data, over token budgets and over ratios."""
    axes = {"budget": "token budget b", "ratio": "fusion ratio threshold r"}
    curves: dict[str, Curves] = {method: {} for method in axes}
    for row, results in grid.lines:
        method, _, value = row.at_test.rpartition("-")
        for shown, result in zip(grid.columns, results, strict=True):
            if shown.key != "avg" and result.mean is not None:
                point = Point(float(value), result.mean, result.std)
                curves[method].setdefault(shown.heading, []).append(point)
    names = " or ".join(dict.fromkeys(_kinds(grid)))
    return [
        Panel("", axis, f"test {names} (%)", curves[method])
        for method, axis in axes.items()
        if curves[method]
    ]


def _kinds(grid: Grid) -> Iterator[str]:
    for shown in grid.columns:
        if shown.key != "avg":
            yield "accuracy" if shown.score == "oa" else "mIoU"


def draw_gate(config: SuiteConfig, rows: Rows) -> None:
    """Writes `<out>/<name>.png` for figures 3, 5, 6 and 7, if there are results."""
    grid, columns = grid_of(config, rows), 4
    match config.name:
        case "figure3" | "figure7":
            panels = scores_over_budgets(grid)
        case "figure5":
            panels = scores_over_lambda(grid)
        case "figure6":
            panels = losses_over_lambda(grid)
            columns = len(grid.columns)
        case _:
            panels = []
    if panels:
        path, title = Path(config.out) / f"{config.name}.png", table_of(config).title
        draw_panels(path, panels, title=title, columns=columns)
