"""`foundry3d bench train`: clouds per second of pre-training and distillation, stage by stage.

The stages of a step are timed one by one, with the functions that training uses. Then the trainer
itself runs the same steps; the difference is its overhead, or a gain where stages overlap.

Shapes: B clouds of a step, N points.
"""

from __future__ import annotations

import logging
import tempfile
import time
from dataclasses import replace
from functools import partial
from typing import Any

from foundry3d.bench.forms import model_of
from foundry3d.bench.measure import Timed, columns, interleaved, summary, timings, waiting
from foundry3d.bench.memory import measured
from foundry3d.bench.steps import Step, training_clouds
from foundry3d.bench.subjects import Subject, teacher_of
from foundry3d.config import (
    AugmentConfig,
    BenchConfig,
    DataConfig,
    DistillConfig,
    MaskedConfig,
    PretrainConfig,
    TrainConfig,
)
from foundry3d.models.student import Student
from foundry3d.training.distill import DistillTask
from foundry3d.training.engine import fit
from foundry3d.training.pretrain import PretrainTask

log = logging.getLogger("foundry3d")

COLUMNS = columns(
    *("name", "precision", "median_s", "iqr_s", "percent", "ratio", "clouds_s"),
    *("peak_mb", "working_mb"),
)
PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}
"""The trainer's names of the precisions."""


def _stamping(kind: type) -> type:
    """A task that records when each of its steps ended."""

    class Stamping(kind):
        def on_train_batch_end(self, *arguments: object) -> None:
            super().on_train_batch_end(*arguments)
            waiting(str(self.device))()
            self.ended.append(time.perf_counter())

    return Stamping


STILL = AugmentConfig(scale=(1.0, 1.0), rotate=False)
"""No augmentation, so that the teacher's features are computed once and kept."""


def trained(subject: Subject, steps: int, *, still: bool = False) -> list[float]:
    """Seconds of each of `steps` steps of the real trainer, after two warm-up steps.

    If `still`, it distils on clouds that are not augmented, and the teacher reads each of them
    once, before the first step.
    """
    model = model_of(replace(subject, form="training", supertokens=None))
    data = DataConfig(points=subject.points)
    with tempfile.TemporaryDirectory() as folder:
        once = TrainConfig(epochs=1, warmup_epochs=0, devices=1, batch_size=subject.clouds)
        accelerator = "gpu" if subject.device.startswith("cuda") else "cpu"
        kind = PRECISIONS[subject.precision]
        train = replace(once, precision=kind, accelerator=accelerator)
        task: Any
        if subject.form == "distill":
            config = DistillConfig(out=folder + "/run", train=train, data=data)
            if still:
                config = replace(config, augment=STILL, starts="first")
            assert subject.supertokens is not None
            student = Student.from_teacher(model, supertokens=subject.supertokens)
            task = _stamping(DistillTask)(config, model, student)
            run: DistillConfig | PretrainConfig = config
        else:
            masked = MaskedConfig(decoder_heads=model.config.heads)
            run = PretrainConfig(out=folder + "/run", train=train, data=data, masked=masked)
            task = _stamping(PretrainTask)(run, type(model)(model.config))
        task.ended = []
        clouds = training_clouds(subject, steps + 2)
        if still:
            task.remember(clouds)
        fit(task, clouds, run)
    return [after - before for before, after in zip(task.ended[1:], task.ended[2:], strict=False)]


def listed(config: BenchConfig) -> list[Subject]:
    """Pre-training and distillation in every precision of the run."""
    first = teacher_of(config, name="pretrain (masked)", form="pretrain")
    found = [first]
    if config.supertokens:
        s = config.supertokens[0]
        found.append(replace(first, name=f"distill s={s}", form="distill", supertokens=s))
    return [replace(subject, precision=p) for subject in found for p in config.precisions]


def measure(config: BenchConfig) -> list[dict[str, Any]]:
    """A row for every stage, and for the whole step of the trainer.

    Raises:
        InputError: the model cannot be trained.
    """
    rows: list[dict[str, Any]] = []
    plain: dict[str, float] = {}
    for subject in listed(config):
        log.info("training: %s, %s", subject.name, subject.precision)
        stages, wait = Step(subject).stages(), waiting(config.device)
        times = interleaved(stages, repeats=config.sizes.repeats, finish=wait, turning=False)
        total = sum(timed.median for timed in times.values())
        whole = summary(trained(subject, config.sizes.repeats))
        base = plain.setdefault(subject.form, whole.median)
        make = partial(_row, subject, total)
        steps = partial(make, baseline=base, clouds=subject.clouds)
        made = [make(name, timed) for name, timed in times.items()]
        made.append(steps("whole step of the trainer", whole) | measured(subject, config))
        if subject.form == "distill":
            kept = summary(trained(subject, config.sizes.repeats, still=True))
            made.append(steps("whole step, teacher's features kept", kept))
        rows += made
    return rows


def _row(
    subject: Subject, total: float, name: str, timed: Timed, **relative: Any
) -> dict[str, Any]:
    """A row of a stage or whole step; `total` is the sum of all stages, in seconds."""
    return {
        "bench": "train",
        "name": f"{subject.name}: {name}",
        "form": subject.form,
        "precision": subject.precision,
        "clouds": subject.clouds,
        "points": subject.points,
        "batch": subject.clouds,
        "supertokens": subject.supertokens,
        "percent": 100 * timed.median / total,
        "peak_mb": None,
        "error": None,
    } | timings(timed, **relative)
