"""The paper's tables as data: their rows, how the model of a row is made, and what was printed.

`paper_tables.csv` holds the printed figures by table, row and column, mean and deviation as
text; figures that cannot be told from the paper's text (some cells of Table 10) are left out. The
deviations of students in Tables 5 and 10 are over the epochs at which the encoder thaws in
fine-tuning, as Table 10 shows: its rows "-" are mean and sample deviation of the rows above.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
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
"""The paper's columns: names for `--data` and headings."""

EPISODES = ((5, 10), (5, 20), (10, 10), (10, 20))
"""Way and shot of Table 3."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """How a model is made.

    Attributes:
        how: the teacher itself; distilled as a student, as a token reducer or as an FPS-Student;
            prototypes of the teacher; a specialist (made cell by cell); or pre-trained with
            supertokens, without a teacher.
        tokens: supertokens, or tokens that the reducer leaves.
        frozen: the encoder never thaws while it is distilled.
        method: of a token reducer.
        narrow: half of the teacher's width and heads (ViT-T of ViT-S).
        student: further fields of `StudentOptions`.
        loss: of the distillation; None = the suite's.
    """

    how: Literal["teacher", "student", "merged", "fps", "kmeans", "specialist", "pretrained"]
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
    "s16-vit_t": Model(how="student", narrow=True),
    "s16-soft": Model(how="student", student={"soft_assignment": True}),
    "s16-qkv-bias": Model(how="student", student={"dso_bias": True}),
    "s16-cau-norm": Model(how="student", student={"cau_norm": True}),
    "s16-frozen-mse": Model(how="student", frozen=True, loss="mse"),
    **{
        f"{method}-fmd-{n}": Model(how="merged", method=method, tokens=n)
        for method in ("tome", "pitome", "patchmerger")
        for n in (16, 1)
    },
    "fps-student": Model(how="fps", frozen=True),
    "kmeans-student": Model(how="kmeans", frozen=True),
    "specialist-cls": Model(how="specialist", frozen=True),
    "specialist-seg": Model(how="specialist", frozen=True),
    "supertoken-teacher": Model(how="pretrained"),
}

Thaws = Mapping[str, tuple[str, ...]]
LATE: Thaws = {"classify": ("late",), "segment": ("start",)}
"""When a teacher or a distilled reducer thaws in fine-tuning (caption of Table 10)."""
ALL: Thaws = {"classify": ("start", "late", "never"), "segment": ("start", "never")}
NEVER: Thaws = {"classify": ("never",), "segment": ("never",)}
START: Thaws = {"classify": ("start",), "segment": ("start",)}
ONLY_LATE: Thaws = {"classify": ("late",), "segment": ()}


class Row(NamedTuple):
    """A row of a table.

    Attributes:
        name: in `paper_tables.csv` and for `--only`.
        title: what the table prints.
        model: in `MODELS`.
        thaws: epochs of thawing by task; the row is the mean over them.
        section: heading above the row; empty = none.
        at_test: what is done to the fine-tuned model at test time, e.g. `tome-16`.
    """

    name: str
    title: str
    model: str
    thaws: Thaws = LATE
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
        source: number in `paper_tables.csv`; a figure has none.
        title: heading.
        rows: in the paper's order.
        columns: the paper's columns.
        probed: measured by a linear probe.
        episodes: measured by few-shot episodes.
        loss: has a column for the distillation loss.
    """

    source: str
    title: str
    rows: tuple[Row, ...]
    columns: tuple[str, ...]
    probed: bool = False
    episodes: bool = False
    loss: bool = False

    def paper(self, row: str, column: str) -> tuple[str, str] | None:
        """The printed mean and deviation (empty where none was printed) of a cell."""
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
    """All printed figures, mean and deviation as text, by (table, row, column)."""
    text = files("foundry3d.paper.suite").joinpath("paper_tables.csv").read_text()
    return {
        (line["table"], line["row"], line["column"]): (line["mean"], line["std"])
        for line in csv.DictReader(text.splitlines())
    }


FOUNDRY = "Foundry"
TEACHER = Row("teacher", "baseline", "teacher")


