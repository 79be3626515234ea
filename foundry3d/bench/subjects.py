"""What is measured, as a record that another process can be handed, and what it stands for.

Shapes: B clouds, N points, c tokens, s supertokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from foundry3d import config as configs
from foundry3d.baselines.merged import Merged
from foundry3d.bench.reference import PlainTeacher
from foundry3d.checkpoints.folder import load_backbone
from foundry3d.config import ReductionConfig
from foundry3d.config.records import require
from foundry3d.data import procedural
from foundry3d.inference.compiled import compile as compiled
from foundry3d.inference.cost import count
from foundry3d.inference.kernels import FastLinear
from foundry3d.models.backbone import Backbone, Tokens, require_teacher, untrained
from foundry3d.models.budget import Budget
from foundry3d.models.student import Student

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
            training step, pretrain or distill; or what is done with a scene (`scene.runner`).
        precision: fp32, or of the compiled form bf16.
        batch: clouds a call; all clouds are gone through in a measured run.
        model: the teacher, a preset or a saved backbone.
        student: a saved student that is measured instead of one that is made.
        supertokens: s of the student; null = the teacher itself.
        dim: encoder width of the student; null = the teacher's.
        gate: the student has a gate.
        token_budget: b of every call, with a gate.
        ratio: r of every call, with a gate.
        removed: tokens that ToMe removes in each block.
        groups: c; null = the teacher's.
        group_size: k; null = the teacher's. Another one makes an untrained tokenizer.
        point_widths: of the tokenizer; none = the teacher's. Likewise.
        clouds: B in all.
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
        """The same model, whatever it is called, and the form or batch it is run in."""
        return replace(
            self,
            name="",
            form="training",
            precision="fp32",
            batch=1,
            clouds=1,
            points=1,
            token_budget=None,
            ratio=None,
        )


def paper_students(
    start: Subject, measured: Sequence[int], budgets: Sequence[int]
) -> list[Subject]:
    """The students of a table of the paper: numbers of supertokens, ViT-T, a gate and its budgets.

    Args:
        start: what they share.
        measured: numbers of supertokens that are there anyway.
        budgets: of the gate's rows.
    """
    found = [
        replace(start, name=f"s={s}", supertokens=s) for s in (16, 8, 4, 2, 1) if s not in measured
    ]
    found.append(replace(start, name="s=16, ViT-T", supertokens=16, dim=192))
    gated = replace(start, supertokens=16, gate=True)
    return found + [replace(gated, name=f"gate, budget {b}", token_budget=b) for b in budgets]


def cloud_points(clouds: int, points: int, seed: int, device: str = "cpu") -> Tensor:
    """Built-in shapes (B, N, 3)."""
    made = procedural.generate(clouds, points=points, seed=seed).points
    return torch.from_numpy(made).to(device)


def scene_points(points: int, seed: int, device: str = "cpu") -> Tensor:
    """A scene (1, N, 3): built-in shapes of many sizes on a floor of 20 x 20, in random order."""
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


def _teacher(subject: Subject) -> Backbone:
    if subject.model in configs.PRESETS:
        generator = torch.Generator().manual_seed(subject.seed)
        sizes = configs.preset(subject.model)
        model = Backbone(sizes, generator=generator).eval()
        return untrained(model, cloud_points(4, max(1024, sizes.groups), subject.seed))
    require(
        Path(subject.model).exists(),
        f"{subject.model} is neither a saved model nor one of {', '.join(configs.PRESETS)}",
    )
    return require_teacher(load_backbone(subject.model)).eval()


def _resized(teacher: Backbone, subject: Subject) -> Backbone:
    """The teacher with other groups; another tokenizer is random, everything else is kept."""
    changes: dict[str, Any] = {
        "groups": subject.groups,
        "group_size": subject.group_size,
        "point_widths": subject.point_widths,
    }
    sizes = replace(teacher.config, **{k: v for k, v in changes.items() if v})
    if sizes == teacher.config:
        return teacher
    made = Backbone(sizes, generator=torch.Generator().manual_seed(subject.seed)).eval()
    weights = teacher.state_dict()
    if subject.point_widths:
        made = untrained(made, cloud_points(4, max(1024, sizes.groups), subject.seed))
        weights = {k: v for k, v in weights.items() if not k.startswith("tokenizer.")}
        weights |= {k: v for k, v in made.state_dict().items() if k.startswith("tokenizer.")}
    made.load_state_dict(weights)
    return made


@lru_cache(maxsize=32)
def _source(subject: Subject) -> Any:
    if subject.student is not None:
        return load_backbone(subject.student).to(subject.device).eval()
    teacher = _resized(_teacher(subject), subject)
    if subject.removed:
        reduction = ReductionConfig(removed=subject.removed)
        return Merged.around(teacher, reduction).to(subject.device).eval()
    if subject.supertokens is None:
        return teacher.to(subject.device)
    student = Student.from_teacher(
        teacher,
        supertokens=subject.supertokens,
        dim=subject.dim,
        gate=subject.gate,
        generator=torch.Generator().manual_seed(subject.seed),
    )
    return student.to(subject.device)


def model_of(subject: Subject) -> Any:
    """The model of a subject in its training form; forms of one model share it.

    Raises:
        InputError: a model that cannot be loaded, or supertokens that do not fit it.
    """
    return _source(subject.source())


@lru_cache(maxsize=64)
def _formed(subject: Subject) -> nn.Module:
    model = model_of(subject)
    match subject.form:
        case "published":
            return PlainTeacher(require_teacher(model))
        case "compiled" | "streamed" | "windows" | "dense":
            return compiled(model, precision=subject.precision)
        case _:
            return model


def formed(subject: Subject) -> nn.Module:
    """The model in the form that the subject asks for; made once."""
    return _formed(replace(subject.source(), form=subject.form, precision=subject.precision))


def forget() -> None:
    """Lets go of the models that were made, so that the next measurement does not hold them too."""
    _formed.cache_clear()
    _source.cache_clear()


def arithmetic(subject: Subject) -> str:
    """The precision that the form computes in, which may be fp32 where bf16 is no quicker."""
    layers = (part for part in formed(subject).modules() if isinstance(part, FastLinear))
    return "bf16" if any(layer.bias.dtype is torch.bfloat16 for layer in layers) else "fp32"


def sample_output(subject: Subject, clouds: int = 16) -> Tokens:
    """What the subject makes of the first clouds, for comparing forms."""
    count = min(clouds, subject.clouds)
    return runner(replace(subject, clouds=count, batch=count))()


def runner(subject: Subject) -> Callable[[], Tokens]:
    """A call that goes through all clouds of the subject, and returns what the last batch gave.

    Raises:
        InputError: as `model_of`.
    """
    model = formed(subject)
    points = cloud_points(subject.clouds, subject.points, subject.seed, subject.device)

    def run() -> Tokens:
        with torch.inference_mode():
            for part in points.split(subject.batch):
                found = model(part, budget=subject.budget)
        return found

    return run


def counted(subject: Subject) -> dict[str, int]:
    """Arguments of `count` for the calls of a subject: what a budget merges."""
    model = model_of(subject)
    if not isinstance(model, Student) or model.gate is None or subject.token_budget is None:
        return {}
    tokens, s, b = model.shape.groups, model.config.supertokens, subject.token_budget
    return {"merged": tokens - b + s, "used": s} if b < tokens else {"merged": 0, "used": 0}


def described(subject: Subject) -> dict[str, Any]:
    """What a row says of its subject."""
    model = model_of(subject)
    cost = count(model, clouds=subject.clouds, **counted(subject))
    own = getattr(model.config, "supertokens", None) if subject.removed == () else None
    return {
        "name": subject.name,
        "form": subject.form,
        "precision": subject.precision,
        "computed_in": arithmetic(subject),
        "model": subject.student or subject.model,
        "supertokens": own,
        "dim": model.shape.dim,
        "width": model.output_dim,
        "removed": list(subject.removed),
        "token_budget": subject.token_budget,
        "light": bool(subject.point_widths or subject.group_size),
        "clouds": subject.clouds,
        "points": subject.points,
        "tokens": model.shape.groups,
        "batch": subject.batch,
        "params_m": cost.params / 1e6,
        "gmacs": cost.macs / 1e9,
    }
