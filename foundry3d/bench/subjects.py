"""What is measured: a record that can be handed to another process, and the points it reads.

Shapes: B clouds, N points, c tokens, s supertokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from foundry3d.config import BenchConfig
from foundry3d.data import procedural
from foundry3d.models.budget import Budget

Form = Literal[
    "published", "training", "compiled", "pretrain", "distill",
    "plain scene", "geometry", "streamed", "windows", "dense",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model, the form it is run in, and the clouds that it is given.

    Attributes:
        name: of the row.
        form: published (`PlainTeacher`), training (the module as it is trained) or compiled; a
            training step, pretrain or distill; or one of `scene_forms.FORMS`.
        precision: fp32, or for the compiled form bf16.
        batch: clouds per call; a measured run goes through all clouds.
        model: the teacher, a preset or a saved backbone.
        student: a saved student, measured instead of a new one.
        supertokens: s of the student; null = the teacher itself.
        dim: encoder width of the student; null = the teacher's.
        gate: the student has a gate.
        token_budget: b of every call; needs a gate.
        ratio: r of every call; needs a gate.
        removed: tokens that ToMe removes in each block.
        groups: c; null = the teacher's.
        group_size: k; null = the teacher's.
        point_widths: of the tokenizer, which is then untrained; none = the teacher's.
        clouds: B in total.
        points: N.
        seed: of points and random weights.
        device: cpu or cuda.
    """

    name: str
    form: Form = "training"
    precision: str = "fp32"
    batch: int = 64
    model: str = "vit_s"
    student: str | None = None
    supertokens: int | None = None
    dim: int | None = None
    gate: bool = False
    token_budget: int | None = None
    ratio: float | None = None
    removed: tuple[int, ...] = ()
    groups: int | None = None
    group_size: int | None = None
    point_widths: tuple[int, ...] = ()
    clouds: int = 64
    points: int = 1024
    seed: int = 0
    device: str = "cpu"

    @property
    def budget(self) -> Budget | None:
        """The budget of a call, None without one."""
        budget = Budget(token_budget=self.token_budget, ratio=self.ratio)
        return budget if budget.asked() else None

    def source(self) -> Subject:
        """The subject reduced to what its model depends on; equal for all forms of one model."""
        plain = replace(self, name="", form="training", precision="fp32", batch=1)
        return replace(plain, clouds=1, points=1, token_budget=None, ratio=None)


def teacher_of(config: BenchConfig, **changes: Any) -> Subject:
    """The teacher on the clouds of a run, all in one batch, with fields of `Subject` changed."""
    sizes = config.sizes
    teacher = Subject(
        name="teacher",
        model=config.model,
        clouds=sizes.batch_size,
        batch=sizes.batch_size,
        points=sizes.points,
        seed=config.seed,
        device=config.device,
    )
    return replace(teacher, **changes)


def paper_students(
    start: Subject,
    measured: Sequence[int],
    budgets: Sequence[int],
    ratios: Sequence[float | None] = (),
) -> list[Subject]:
    """The students of one of the paper's tables: by supertokens, ViT-T, gate budget and ratio.

    Args:
        start: what they share.
        measured: numbers of supertokens that are measured anyway.
        budgets: token budgets of the student with a gate.
        ratios: r of the student with a gate; None = as trained.
    """
    found = [
        replace(start, name=f"s={s}", supertokens=s) for s in (16, 8, 4, 2, 1) if s not in measured
    ]
    found.append(replace(start, name="s=16, ViT-T", supertokens=16, dim=192))
    gated = replace(start, supertokens=16, gate=True)
    found += [replace(gated, name=f"gate, budget {b}", token_budget=b) for b in budgets]
    names = {ratio: "gate" if ratio is None else f"gate, r={ratio}" for ratio in ratios}
    return found + [replace(gated, name=name, ratio=ratio) for ratio, name in names.items()]


def cloud_points(clouds: int, points: int, seed: int, device: str = "cpu") -> Tensor:
    """Built-in shapes (B, N, 3)."""
    made = procedural.generate(clouds, points=points, seed=seed).points
    return torch.from_numpy(made).to(device)


def scene_points(points: int, seed: int, device: str = "cpu") -> Tensor:
    """A scene (1, N, 3): built-in shapes of different sizes on a 20 x 20 floor, in random order."""
    generator = torch.Generator().manual_seed(seed)
    shapes = 64
    each = points // (2 * shapes)
    ground = points - shapes * each
    floor = torch.rand(ground, 3, generator=generator) * torch.tensor([20.0, 20.0, 0.02])
    size = 0.3 + torch.rand(shapes, 1, 1, generator=generator)
    place = torch.rand(shapes, 1, 3, generator=generator) * torch.tensor([20.0, 20.0, 0.0])
    things = floor[:0]
    if each:
        things = (cloud_points(shapes, each, seed) * size + place).flatten(0, 1)
    found = torch.cat([floor, things])
    return found[torch.randperm(points, generator=generator)][None].to(device)
