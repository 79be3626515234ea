"""The demonstration: students of a shipped teacher, probed, taught and drawn, in a few minutes."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from math import floor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from foundry3d.checkpoints.folder import load
from foundry3d.checkpoints.origin import origin_of
from foundry3d.config import DataConfig, DemoConfig, DistillConfig, read_recipe
from foundry3d.data.batches import in_order
from foundry3d.data.loading import Splits, load_and_measured, load_splits
from foundry3d.errors import InputError
from foundry3d.evaluation.probe import Subject, probe_columns, probe_rows, untrained_like
from foundry3d.inference.allocator import retain_memory
from foundry3d.models.backbone import Backbone, require_teacher
from foundry3d.models.upsample import interpolate
from foundry3d.report.bar import Bar
from foundry3d.report.figures import draw_grid, pca_basis, pca_colours
from foundry3d.report.rows import table
from foundry3d.training.callbacks import OneLine
from foundry3d.training.distill import Learner, distill_on, student_of
from foundry3d.transforms import normalise

log = logging.getLogger("foundry3d")

SUPERTOKENS = (16, 4, 1)
SHOWN = 5
SHARE = 4
"""One of so many clouds that a probe is fitted on selects its C instead."""

NEXT = """
Accuracies in percent on built-in shapes that neither teacher nor students were trained on.

{verdict}

