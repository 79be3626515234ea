"""What a student takes over from its teacher: sizes, and the weights of parts of equal size."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from foundry3d import config as configs
from foundry3d.config import BackboneConfig, StudentConfig
from foundry3d.errors import InputError


def student_config(
    teacher: BackboneConfig,
    *,
    supertokens: int = 16,
    dim: int | None = None,
    depth: int | None = None,
    heads: int | None = None,
    point_widths: tuple[int, ...] | None = None,
    group_size: int | None = None,
    **options: object,
) -> StudentConfig:
    """Sizes of a student of a teacher, without dropout.

    Args:
        teacher: its sizes.
        supertokens: s, 1 to c.
        dim: encoder width; None = the teacher's.
        depth: encoder blocks; None = the teacher's.
        heads: attention heads; None = as many as keep the teacher's head width.
        point_widths: hidden widths of the tokenizer, three or two; None = the teacher's.
        group_size: k, at most the teacher's; None = the teacher's.
        options: further fields of `StudentConfig`.

    Raises:
        InputError: `StudentConfig` refuses the sizes, or groups are larger than the teacher's.
    """
    if group_size is not None and group_size > teacher.group_size:
        raise InputError(
            f"a student reads groups of at most the teacher's {teacher.group_size} points, got "
            f"group_size {group_size}"
        )
    widths = tuple(point_widths or teacher.point_widths)
    width = teacher.token_dim or teacher.dim
    dim = dim or teacher.dim
    shape = replace(
        teacher,
        dim=dim,
        depth=depth or teacher.depth,
        heads=heads or max(1, dim * teacher.heads // teacher.dim),
        token_dim=None if width == dim else width,
        point_widths=widths,
        tokenizer_dim=teacher.tokenizer_dim if len(widths) == 3 else None,
        group_size=group_size or teacher.group_size,
        class_token=False,
        dropout=0.0,
        attention_dropout=0.0,
        drop_path=0.0,
    )
    values: dict[str, object] = {
        "backbone": shape,
        "supertokens": supertokens,
        "output_dim": None if dim == teacher.dim else teacher.dim,
    }
    return configs.from_dict(StudentConfig, values | options)


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
