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
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from foundry3d.bench.measure import interleaved, machine, summary, waiting
from foundry3d.bench.memory import measured
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
from foundry3d.data import procedural
from foundry3d.data.clouds import Clouds
from foundry3d.data.loading import Batches
from foundry3d.mae import MaskedReconstruction
from foundry3d.results import code_version
from foundry3d.student import Student
from foundry3d.tasks.distill import DistillTask
from foundry3d.tasks.engine import fit, retain_memory
from foundry3d.tasks.pretrain import PretrainTask
from foundry3d.transforms import augment

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


def _clouds(subject: Subject, batches: int) -> Clouds:
    return procedural.generate(subject.clouds * batches, points=subject.points, seed=subject.seed)


class Step:
    """A training step in stages, each to be called after the one before it.

    Args:
        subject: of form `distill` or `pretrain`; copies of its models are trained.
    """

    def __init__(self, subject: Subject) -> None:
        self.subject, self.distils = subject, subject.form == "distill"
        plain = replace(subject, form="training", supertokens=None)
        self.teacher = model_of(plain)
        self.generator = torch.Generator(subject.device).manual_seed(subject.seed)
        if self.distils:
            assert subject.supertokens is not None
            student = Student.from_teacher(self.teacher, supertokens=subject.supertokens)
            self.model: Any = student.train()
        else:
            sizes = self.teacher.config
            decoder = MaskedConfig(decoder_heads=sizes.heads)
            self.model = MaskedReconstruction(type(self.teacher)(sizes), decoder).train()
            self.model.to(subject.device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4)
        self.loaded = self._batches()

    def _batches(self) -> Iterator[Tensor]:
        """Batches without end."""
        batches = Batches(_clouds(self.subject, 4), self.subject.clouds, seed=0)
        for epoch in range(1_000_000):
            batches.set_epoch(epoch)
            yield from batches

    def arithmetic(self) -> AbstractContextManager[Any]:
        """The precision of the forward pass."""
        if self.subject.precision == "fp32":
            return nullcontext()
        kind = "cuda" if self.subject.device.startswith("cuda") else "cpu"
        return torch.autocast(kind, torch.bfloat16)

    def data(self) -> None:
        """The next batch, on the device."""
        self.points = next(self.loaded).to(self.subject.device)

    def augmentation(self) -> None:
        """Scale, flip, centre, rotate."""
        config = AugmentConfig(flip=self.distils)
        self.points = augment(self.points, config, up="z", generator=self.generator)

    def geometry(self) -> None:
        """Sampling and grouping, once for teacher and student."""
        grouping = self.model if self.distils else self.model.backbone
        self.groups = grouping.group(self.points, generator=self.generator)

    def goal(self) -> None:
        """The teacher's features."""
        with torch.no_grad(), self.arithmetic():
            self.wanted = self.teacher.encode(self.groups).features.float()

    def forward(self) -> None:
        """The student's, or the objective, and the loss."""
        with self.arithmetic():
            if self.distils:
                found = self.model.encode(self.groups, generator=self.generator).features
                self.loss = F.smooth_l1_loss(found.float(), self.wanted)
            else:
                self.loss = self.model(self.groups, generator=self.generator)

    def backward(self) -> None:
        """Gradients."""
        self.loss.backward()

    def update(self) -> None:
        """The optimiser's step."""
        self.optimizer.step()
        self.optimizer.zero_grad()

    def stages(self) -> dict[str, Callable[[], None]]:
        """The stages in their order."""
        found = {
            "data": self.data,
            "augmentation": self.augmentation,
            "geometry": self.geometry,
            "teacher": self.goal,
            "forward": self.forward,
            "backward": self.backward,
            "optimiser": self.update,
        }
        if not self.distils:
            del found["teacher"]
        return found

    def __call__(self) -> None:
        """All of them."""
        for stage in self.stages().values():
            stage()


def _stamping(kind: type) -> type:
    """A task that notes when each of its steps ended."""

    class Stamping(kind):
        def on_train_batch_end(self, *arguments: object) -> None:
            super().on_train_batch_end(*arguments)
            waiting(str(self.device))()
            self.ended.append(time.perf_counter())

    return Stamping


def trained(subject: Subject, steps: int) -> list[float]:
    """Seconds of each of `steps` steps of the real trainer, after two that are not counted."""
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
        fit(task, _clouds(subject, steps + 2), run)
    return [after - before for before, after in zip(task.ended[1:], task.ended[2:], strict=False)]


def listed(config: BenchConfig) -> list[Subject]:
    """Pre-training and distillation in every precision asked for."""
    first = Subject(
        name="pretrain (masked)",
        form="pretrain",
        model=config.model,
        clouds=config.sizes.clouds,
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
        rows.append(
            shared
            | {
                "name": f"{subject.name}: whole step of the trainer",
                "median_s": whole.median,
                "spread_s": whole.spread,
                "repeats": whole.repeats,
                "percent": 100 * whole.median / total,
                "ratio": base / whole.median,
                "clouds_s": subject.clouds / whole.median,
            }
            | measured(subject, config)
        )
    return rows
