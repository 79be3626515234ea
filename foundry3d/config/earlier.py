"""What settings stand for that were written before an option existed, and renamed options."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from foundry3d.config.models import BackboneConfig, SupertokenOptions
from foundry3d.config.records import to_dict

EARLIER: dict[str, Any] = {"cau_positions": False, "supertokens_after": 0}
"""Options of students that are newer than some saved students, as those students are."""

DISTILLATION: dict[str, Any] = {
    "loss_blocks": [],
    "block_weights": [1.0],
    "relation_weight": 0.0,
    "whiten": False,
    "ema": 0.0,
    "dropped_points": 0.0,
    "teacher_features": None,
    "backbone": to_dict(BackboneConfig()),
}
"""Options of distillation that are newer than some runs, as those runs are."""

GROUPS: dict[str, dict[str, Any]] = {
    "data": {
        "attributes": [],
        "absent": None,
        "normals": None,
        "crop": None,
        "crops": 16,
        "workers": 0,
    },
    "backbone": {"attributes": [], "attribute_dropout": 0.0},
    "student": EARLIER | {"attributes": None},
    "train": {"strategy": "auto"},
}
"""Options of a group that are newer than some runs, as those runs are, by the group's name."""

RENAMED = {
    "augment.center": "augment.normalise",
    "batch": "batch_size",
    "clouds": "batch_size",
    "decay": "gate_decay",
    "json": "results",
    "lambdas": "gate_lambdas",
    "model": "teacher",
    "out": "results",
    "path": "model",
    "pictures": "out",
    "points": "samples",
    "student": "student.kind",
    "student_depth": "student.depth",
    "student_dim": "student.dim",
    "student_heads": "student.heads",
    "student_tokenizer.epochs": "token_loss.epochs",
    "student_tokenizer.group_size": "student.group_size",
    "student_tokenizer.point_widths": "student.point_widths",
    "student_tokenizer.weight": "token_loss.weight",
    "thaws": "unfreeze",
    "unfreeze_encoder": "unfreeze_epoch",
    "unfreeze_epoch": "unfreeze_encoder",
    "workers": "cluster.parallel",
    **{field.name: f"student.{field.name}" for field in fields(SupertokenOptions)},
}
"""Earlier options by name; they count where a command has the new option and not the old one."""


def student_completed(values: Any) -> Any:
    """The settings of a saved student, with what they leave out; anything else as it is."""
    return EARLIER | values if isinstance(values, dict) else values


def left_out(values: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """What the settings of a run leave out: each option's nested name, and what it stands for.

    Args:
        values: nested; a student's are those under the name `student`, those of data under `data`,
            and those of a distillation name its `teacher_cache`.
    """
    if "teacher_cache" in values:
        yield from (((key,), old) for key, old in DISTILLATION.items() if key not in values)
    for name, value in values.items():
        if isinstance(value, dict):
            found = dict(left_out(value))
            newer = GROUPS.get(name, {})
            found |= {(key,): old for key, old in newer.items() if key not in value}
            yield from (((name, *inner), old) for inner, old in found.items())
