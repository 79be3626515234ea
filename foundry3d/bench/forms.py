"""From a subject to its model, in the form that is measured, and a call of it.

Shapes: B clouds, N points, c tokens, s supertokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from foundry3d import config as configs
from foundry3d.baselines.merged import Merged
from foundry3d.bench.reference import PlainTeacher
from foundry3d.bench.subjects import Subject, cloud_points
from foundry3d.checkpoints.folder import load_backbone
from foundry3d.config import ReductionConfig
from foundry3d.config.records import require
from foundry3d.inference.compiled import compile as compiled
from foundry3d.inference.cost import count
from foundry3d.inference.kernels import FastLinear
from foundry3d.models.backbone import Backbone, Tokens, require_teacher, untrained
from foundry3d.models.student import Student


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
    """The teacher with other groups; a tokenizer of other widths is untrained, the rest is kept."""
    names = ("groups", "group_size", "point_widths")
    changes: dict[str, Any] = {name: getattr(subject, name) for name in names}
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
    """The model of a subject in its training form, shared by all forms of one model.

    Raises:
        InputError: the model cannot be loaded, or the supertokens do not fit it.
    """
    return _source(subject.source())


@lru_cache(maxsize=64)
def _formed(subject: Subject) -> nn.Module:
    model = model_of(subject)
    if subject.form == "published":
        return PlainTeacher(require_teacher(model))
    if subject.form in ("compiled", "streamed", "windows", "dense"):
        return compiled(model, precision=subject.precision)
    return model


def formed(subject: Subject) -> nn.Module:
    """The model in the form of the subject; made once."""
    return _formed(replace(subject.source(), form=subject.form, precision=subject.precision))


def forget() -> None:
    """Drops all cached models, so that the next measurement does not hold them in memory."""
    _formed.cache_clear()
    _passed.cache_clear()
    _source.cache_clear()


def arithmetic(subject: Subject) -> str:
    """The precision that the form computes in: fp32 where bf16 was asked for but is not faster."""
    layers = (part for part in formed(subject).modules() if isinstance(part, FastLinear))
    return "bf16" if any(layer.bias.dtype is torch.bfloat16 for layer in layers) else "fp32"


def sample_output(subject: Subject, clouds: int = 16) -> Tokens:
    """The subject's output for the first clouds, for comparing forms."""
    count = min(clouds, subject.clouds)
    return runner(replace(subject, clouds=count, batch=count))()


def runner(subject: Subject) -> Callable[[], Tokens]:
    """A call that goes through all clouds of the subject and returns the output of the last batch.

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
    """Arguments of `count` for the calls of a subject: what its gate merges.

    Without a token budget that depends on the clouds, which are then passed once; batches are
    padded, so the cloud that merges most counts, and the one that encodes most.
    """
    model = model_of(subject)
    if not isinstance(model, Student) or model.gate is None:
        return {}
    tokens, s, b = model.shape.groups, model.config.supertokens, subject.token_budget
    if b is not None:
        return {"merged": tokens - b + s, "used": s} if b < tokens else {"merged": 0, "used": 0}
    merged, encoded = _passed(replace(subject, name="", form="training", precision="fp32"))
    return {"merged": merged, "used": encoded - tokens + merged}


@lru_cache(maxsize=64)
def _passed(subject: Subject) -> tuple[int, int]:
    """The most merged tokens of a cloud in the last batch, and the most encoded ones."""
    found = runner(subject)()
    assert found.assignment is not None and found.tokens_used is not None
    return int((found.assignment >= 0).sum(dim=1).max()), int(found.tokens_used.max())


def described(subject: Subject) -> dict[str, Any]:
    """The columns of a row that describe its subject."""
    model = model_of(subject)
    taken = counted(subject)
    cost = count(model, clouds=subject.clouds, **taken)
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
        "gate": isinstance(model, Student) and model.gate is not None,
        "gate_ratio": subject.ratio,
        "encoded": model.shape.groups - taken["merged"] + taken["used"] if taken else None,
        "light": bool(subject.point_widths or subject.group_size),
        "clouds": subject.clouds,
        "points": subject.points,
        "tokens": model.shape.groups,
        "batch": subject.batch,
        "params_m": cost.params / 1e6,
        "gmacs": cost.macs / 1e9,
    }
