"""What the gate's tables make of results: held-out selection, and correlation with lambda."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from scipy.stats import spearmanr

from foundry3d.config import SuiteConfig
from foundry3d.evaluation.metrics import mean_std
from foundry3d.paper.suite.cells import Cell, cells_of, columns_of
from foundry3d.paper.suite.records import Model, Table

Rows = Mapping[str, Mapping[str, Any]]


def best_of(cells: Sequence[Cell], rows: Rows) -> list[Cell] | None:
    """Of a column's cells, those of the model and time of unfreezing that held-out clouds select.

    The selection reads the held-out scores of the fine-tuned models, averaged over seeds, never a
    test score; the first of equals is taken.

    Args:
        cells: of a row with rivals, in one column.
        rows: of the cells that are done, by name.

    Returns:
        The cells of the selected model, without those whose token budget exceeds its tokens; None
        as long as the held-out score of a candidate is missing.
    """
    candidates: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        candidates.setdefault((cell.model, cell.unfreeze), []).append(cell)
    scores: dict[tuple[str, str], float] = {}
    for name, own in candidates.items():
        found = [held_out(rows.get(source(cell).name, {})) for cell in own]
        known = [score for score in found if score is not None]
        if len(known) < len(found):
            return None
        scores[name] = mean_std(known).mean
    if not scores:
        return []
    return [cell for cell in candidates[max(scores, key=scores.__getitem__)] if fits(cell, rows)]


def source(cell: Cell) -> Cell:
    """The cell whose fine-tuned model a cell tests: itself, or the one it needs."""
    return cell.needs() or cell


def held_out(row: Mapping[str, Any]) -> float | None:
    """Accuracy or mIoU_C of a fine-tuning run on its held-out clouds; None without any."""
    parts = row.get("validation")
    score = row.get("oa_validation") if parts is None else parts["miou_c"]
    return None if score is None else float(score)


def fits(cell: Cell, rows: Rows) -> bool:
    """Whether the model of a cell has as many tokens as its token budget."""
    method, _, count = cell.at_test.rpartition("-")
    return method != "budget" or int(count) <= rows[source(cell).name]["tokens"]


def selection(config: SuiteConfig, table: Table, rows: Rows) -> str:
    """A sentence on what `best_of` selected in each column; empty where nothing is selected."""
    row = next((row for row in table.rows if row.rivals), None)
    if row is None:
        return ""
    found = []
    for column in columns_of(config, table):
        best = best_of(cells_of(config, table, row._replace(at_test=""), column), rows)
        if best:
            found.append(f"{column}: {best[0].model}, unfrozen {best[0].unfreeze}")
    return f" Selected: {'; '.join(found) or 'nothing yet'}."


class Correlation(NamedTuple):
    """Spearman's correlation.

    Attributes:
        rho: None for fewer than two points, or where all are equal in one of the two.
        n: number of points.
        of: number of points that there are when all runs are done.
        p: two-sided, by Student's t; None for fewer than three points.
    """

    rho: float | None
    n: int
    of: int
    p: float | None


STUDENTS = {"frozen": (True,), "unfrozen": (False,), "all": (True, False)}
"""Rows of Table 12: which of the frozen and other students their points are the mean of."""


def correlations(scores: Iterable[tuple[Model, float | None]]) -> dict[str, Correlation]:
    """The correlation of lambda with a score for each row of Table 12.

    Args:
        scores: of gated students; None = not known, and its lambda is left out.
    """
    by_lambda: dict[float, dict[bool, float | None]] = {}
    for model, score in scores:
        by_lambda.setdefault(model.gate_lambda or 0.0, {})[model.stays_frozen] = score
    found = {}
    for name, kinds in STUDENTS.items():
        means: dict[float, float] = {}
        for x, known in by_lambda.items():
            ys = [y for kind in kinds if (y := known.get(kind)) is not None]
            if len(ys) == len(kinds):
                # Rounded, so that equal means tie however they were added up.
                means[x] = round(mean_std(ys).mean, 9)
        found[name] = correlation(means, of=len(by_lambda))
    return found


def correlation(points: Mapping[float, float], *, of: int) -> Correlation:
    """Spearman's correlation of x and y; `of` is the number of points that may be there."""
    n = len(points)
    if n < 2 or len(set(points.values())) < 2:
        return Correlation(None, n, of, None)
    found = spearmanr(list(points), list(points.values()))
    return Correlation(float(found.statistic), n, of, float(found.pvalue) if n > 2 else None)
