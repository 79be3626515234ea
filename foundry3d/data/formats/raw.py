"""What every reader returns (`Raw`), and the helpers that readers share.

Shape legend: N vertices, F triangles, T tokens.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO, Final

import numpy as np

from foundry3d.errors import InputError

MAX_BYTES: Final = 4 * 2**30
"""No file, and nothing unpacked from one, may be larger than this (4 GiB)."""

LINE = re.compile(rb"[^\s][^\n]*")
_ASCII = bytes(i if i < 128 else ord("?") for i in range(256))


@dataclass(frozen=True, kw_only=True)
class Raw:
    """Geometry as a file states it, not yet checked for finite coordinates or valid indices.

    Attributes:
        vertices: (N, 3) of any real type, or (n, N, 3) where the file holds n clouds.
        faces: (F, 3) int64 corners of triangles, or None for a file without faces.
        notices: what the file held and was not read, one sentence each.
        from_sensor: the format is one in which sensors write NaN where they saw nothing.
        attributes: those asked for that the vertices have, by name: (N, m) as stored.
    """

    vertices: np.ndarray
    faces: np.ndarray | None = None
    notices: tuple[str, ...] = ()
    from_sensor: bool = False
    attributes: Mapping[str, np.ndarray] = field(default_factory=dict)


def unix(text: bytes) -> bytes:
    """The text with LF in place of the line ends CR LF and CR."""
    return text.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in text else text


def lines(text: bytes) -> list[bytes]:
    """The lines of a text, as `unix` returns it, that are not blank."""
    return LINE.findall(text)


def ascii_only(text: bytes) -> bytes:
    """Text of the same length with '?' for bytes beyond ASCII, as some of them look like blanks."""
    return text if text.isascii() else text.translate(_ASCII)


def numbers(text: bytes) -> np.ndarray:
    """Every number of a white-space separated text, (T,) float64.

    Raises:
        InputError: something in the text is not a number.
    """
    text = text.strip()
    if not text:
        return np.zeros(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)  # numpy before 2.3 only warned
            return np.fromstring(text, sep=" ")
    except (ValueError, DeprecationWarning):
        raise InputError(
            "expected only numbers in the body of this text file, got something else; "
            "export the file again"
        ) from None


def columns(
    rows: Iterable[str] | BinaryIO,
    separator: str | None = None,
    chosen: tuple[int, ...] = (0, 1, 2),
) -> np.ndarray:
    """The chosen columns, from 0, of a table of numbers, (N, 3) float64; empty lines are skipped.

    Args:
        rows: lines of text.
        separator: what stands between numbers; None: white space.
        chosen: which columns.

    Raises:
        InputError: no row, a row with too few columns, or something that is not a number.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # "input contained no data"
            return np.loadtxt(
                rows,
                delimiter=separator,
                usecols=chosen,
                ndmin=2,
                encoding="latin-1",
                quotechar='"',
            )
    except (ValueError, UserWarning) as error:
        raise InputError(
            f"expected a number in each coordinate column, but {listing([str(error)], width=120)}; "
            "remove or repair those rows"
        ) from None


def whole(values: np.ndarray, what: str) -> np.ndarray:
    """Floating-point `values` that must be whole numbers, as int64 of the same shape.

    Raises:
        InputError: a value is not a whole number, or too large to be exact.
    """
    if not ((np.abs(values) < 2**53) & (values == np.rint(values))).all():
        raise InputError(
            f"expected whole numbers as {what}, got something else; export the file again"
        )
    return values.astype(np.int64)


def ramp(counts: np.ndarray) -> np.ndarray:
    """0..c-1 for every c of `counts` (P,), one after the other, (sum of counts,) int64."""
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts)


def listing(names: Iterable[str], most: int = 8, width: int = 40) -> str:
    """Names that came out of a file, made safe to print: ASCII, cut, and not too many."""
    known = list(names)
    shown = [ascii(name)[1:-1][:width] for name in known[:most]]
    return ", ".join(shown) + (f" and {len(known) - most} more" if len(known) > most else "")


def ignored(what: str, names: Iterable[str]) -> tuple[str, ...]:
    """The notice that `names` were left unread; none when there is nothing to say."""
    text = listing(names)
    return (f"{what} {text} ignored",) if text else ()
