"""Files that appear complete or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from foundry3d.errors import InputError


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `path` to write to, and renames it when the block is done.

    After an error, a full disk included, the temporary file is removed and an earlier file stays.
    The folder of `path` is made where it is missing.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def npy_rows(path: str | Path, width: int, kind: str = "<f2") -> Iterator[Callable[..., None]]:
    """Yields what appends rows (n, width) to a .npy file that appears when the block is done.

    Nothing but the rows at hand is held, so the array may be larger than memory.

    Args:
        path: of the file.
        width: of a row.
        kind: numpy's name of the type to write, e.g. `<f2`.
    """

    def header(rows: int) -> bytes:
        text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': ({rows}, {width}), }}"
        return b"\x93NUMPY\x01\x00\x76\x00" + text.ljust(117).encode() + b"\n"  # 128 bytes

    with replacing(path) as partial, open(partial, "wb") as stream:
        stream.write(header(0))

        def append(rows: np.ndarray) -> None:
            stream.write(np.ascontiguousarray(rows, kind).data)

        yield append
        written = stream.tell() - len(header(0))
        stream.seek(0)
        stream.write(header(written // (width * np.dtype(kind).itemsize)))


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
        found = _identity(path)
        if found is not None and found in read:
            raise InputError(
                f"{path}: --{option} would replace {read[found]}, which is read; name another one"
            )
        name = found or os.path.realpath(path)
        if name in written:
            raise InputError(f"{path}: --{option} and --{written[name]} name the same file")
        written[name] = option


def _identity(path: str | Path) -> tuple[int, int] | None:
    """Device and inode, which all names of a file share; None = there is no such file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
