"""Files that a command reads and writes must not be the same."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from foundry3d.errors import InputError


def require_apart(outputs: Mapping[str, str | Path | None], inputs: Iterable[str | Path]) -> None:
    """Requires that no file is written over one that is read, or over another that is written.

    Two names of one file (links) count as the same. Nothing is opened.

    Args:
        outputs: files or folders to write, by option; None = not written.
        inputs: files or folders that are read; they need not exist.

    Raises:
        InputError: two of them are the same.
    """
    read = {found: path for path in inputs if (found := _identity(path)) is not None}
    written: dict[object, str] = {}
    for option, path in outputs.items():
        if path is None:
            continue
        same = _identity(path)
        if same is not None and same in read:
            raise InputError(
                f"{path}: --{option} would replace {read[same]}, which is read; name another one"
            )
        key: object = same or os.path.realpath(path)
        if key in written:
            raise InputError(f"{path}: --{option} and --{written[key]} name the same file")
        written[key] = option


def _identity(path: str | Path) -> tuple[int, int] | None:
    """Device and inode, which all names of a file share; None = there is no such file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
