"""What tables are made of: models and how they are made, rows, columns, and the printed numbers.

`paper_tables.csv` holds the printed numbers by table, row and column, with mean and standard
deviation as text; numbers that cannot be read from the paper's text are left out (some cells of
Table 10, three of Table 11 that contradict the printed means). The deviations of students in Tables
5, 10 and 11 are over the epochs at which the encoder is unfrozen in fine-tuning: rows "-" of Tables
10 and 11 are mean and sample deviation of the rows above them.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, Literal, NamedTuple

from foundry3d.config import LAMBDAS
from foundry3d.config.freezing import Frozen

COLUMNS = {
    "mn40": "MN40",
    "oo3d": "OO3D",
    "sonn-obj-bg": "SONN-OBJ-BG",
    "sonn-obj-only": "SONN-OBJ-ONLY",
    "sonn-pb": "SONN-PB-T50-RS",
    "sn55": "SN55",
    "snp": "SNP",
}
"""Headings of the paper's columns, by their names for `--data`."""

EPISODES = ((5, 10), (5, 20), (10, 10), (10, 20))
"""Way and shot of Table 3."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """How a model is made.

    Attributes:
        how: the teacher itself; distilled as a student, token reducer or FPS-Student; made of
            prototypes of the teacher; a specialist (made cell by cell); or pre-trained with
            supertokens, without a teacher.
        tokens: supertokens, or tokens that the reducer leaves.
        frozen: what of the teacher stays frozen, while distilling (`DistillConfig.frozen`) and,
            for all, while fine-tuning too; None = as the suite's distillation.
        method: of a token reducer.
        narrow: half of the teacher's width and heads (ViT-T of ViT-S).
        student: further fields of `StudentOptions`.
        loss: of the distillation; None = the suite's.
        gate_lambda: weight of the gate's regulariser; None = no gate.
        gate_decay: weight decay on the gate too.
    """

    how: Literal["teacher", "student", "reducer", "fps", "kmeans", "specialist", "pretrained"]
    tokens: int = 16
    frozen: Frozen | None = None
    method: str = ""
    narrow: bool = False
    student: dict[str, Any] = field(default_factory=dict)
    loss: Literal["smooth_l1", "mse"] | None = None
    gate_lambda: float | None = None
    gate_decay: bool = False

    @property
    def stays_frozen(self) -> bool:
        """Whether something of the teacher never trains during distillation."""
        return self.frozen in ("encoder", "all")


def lambda_name(value: float) -> str:
    """A weight of the gate's regulariser in names: 0, 1e-15, 1e-11.75, 2."""
    exponent = round(math.log10(value), 4) if value else 0.0
    is_power = 0 < value < 1 and 100 * exponent == round(100 * exponent)
    return f"1e{exponent:g}" if is_power else f"{value:.4g}"


def gate_name(value: float, *, frozen: bool, decay: bool = False) -> str:
    """The model in `MODELS` with this weight of the gate's regulariser."""
    return f"gate-{lambda_name(value)}" + "-frozen" * frozen + "-decay" * decay


GATED = {
    gate_name(value, frozen=frozen, decay=decay): Model(
        how="student",
        frozen="encoder" if frozen else None,
        student={"gate": True, "gate_through": False},
        gate_lambda=value,
        gate_decay=decay,
    )
    for value in LAMBDAS
    for frozen in (True, False)
    for decay in (False, True)
}
"""Foundry-Gate, with the gate as in the paper's Listing 1."""

MODELS: dict[str, Model] = {
    "teacher": Model(how="teacher"),
    **{f"s{n}-frozen": Model(how="student", tokens=n, frozen="encoder") for n in (16, 8, 4, 2, 1)},
    **{f"s{n}": Model(how="student", tokens=n) for n in (16, 8, 4, 2, 1)},
    "s16-frozen-all": Model(how="student", frozen="all"),
    "s16-vit_t": Model(how="student", narrow=True, frozen="none"),
    **{
        f"truncated-{k}": Model(how="student", student={"kind": "truncated", "depth": k})
        for k in (0, 1, 2)
    },
    **{
        f"truncated-1-frozen{'-all' * (what == 'all')}": Model(
            how="student", frozen=what, student={"kind": "truncated", "depth": 1}
        )
        for what in ("encoder", "all")
    },
    "s16-after-1": Model(how="student", student={"supertokens_after": 1}),
    "s16-soft": Model(how="student", student={"soft_assignment": True}),
    "s16-qkv-bias": Model(how="student", student={"dso_bias": True}),
    "s16-cau-norm": Model(how="student", student={"cau_norm": True}),
    "s16-frozen-mse": Model(how="student", frozen="encoder", loss="mse"),
    **{
        f"{method}-fmd-{n}": Model(how="reducer", method=method, tokens=n)
        for method in ("tome", "pitome", "patchmerger")
        for n in (16, 1)
    },
    "fps-student": Model(how="fps", frozen="encoder"),
    "fps-student-all": Model(how="fps", frozen="all"),
    "kmeans-student": Model(how="kmeans", frozen="all"),
    "specialist-cls": Model(how="specialist", frozen="all"),
    "specialist-seg": Model(how="specialist", frozen="all"),
    "supertoken-teacher": Model(how="pretrained"),
    **GATED,
}


