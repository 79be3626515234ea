"""The demonstration: pre-train, distil, probe and draw on built-in shapes, in a few minutes."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from foundry3d.baselines import RandomSampling
from foundry3d.checkpoints.origin import origin_of
from foundry3d.config import DemoConfig, DistillConfig, PretrainConfig, read_recipe
from foundry3d.data.loading import Splits, in_order, load_splits
from foundry3d.errors import InputError
from foundry3d.evaluation.probe import PROBE_COLUMNS, Subject, probe_rows, untrained_like
from foundry3d.models.backbone import Backbone, require_teacher
from foundry3d.models.upsample import interpolate
from foundry3d.report.figures import draw_grid, pca_basis, pca_colours
from foundry3d.report.rows import table
from foundry3d.training.distill import Learner, distill
from foundry3d.training.pretrain import pretrain
from foundry3d.transforms import normalise

log = logging.getLogger("foundry3d")

SUPERTOKENS = (16, 4, 1)
SHOWN = 5


NEXT = """
{minutes:.1f} minutes. Accuracies in percent: linear probes on clouds that were not trained on.
picture  {picture}
rows     {out}/results.jsonl
next     foundry3d cost --model {out}/s4/model --batch_size 1
         foundry3d pretrain --config cpu/pretrain --data.train YOUR.npz --out runs/teacher
         foundry3d distill --config cpu/distill --teacher runs/teacher/model \\
             --data.train YOUR.npz --student.supertokens 4 --out runs/s4"""


def plan(config: DemoConfig) -> tuple[PretrainConfig, list[DistillConfig]]:
    """The runs of a demonstration: one teacher, and one student for each of `SUPERTOKENS`."""
    out = Path(config.out)
    teacher = read_recipe(PretrainConfig, "cpu/demo-teacher")
    student = read_recipe(DistillConfig, "cpu/demo-student")
    return (
        replace(teacher, out=str(out / "teacher"), train=replace(teacher.train, seed=config.seed)),
        [
            replace(
                student,
                teacher=str(out / "teacher" / "model"),
                out=str(out / f"s{s}"),
                student=replace(student.student, supertokens=s),
                train=replace(student.train, seed=config.seed),
            )
            for s in SUPERTOKENS
        ],
    )


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
        The rows of the table.

    Raises:
        InputError: the folder already holds a demonstration.
    """
    out = Path(config.out)
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out} is not empty; choose another --out or remove it")
    began = time.monotonic()
    first, others = plan(config)
    log.info("1/4  pre-training a teacher on built-in shapes (masked reconstruction, no labels)")
    teacher = require_teacher(pretrain(first))
    students = {}
    for settings in others:
        s = settings.student.supertokens
        log.info(
            "2/4  distilling a student with %d supertokens of %d tokens", s, teacher.shape.groups
        )
        students[f"student s={s}"] = distill(settings)
    log.info("3/4  probing: linear SVM and k-NN on frozen features")
    data = first.data
    splits = load_splits(data, seed=config.seed)
    origins = [origin_of(out) for out in (first.out, *(settings.out for settings in others))]
    fresh = untrained_like(teacher, splits, points=data.points, seed=config.seed)
    subjects = [
        Subject("untrained", fresh),
        Subject("teacher", teacher, origins[0]),
        *(Subject(*pair) for pair in zip(students, students.values(), origins[1:], strict=True)),
        *(
            Subject(f"teacher, {s} random tokens", RandomSampling(teacher, s), origins[0])
            for s in SUPERTOKENS
        ),
    ]
    rows = probe_rows(subjects, splits, data, seed=config.seed, out=out / "results.jsonl")
    log.info("4/4  drawing")
    picture = draw(out / "features.png", teacher, students, splits, data.points)
    print(table(rows, PROBE_COLUMNS))
    minutes = (time.monotonic() - began) / 60
    print(NEXT.format(minutes=minutes, picture=picture, out=out))
    return rows
