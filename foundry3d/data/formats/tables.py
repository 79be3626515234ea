"""Tables of numbers as text: xyz, txt, csv and pts files.

Shape legend: N points.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from foundry3d.data.formats.fields import gathered
from foundry3d.data.formats.headers import coordinate_columns, named_columns
from foundry3d.data.formats.raw import LINE, MAX_BYTES, Raw, ascii_only, columns, listing, unix
from foundry3d.errors import InputError

_ROW = 24  # bytes of a point in memory
_COUNT = re.compile(rb"^[ \t]*(\d{1,15})[ \t]*$", re.MULTILINE)
_NUMBER = re.compile(r"[-+]?(?:\.?\d.*|nan|inf|infinity)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """Where rows start, what separates columns, which hold x, y, z; rows promised; names."""

    start: int
    separator: str | None
    chosen: tuple[int, int, int]
    declared: int | None
    names: tuple[str, ...] = ()


def read_table(
    blob: bytes, chosen: Mapping[str, str] | None = None, attributes: Sequence[str] = ()
) -> Raw:
    """Points of a text table, its columns separated by white space, commas or semicolons.

    Comments ('#', '//' or ';'), one header, and one number of points, which must be right, may
    precede the first row; further scans, each after its number of points, may follow. A line that
    begins with a number is a row. Without a header the first three columns are coordinates.

    Args:
        blob: the file.
        chosen: columns of x, y and z by name or number; None = those that the header names so.
        attributes: to read where the header names their columns.

    Raises:
        InputError: no rows, too few columns, no numbers, a header without coordinates, or not as
            many rows as declared.
    """
    text = unix(blob)
    layout = _layout(text, chosen)
    rows = text.count(b"\n", layout.start)
    if rows * _ROW > MAX_BYTES:
        raise InputError(f"expected at most {MAX_BYTES // _ROW} rows, got {rows}; cut the file")
    text = ascii_only(text)
    if layout.declared is not None:
        return Raw(vertices=_scans(text, layout, layout.declared))
    body = io.BytesIO(text)
    body.seek(layout.start)
    _, used = gathered(attributes, layout.names, lambda _: np.zeros(0))
    places = {name: layout.names.index(name) for name in used}
    values = columns(body, layout.separator, (*layout.chosen, *places.values()))
    read = dict(zip(places, values[:, 3:].T, strict=True))
    found, _ = gathered(attributes, read, read.__getitem__)
    return Raw(vertices=values[:, :3], attributes=found)


def _scans(text: bytes, layout: _Layout, declared: int) -> np.ndarray:
    """The points of one scan or several, each after the number of its points."""
    found, start = [], layout.start
    for match in [*_COUNT.finditer(text, start), None]:
        stop = match.start() if match else len(text)
        points = np.zeros((0, 3))
        if text[start:stop].strip():
            points = columns(io.BytesIO(text[start:stop]), layout.separator, layout.chosen)
        if len(points) != declared:
            raise InputError(
                f"expected {declared} points as the line before them declares, got {len(points)}; "
                "the file is cut short or damaged, copy or export it again"
            )
        found.append(points)
        if match:
            start, declared = match.end(), int(match[1])
    return np.concatenate(found)


def _separator(line: str) -> str | None:
    return next((mark for mark in ";," if mark in line), None)


def _words(line: str) -> list[str]:
    """The words of a line, without quotes and without empty ones at its end."""
    line = re.sub(r"\s+(?=[\[(])", "", line)  # the unit of `x [m]` is no word
    words = [word.strip(' \t"') for word in line.split(_separator(line))]
    while len(words) > 1 and not words[-1]:
        words.pop()
    return words


def _layout(text: bytes, asked: Mapping[str, str] | None) -> _Layout:
    """What stands before the first row of numbers."""
    declared: int | None = None
    header: list[str] | None = None
    comments: list[list[str]] = []
    for match in LINE.finditer(text):
        line = match[0].decode("utf-8", "replace").rstrip()
        words = _words(line)
        if line.startswith(("#", "//")) or (line[0] == ";" and not coordinate_columns(words)):
            comments.append(_words(line.lstrip("/#; ")))
            continue
        if header is None and not _NUMBER.fullmatch(words[0]):
            header = words
            continue
        if header is None and declared is None and len(words) == 1 and line.isdecimal():
            declared = int(line[:15])
            continue
        names = _names(words, header, comments, asked)
        chosen, mark = _chosen(words, names, asked), _separator(line)
        _check_row(words, chosen, line)
        return _Layout(
            start=match.start(),
            separator=mark,
            chosen=chosen,
            declared=declared,
            names=tuple(names or ()) if len(names or ()) == len(words) else (),
        )
    raise _no_rows(" ".join(header or []))


def _no_rows(got: str) -> InputError:
    return InputError(
        f"expected rows of at least three numbers, got '{listing([got])}' and none; "
        "save the coordinates as a plain table"
    )


def _names(
    row: list[str],
    header: list[str] | None,
    comments: list[list[str]],
    asked: Mapping[str, str] | None,
) -> list[str] | None:
    """The names of columns of rows like this one: of a header, or of a comment of as many words."""
    if header is not None:
        return header
    fitting = (words for words in comments if len(words) == len(row))
    return next((words for words in fitting if asked or coordinate_columns(words)), None)


def _chosen(
    row: list[str], names: list[str] | None, asked: Mapping[str, str] | None
) -> tuple[int, int, int]:
    """The columns of x, y and z of rows like this one, whose columns may have names."""
    width = len(row)
    if asked:
        return named_columns(names or [], asked)
    if names is None:
        return 0, 1, 2
    found = coordinate_columns(names)
    if len(names) < 3:
        raise _no_rows(" ".join(names))
    if found is None:
        raise InputError(
            f"expected a header with columns x, y and z, got {listing(names)}; name them with "
            "--columns x=NAME,y=NAME,z=NAME"
        )
    if width > len(names):
        raise InputError(
            f"expected rows of {len(names)} columns as in the header {listing(names)}, got "
            f"{width}; say which hold coordinates, e.g. --columns x=1,y=2,z=3"
        )
    return found


def _check_row(words: list[str], chosen: tuple[int, int, int], line: str) -> None:
    """Refuse a first row without a number in each coordinate column."""
    held = [words[i] for i in chosen if i < len(words)]
    if len(held) == 3 and all(map(_is_number, held)):
        return
    raise InputError(
        "expected rows of at least three numbers with a decimal point, got "
        f"'{listing([line], width=60)}'; save the coordinates as a plain table"
    )


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return "_" not in word
