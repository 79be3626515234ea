"""NPY and NPZ: numpy's own files, read without numpy's loader, so no pickle can ever run.

Layouts of an archive: `points` (N, 3) one cloud, or (n, N, 3) n clouds; `points_i16` (N, 3)
levels with `scale` and `offset`, coordinates = levels * scale + offset; or one lone array.
"""

from __future__ import annotations

import io
import math
import re
import zipfile
import zlib
from typing import IO

import numpy as np

from foundry3d.data.formats.raw import MAX_BYTES, Raw, ignored, listing
from foundry3d.errors import InputError

_LONGEST_HEADER = 2**14
_DESCRIPTION = re.compile(
    r"\{(?=.*'descr': '([<>|=](?:[iu][1248]|f[248]))')(?=.*'fortran_order': (True|False))"
    r"(?=.*'shape': \(([\d, ]*)\)).*\}\s*"
)
_LEVELS = {"points_i16", "scale", "offset"}


def read_npy(blob: bytes) -> Raw:
    """One cloud (N, 3 or more columns) or many (n, N, 3 or more columns).

    Raises:
        InputError: no array of plain numbers, another shape, or fewer data than declared.
    """
    return _clouds(_array(io.BytesIO(blob), len(blob)), ())


def read_npz(blob: bytes) -> Raw:
    """The point array of an archive, in one of the layouts above.

    Raises:
        InputError: no or several candidate arrays, a damaged archive, or too large contents.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(blob)) as archive:
            members = {i.filename.removesuffix(".npy"): i for i in archive.infolist()}
            if "points" in members or len(members) == 1:
                name = "points" if "points" in members else next(iter(members))
                notices = ignored("arrays", sorted(members.keys() - {name}))
                return _clouds(_member(archive, members[name]), notices)
            if members.keys() >= _LEVELS:
                levels, scale, offset = (
                    _member(archive, members[name]) for name in ("points_i16", "scale", "offset")
                )
                return _scaled(levels, scale, offset, members.keys() - _LEVELS)
    except InputError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError) as error:
        raise InputError(
            f"expected a whole npz archive, got a damaged one ({listing([str(error)])}); "
            "copy or save it again"
        ) from None
    raise InputError(
        "expected an array 'points', or 'points_i16' with 'scale' and 'offset', or a single array, "
        f"got {listing(members) or 'none'}; save the coordinates as 'points'"
    )


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    """One array of an archive, never more of it than its directory and its header declare."""
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & 1:
        raise InputError(
            "expected an archive as numpy saves it, got another compression or a password; "
            "save it with numpy.savez_compressed"
        )
    if info.file_size > MAX_BYTES:
        raise InputError(
            f"expected at most {MAX_BYTES} bytes in array '{listing([info.filename])}', the "
            f"archive declares {info.file_size}; save it in parts"
        )
    with archive.open(info) as stream:
        return _array(stream, info.file_size)


def _array(stream: IO[bytes], size: int) -> np.ndarray:
    """The array in a stream of `size` bytes; only plain real numbers are understood."""
    prefix = stream.read(8)
    width = 2 if prefix[6:7] == b"\x01" else 4  # bytes that tell the length of the description
    length = int.from_bytes(stream.read(width), "little")
    plain = prefix[:6] == b"\x93NUMPY" and length <= _LONGEST_HEADER
    text = stream.read(length).decode("latin-1") if plain else ""
    found = _DESCRIPTION.fullmatch(text)
    if found is None:
        raise InputError(
            f"expected a numpy array of plain real numbers, got '{listing([text], width=60)}'; "
            "save the coordinates as float32"
        )
    kind = np.dtype(found[1])
    shape = tuple(int(number[:18]) for number in re.findall(r"\d+", found[3]))
    wanted, there = math.prod(shape) * kind.itemsize, size - 8 - width - length
    data = stream.read(wanted) if wanted == there else b""
    if len(shape) > 3 or len(data) != wanted:
        raise InputError(
            f"expected an array of shape {listing([str(shape)])} and {wanted} bytes as its header "
            f"declares, got {there} bytes; the file is cut short or damaged, copy or save it again"
        )
    if not data:
        return np.zeros((0, 3))
    return np.frombuffer(data, kind).reshape(shape, order="F" if found[2] == "True" else "C")


def _clouds(array: np.ndarray, notices: tuple[str, ...]) -> Raw:
    """The first three columns of an array of one or many clouds."""
    if array.ndim not in (2, 3) or array.shape[-1] < 3:
        raise InputError(
            f"expected points of shape (N, 3) or (n, N, 3), got {array.shape}; "
            "save coordinates along the last axis"
        )
    if array.shape[-1] > 3:
        notices += ("columns after the third ignored",)
    return Raw(vertices=array[..., :3], notices=notices)


def _scaled(levels: np.ndarray, scale: np.ndarray, offset: np.ndarray, others: set[str]) -> Raw:
    """Coordinates of an archive that stores levels with their scale and offset."""
    if not {scale.size, offset.size} <= {1, 3}:
        raise InputError(
            "expected 'scale' and 'offset' of 1 or 3 numbers, got shapes "
            f"{scale.shape} and {offset.shape}; save the archive again"
        )
    raw = _clouds(levels, ignored("arrays", sorted(others)))
    vertices = raw.vertices * scale.reshape(-1).astype(np.float64) + offset.reshape(-1)
    return Raw(vertices=vertices, notices=raw.notices)