def recipe_of(name: str) -> Literal["pretrain", "distill"]:
    """Which of a suite's recipes makes a model of `MODELS`, on the clouds of that recipe."""
    return "pretrain" if MODELS[name].how in ("teacher", "pretrained") else "distill"


Unfreeze = Mapping[str, tuple[str, ...]]
LATE: Unfreeze = {"classify": ("late",), "segment": ("start",)}
"""When a teacher or distilled reducer is unfrozen in fine-tuning (caption of Table 10)."""
ALL: Unfreeze = {"classify": ("start", "late", "never"), "segment": ("start", "never")}
NEVER: Unfreeze = {"classify": ("never",), "segment": ("never",)}
START: Unfreeze = {"classify": ("start",), "segment": ("start",)}
ONLY_LATE: Unfreeze = {"classify": ("late",), "segment": ()}


class Row(NamedTuple):
    """A row of a table.

    Attributes:
        name: in `paper_tables.csv` and for `--only`.
        title: what the table prints.
        model: in `MODELS`; empty = several.
        unfreeze: when the encoder (of models with `frozen` all: every part) is unfrozen, by task;
            the row is the mean over these.
        section: heading above the row; empty = none.
        at_test: what is done to the fine-tuned model at test time, e.g. `tome-16`.
        rivals: other models; where there are any, the row shows in each column the model and time
            of unfreezing with the best score on held-out clouds.
    """

    name: str
    title: str
    model: str
    unfreeze: Unfreeze = LATE
    section: str = ""
    at_test: str = ""
    rivals: tuple[str, ...] = ()

    @property
    def times(self) -> list[str]:
        """All times of unfreezing of the row, of any task."""
        return [time for times in self.unfreeze.values() for time in times]

    @property
    def frozen(self) -> str:
        """The paper's column "Frozen student", and what is frozen."""
        if not self.model or self.rivals:
            return "-"
        model = MODELS[self.model]
        if model.how in ("teacher", "pretrained"):
            return "-"
        return f"✓ ({model.frozen})" if model.stays_frozen else "✗"


class Table(NamedTuple):
    """A table of the paper.

    Attributes:
        source: number in `paper_tables.csv`; empty for figures without one.
        title: heading.
        rows: in the paper's order.
        columns: the paper's columns.
        probed: measured by a linear probe.
        episodes: measured by few-shot episodes.
        loss: has a column with the distillation loss.
        fusion: shows the share of merged tokens instead of scores, of the distillation's held-out
            clouds and of the source `fusion`.
        correlated: shows the correlation of lambda with the scores of the rows.
        caption: below the table; empty = that of most tables.
    """

    source: str
    title: str
    rows: tuple[Row, ...]
    columns: tuple[str, ...]
    probed: bool = False
    episodes: bool = False
    loss: bool = False
    fusion: bool = False
    correlated: bool = False
    caption: str = ""

    def paper(self, row: str, column: str) -> tuple[str, str] | None:
        """The printed mean and deviation (empty where none was printed) of a row and column."""
        return paper_figures().get((self.source, row, column))

    def task(self, column: str) -> str:
        """How the paper measures a column."""
        if self.episodes:
            return "fewshot"
        if self.probed:
            return "probe"
        return "segment" if column == "snp" else "classify"


@cache
def paper_figures() -> dict[tuple[str, str, str], tuple[str, str]]:
    """All printed numbers, mean and deviation as text, by (table, row, column)."""
    text = files("foundry3d.paper.suite").joinpath("paper_tables.csv").read_text()
    return {
        (line["table"], line["row"], line["column"]): (line["mean"], line["std"])
        for line in csv.DictReader(text.splitlines())
    }
