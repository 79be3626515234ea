"""Writing files so that they appear complete or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path to write to and renames it to `path` when the block ends.

    After an error, such as a full disk, the temporary file is removed and an earlier file stays.
    The folder of `path` is created if necessary.
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
    """Yields a function that appends rows (n, width) to a .npy file, complete when the block ends.

    Only the rows of one call are in memory, so the array may be larger than memory.

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
