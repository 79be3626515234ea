"""The sizes in a config.json, checked before a model of them takes any memory.

Values are held against the types of their configuration record, then against the header of the
weights: a model is only made once its tensors are known to be those of the file.
"""

from __future__ import annotations

import json
import types
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from foundry3d.config import HeadedConfig, StudentConfig, from_dict
from foundry3d.config.earlier import student_completed
from foundry3d.config.heads import INNER
from foundry3d.errors import InputError

Record = TypeVar("Record")

LARGEST = 2**22
"""Most bytes of a config.json; real ones have a few thousand."""
REPEATED = ("depth", "hidden", "upsampling", "point_widths")
"""Fields that make one layer for each unit or entry, and so at least one tensor each."""
FAULTS = (ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)
"""What modules raise when they are made with sizes that no model can have."""
MOST = 2**63
"""Numbers from here on, and infinity, are not sizes."""


def read_json(path: Path) -> Any:
    """The content of a JSON file of ordinary size and depth.

    Raises:
        InputError: too large, nested too deeply, or not JSON.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise InputError(f"{path} has more than {LARGEST} bytes; it is no model's config.json")
        return json.loads(content)
    except (ValueError, OSError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is not readable JSON: {error}") from None


def shown(value: object) -> str:
    """A value in a message: short ones as they are, others by their type."""
    text = repr(value) if isinstance(value, int | float | str | bool | None) else ""
    return text[:60] if text else f"a {type(value).__name__}"


def _fits(value: object, hint: Any) -> bool:
    """Whether a JSON value has the type that a field is annotated with."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, option) for option in inner)
    if origin is Literal:
        return isinstance(value, str) and value in inner
    if origin is tuple:
        return isinstance(value, list) and all(_fits(entry, inner[0]) for entry in value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return type(value) is hint
    return abs(value) < MOST and (hint is float or (hint is int and isinstance(value, int)))


def _check_types(kind: type, values: object, path: Path, where: str = "config") -> None:
    """Refuses values of other types than the record `kind` has, in nested records too."""
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected an object for {where}, got {shown(values)}")
    hints = get_type_hints(kind)
    if issubclass(kind, HeadedConfig) and isinstance(values.get("kind"), str):
        hints["inner"] = INNER.get(values["kind"], dict)
    for name, value in values.items():
        hint, field = hints.get(name), f"{where}.{name[:60]}"
        if hint is None:
            raise InputError(
                f"{path}: unknown key {field}; known are {[f.name for f in fields(kind)]}"
            )
        if is_dataclass(hint):
            _check_types(hint, value, path, field)  # type: ignore[arg-type]
        elif not _fits(value, hint):
            wanted = hint.__name__ if isinstance(hint, type) else str(hint)
            raise InputError(f"{path}: expected {field} of type {wanted}, got {shown(value)}")


def _completed(config: type, values: Any) -> Any:
    """The values with what an earlier student's leave out, also where a head is on the student."""
    if config is StudentConfig:
        return student_completed(values)
    headed = isinstance(values, dict) and issubclass(config, HeadedConfig)
    if headed and values.get("kind") == "student":
        return values | {"inner": student_completed(values.get("inner"))}
    return values


def _check_repeats(values: dict[str, Any], tensors: int, path: Path) -> None:
    """Refuses more layers than the file has tensors, in nested records too."""
    for name, value in values.items():
        if isinstance(value, dict):
            _check_repeats(value, tensors, path)
        elif name in REPEATED and value is not None:
            count = value if isinstance(value, int) else len(value)
            if count > tensors:
                raise InputError(
                    f"{path}: {name} makes {count} layers, the weights are {tensors} tensors"
                )


def read_header(weights: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors in a safetensors file, by name; no tensor is read.

    Raises:
        InputError: no such file, truncated, or not safetensors.
    """
    if not weights.is_file():
        raise InputError(f"{weights} is missing, or not a safetensors file; copy it again")
    try:
        with safe_open(weights, framework="pt") as file:
            names = file.keys()
            return {name: tuple(file.get_slice(name).get_shape()) for name in names}
    except (SafetensorError, OSError, OverflowError, MemoryError) as error:
        raise InputError(
            f"{weights} is truncated or not a safetensors file ({error}); copy it again"
        ) from None


def checked_config(
    model: type[nn.Module], config: type[Record], values: object, weights: Path
) -> Record:
    """The record of a stored configuration, if the weights are those of a model of its sizes.

    Args:
        model: made of such a record; only its shapes are made here.
        config: type of the record.
        values: what config.json holds of it.
        weights: the safetensors file in the same folder.

    Raises:
        InputError: values of another type, values that the record refuses, a file that is not
            safetensors, or tensors that are missing, unknown or of another shape.
    """
    path = weights.parent / "config.json"
    values = _completed(config, values)
    _check_types(config, values, path)
    assert isinstance(values, dict)
    header = read_header(weights)
    _check_repeats(values, len(header), path)
    try:
        record = from_dict(config, values)
        with torch.device("meta"):
            shaped = model(record)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except FAULTS as error:
        reason = str(error).split("\n")[0][:200]
        raise InputError(f"{path} has sizes that no model can have ({reason})") from None
    own = {name: tuple(tensor.shape) for name, tensor in shaped.state_dict().items()}
    missing, surplus = sorted(own.keys() - header.keys()), sorted(header.keys() - own.keys())
    shapes = sorted(name for name in own.keys() & header.keys() if own[name] != header[name])
    if missing or surplus or shapes:
        raise InputError(
            f"{weights} does not fit its config.json: missing {missing[:3]}, unknown "
            f"{surplus[:3]}, of another shape {shapes[:3]}"
        )
    held = sum(buffer.numel() * buffer.element_size() for buffer in shaped.buffers())
    if held > weights.stat().st_size + LARGEST:
        raise InputError(f"{path} makes a model of {held} bytes beyond its weights")
    return record
