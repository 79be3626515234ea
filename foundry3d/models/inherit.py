"""What a student takes over from its teacher: sizes, and the weights of parts of equal size."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from foundry3d.config import (
    BackboneConfig,
    StudentConfig,
    StudentOptions,
    SupertokenOptions,
    TruncatedConfig,
    from_dict,
    to_dict,
)
from foundry3d.errors import InputError
from foundry3d.models.attributes import carried
from foundry3d.models.tokenizer import PointModel


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
    shared = {f.name: getattr(chosen, f.name) for f in fields(SupertokenOptions)}
    return StudentConfig(**_sizes(teacher, chosen), **shared)


def truncated_config(
    teacher: BackboneConfig, options: StudentOptions | None = None, **changes: Any
) -> TruncatedConfig:
    """Sizes of a truncated student of a teacher, without dropout; see `student_config`.

    Raises:
        InputError: options that do not fit the teacher, or of a student of another kind.
    """
    values = to_dict(options) if options else {"kind": "truncated"}
    chosen = from_dict(StudentOptions, values | changes)
    if chosen.kind != "truncated":
        raise InputError(f"expected a student of kind truncated, got kind {chosen.kind}")
    if chosen.depth is not None and chosen.depth > teacher.depth:
        raise InputError(
            f"a truncated student has at most the teacher's {teacher.depth} blocks, got depth "
            f"{chosen.depth}"
        )
    return TruncatedConfig(**_sizes(teacher, chosen))


def _sizes(teacher: BackboneConfig, chosen: StudentOptions) -> dict[str, Any]:
    """`backbone` and `output_dim` of a student."""
    if chosen.group_size is not None and chosen.group_size > teacher.group_size:
        raise InputError(
            f"a student reads groups of at most the teacher's {teacher.group_size} points, got "
            f"group_size {chosen.group_size}"
        )
    read = teacher.attributes if chosen.attributes is None else chosen.attributes
    unknown = [name for name in read if name not in teacher.attributes]
    if unknown:
        raise InputError(
            f"a student reads attributes of its teacher's {list(teacher.attributes)}, got "
            f"{unknown}; extend the teacher first (foundry3d.with_attributes)"
        )
    widths = chosen.point_widths or teacher.point_widths
    width = teacher.token_dim or teacher.dim
    dim = chosen.dim or teacher.dim
    shape = replace(
        teacher,
        dim=dim,
        depth=teacher.depth if chosen.depth is None else chosen.depth,
        heads=chosen.heads or max(1, dim * teacher.heads // teacher.dim),
        token_dim=None if width == dim else width,
        point_widths=widths,
        tokenizer_dim=teacher.tokenizer_dim if len(widths) == 3 else None,
        group_size=chosen.group_size or teacher.group_size,
        class_token=False,
        dropout=0.0,
        attention_dropout=0.0,
        drop_path=0.0,
        attributes=read,
    )
    return {"backbone": shape, "output_dim": None if dim == teacher.dim else teacher.dim}


def copy_weights(
    teacher: PointModel,
    its: BackboneConfig,
    student: PointModel,
    own: BackboneConfig,
    *,
    shallower: bool = False,
) -> None:
    """Copies the parts whose sizes agree from teacher to student, in place.

    The position MLP always; the tokenizer, and the encoder with its bridges, where they match.

    Args:
        teacher: not changed.
        its: sizes of the teacher.
        student: changed.
        own: sizes of the student.
        shallower: a student of fewer blocks gets the teacher's first ones.
    """
    parts = ["position"]
    if own.point_widths == its.point_widths:
        parts.append("tokenizer")
    alike = (own.dim, own.heads) == (its.dim, its.heads)
    if alike and (shallower or own.depth == its.depth):
        parts += ["token_bridge", "position_bridge"]
        weights = teacher.encoder.state_dict()
        held = student.encoder.state_dict().keys()
        student.encoder.load_state_dict({name: weights[name] for name in held})
    for part in parts:
        weights = teacher.get_submodule(part).state_dict()
        if part == "tokenizer":
            lift = "lift.weight"
            weights[lift] = carried(weights[lift], its.attributes, own.attributes)
        student.get_submodule(part).load_state_dict(weights)
