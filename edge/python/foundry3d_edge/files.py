"""Points of npy, ply and xyz files.

Shapes: N points.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from foundry3d_edge.errors import InputError

_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1",
    "short": "i2", "int16": "i2", "ushort": "u2", "uint16": "u2",
    "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4",
    "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip
_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}


class _Property(NamedTuple):
    name: str
    kind: str  # numpy type without byte order
    count_kind: str | None  # of a list's length; None for a single number


class _Element(NamedTuple):
    name: str
    size: int
    properties: list[_Property]


def read_cloud(path: str | Path) -> np.ndarray:
    """The points (N, 3) of a file, by its suffix: npy, ply, xyz, txt, csv or pts.

    Raises:
        InputError: no such file, an unknown suffix, or a file that cannot be read.
    """
    path = Path(path)
    readers = {".npy": _npy, ".ply": _ply} | dict.fromkeys((".xyz", ".txt", ".csv", ".pts"), _xyz)
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: expected a file that ends in {', '.join(readers)}")
    try:
        return reader(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; check the path") from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _npy(blob: bytes) -> np.ndarray:
    import io

    try:
        found: Any = np.load(io.BytesIO(blob), allow_pickle=False)
    except Exception:  # numpy raises many types on damaged headers
        found = None
    if not isinstance(found, np.ndarray):
        raise InputError("expected a numpy array in an npy file, got none; save it with numpy.save")
    if found.ndim != 2 or found.shape[1] < 3 or found.dtype.kind not in "fiu":
        raise InputError(
            f"expected real numbers of shape (N, 3), got {found.dtype} of shape {found.shape}"
        )
    return found[:, :3]


def _xyz(blob: bytes) -> np.ndarray:
    """The first three columns; what stands before the first row, and comments, are left out."""
    text = re.sub("[,;]", " ", blob.decode("latin-1").replace("\r", "\n"))
    lines = [line for line in map(str.strip, text.split("\n")) if line]
    while lines and not _numeric(lines[0].split()):
        lines.pop(0)
    lines = [line for line in lines if not line.startswith(("#", "//"))]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # "input contained no data"
            return np.loadtxt(lines, usecols=(0, 1, 2), ndmin=2, comments=None)
    except (ValueError, UserWarning):
        raise InputError(
            "expected rows of at least three numbers, got something else; save the coordinates "
            "as a plain table"
        ) from None


def _numeric(words: list[str]) -> bool:
    """Whether a line is a row, which a header, a comment or a number of points is not."""
    try:
        return len([float(word) for word in words[:3]]) == 3
    except ValueError:
        return False


def _ply(blob: bytes) -> np.ndarray:
    order, elements, body = _header(blob)
    if not order:
        return _text_vertices(elements, body)
    for element in elements:
        if element.name == "vertex":
            return _packed_vertices(element, order, body)
        body = body[_size(element, order, body) :]
    raise _damaged("its header declares no element 'vertex'")


def _damaged(reason: str) -> InputError:
    return InputError(f"not a whole ply file, {reason}; copy or export it again")


def _header(blob: bytes) -> tuple[str, list[_Element], bytes]:
    """Byte order (empty for text), elements, and the body."""
    match = re.match(rb"ply\s*?(?:\r\n|\n|\r).*?end_header[ \t]*(?:\r\n|\n|\r)", blob, re.DOTALL)
    if match is None:
        raise _damaged("it has no header from 'ply' to 'end_header'")
    order, elements = None, list[_Element]()
    for line in match[0].decode("latin-1").splitlines()[1:]:
        match line.split():
            case ["format", str(name), *_] if name in _ORDERS:
                order = _ORDERS[name]
            case ["element", name, count] if count.isascii() and count.isdigit():
                elements.append(_Element(name, int(count[:18]), []))
            case ["property", "list", count, kind, name] if elements and {count, kind} <= set(
                _TYPES
            ):
                elements[-1].properties.append(_Property(name, _TYPES[kind], _TYPES[count]))
            case ["property", kind, name] if elements and kind in _TYPES:
                elements[-1].properties.append(_Property(name, _TYPES[kind], None))
            case [] | ["comment" | "obj_info" | "end_header", *_]:
                pass
            case _:
                raise _damaged(f"its header has the line {line[:60]!a}")
    if order is None:
        raise _damaged(f"its format is none of {', '.join(_ORDERS)}")
    return order, elements, blob[match.end() :]


def _columns(element: _Element) -> list[int]:
    names = [p.name if p.count_kind is None else "" for p in element.properties]
    if not {"x", "y", "z"} <= set(names):
        raise _damaged("its vertices have no x, y and z")
    return [names.index(axis) for axis in "xyz"]


def _packed_vertices(element: _Element, order: str, body: bytes) -> np.ndarray:
    columns = _columns(element)
    if any(p.count_kind for p in element.properties):
        raise _damaged("its vertices have lists, which are not read")
    row = np.dtype([(f"p{i}", order + p.kind) for i, p in enumerate(element.properties)])
    if element.size * row.itemsize > len(body):
        raise _damaged(f"it holds fewer than the {element.size} vertices that it declares")
    rows = np.frombuffer(body, row, element.size)
    return np.stack([rows[f"p{i}"].astype(np.float64) for i in columns], axis=1)


def _size(element: _Element, order: str, body: bytes) -> int:
    """Bytes of all rows of an element, whose lists may differ in length."""
    if not any(p.count_kind for p in element.properties):
        return element.size * sum(int(p.kind[1]) for p in element.properties)
    cursor = 0
    for _ in range(element.size):
        for p in element.properties:
            length = 1
            if p.count_kind:
                kind = np.dtype(order + p.count_kind)
                if cursor + kind.itemsize > len(body):
                    raise _damaged(f"it holds fewer '{element.name!a}' than it declares")
                length = int(np.frombuffer(body, kind, 1, cursor)[0])
                cursor += kind.itemsize
            cursor += max(0, length) * int(p.kind[1])
    return cursor


def _text_vertices(elements: list[_Element], body: bytes) -> np.ndarray:
    lines = [line for line in body.decode("latin-1").splitlines() if line.strip()]
    for element in elements:
        if element.name == "vertex":
            break
        lines = lines[element.size if element.properties else 0 :]
    else:
        raise _damaged("its header declares no element 'vertex'")
    columns, rows = _columns(element), lines[: element.size]
    if len(rows) < element.size:
        raise _damaged(f"it holds fewer than the {element.size} vertices that it declares")
    if any(p.count_kind for p in element.properties[: max(columns)]):
        raise _damaged("its vertices have lists, which are not read")
    if not rows:
        return np.zeros((0, 3))
    try:
        return np.loadtxt(rows, usecols=columns, ndmin=2, comments=None)
    except ValueError:
        raise _damaged("its rows are no numbers") from None
