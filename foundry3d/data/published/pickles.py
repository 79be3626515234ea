"""Pickles of arrays, read without importing what they name.

`find_class` allows six names, and stand-ins answer to them. Numpy's own functions would not be
safe: a dtype takes its flags from the pickle, and with them bytes become pointers. Arrays are
rebuilt here from their bytes.

Shape legend: n clouds, N points of each.
"""

from __future__ import annotations

import math
import pickle
import pickletools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from foundry3d.data.published.record import need
from foundry3d.errors import InputError


class _Kind:
    """Stands for a numpy dtype of plain numbers."""

    __slots__ = ("dtype",)

    def __init__(self, text: Any, *_: Any) -> None:
        if not isinstance(text, str) or not re.fullmatch(r"b1|[iu][1248]|f[248]", text):
            raise InputError("it holds arrays of something else than numbers")
        self.dtype = np.dtype(text)

    def __setstate__(self, state: Any) -> None:
        if isinstance(state[1], str) and state[1] in "<>":
            self.dtype = self.dtype.newbyteorder("<" if state[1] == "<" else ">")


def _rebuilt(raw: Any, kind: Any, shape: Any, fortran: bool = False) -> np.ndarray:
    raw = raw.encode("latin-1") if isinstance(raw, str) else raw
    plain = isinstance(raw, bytes | bytearray) and isinstance(kind, _Kind)
    sizes = isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)
    if not (plain and sizes and math.prod(shape) * kind.dtype.itemsize == len(raw)):
        raise InputError("it holds an array that is cut short, or not of numbers")
    return np.frombuffer(raw, kind.dtype).reshape(shape, order="F" if fortran else "C")


class Array:
    """Stands for a numpy array until `array` is asked for."""

    __slots__ = ("array",)

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, raw = state
        self.array = _rebuilt(raw, kind, shape, fortran)


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): "numpy.ndarray",
    ("numpy", "dtype"): _Kind,
    ("numpy.core.multiarray", "_reconstruct"): lambda *_: Array(np.zeros(0)),
    ("numpy.core.multiarray", "scalar"): lambda kind, raw: _rebuilt(raw, kind, ()).item(),
    ("numpy.core.numeric", "_frombuffer"): lambda raw, kind, shape, order: Array(
        _rebuilt(raw, kind, shape, order == "F")
    ),
    ("_codecs", "encode"): lambda text, _: text.encode("latin-1"),  # bytes written for Python 2
}
"""All that a pickle may name, and what stands for it."""


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = _ALLOWED.get((re.sub(r"^numpy\._core", "numpy.core", module), name))
        if found is None:
            raise InputError(
                f"it names {ascii(module)[1:-1][:40]}.{ascii(name)[1:-1][:40]}, which no data set "
                "needs; nothing of it was run"
            )
        if isinstance(found, str):
            return found
        return lambda *given: found(*given)  # a new function, so that no pickle can alter it


def _scan(file: BinaryIO, size: int) -> None:
    """Walks a pickle without building anything: no part of it may be larger than its file."""
    for code, argument, _ in pickletools.genops(file):
        if code.name in ("PUT", "LONG_BINPUT") and int(argument or 0) > size:
            raise InputError("it asks for more memory than it can fill")
    file.seek(0)


def read_pickle(path: Path) -> Any:
    """The content of a pickle: plain values, containers, and `Array` for numpy's arrays.

    Raises:
        InputError: missing, damaged, or with anything else in it, of which nothing is executed.
    """
    need(path)
    try:
        with open(path, "rb") as file:
            _scan(file, path.stat().st_size)
            return _Plain(file, encoding="latin-1").load()
    except InputError as error:
        raise InputError(f"{path}: expected a pickle of plain arrays, but {error}") from None
    except Exception as error:  # damaged bytes fail in every way there is
        raise InputError(
            f"{path}: expected a pickle of plain arrays, got a damaged file "
            f"({type(error).__name__}); download it again"
        ) from None


def numbers(value: Any, path: Path) -> np.ndarray:
    """The array that a value of a pickle stands for; a number is an array without dimensions."""
    if isinstance(value, Array):
        return value.array
    if isinstance(value, bool | int | float):
        return np.array(value)
    raise InputError(f"{path}: expected an array of numbers, got {type(value).__name__}")


def whole(value: Any, path: Path) -> int:
    """The whole number that a value of a pickle stands for, which may be an array of one."""
    array = numbers(value, path)
    if array.size != 1 or array.dtype.kind not in "iu":
        raise InputError(
            f"{path}: expected one whole number as a label, got {array.dtype} of shape "
            f"{array.shape}; download it again"
        )
    return int(array.reshape(-1)[0])


def stacked(values: Sequence[Any], path: Path, dtype: type[np.floating]) -> np.ndarray:
    """The coordinates of arrays (N, 3 or more columns) of one size, (n, N, 3)."""
    clouds = [numbers(value, path) for value in values]
    shape = clouds[0].shape
    if len(shape) != 2 or shape[1] < 3 or any(cloud.shape != shape for cloud in clouds):
        raise InputError(
            f"{path}: expected clouds of one size, (N, 3) or (N, 6) each, the first is {shape}; "
            "download it again"
        )
    return np.stack([cloud[:, :3].astype(dtype) for cloud in clouds])
