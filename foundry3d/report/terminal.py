"""What reaches a terminal: names that cannot move its cursor, and quiet when nobody reads."""

from __future__ import annotations

import io
import logging
import os
import re
from typing import TextIO

_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]"
)
"""Control characters, those that change the direction of writing, and bytes that are no text."""
_LAID_OUT = re.compile(r"[^\n\t]+")
_LONGEST = 2000
"""Characters of a message; what is longer loses its middle."""


def _code(found: re.Match[str]) -> str:
    number = ord(found[0])
    if 0xDC80 <= number <= 0xDCFF:  # a byte of a file name that is not UTF-8
        number -= 0xDC00
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"


def escaped(text: str) -> str:
    r"""The text on one line, with a code such as `\x1b` for what a terminal would obey."""
    return _UNSAFE.sub(_code, text)


def one_line(text: str) -> str:
    """A message as one escaped line of bounded length, its white space joined."""
    line = escaped(" ".join(text.split()))
    if len(line) <= _LONGEST:
        return line
    return f"{line[: _LONGEST // 2]} [...] {line[-_LONGEST // 2 :]}"


class Lines(logging.Formatter):
    """Log records whose messages are one escaped line each; a traceback keeps its lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The message alone, escaped."""
        return escaped(super().formatMessage(record))


class Shown(io.TextIOBase):
    """A stream that escapes what is written to it, line ends and tabs excepted.

    What the encoding of the stream lacks becomes a code too. When nobody reads any more (`| head`)
    the rest is dropped and the command goes on, so that what it writes elsewhere is complete.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Of the stream; UTF-8 where it has none."""
        return self.stream.encoding or "utf-8"

    def write(self, text: str, /) -> int:
        """Writes escaped text; returns the length that was handed in."""
        safe = _LAID_OUT.sub(lambda part: escaped(part[0]), text)
        known = safe.encode(self.encoding, "backslashreplace").decode(self.encoding)
        try:
            self.stream.write(known)
        except BrokenPipeError:
            self._drop()
        return len(text)

    def flush(self) -> None:
        """Hands on what was written."""
        try:
            self.stream.flush()
        except BrokenPipeError:
            self._drop()

    def fileno(self) -> int:
        """Of the stream."""
        return self.stream.fileno()

    def isatty(self) -> bool:
        """Whether the stream is a terminal."""
        return self.stream.isatty()

    def writable(self) -> bool:
        """Always."""
        return True

    def _drop(self) -> None:
        """Sends the rest nowhere; Python flushes the stream once more when it ends."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.stream.fileno())
        os.close(nowhere)
