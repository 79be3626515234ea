"""What tables are made of: models and how they are made, rows, columns, and the printed numbers.

`paper_tables.csv` holds the printed numbers by table, row and column, with mean and standard
deviation as text; numbers that cannot be read from the paper's text (some cells of Table 10) are
left out. The deviations of students in Tables 5 and 10 are over the epochs at which the encoder is
unfrozen in fine-tuning: rows "-" of Table 10 are mean and sample deviation of the rows above them.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, Literal, NamedTuple

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
        frozen: the encoder stays frozen during distillation.
        method: of a token reducer.
        narrow: half of the teacher's width and heads (ViT-T of ViT-S).
        student: further fields of `StudentOptions`.
        loss: of the distillation; None = the suite's.
    """

    how: Literal["teacher", "student", "reducer", "fps", "kmeans", "specialist", "pretrained"]
    tokens: int = 16
    frozen: bool = False
    method: str = ""
    narrow: bool = False
    student: dict[str, Any] = field(default_factory=dict)
    loss: Literal["smooth_l1", "mse"] | None = None


MODELS: dict[str, Model] = {
    "teacher": Model(how="teacher"),
    **{f"s{n}-frozen": Model(how="student", tokens=n, frozen=True) for n in (16, 8, 4, 2, 1)},
    **{f"s{n}": Model(how="student", tokens=n) for n in (16, 8, 4, 2, 1)},
    **{
        f"truncated-{k}": Model(how="student", student={"kind": "truncated", "depth": k})
        for k in (0, 1, 2)
    },
    "s16-after-1": Model(how="student", student={"supertokens_after": 1}),
    "s16-vit_t": Model(how="student", narrow=True),
    "s16-soft": Model(how="student", student={"soft_assignment": True}),
    "s16-qkv-bias": Model(how="student", student={"dso_bias": True}),
    "s16-cau-norm": Model(how="student", student={"cau_norm": True}),
    "s16-frozen-mse": Model(how="student", frozen=True, loss="mse"),
    **{
        f"{method}-fmd-{n}": Model(how="reducer", method=method, tokens=n)
        for method in ("tome", "pitome", "patchmerger")
        for n in (16, 1)
    },
    "fps-student": Model(how="fps", frozen=True),
    "kmeans-student": Model(how="kmeans", frozen=True),
    "specialist-cls": Model(how="specialist", frozen=True),
    "specialist-seg": Model(how="specialist", frozen=True),
    "supertoken-teacher": Model(how="pretrained"),
}

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
        model: in `MODELS`.
        unfreeze: when the encoder is unfrozen, by task; the row is the mean over these.
        section: heading above the row; empty = none.
        at_test: what is done to the fine-tuned model at test time, e.g. `tome-16`.
    """

    name: str
    title: str
    model: str
    unfreeze: Unfreeze = LATE
    section: str = ""
    at_test: str = ""

    @property
    def frozen(self) -> str:
        """The paper's column "Frozen student"."""
        model = MODELS[self.model]
        if model.how in ("teacher", "pretrained"):
            return "-"
        return "✓" if model.frozen else "✗"


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
    """

    source: str
    title: str
    rows: tuple[Row, ...]
    columns: tuple[str, ...]
    probed: bool = False
    episodes: bool = False
    loss: bool = False

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
