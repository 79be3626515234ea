"""One training step, taken apart into stages that can be timed.

Shapes: B clouds of a step, N points.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from foundry3d.bench.forms import model_of
from foundry3d.bench.subjects import Subject
from foundry3d.config import AugmentConfig, MaskedConfig
from foundry3d.data import procedural
from foundry3d.data.batches import Batches
from foundry3d.data.clouds import Clouds
from foundry3d.models.student import Student
from foundry3d.training.mae import MaskedReconstruction
from foundry3d.transforms import augment


def training_clouds(subject: Subject, batches: int) -> Clouds:
    """Built-in shapes for this many batches."""
    return procedural.generate(subject.clouds * batches, points=subject.points, seed=subject.seed)


class Step:
    """A training step in stages; each stage is called after the previous one.

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
        """Endless batches."""
        batches = Batches(training_clouds(self.subject, 4), self.subject.clouds, seed=0)
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
        """Scales, flips, centres and rotates."""
        config = AugmentConfig(flip=self.distils)
        self.points = augment(self.points, config, up="z", generator=self.generator)

    def geometry(self) -> None:
        """Samples and groups, once for teacher and student."""
        grouping = self.model if self.distils else self.model.backbone
        self.groups = grouping.group(self.points, generator=self.generator)

    def goal(self) -> None:
        """The teacher's features."""
        with torch.no_grad(), self.arithmetic():
            self.wanted = self.teacher.encode(self.groups).features.float()

    def forward(self) -> None:
        """The forward pass that is trained, and its loss."""
        with self.arithmetic():
            if self.distils:
                found = self.model.encode(self.groups, generator=self.generator).features
                self.loss = F.smooth_l1_loss(found.float(), self.wanted)
            else:
                self.loss = self.model(self.groups, generator=self.generator)

    def backward(self) -> None:
        """Computes the gradients."""
        self.loss.backward()

    def update(self) -> None:
        """Takes the optimiser's step."""
        self.optimizer.step()
        self.optimizer.zero_grad()

    def stages(self) -> dict[str, Callable[[], None]]:
        """The stages by name, in order."""
        return {
            **{"data": self.data, "augmentation": self.augmentation, "geometry": self.geometry},
            **({"teacher": self.goal} if self.distils else {}),
            **{"forward": self.forward, "backward": self.backward, "optimiser": self.update},
        }

    def __call__(self) -> None:
        """Runs all stages."""
        for stage in self.stages().values():
            stage()
