"""What all configuration records share: checks, conversion to dictionaries, recipes."""

from __future__ import annotations

from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import yaml

from foundry3d.errors import InputError

T = TypeVar("T")


def require(holds: bool, sentence: str) -> None:
    """Raises `InputError` with the sentence unless the condition holds."""
    if not holds:
        raise InputError(sentence)


def positive(record: Any, *names: str) -> None:
    """Requires these fields of a record to be above 0."""
    for name in names:
        value = getattr(record, name)
        require(value > 0, f"{name} must be positive, got {value}")


def fraction(record: Any, *names: str) -> None:
    """Requires these fields of a record to lie in [0, 1)."""
    for name in names:
        value = getattr(record, name)
        require(0 <= value < 1, f"{name} must lie in [0, 1), got {value}")


def to_dict(record: Any) -> dict[str, Any]:
    """A configuration record as plain nested dictionaries (tuples become lists)."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        return [plain(v) for v in value] if isinstance(value, list | tuple) else value

    return plain(asdict(record))


def from_dict(kind: type[T], values: dict[str, Any]) -> T:
    """The record of type `kind` with these values, nested as `to_dict` returns them.

    Raises:
        InputError: an unknown or missing key, or a value that the record refuses.
    """
    hints = get_type_hints(kind)
    known = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - known)
    require(not unknown, f"unknown key {unknown} for {kind.__name__}; known are {sorted(known)}")
    made: dict[str, Any] = {}
    for name, value in values.items():
        if is_dataclass(hints[name]) and isinstance(value, dict):
            value = from_dict(hints[name], value)
        made[name] = tuple(value) if isinstance(value, list) else value
    try:
        return kind(**made)
    except TypeError as error:
        raise InputError(f"{kind.__name__} cannot be made from {sorted(values)}: {error}") from None


RECIPES = Path(__file__).parents[1] / "recipes"


def read_recipe(kind: type[T], name: str) -> T:
    """The record of type `kind` that a recipe of the package (`cpu/pretrain`) describes.

    Raises:
        InputError: no such recipe, or keys that `kind` does not have.
    """
    path = RECIPES / f"{name}.yaml"
    require(path.is_file(), f"no recipe {name!r} in the package")
    return from_dict(kind, yaml.safe_load(path.read_text()))
