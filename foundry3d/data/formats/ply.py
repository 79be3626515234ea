"""PLY: a text header that describes elements, then their rows as text or packed numbers.

A text body is turned into packed float64 first, so one decoder serves all three encodings.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from foundry3d.data.formats.fields import gathered
from foundry3d.data.formats.polygons import triangles
from foundry3d.data.formats.raw import Raw, ignored, lines, listing, numbers, unix, whole
from foundry3d.errors import InputError

_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1",
    "short": "i2", "int16": "i2", "ushort": "u2", "uint16": "u2",
    "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4",
    "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip
_ORDERS = {"ascii": "<", "binary_little_endian": "<", "binary_big_endian": ">"}
_STRUCTS = {"i1": "b", "u1": "B", "i2": "h", "u2": "H", "i4": "i", "u4": "I", "f8": "d"}
_LONGEST_HEADER = 2**20


@dataclass(frozen=True, kw_only=True)
class _Property:
    name: str
    kind: str  # numpy type without byte order
    count_kind: str | None  # of a list's length; None for a single number


@dataclass(frozen=True, kw_only=True)
class _Element:
    name: str
    count: int
    properties: list[_Property] = field(default_factory=list)

    def smallest_row(self) -> int:
        """Bytes that a row takes at the least: every list of it empty."""
        return sum(int((p.count_kind or p.kind)[1]) for p in self.properties)

    def index(self, *names: str) -> int | None:
        """Position of the property called one of `names`, or None."""
        return next((i for i, p in enumerate(self.properties) if p.name in names), None)


@dataclass(frozen=True, kw_only=True)
class _Column:
    """One property of all rows: values (total,), and lengths (rows,) where it is a list."""

    values: np.ndarray
    lengths: np.ndarray


def read_ply(blob: bytes, attributes: Sequence[str] = ()) -> Raw:
    """Vertices and faces of a PLY file; polygons are cut into triangles.

    Args:
        blob: the file.
        attributes: to read where the vertices have them.

    Raises:
        InputError: no PLY file, an unknown encoding or type, or fewer data than it declares.
    """
    encoding, elements, position = _header(blob)
    order, body = _ORDERS[encoding], blob[position:]
    declared = {e.name: e for e in elements}
    if encoding == "ascii":
        body = _packed_text(body, elements)
        elements = [_as_doubles(element) for element in elements]
    wanted = {e.name: e for e in elements if e.name in ("vertex", "face")}
    if "vertex" not in wanted:
        raise InputError("expected a ply element 'vertex', got none; export the file again")
    columns: dict[str, list[_Column]] = {}
    cursor = 0
    for element in elements:
        if columns.keys() >= wanted.keys():
            break
        columns[element.name], cursor = _read_element(element, body, cursor, order)
    vertices = _positions(wanted["vertex"], columns["vertex"])
    read, used = _attributes(attributes, declared["vertex"], columns["vertex"])
    left = {"x", "y", "z", *used}
    extra = [p.name for p in wanted["vertex"].properties if p.name not in left]
    others = [e.name for e in elements if e.name not in wanted and e.count]
    notices = ignored("vertex properties", extra) + ignored("elements", others)
    if elements[-1].name in wanted and cursor < len(body):
        notices += ("data after the last element that the header declares ignored",)
    faces = None
    if "face" in wanted:
        faces = _faces(wanted["face"], columns["face"], vertices)
    return Raw(
        vertices=vertices,
        faces=faces,
        notices=notices,
        from_sensor=faces is None,
        attributes=read,
    )


def _packed_text(body: bytes, elements: list[_Element]) -> bytes:
    """The numbers of a text body as float64, each row as wide as the header declares."""
    rows, at = lines(unix(body)), 0
    values = numbers(b"\n".join(rows))
    widths = np.array([len(row.split()) for row in rows], np.int64)
    if widths.sum() != len(values):
        raise InputError("expected only numbers in the body of this ply file; export it again")
    starts = np.append(np.cumsum(widths) - widths, len(values))
    for element in elements:
        if not element.properties:
            continue
        if element.count > len(rows) - at:
            raise _too_short(element)
        _check_widths(element, values, starts[at : at + element.count + 1])
        at += element.count
    return values.tobytes()


def _check_widths(element: _Element, values: np.ndarray, starts: np.ndarray) -> None:
    """Refuse rows (between `starts`) that hold more or fewer numbers than their properties."""
    ends, cursor = starts[1:], starts[:-1].copy()
    for p in element.properties:
        step = np.ones(len(cursor), np.int64)
        if p.count_kind:
            lengths = np.append(values, 0)[np.minimum(cursor, len(values))]
            step += np.nan_to_num(lengths).clip(0, len(values)).astype(np.int64)
        cursor += step
    wrong = np.flatnonzero(cursor != ends)
    if len(wrong):
        row = int(wrong[0])
        raise InputError(
            f"expected {cursor[row] - starts[row]} numbers in each row of '"
            f"{listing([element.name])}' as the ply header declares, got {ends[row] - starts[row]} "
            f"in row {row + 1}; the header does not describe the data, export the file again"
        )


def _header(blob: bytes) -> tuple[str, list[_Element], int]:
    """Encoding, elements, and where the body starts."""
    first = re.search(rb"\r\n|\n|\r", blob[:_LONGEST_HEADER])
    line_end = b"\r" if first and first[0] == b"\r" else b"\n"
    end = blob.find(b"end_header", 0, _LONGEST_HEADER)
    stop = blob.find(line_end, end) if end >= 0 else -1
    if not blob.startswith(b"ply") or stop < 0:
        raise InputError(
            "expected a ply header from 'ply' to 'end_header', got none; "
            "check that this is a whole ply file"
        )
    encoding, elements = "", list[_Element]()
    for line in unix(blob[:end]).decode("latin-1").split("\n")[1:]:
        match line.split():
            case ["format", str(name), *_] if name in _ORDERS:
                encoding = name
            case ["element", name, count] if count.isascii() and count.isdigit():
                elements.append(_Element(name=name, count=int(count[:18])))
            case ["property", "list", counts, kind, name] if elements and (
                _TYPES.get(counts, "f")[0] != "f" and kind in _TYPES
            ):
                found = _Property(name=name, kind=_TYPES[kind], count_kind=_TYPES[counts])
                elements[-1].properties.append(found)
            case ["property", kind, name] if elements and kind in _TYPES:
                found = _Property(name=name, kind=_TYPES[kind], count_kind=None)
                elements[-1].properties.append(found)
            case [] | ["comment" | "obj_info", *_]:
                pass
            case _:
                raise InputError(
                    f"expected a ply header line about format, element or property, "
                    f"got '{listing([line])}'; export the file again"
                )
    if not encoding:
        raise InputError(
            f"expected a ply format among {', '.join(_ORDERS)}, got none; export the file again"
        )
    return encoding, elements, stop + 1


def _as_doubles(element: _Element) -> _Element:
    kinds = ((p, "f8" if p.count_kind else None) for p in element.properties)
    return replace(element, properties=[replace(p, kind="f8", count_kind=c) for p, c in kinds])


def _read_element(
    element: _Element, body: bytes, start: int, order: str
) -> tuple[list[_Column], int]:
    """All columns of an element, and where the next one starts."""
    if element.count * element.smallest_row() > len(body) - start:
        raise _too_short(element)
    if element.count == 0 or not element.properties:
        empty = _Column(values=np.zeros(0), lengths=np.zeros(0, np.int64))
        return [empty] * len(element.properties), start
    columns = _equal_rows(element, body, start, order)
    return columns or _any_rows(element, body, start, order)


def _equal_rows(
    element: _Element, body: bytes, start: int, order: str
) -> tuple[list[_Column], int] | None:
    """The fast way, when every row's lists are as long as the first row's; else None."""
    lengths, cursor = list[int](), start
    for p in element.properties:
        length = 1
        if p.count_kind:
            counter = struct.Struct(order + _STRUCTS[p.count_kind])
            length = _length(element, body, cursor, counter)
        lengths.append(length)
        cursor += int((p.count_kind or "u0")[1]) + length * int(p.kind[1])
    step, rows = cursor - start, element.count
    if rows * step > len(body) - start:
        return None
    columns, at = [], start
    for p, length in zip(element.properties, lengths, strict=True):
        if p.count_kind:
            counts = np.ndarray((rows,), order + p.count_kind, body, at, (step,))
            if not (counts == length).all():
                return None
            at += int(p.count_kind[1])
        size = int(p.kind[1])
        values = np.ndarray((rows, length), order + p.kind, body, at, (step, size))
        columns.append(_Column(values=values.reshape(-1), lengths=np.full(rows, length)))
        at += length * size
    return columns, start + rows * step


def _any_rows(element: _Element, body: bytes, start: int, order: str) -> tuple[list[_Column], int]:
    """The general way, row by row: lists may differ in length from row to row."""
    steps = [
        (struct.Struct(order + _STRUCTS[p.count_kind]) if p.count_kind else None, int(p.kind[1]))
        for p in element.properties
    ]
    pieces: list[list[bytes]] = [[] for _ in steps]
    lengths: list[list[int]] = [[] for _ in steps]
    cursor, end = start, len(body)
    for _ in range(element.count):
        for (counter, size), piece, length in zip(steps, pieces, lengths, strict=True):
            count = 1
            if counter:
                count = _length(element, body, cursor, counter)
                cursor += counter.size
            stop = cursor + count * size
            if stop > end:
                raise _too_short(element)
            piece.append(body[cursor:stop])
            length.append(count)
            cursor = stop
    columns = [
        _Column(values=np.frombuffer(b"".join(piece), order + p.kind), lengths=np.array(length))
        for p, piece, length in zip(element.properties, pieces, lengths, strict=True)
    ]
    return columns, cursor


def _length(element: _Element, body: bytes, cursor: int, counter: struct.Struct) -> int:
    """The length of the list that starts at `cursor`, never more than the bytes that are left."""
    left = len(body) - cursor - counter.size
    if left < 0:
        raise _too_short(element)
    (length,) = counter.unpack_from(body, cursor)
    if not 0 <= length <= left:
        raise _too_short(element)
    return int(length)


def _too_short(element: _Element) -> InputError:
    return InputError(
        f"expected {element.count} rows of '{listing([element.name])}' as the ply header declares, "
        f"got fewer data; the file is cut short or damaged, copy or export it again"
    )


def _positions(element: _Element, columns: list[_Column]) -> np.ndarray:
    """The (N, 3) coordinates, in the file's own type."""
    index = [element.index(name) for name in ("x", "y", "z")]
    chosen = [columns[i] for i in index if i is not None and not element.properties[i].count_kind]
    if len(chosen) < 3:
        found = listing(p.name for p in element.properties)
        raise InputError(
            f"expected vertex properties x, y and z, got {found or 'none'}; export the file again"
        )
    return np.stack([column.values for column in chosen], axis=1)


def _attributes(
    wanted: Sequence[str], element: _Element, columns: list[_Column]
) -> tuple[dict[str, np.ndarray], set[str]]:
    """The wanted attributes (N, m), in the types that the header declares, and their fields."""
    numbers = {
        p.name: column.values.astype(p.kind)
        for p, column in zip(element.properties, columns, strict=True)
        if wanted and not p.count_kind and (p.kind[0] == "f" or np.isfinite(column.values).all())
    }
    return gathered(wanted, numbers, numbers.__getitem__)


def _faces(element: _Element, columns: list[_Column], vertices: np.ndarray) -> np.ndarray | None:
    """The (F, 3) triangles, or None when the element lists no vertices."""
    index = element.index("vertex_indices", "vertex_index")
    if index is None or not element.properties[index].count_kind:
        return None
    corners = whole(columns[index].values.astype(np.float64), "vertex numbers of faces")
    return triangles(columns[index].lengths, corners, vertices)
