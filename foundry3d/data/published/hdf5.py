"""HDF5 files of labelled clouds: plain arrays of numbers, stored in the file itself.

Shape legend: n clouds, N points of each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from foundry3d.data.formats.raw import MAX_BYTES
from foundry3d.data.members import whole_numbers
from foundry3d.data.published.record import need
from foundry3d.errors import InputError
from foundry3d.extras import explained

if TYPE_CHECKING:
    import h5py


def read_h5(path: Path, name: str, dimensions: int) -> np.ndarray:
    """One array of an HDF5 file; `dimensions` beyond as many, of size 1 each, are dropped.

    Raises:
        InputError: missing or damaged file, no array of that name, or one of another kind.
        MissingExtra: h5py is not installed.
    """
    with explained():
        import h5py

    need(path)
    try:
        with h5py.File(path, "r") as file:
            return _numbers(file, name, dimensions)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (OSError, RuntimeError, ValueError, KeyError, MemoryError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(
            f"{path}: expected a whole HDF5 file, got a damaged one ({reason}); download it again"
        ) from None


def _numbers(file: h5py.File, name: str, dimensions: int) -> np.ndarray:
    """An array stored in the file itself, never one that a link or mapping takes from elsewhere."""
    import h5py

    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise InputError(f"expected an array '{name}', found {sorted(file)[:8]}; download it again")
    found = file[name]
    plain = isinstance(found, h5py.Dataset) and found.dtype.kind in "fiu"
    if not plain or found.external or found.is_virtual or found.nbytes > MAX_BYTES:
        raise InputError(f"expected '{name}' as a plain array of numbers; download it again")
    if not _is_stored(found):
        raise InputError(
            f"'{name}' of shape {found.shape} is declared, but not all of it was ever written; "
            "download it again"
        )
    array = np.asarray(found[()])
    if array.ndim > dimensions:
        array = array.squeeze(tuple(range(dimensions, array.ndim)))
    if array.ndim != dimensions:
        raise InputError(
            f"expected '{name}' with {dimensions} dimensions, got shape {found.shape}; "
            "is it a file of another data set?"
        )
    return array


def _is_stored(array: h5py.Dataset) -> bool:
    """Whether every value is in the file; the others would be filled in when it is read."""
    if array.chunks is None:
        return array.id.get_storage_size() >= array.nbytes
    pairs = zip(array.shape, array.chunks, strict=True)
    return array.id.get_num_chunks() >= math.prod(-(-size // block) for size, block in pairs)


def points_of(path: Path) -> np.ndarray:
    """Coordinates of the array `data` of a file: (n, N, 3) float32."""
    data = read_h5(path, "data", 3)
    if data.shape[-1] < 3 or 0 in data.shape:
        raise InputError(
            f"{path}: expected 'data' of shape (n, N, 3), got {data.shape}; download it again"
        )
    return np.ascontiguousarray(data[..., :3], dtype=np.float32)


def labels_of(paths: Sequence[Path]) -> np.ndarray:
    """The arrays `label` of files, joined: (n,) int64."""
    return np.concatenate(
        [whole_numbers(read_h5(path, "label", 1), f"{path}: 'label'") for path in paths]
    )


def labelled(paths: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, N, 3) float32 and labels (n,) int64 of files with clouds of one size, joined."""
    points = [points_of(path) for path in paths]
    for path, part in zip(paths, points, strict=True):
        if part.shape[1] != points[0].shape[1]:
            raise InputError(
                f"{path}: expected {points[0].shape[1]} points per cloud as in {paths[0].name}, "
                f"got {part.shape[1]}; download it again"
            )
    return np.concatenate(points), labels_of(paths)
