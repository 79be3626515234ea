"""`foundry3d bench train`: samples a second of pre-training and distillation, and where time goes.

A step is taken apart with the functions that training uses, one stage after the other; then the
trainer itself runs the same steps, and what it takes beside them is what it adds (or hides, where
stages overlap).

Shapes: B clouds of a step, N points.
"""

from __future__ import annotations

import logging
import tempfile
import time
from dataclasses import replace
from functools import partial
from typing import Any

from foundry3d.bench.measure import Timed, interleaved, machine, summary, waiting
from foundry3d.bench.memory import measured
from foundry3d.bench.steps import Step, _clouds
from foundry3d.bench.subjects import Subject, model_of
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
from foundry3d.report.rows import code_version
from foundry3d.training.distill import DistillTask
from foundry3d.training.engine import fit, retain_memory
from foundry3d.training.pretrain import PretrainTask

log = logging.getLogger("foundry3d")

COLUMNS = {
    "name": "name",
    "precision": "precision",
    "median_s": "median s",
    "spread_s": "spread s",
    "percent": "% of stages",
    "ratio": "ratio",
    "clouds_s": "clouds/s",
    "peak_mb": "peak MB",
    "working_mb": "working MB",
}
PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}
"""What the trainer calls a precision."""


def _stamping(kind: type) -> type:
    """A task that notes when each of its steps ended."""

    class Stamping(kind):
        def on_train_batch_end(self, *arguments: object) -> None:
            super().on_train_batch_end(*arguments)
            waiting(str(self.device))()
            self.ended.append(time.perf_counter())

    return Stamping


STILL = AugmentConfig(scale=(1.0, 1.0), rotate=False)
"""No augmentation: the teacher's features are then computed once and kept."""


def trained(subject: Subject, steps: int, *, still: bool = False) -> list[float]:
    """Seconds of each of `steps` steps of the real trainer, after two that are not counted.

    Args:
        subject: of form `distill` or `pretrain`.
        steps: how many.
        still: distillation on clouds that are not augmented, of which the teacher reads each once,
            before the steps.
    """
    model = model_of(replace(subject, form="training", supertokens=None))
    data = DataConfig(points=subject.points)
    with tempfile.TemporaryDirectory() as folder:
        train = TrainConfig(
            epochs=1,
            warmup_epochs=0,
            batch_size=subject.clouds,
            precision=PRECISIONS[subject.precision],
            accelerator="gpu" if subject.device.startswith("cuda") else "cpu",
            devices=1,
        )
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
            run = PretrainConfig(
                out=folder + "/run",
                train=train,
                data=data,
                masked=MaskedConfig(decoder_heads=model.config.heads),
            )
            task = _stamping(PretrainTask)(run, type(model)(model.config))
        task.ended = []
        clouds = _clouds(subject, steps + 2)
        if still:
            task.remember(clouds)
        fit(task, clouds, run)
    return [after - before for before, after in zip(task.ended[1:], task.ended[2:], strict=False)]


def listed(config: BenchConfig) -> list[Subject]:
    """Pre-training and distillation in every precision asked for."""
    first = Subject(
        name="pretrain (masked)",
        form="pretrain",
        model=config.model,
        clouds=config.sizes.batch_size,
        points=config.sizes.points,
        seed=config.seed,
        device=config.device,
    )
    found = [first]
    if config.supertokens:
        s = config.supertokens[0]
        found.append(replace(first, name=f"distill s={s}", form="distill", supertokens=s))
    return [replace(one, precision=p) for one in found for p in config.precisions]


def measure(config: BenchConfig) -> list[dict[str, Any]]:
    """A row for every stage, for their sum, and for the trainer's step.

    Raises:
        InputError: a model that cannot be trained.
    """
    retain_memory()
    facts = machine(config.device) | {"code": code_version()}
    rows: list[dict[str, Any]] = []
    plain: dict[str, float] = {}
    for subject in listed(config):
        log.info("training: %s, %s", subject.name, subject.precision)
        step = Step(subject)
        times = interleaved(
            step.stages(),
            repeats=config.sizes.repeats,
            finish=waiting(config.device),
            turning=False,
        )
        total = sum(timed.median for timed in times.values())
        whole = summary(trained(subject, config.sizes.repeats))
        base = plain.setdefault(subject.form, whole.median)
        shared = {
            "bench": "train",
            "form": subject.form,
            "precision": subject.precision,
            "clouds": subject.clouds,
            "points": subject.points,
            "batch": subject.clouds,
            "supertokens": subject.supertokens,
            "peak_mb": None,
            "error": None,
        } | facts
        for name, timed in times.items():
            rows.append(
                shared
                | {
                    "name": f"{subject.name}: {name}",
                    "median_s": timed.median,
                    "spread_s": timed.spread,
                    "repeats": timed.repeats,
                    "percent": 100 * timed.median / total,
                }
            )
        whole_row = partial(_whole, subject, base=base, total=total)
        rows.append(
            shared | whole_row(whole, "whole step of the trainer") | measured(subject, config)
        )
        if subject.form == "distill":
            kept = summary(trained(subject, config.sizes.repeats, still=True))
            rows.append(shared | whole_row(kept, "whole step, teacher's features kept"))
    return rows


def _whole(
    subject: Subject, timed: Timed, name: str, *, base: float, total: float
) -> dict[str, Any]:
    """What a row says of a step of the trainer; `ratio` is against the first precision's."""
    return {
        "name": f"{subject.name}: {name}",
        "median_s": timed.median,
        "spread_s": timed.spread,
        "repeats": timed.repeats,
        "percent": 100 * timed.median / total,
        "ratio": base / timed.median,
        "clouds_s": subject.clouds / timed.median,
    }
