"""The paper's tables as data: their rows and columns."""

from __future__ import annotations

from collections.abc import Iterator

from foundry3d.config import SuiteConfig
from foundry3d.paper.suite.gate_tables import GATE_TABLES, detailed_rows, is_chosen
from foundry3d.paper.suite.records import ALL, COLUMNS, LATE, NEVER, Row, Table, Unfreeze

FOUNDRY = "Foundry"
FOUNDRY_LATER = "Supertokens after blocks on all tokens"
TEACHER = Row("teacher", "baseline", "teacher")


def _students(detailed: bool) -> Iterator[Row]:
    """The Foundry rows of Tables 5 and 10; detailed = also one row per time of unfreezing."""
    for n in (16, 8, 4, 2, 1):
        for suffix in ("-frozen", "", *(("-vit_t",) if n == 16 else ())):
            name, title = f"s{n}{suffix}", f"s = {n}" + (" (ViT-T)" if "vit_t" in suffix else "")
            row = Row(name, title, name, ALL, FOUNDRY)
            yield from detailed_rows(row) if detailed else (row,)


def _at_test(sampled: tuple[int, ...], merged: tuple[int, ...]) -> Iterator[Row]:
    """The rows that change the fine-tuned teacher at test time, by the tokens that are left."""
    sections = {
        "random": ("c", sampled, "Random sampling, inference from baseline"),
        "larger": ("c", sampled, "Larger groups, inference from baseline"),
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


def _cheaper(unfreeze: Unfreeze) -> Iterator[Row]:
    """Students that the paper does not have: without supertokens, or with some after a block."""
    for k in (0, 1, 2):
        name, title = f"truncated-{k}", f"{k} block{'' if k == 1 else 's'}"
        yield Row(name, title, name, unfreeze, "Truncated, no supertokens")
    yield Row("s16-after-1", "s = 16 after 1 block", "s16-after-1", unfreeze, FOUNDRY_LATER)


EVERYWHERE = tuple(COLUMNS)
ENCODER = "Encoder frozen"
WHOLE = "Tokenizer, position and encoder frozen"
ONE_BLOCK = "truncated, 1 block, no supertokens"
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
            Row("s16-frozen", "Foundry", "s16-frozen", NEVER, ENCODER),
            Row("kmeans-student", "KMeans-Student", "kmeans-student", NEVER, ENCODER),
            Row("fps-student", "FPS-Student", "fps-student", NEVER, ENCODER),
            Row("truncated-1-frozen", ONE_BLOCK, "truncated-1-frozen", NEVER, ENCODER),
            Row("s16-frozen-all", "Foundry", "s16-frozen-all", NEVER, WHOLE),
            Row("kmeans-student-all", "KMeans-Student", "kmeans-student", NEVER, WHOLE),
            Row("fps-student-all", "FPS-Student", "fps-student-all", NEVER, WHOLE),
            Row("truncated-1-frozen-all", ONE_BLOCK, "truncated-1-frozen-all", NEVER, WHOLE),
        ),
        ("sn55",),
    ),
    "table5": Table(
        "5",
        "Table 5: Foundry across benchmarks",
        (
            TEACHER,
            *_students(False),
            *_cheaper(ALL),
            *_at_test((16, 1), (16, 8, 4, 2, 1)),
            *_distilled(),
        ),
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
    **GATE_TABLES,
}


def table_of(config: SuiteConfig) -> Table:
    """The table of a suite, with the chosen weights of the gate's regulariser."""
    table = TABLES[config.name]
    rows = tuple(row for row in table.rows if is_chosen(row, config.gate_lambdas))
    return table._replace(rows=rows)
