"""What a student takes over from its teacher: sizes, and the weights of parts of equal size."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from torch import nn

from foundry3d.config import (
    BackboneConfig,
    StudentConfig,
    StudentOptions,
    SupertokenOptions,
    from_dict,
    to_dict,
)
from foundry3d.errors import InputError


def student_config(
    teacher: BackboneConfig, options: SupertokenOptions | None = None, **changes: Any
) -> StudentConfig:
    """Sizes of a student of a teacher, without dropout.

    Args:
        teacher: sizes of the teacher.
        options: how the student differs from it; None = the defaults of `StudentOptions`.
        changes: fields of `StudentOptions` that replace those of `options`.

    Raises:
        InputError: options that do not fit the teacher, or of a student without supertokens.
    """
    chosen = from_dict(StudentOptions, to_dict(options or StudentOptions()) | changes)
    if chosen.kind != "supertokens":
        raise InputError(f"expected a student of kind supertokens, got kind {chosen.kind}")
    if chosen.group_size is not None and chosen.group_size > teacher.group_size:
        raise InputError(
            f"a student reads groups of at most the teacher's {teacher.group_size} points, got "
            f"group_size {chosen.group_size}"
        )
    widths = chosen.point_widths or teacher.point_widths
    width = teacher.token_dim or teacher.dim
    dim = chosen.dim or teacher.dim
    shape = replace(
        teacher,
        dim=dim,
        depth=chosen.depth or teacher.depth,
        heads=chosen.heads or max(1, dim * teacher.heads // teacher.dim),
        token_dim=None if width == dim else width,
        point_widths=widths,
        tokenizer_dim=teacher.tokenizer_dim if len(widths) == 3 else None,
        group_size=chosen.group_size or teacher.group_size,
        class_token=False,
        dropout=0.0,
        attention_dropout=0.0,
        drop_path=0.0,
    )
    shared = {f.name: getattr(chosen, f.name) for f in fields(SupertokenOptions)}
    return StudentConfig(
        backbone=shape, output_dim=None if dim == teacher.dim else teacher.dim, **shared
    )


def copy_weights(
    teacher: nn.Module, its: BackboneConfig, student: nn.Module, own: BackboneConfig
) -> None:
    """Copies the parts whose sizes agree from teacher to student, in place.

    The position MLP always; the tokenizer, and the encoder with its bridges, where they match.

    Args:
        teacher: not changed.
        its: sizes of the teacher.
        student: changed.
        own: sizes of the student.
    """
    parts = ["position"]
    if own.point_widths == its.point_widths:
        parts.append("tokenizer")
    if (own.dim, own.depth, own.heads) == (its.dim, its.depth, its.heads):
        parts += ["encoder", "token_bridge", "position_bridge"]
    for part in parts:
        student.get_submodule(part).load_state_dict(teacher.get_submodule(part).state_dict())
