"""The paper's tables and figures of Foundry-Gate as data: Tables 11 to 13, Figures 3 and 5 to 7."""

from __future__ import annotations

import math
from collections.abc import Iterator

from foundry3d.config import LAMBDAS
from foundry3d.paper.suite.records import (
    ALL,
    COLUMNS,
    LATE,
    MODELS,
    NEVER,
    ONLY_LATE,
    START,
    Row,
    Table,
    gate_name,
    lambda_name,
)

GATE = "Foundry-Gate"
TUNED = 1e-11
"""The weight of the regulariser whose student Table 13 tests under budgets."""
BUDGETS = range(16, 129, 16)
RATIOS = tuple(i / 10 for i in range(11))

SELECTED = (
    "Scores in percent on test clouds, mean ± sample standard deviation over seeds. Each column "
    "shows the student, frozen or not in distillation, and the time of unfreezing with the best "
    "mean score on held-out clouds. Budgets and ratios apply to the fine-tuned model, without "
    "training. In parentheses the paper's number."
)
CORRELATED = (
    "Spearman's rho of the mean fine-tuned score with lambda. The mean is over seeds and times of "
    "unfreezing; n = lambdas whose runs are all done; p is two-sided, by Student's t; `all` takes "
    "the mean of frozen and not frozen for each lambda. In parentheses the paper's number; the "
    "means of its Table 11 give its numbers of OBJ-BG for PB-T50-RS, of OBJ-ONLY for OBJ-BG, "
    "and of PB-T50-RS for OBJ-ONLY."
)
FUSION = (
    "Distillation loss (Smooth L1) and share of tokens that the gate merges, on the clouds held "
    "out of distillation and on those of the source `fusion`. In parentheses the paper's number."
)


def detailed_rows(row: Row) -> Iterator[Row]:
    """A row for each time of unfreezing, then the row itself, which is the mean over them."""
    for unfreeze, tasks in (("never", NEVER), ("late", ONLY_LATE), ("start", START)):
        name, title = f"{row.name}@{unfreeze}", f"{row.title}, unfrozen: {unfreeze}"
        yield row._replace(name=name, title=title, unfreeze=tasks)
    yield row


def is_chosen(row: Row, gate_lambdas: tuple[float, ...]) -> bool:
    """Whether a table shows a row where only some weights of the regulariser were chosen."""
    value = MODELS[row.model].gate_lambda
    if value is None or row.rivals:
        return True
    return any(math.isclose(value, chosen, rel_tol=1e-3) for chosen in gate_lambdas)


def _students(*, decay: tuple[bool, ...] = (False,)) -> Iterator[Row]:
    """A row for each weight of the regulariser, frozen or not, with or without gate decay."""
    for value in LAMBDAS:
        for frozen in (True, False):
            for with_decay in decay:
                name = gate_name(value, frozen=frozen, decay=with_decay)
                title = f"λ = {lambda_name(value).replace('1e', '10^')}"
                yield Row(name, title + ", gate decay" * with_decay, name, ALL, GATE)


def _budgeted(name: str, title: str, section: str = GATE, at_test: str = "") -> Row:
    own, rival = (gate_name(TUNED, frozen=frozen) for frozen in (True, False))
    return Row(name, title, own, ALL, section, at_test, (rival,))


def _budgets() -> Iterator[Row]:
    for count in BUDGETS:
        name = f"budget-{count}"
        yield _budgeted(name, f"b = {count}", "Token budget at inference", name)


def _ratios() -> Iterator[Row]:
    for ratio in RATIOS:
        name = f"ratio-{ratio:.1f}"
        yield _budgeted(name, f"r = {ratio:.1f}", "Fusion ratio at inference", name)


_EVERYWHERE = tuple(COLUMNS)
_UNCHANGED = _budgeted("gate", "unchanged")
GATE_TABLES: dict[str, Table] = {
    "table11": Table(
        "11",
        "Table 11: detailed fine-tuning results of Foundry-Gate",
        (
            Row("teacher", "baseline", "teacher", LATE),
            *(row for student in _students() for row in detailed_rows(student)),
        ),
        _EVERYWHERE,
        loss=True,
    ),
    "table12": Table(
        "12",
        "Table 12: correlation between fine-tuned scores and the gate's regulariser",
        tuple(_students()),
        _EVERYWHERE,
        correlated=True,
        caption=CORRELATED,
    ),
    "table13": Table(
        "13",
        "Table 13: Foundry-Gate under token budgets and fusion ratios at inference",
        (_UNCHANGED, *_budgets(), *_ratios()),
        _EVERYWHERE,
        caption=SELECTED,
    ),
    "figure3": Table(
        "13",
        "Figure 3: fine-tuned scores over the token budget",
        tuple(_budgets()),
        _EVERYWHERE,
        caption=SELECTED,
    ),
    "figure5": Table(
        "11",
        "Figure 5: fine-tuned scores over the gate's regulariser",
        tuple(_students()),
        _EVERYWHERE,
    ),
    "figure6": Table(
        "11",
        "Figure 6: distillation loss and fusion ratio over the gate's regulariser",
        tuple(_students(decay=(False, True))),
        ("fusion",),
        loss=True,
        fusion=True,
        caption=FUSION,
    ),
    "figure7": Table(
        "13",
        "Figure 7: fine-tuned scores over the token budget and the fusion ratio",
        (*_budgets(), *_ratios()),
        _EVERYWHERE,
        caption=SELECTED,
    ),
}
