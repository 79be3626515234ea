"""What settings stand for that were written before an option existed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

EARLIER: dict[str, Any] = {"cau_positions": False, "supertokens_after": 0}
"""Options of students that are newer than some saved students, as those students are."""

DISTILLATION: dict[str, Any] = {
    "loss_blocks": [],
    "block_weights": [1.0],
    "relation_weight": 0.0,
    "whiten": False,
    "ema": 0.0,
    "dropped_points": 0.0,
}
"""Options of distillation that are newer than some runs, as those runs are."""

GROUPS: dict[str, dict[str, Any]] = {
    "data": {"attributes": [], "absent": None, "normals": None},
    "backbone": {"attributes": [], "attribute_dropout": 0.0},
    "student": EARLIER | {"attributes": None},
}
"""Options of a group that are newer than some runs, as those runs are, by the group's name."""


def student_completed(values: Any) -> Any:
    """The settings of a saved student, with what they leave out; anything else as it is."""
    return EARLIER | values if isinstance(values, dict) else values


def left_out(values: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """What the settings of a run leave out: each option's nested name, and what it stands for.

    Args:
        values: nested; a student's are those under the name `student`, and those of a distillation
            name its `teacher_cache`.
    """
    if "teacher_cache" in values:
        yield from (((key,), old) for key, old in DISTILLATION.items() if key not in values)
    for name, value in values.items():
        if isinstance(value, dict):
            found = dict(left_out(value))
            newer = GROUPS.get(name, {})
            found |= {(key,): old for key, old in newer.items() if key not in value}
            yield from (((name, *inner), old) for inner, old in found.items())
