"""Tables of numbers as text: xyz, txt, csv and pts files.

Shape legend: N points.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass

from foundry3d.data.formats.raw import Raw, columns, listing
from foundry3d.errors import InputError


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """Where the rows start, what separates their columns, which hold x, y and z; rows promised."""

    start: int
    separator: str | None
    chosen: tuple[int, ...]
    declared: int | None


def read_table(blob: bytes) -> Raw:
    """Points of a text table, its columns separated by white space, commas or semicolons.

    Before the first row may stand comments ('#', '//' or ';'), one header, and one number of
    points, which then must be true. Coordinates are the columns that the header calls x, y and z,
    or else the first three.

    Raises:
        InputError: no rows, too few columns, no numbers, or not as many rows as declared.
    """
    blob = blob.removeprefix(b"\xef\xbb\xbf")
    layout = _layout(blob)
    rows = io.BytesIO(blob)
    rows.seek(layout.start)
    points = columns(rows, layout.separator, layout.chosen)
    if layout.declared not in (None, len(points)):
        raise InputError(
            f"expected {layout.declared} points as the first line declares, got {len(points)}; "
            "the file is cut short or damaged, copy or export it again"
        )
    return Raw(vertices=points)


def _lines(blob: bytes) -> Iterator[tuple[int, str]]:
    """Start and text of every line."""
    start = 0
    while start < len(blob):
        stop = blob.find(b"\n", start)
        stop = stop if stop >= 0 else len(blob)
        yield start, blob[start:stop].decode("latin-1").strip()
        start = stop + 1


def _layout(blob: bytes) -> _Layout:
    """What stands before the first row of numbers."""
    chosen, declared, header = (0, 1, 2), None, ""
    for start, line in _lines(blob):
        separator = next((mark for mark in ";," if mark in line), None)
        words = [word.strip(' \t"').lower() for word in line.lstrip("/#;").split(separator)]
        comment = not line or line.startswith(("#", "//", ";"))
        if not comment and len(words) > max(chosen) and _are_numbers(words[i] for i in chosen):
            return _Layout(start=start, separator=separator, chosen=chosen, declared=declared)
        if {"x", "y", "z"} <= set(words):
            chosen = (words.index("x"), words.index("y"), words.index("z"))
        if comment:
            continue
        if declared is None and not header and len(words) == 1 and line.isdecimal():
            declared = int(line[:18])
        elif header:
            break
        else:
            header = line
    raise InputError(
        "expected rows of at least three numbers after one header line at the most, got "
        f"'{listing([header])}' and none; save the coordinates as a plain table"
    )


def _are_numbers(words: Iterator[str]) -> bool:
    try:
        return all(float(word) is not None for word in words)
    except ValueError:
        return False
