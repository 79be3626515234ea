"""Arrays of a data-set archive (.npz): only those asked for, and checked before they take memory.

Sizes that an archive declares are compared with the bytes it has, and labels and names are checked
for what they must be. Nothing in an archive is executed.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from foundry3d.data.formats.raw import MAX_BYTES
from foundry3d.errors import InputError

_MOST_GROWTH = 16
"""An array larger than `MAX_BYTES` must not be larger than this many times its archive."""
_DEFLATE = 1032
"""No compressed byte unpacks to more bytes than this."""
_MOST_NAMES = 2**16
"""Names are made up for at most this many classes or parts."""


def read_members(path: Path, wanted: Sequence[str]) -> tuple[dict[str, np.ndarray], list[str]]:
    """The wanted arrays that an archive has, and the names of all; no other is unpacked.

    Raises:
        InputError: no regular file, a damaged archive, another compression than numpy's, or an
            array that is not plain or whose declared size cannot be right.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such archive; expected an .npz file with an array 'points'")
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            size = path.stat().st_size
            found = {
                name: _member(archive, members[name], size) for name in wanted if name in members
            }
        return found, sorted(members)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except MemoryError:
        raise InputError(f"{path}: its arrays do not fit into memory; split the archive") from None
    except Exception as error:  # damaged bytes fail in every way there is
        raise InputError(
            f"{path}: not a readable .npz archive of plain arrays ({_one_line(error)}); write it "
            "again"
        ) from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, size: int) -> np.ndarray:
    """One array of an archive of `size` bytes, after its own size is known to be possible."""
    name = ascii(info.filename.removesuffix(".npy"))[1:-1][:40]
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & 1:
        raise InputError(
            f"'{name}' has a password or a compression that numpy does not "
            "write; save it with numpy.savez_compressed"
        )
    with archive.open(info) as stream:
        version = np.lib.format.read_magic(stream)
        header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if header is None:
            raise InputError(f"'{name}' is not a plain array; save it without field names")
        shape, _, kind = header(stream)
        declared, there = math.prod(shape) * kind.itemsize, info.file_size - stream.tell()
    held = min(info.compress_size, size)
    possible = declared == there <= _DEFLATE * held and all(length >= 0 for length in shape)
    if kind.hasobject or not possible:
        raise InputError(
            f"'{name}' is not a plain array of shape {shape} and {declared} bytes: the archive "
            f"declares {there} of them and holds {held}; write it again"
        )
    if declared > max(MAX_BYTES, _MOST_GROWTH * size):
        raise InputError(
            f"'{name}' would take {declared / 2**30:.1f} GiB, far more than the archive has on "
            "disk; split the archive"
        )
    with archive.open(info) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


def whole_numbers(values: np.ndarray, what: str) -> np.ndarray:
    """Labels or parts as int64, whatever type of number they are stored as.

    Raises:
        InputError: text, fractions, or numbers that int64 does not hold.
    """
    exact = values.dtype.kind in "iub"
    if values.dtype.kind == "f":
        exact = bool((np.isfinite(values) & (values == np.rint(values))).all())
    if not exact or (values.size and float(np.abs(values.astype(np.float64)).max()) >= 2**63):
        raise InputError(
            f"{what} must be whole numbers, found {_sample(values)} ({values.dtype}); store "
            "class or part numbers from 0 on"
        )
    return values.astype(np.int64)


def _sample(values: np.ndarray) -> str:
    flat = values.ravel()
    if flat.dtype.kind == "f":
        flat = flat[~(np.isfinite(flat) & (flat == np.rint(flat)))]
    return ascii(flat[:1].tolist()[0])[:40] if len(flat) else "nothing"


def texts(values: np.ndarray, what: str) -> tuple[str, ...]:
    """Names of classes or parts, one per label; bytes are read as UTF-8.

    Raises:
        InputError: not a list of text.
    """
    if not values.size:
        return ()
    if values.ndim != 1 or values.dtype.kind not in "USiu":
        raise InputError(
            f"'{what}' must be a list of names, found {values.dtype} of shape {values.shape}; "
            "store one name per label"
        )
    try:
        return tuple(v.decode() if isinstance(v, bytes) else str(v) for v in values.tolist())
    except UnicodeDecodeError:
        raise InputError(f"'{what}' holds bytes that are not UTF-8; store text") from None


def made_up_names(numbers: np.ndarray, kind: str) -> tuple[str, ...]:
    """The names `kind 0`, `kind 1`, ... for numbers without names, which must be small enough."""
    largest = int(numbers.max()) if numbers.size else -1
    if largest >= _MOST_NAMES:
        raise InputError(
            f"a {kind} number of {largest} without names; number them from 0 on, or store at most "
            f"{_MOST_NAMES} without names"
        )
    return tuple(f"{kind} {i}" for i in range(largest + 1))
