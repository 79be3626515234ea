"""Files that appear complete or not at all, and names held by one process at a time."""

from __future__ import annotations

import errno
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

try:
    import fcntl
except ImportError:  # not on this system: there a lock file stands for its own lock
    fcntl = None  # type: ignore[assignment]

UNLOCKABLE = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)
"""Errors of network disks that do not support locks; nothing is held there."""


def synced(path: str | Path) -> None:
    """Waits until a file or folder is on the disk, where the system can tell."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _create(path: Path) -> Path:
    """A new, empty file in the folder of `path`, with a name that cannot be guessed."""
    while True:
        partial = path.with_name(f".{path.name[:40]}.{secrets.token_hex(6)}.partial")
        with suppress(FileExistsError):
            os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
            return partial


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yields a temporary file in the folder of `path`, which takes its place when the block ends.

    After an error, a full disk included, the temporary file is removed and an earlier file stays.
    It is on the disk before it is renamed. The folder of `path` is made where it is missing; a
    symbolic link at `path` is replaced, not followed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _create(path)
    try:
        yield partial
        synced(partial)
        os.replace(partial, path)
        synced(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Writes a text file in UTF-8, complete or not at all."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _taken(path: Path) -> int | None:
    """A descriptor of the lock file, held by this process; None = another one holds it."""
    only = 0 if fcntl is not None else os.O_EXCL
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | only, 0o666)
    except FileExistsError:
        return None
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.stat(path), os.fstat(descriptor)):
                raise FileNotFoundError("its holder has removed it")
    except (BlockingIOError, FileNotFoundError):
        os.close(descriptor)
        return None
    except OSError as error:
        if error.errno not in UNLOCKABLE:
            os.close(descriptor)
            raise
    with suppress(OSError):  # who holds it is a courtesy that a full disk may forbid
        os.truncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
    return descriptor


@contextmanager
def held(path: str | Path, *, wait: bool = False) -> Iterator[None]:
    """Holds a file or folder against other processes that ask in the same way.

    `<path>.lock` is there while the block runs and names the holder. A process that is killed
    holds nothing any more (on systems without `fcntl` its lock file must be removed by hand).

    Args:
        path: what is held; it need not exist.
        wait: until the holder is done, instead of refusing.

    Raises:
        BlockingIOError: another process holds it.
    """
    lock = Path(f"{path}.lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    while (descriptor := _taken(lock)) is None:
        if not wait:
            holder = lock.read_text(errors="replace") if lock.exists() else ""
            raise BlockingIOError(
                f"{path} is being written by {holder or 'another process'}; wait until it ends, or "
                f"choose another name (its lock is {lock})"
            )
        time.sleep(0.005)
    try:
        yield
    finally:
        if fcntl is None:
            os.close(descriptor)
        lock.unlink(missing_ok=True)
        if fcntl is not None:
            os.close(descriptor)


@contextmanager
def npy_rows(path: str | Path, width: int) -> Iterator[Callable[..., None]]:
    """Yields a function that appends float16 rows (n, width) to a .npy, whole at the block's end.

    Only the rows of one call are in memory, so the array may be larger than memory.
    """

    def header(rows: int) -> bytes:
        text = f"{{'descr': '<f2', 'fortran_order': False, 'shape': ({rows}, {width}), }}"
        return b"\x93NUMPY\x01\x00\x76\x00" + text.ljust(117).encode() + b"\n"  # 128 bytes

    with replacing(path) as partial, open(partial, "wb") as stream:
        stream.write(header(0))

        def append(rows: np.ndarray) -> None:
            stream.write(np.ascontiguousarray(rows, "<f2").data)

        yield append
        written = stream.tell() - len(header(0))
        stream.seek(0)
        stream.write(header(written // (2 * width)))