def _students(detailed: bool) -> Iterator[Row]:
    """The Foundry rows of Tables 5 and 10; detailed = a row for each epoch of thawing too."""
    for n in (16, 8, 4, 2, 1):
        for suffix in ("-frozen", "", *(("-vit_t",) if n == 16 else ())):
            name, title = f"s{n}{suffix}", f"s = {n}" + (" (ViT-T)" if "vit_t" in suffix else "")
            if detailed:
                for thaw, tasks in (("never", NEVER), ("late", ONLY_LATE), ("start", START)):
                    yield Row(f"{name}@{thaw}", f"{title}, thawed {thaw}", name, tasks, FOUNDRY)
            yield Row(name, title, name, ALL, FOUNDRY)


def _at_test(tokens: tuple[int, ...], merged: tuple[int, ...]) -> Iterator[Row]:
    """The rows that change the fine-tuned teacher at test time."""
    sections = {
        "random": ("c", tokens, "Random sampling, inference from baseline"),
        "larger": ("c", tokens, "Larger groups, inference from baseline"),
        "tome": ("s", merged, "ToMe, inference from baseline"),
    }
    for method, (symbol, counts, heading) in sections.items():
        for n in counts:
            name = f"{method}-{n}"
            yield Row(name, f"{symbol} = {n}", "teacher", LATE, heading, name)


def _distilled() -> Iterator[Row]:
    titles = {"tome": "ToMe", "pitome": "PiToMe", "patchmerger": "PatchMerger"}
    for method, title in titles.items():
        for n in (16, 1):
            name = f"{method}-fmd-{n}"
            yield Row(name, f"s = {n}", name, LATE, f"{title}, distilled and fine-tuned")


EVERYWHERE = tuple(COLUMNS)
TABLES: dict[str, Table] = {
    "table2": Table(
        "2",
        "Table 2: generalist and specialist distillation",
        (
            TEACHER,
            Row("s16", "Foundry", "s16"),
            Row("specialist-cls", "Specialist-CLS", "specialist-cls", {"classify": ("never",)}),
            Row("specialist-seg", "Specialist-SEG", "specialist-seg", {"segment": ("never",)}),
        ),
        ("sn55", "snp"),
    ),
    "table3": Table(
        "3",
        "Table 3: few-shot transfer",
        (
            TEACHER,
            Row("s16", "Foundry, s = 16", "s16"),
            Row("s1", "Foundry, s = 1", "s1"),
        ),
        ("mn40",),
        episodes=True,
    ),
    "table4": Table(
        "4",
        "Table 4: token grouping",
        (
            Row("s16-frozen", "Foundry", "s16-frozen", NEVER),
            Row("kmeans-student", "KMeans-Student", "kmeans-student", NEVER),
            Row("fps-student", "FPS-Student", "fps-student", NEVER),
        ),
        ("sn55",),
    ),
    "table5": Table(
        "5",
        "Table 5: Foundry across benchmarks",
        (TEACHER, *_students(False), *_at_test((16, 1), (16, 8, 4, 2, 1)), *_distilled()),
        EVERYWHERE,
    ),
    "table8": Table(
        "8",
        "Table 8: ablations of the distillation",
        (
            Row("s16-frozen", "Foundry", "s16-frozen"),
            Row("s16", "Foundry", "s16"),
            Row("s16-soft", "argmax to softmax", "s16-soft"),
            Row("s16-qkv-bias", "bias on QKV in DSO", "s16-qkv-bias"),
            Row("s16-cau-norm", "output layer norm at CAU", "s16-cau-norm"),
        ),
        (),
        loss=True,
    ),
    "table9": Table(
        "9",
        "Table 9: linear probing of supertokens in pre-training",
        (
            TEACHER,
            Row("supertoken-teacher", "Point-JEPA + DSO+CAU", "supertoken-teacher"),
        ),
        ("mn40", "oo3d", "sonn-pb"),
        probed=True,
    ),
    "table10": Table(
        "10",
        "Table 10: detailed fine-tuning results",
        (
            TEACHER,
            *_at_test((16, 8, 4, 2, 1), (16, 8, 4, 2, 1)),
            *_distilled(),
            *_students(True),
        ),
        EVERYWHERE,
        loss=True,
    ),
    "figure2": Table(
        "10",
        "Figure 2: distillation loss and fine-tuned scores",
        tuple(_students(False)),
        EVERYWHERE,
        loss=True,
    ),
    "figure4": Table(
        "",
        "Figure 4: Smooth L1 and MSE as the distillation loss",
        (
            Row("s16-frozen", "Smooth L1", "s16-frozen", NEVER),
            Row("s16-frozen-mse", "MSE", "s16-frozen-mse", NEVER),
        ),
        ("sn55",),
    ),
}
