"""What all configuration records share: checks, and conversion to dictionaries."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import asdict, fields, is_dataclass
from typing import Any, TypeVar, get_type_hints

from foundry3d.errors import InputError

T = TypeVar("T")


def require(holds: bool, sentence: str) -> None:
    """Raises `InputError` with the sentence unless the condition holds."""
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


def texts_in(record: Any, *, but: Collection[str] = ()) -> Iterator[str]:
    """Every text in a record and the records in it, except in fields of the names in `but`."""
    for field in fields(record):
        value = getattr(record, field.name)
        if is_dataclass(value):
            yield from texts_in(value, but=but)
        elif field.name not in but:
            values = value if isinstance(value, tuple) else (value,)
            yield from (one for one in values if isinstance(one, str) and one)
