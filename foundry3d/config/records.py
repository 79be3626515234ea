"""What all configuration records share: checks, plain dictionaries, recipes of the package."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import yaml

from foundry3d.errors import InputError

T = TypeVar("T")


def require(holds: bool, sentence: str) -> None:
    """Raises `InputError` with the sentence unless it holds."""
    if not holds:
        raise InputError(sentence)


MOST = 2**31 - 1
"""The largest count, size or seed of any option."""
WIDEST = 2**16
"""The largest width of a layer, and the largest number of tokens of a model."""
DEEPEST = 2**10
"""The largest number of layers, and of heads in one."""


def positive(record: Any, *names: str, most: float = MOST) -> None:
    """Requires these fields of a record to be above 0 and at most `most`."""
    for name in names:
        value = getattr(record, name)
        require(value > 0, f"{name} must be positive, got {value}")
        require(value <= most, f"{name} must be at most {most}, got {value}")


def positive_or_null(record: Any, *names: str, most: float = MOST) -> None:
    """Requires the same of these fields, which may be None."""
    for name in names:
        value = getattr(record, name)
        require(value is None or value > 0, f"{name} must be positive or null, got {value}")
        require(value is None or value <= most, f"{name} must be at most {most}, got {value}")


def not_negative(record: Any, *names: str, most: float = MOST) -> None:
    """Requires these fields of a record to lie in 0..`most`, or to be None."""
    for name in names:
        value = getattr(record, name)
        require(value is None or value >= 0, f"{name} must be >= 0, got {value}")
        require(value is None or value <= most, f"{name} must be at most {most}, got {value}")


def all_positive(record: Any, *names: str, most: float = MOST) -> None:
    """Requires every entry of these fields of a record to be above 0 and at most `most`."""
    for name in names:
        values = getattr(record, name)
        require(
            all(0 < value <= most for value in values),
            f"{name} must be positive and at most {most}, got {values}",
        )


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
    """The record of type `kind` that `to_dict` wrote.

    Raises:
        InputError: an unknown key, a missing one, or a value the record refuses.
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


def _kind(value: Any) -> str:
    return "nothing" if value is None else type(value).__name__


MOST_YAML = 2**17
"""Bytes of the largest file of settings; a recipe of every option of a suite has 10 kB."""


def read_yaml(path: Path) -> dict[str, Any]:
    """The settings in a YAML file; aliases, which can stand for any amount of memory, are refused.

    Raises:
        InputError: the file is not UTF-8, damaged, empty, larger than `MOST_YAML`, holds something
            else than named settings, or has an alias or a tag of a Python object.
    """
    advice = "write 'option: value' lines; --print_config shows them all"
    try:
        with open(path, "rb") as stream:
            content = stream.read(MOST_YAML + 1)
        require(
            len(content) <= MOST_YAML, f"{path}: a file of settings has at most 128 kB; {advice}"
        )
        text = content.decode("utf-8-sig")
        require("\0" not in text, f"{path}: expected text, got NUL bytes; {advice}")
        aliases = (e for e in yaml.parse(text, yaml.SafeLoader) if isinstance(e, yaml.AliasEvent))
        alias = next(aliases, None)
        require(
            alias is None,
            f"{path}: an alias (*{alias and alias.anchor}) is not read; write its value out",
        )
        values = yaml.safe_load(text)
    except (RecursionError, UnicodeError, ValueError, yaml.YAMLError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: expected settings in YAML ({error}); {advice}") from None
    require(
        isinstance(values, dict) and all(isinstance(name, str) for name in values),
        f"{path}: expected named settings, got {_kind(values)}; {advice}",
    )
    return values


def quoted(word: str) -> str:
    """A word in the quotes of YAML, with codes for what YAML does not allow in a file."""
    codes = (c if ord(c) > 0xFFFF else json.dumps(c)[1:-1] for c in word)
    return f'"{"".join(codes)}"'


RECIPES = Path(__file__).parents[1] / "recipes"


def read_recipe(kind: type[T], name: str) -> T:
    """The record of type `kind` that a recipe of the package (`cpu/pretrain`) describes.

    Raises:
        InputError: no such recipe, or one with keys that `kind` does not have.
    """
    path = RECIPES / f"{name}.yaml"
    require(path.is_file(), f"no recipe {name!r} in the package")
    return from_dict(kind, read_yaml(path))