{minutes:.1f} minutes.
picture  {picture}
rows     {out}/results.jsonl
next     foundry3d models
         foundry3d embed YOUR-FILES --out features.npz
         foundry3d distill --config cpu/distill --teacher {teacher} \\
             --data.train YOUR.npz --student.supertokens 4 --out runs/s4"""


def plan(config: DemoConfig, tokens: int) -> list[DistillConfig]:
    """The distillations of a demonstration, one for each of `SUPERTOKENS`.

    Args:
        config: of the demonstration.
        tokens: of the teacher, which supertokens cannot outnumber.
    """
    recipe = read_recipe(DistillConfig, "cpu/demo-student")
    data = replace(recipe.data, train=config.data, train_clouds=config.clouds, points=config.points)
    train = replace(recipe.train, epochs=config.epochs, seed=config.seed)
    return [
        replace(
            recipe,
            teacher=config.teacher,
            out=str(Path(config.out) / f"s{s}"),
            student=replace(recipe.student, supertokens=s),
            data=data,
            train=train,
        )
        for s in SUPERTOKENS
        if s <= tokens
    ]


def probe_data(config: DemoConfig) -> DataConfig:
    """Labelled built-in shapes for the probes; their seeds are those of no distillation."""
    return DataConfig(
        train="procedural",
        test="procedural",
        train_clouds=config.probe_clouds,
        test_clouds=config.probe_clouds,
        points=config.points,
        validation=1 / SHARE,
    )


def distil(config: DemoConfig, teacher: Backbone) -> dict[str, Learner]:
    """Trained students by name."""
    settings = plan(config, teacher.shape.groups)
    train, held = load_and_measured(settings[0].data, seed=config.seed)
    made = {}
    for one in settings:
        s = one.student.supertokens
        text = f"distilling s={s} of {teacher.shape.groups} tokens"
        student = student_of(teacher, one)
        made[f"student s={s}"] = distill_on(
            one, teacher, student, train, held, progress=OneLine(text)
        )
    return made


def probed(
    config: DemoConfig, teacher: Backbone, students: dict[str, Learner], splits: Splits
) -> list[dict[str, Any]]:
    """Rows of the untrained network, the students and the teacher, also written to a file."""
    data = probe_data(config)
    fresh = untrained_like(teacher, splits, points=data.points, seed=config.seed)
    origins = [origin_of(settings.out) for settings in plan(config, teacher.shape.groups)]
    subjects = [
        Subject("untrained", fresh),
        *(Subject(*pair) for pair in zip(students, students.values(), origins, strict=True)),
        Subject("teacher", teacher, origin_of(config.teacher)),
    ]
    bar, rows = Bar("probing", len(subjects), unit="models"), []
    for subject in subjects:
        out = Path(config.out) / "results.jsonl"
        options: dict[str, Any] = {"seed": config.seed, "examples": config.examples}
        rows += probe_rows([subject], splits, data, out=out, **options)
        bar.step(f"{subject.name} {rows[-1]['svm']:.1f} %")
    bar.close()
    return rows


def verdict(rows: Sequence[dict[str, Any]]) -> str:
    """What the linear probes of the rows show, in one sentence.

    Args:
        rows: of the untrained network, the students and the teacher, in this order.
    """
    first, *students, last = rows
    low, high = first["svm"], last["svm"]
    if low >= high:
        return (
            f"The teacher ({high:.1f} %) is no better than the untrained network ({low:.1f} %), so "
            "this run says nothing about what distillation keeps."
        )
    kept = min(row["svm"] for row in students)
    if all(low < row["svm"] <= high for row in students):
        return (
            f"Students that encode at most {students[0]['encoded']} of {last['encoded']} tokens "
            f"keep at least {floor(100 * kept / high)} % of their teacher's accuracy "
            f"({kept:.1f} of {high:.1f} %) and stay above the untrained network ({low:.1f} %)."
        )
    apart = [_apart(row, low, high) for row in students if not low < row["svm"] <= high]
    return (
        f"The expected order, untrained ({low:.1f} %) < students <= teacher ({high:.1f} %), does "
        f"not hold here: {'; '.join(apart)}."
    )


def _apart(row: dict[str, Any], low: float, high: float) -> str:
    """How a row breaks the order."""
    than = "not above the untrained network" if row["svm"] <= low else "above the teacher"
    return f"{row['model']} is {than} ({row['svm']:.1f} %)"


def draw(
    path: Path, teacher: Backbone, students: dict[str, Learner], splits: Splits, points: int
) -> Path:
    """Draws the picture: one row per class with a test cloud, one column per model.

    All columns use the principal directions of the teacher's features, so equal colours mean
    equal features.
    """
    test = splits.test
    assert test is not None
    spread_out = np.linspace(0, len(test.class_names) - 1, SHOWN).round()
    firsts = [int(np.flatnonzero(test.labels == label)[0]) for label in spread_out]
    clouds = normalise(next(in_order(test.take(np.array(firsts)), SHOWN, points)))
    with torch.inference_mode():
        outputs = {"teacher": teacher(clouds)} | {n: s(clouds) for n, s in students.items()}
    mean, directions = pca_basis(outputs["teacher"].features.numpy())
    height = clouds[..., 2:].numpy()
    grey = np.repeat(0.3 + 0.5 * (height - height.min()) / np.ptp(height), 3, axis=-1)
    columns = [("points", grey)]
    for name, output in outputs.items():
        colours = pca_colours(output.features.numpy(), mean, directions)
        columns.append((name, interpolate(clouds, output.centers, torch.tensor(colours)).numpy()))
    return draw_grid(
        path,
        clouds.numpy(),
        columns,
        rows=[test.class_names[test.labels[i]] for i in firsts],
        title="Token features, PCA as colour (directions of the teacher)",
    )


def demo(config: DemoConfig) -> list[dict[str, Any]]:
    """Runs the demonstration; prints a table and leaves `results.jsonl` and `features.png`.

    Returns:
        The rows of the table: untrained network, students, teacher.

    Raises:
        InputError: the folder already holds something, or the teacher cannot be read.
    """
    out, began = Path(config.out), time.monotonic()
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out} is not empty; choose another --out or remove it")
    retain_memory()
    teacher = require_teacher(load(config.teacher))
    splits = load_splits(probe_data(config), seed=config.seed + 1)
    students = distil(config, teacher)
    rows = probed(config, teacher, students, splits)
    picture = draw(out / "features.png", teacher, students, splits, config.points)
    print(table(rows, probe_columns(config.examples)))
    minutes = (time.monotonic() - began) / 60
    said = {"verdict": verdict(rows), "picture": picture, "out": out, "teacher": config.teacher}
    print(NEXT.format(minutes=minutes, **said))
    return rows
