"""NPY and NPZ: numpy's own files, read by `numpy.load` without pickles.

Sizes are checked first, because numpy allocates what a header declares.

Layouts of an archive: `points` or `xyz` (N, 3) one cloud, or (n, N, 3) n clouds; `points_i16`
(N, 3) levels with `scale` and `offset`, coordinates = levels * scale + offset; or a single array.
Attributes of the points are the arrays that `fields.array_of` names.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from typing import IO

import numpy as np

from foundry3d.data.formats.fields import array_of, gathered
from foundry3d.data.formats.raw import MAX_BYTES, Raw, ignored, listing
from foundry3d.errors import InputError

_NAMES = ("points", "xyz")
_LEVELS = {"points_i16", "scale", "offset"}


def read_npy(blob: bytes, attributes: Sequence[str] = ()) -> Raw:
    """One cloud (N, 3 or more columns) or many (n, N, 3 or more columns).

    An array of records is read by its fields x, y and z, and those of the attributes.

    Raises:
        InputError: no array of plain numbers, another shape, or fewer data than declared.
    """
    return _clouds(read_array(io.BytesIO(blob), len(blob)), (), attributes)


def read_npz(blob: bytes, attributes: Sequence[str] = ()) -> Raw:
    """The point array of an archive, in one of the layouts above, and those of the attributes.

    No other array is unpacked.

    Raises:
        InputError: no or several candidate arrays, a damaged archive, or too large contents.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(blob)) as archive:
            return _of_archive(archive, attributes)
    except InputError:
        raise
    except Exception as error:  # zipfile and zlib fail in many ways on damaged bytes
        raise InputError(
            f"expected a whole npz archive, got a damaged one ({listing([str(error)])}); "
            "copy or save it again"
        ) from error


def _of_archive(archive: zipfile.ZipFile, attributes: Sequence[str]) -> Raw:
    members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    name = next((name for name in _NAMES if name in members), None)
    if name is None and len(members) == 1:
        name = next(iter(members))
    named = {wanted: array_of(wanted, members) for wanted in attributes}
    read = {
        wanted: _member(archive, members[array])
        for wanted, array in named.items()
        if array is not None and array != name
    }
    used = {array for array in named.values() if array is not None}
    if name is not None:
        notices = ignored("arrays", sorted(members.keys() - {name} - used))
        raw = _clouds(_member(archive, members[name]), notices, attributes)
        return replace(raw, attributes=dict(raw.attributes) | read)
    if members.keys() >= _LEVELS:
        levels, scale, offset = (
            _member(archive, members[name]) for name in ("points_i16", "scale", "offset")
        )
        raw = _scaled(levels, scale, offset, members.keys() - _LEVELS - used)
        return replace(raw, attributes=read)
    raise InputError(
        "expected an array 'points' or 'xyz', or 'points_i16' with 'scale' and 'offset', or a "
        f"single array, got {listing(members) or 'none'}; save the coordinates as 'points'"
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
        return read_array(stream, info.file_size)


def read_array(stream: IO[bytes], size: int) -> np.ndarray:
    """The array in a stream of `size` bytes that starts with an npy header.

    Raises:
        InputError: no array of plain real numbers or of records of them, or not as many bytes as
            its header declares.
    """
    shape, kind = _header(stream)
    kinds = {kind[name].kind for name in kind.names} if kind.names else {kind.kind}
    if not kinds <= set("iuf") or kind.hasobject:
        raise _no_numbers(str(kind))
    wanted, there = math.prod(shape) * kind.itemsize, size - stream.tell()
    if wanted != there:
        raise InputError(
            f"expected an array of shape {listing([str(shape)])} and {wanted} bytes as its header "
            f"declares, got {there} bytes; the file is cut short or damaged, copy or save it again"
        )
    stream.seek(0)
    return np.load(stream, allow_pickle=False)


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type that the header of an npy file declares."""
    try:
        version = np.lib.format.read_magic(stream)
        one = version == (1, 0)
        read = np.lib.format.read_array_header_1_0 if one else np.lib.format.read_array_header_2_0
        shape, _, kind = read(stream)
    except Exception as error:  # numpy hands on whatever the parser of Python raises
        raise _no_numbers(str(error)) from error
    if any(length < 0 for length in shape):
        raise _no_numbers(str(shape))
    return shape, kind


def _no_numbers(got: str) -> InputError:
    return InputError(
        f"expected a numpy array of plain real numbers, got '{listing([got], width=60)}'; "
        "save the coordinates as float32"
    )


def _clouds(array: np.ndarray, notices: tuple[str, ...], attributes: Sequence[str] = ()) -> Raw:
    """The first three columns, or the fields x, y and z, of an array of one or many clouds."""
    found: dict[str, np.ndarray] = {}
    if array.dtype.names:
        array, notices, found = _fields(array, notices, attributes)
    if array.ndim in (2, 3) and array.shape[-2] == 3 != array.shape[-1]:
        raise InputError(
            f"expected coordinates along the last axis, got shape {array.shape}; transpose? "
            "(three points with more columns than three are not read)"
        )
    if array.ndim not in (2, 3) or array.shape[-1] < 3:
        raise InputError(
            f"expected points of shape (N, 3) or (n, N, 3), got {array.shape}; "
            "save coordinates along the last axis"
        )
    if array.shape[-1] > 3:
        notices += ("columns after the third ignored",)
    return Raw(vertices=array[..., :3], notices=notices, attributes=found)


def _fields(
    array: np.ndarray, notices: tuple[str, ...], attributes: Sequence[str]
) -> tuple[np.ndarray, tuple[str, ...], dict[str, np.ndarray]]:
    """The fields x, y and z of records as a last axis, and attributes in other fields."""
    names = array.dtype.names or ()
    if not {"x", "y", "z"} <= set(names) or any(array.dtype[name].subdtype for name in "xyz"):
        raise InputError(
            f"expected records with fields x, y and z, got {listing(names)}; "
            "save the coordinates as float32 of shape (N, 3)"
        )
    plain = [name for name in names if not array.dtype[name].subdtype]
    found, used = gathered(attributes, plain, array.__getitem__)
    others = [name for name in names if name not in {"x", "y", "z", *used}]
    stacked = np.stack([array[name] for name in "xyz"], axis=-1)
    return stacked, notices + ignored("fields", others), found


def _scaled(levels: np.ndarray, scale: np.ndarray, offset: np.ndarray, others: set[str]) -> Raw:
    """Coordinates of an archive that stores levels with their scale and offset."""
    if not {scale.size, offset.size} <= {1, 3} or scale.dtype.names or offset.dtype.names:
        raise InputError(
            "expected 'scale' and 'offset' of 1 or 3 numbers, got shapes "
            f"{scale.shape} and {offset.shape}; save the archive again"
        )
    raw = _clouds(levels, ignored("arrays", sorted(others)))
    vertices = raw.vertices * scale.reshape(-1).astype(np.float64) + offset.reshape(-1)
    return Raw(vertices=vertices, notices=raw.notices)
