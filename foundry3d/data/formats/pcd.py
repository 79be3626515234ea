"""PCD, the Point Cloud Library's format: text, packed rows, or LZF-compressed columns.

Shape legend: N points.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foundry3d.data.formats.fields import gathered
from foundry3d.data.formats.raw import MAX_BYTES, Raw, ignored, listing, numbers
from foundry3d.errors import InputError

_TYPES = {"F4": "<f4", "F8": "<f8"} | {
    f"{letter}{size}": f"<{letter.lower()}{size}" for letter in "IU" for size in (1, 2, 4, 8)
}
_SIZES = ("POINTS", "WIDTH", "HEIGHT")
_BEST_LZF = 264 // 3  # a reference of 3 bytes stands for 264 at the most


@dataclass(frozen=True, kw_only=True)
class _Field:
    """One field, with the values and the bytes of a point that come before it."""

    name: str
    kind: np.dtype
    count: int
    values_before: int
    bytes_before: int


def read_pcd(blob: bytes, attributes: Sequence[str] = ()) -> Raw:
    """The points of a PCD file; the viewpoint is left out.

    Args:
        blob: the file.
        attributes: to read where the points have them; colours may be packed (`rgb`, `rgba`).

    Raises:
        InputError: no PCD file, an unknown field type, or fewer data than it declares.
    """
    header, body = _header(blob)
    fields, points = _fields(header), _count(header)
    by_name = {field.name: field for field in reversed(fields)}
    if not all(name in by_name and by_name[name].count == 1 for name in "xyz"):
        raise InputError(
            f"expected single pcd fields x, y and z, got {listing(f.name for f in fields)}; "
            "save the file again"
        )
    wanted = [by_name[name] for name in "xyz"]
    if attributes:
        wanted += [f for f in by_name.values() if f.count == 1 and f.name not in "xyz_"]
    forms = {"ascii": _text, "binary": _packed, "binary_compressed": _compressed}
    form = forms.get("".join(header["DATA"][:1]))
    if form is None:
        raise InputError(
            "expected pcd data that are ascii, binary or binary_compressed, "
            f"got '{listing(header['DATA'][:1])}'; save the file as binary"
        )
    columns = form(body, points, fields, wanted)
    named = {f.name: column for f, column in zip(wanted[3:], columns[3:], strict=True)}
    found, used = gathered(attributes, named, named.__getitem__)
    packed = next((name for name in ("rgb", "rgba") if name in named), None)
    if "color" in attributes and "color" not in found and packed:
        found["color"], used = _unpacked_colors(by_name[packed], named[packed]), used | {packed}
    extra = [f.name for f in fields if f.name not in {"x", "y", "z", "_", *used}]
    return Raw(
        vertices=np.stack(columns[:3], axis=1),
        notices=ignored("fields", extra),
        from_sensor=True,
        attributes=found,
    )


def _unpacked_colors(field: _Field, column: np.ndarray) -> np.ndarray:
    """Colours (N, 3) in 0..255 of one number of 4 bytes per point."""
    if field.kind.itemsize != 4:
        raise InputError(
            f"expected packed pcd colours of 4 bytes, got {field.kind}; save the file again"
        )
    bits = np.ascontiguousarray(column.astype(field.kind)).view("<u4")
    return np.stack([bits >> 16, bits >> 8, bits], axis=1).astype(np.uint8)


def _header(blob: bytes) -> tuple[dict[str, list[str]], bytes]:
    """The header's words by their keyword, and the body after the DATA line."""
    header: dict[str, list[str]] = {}
    start = 0
    first = re.search(rb"\r\n|\n|\r", blob[:65536])
    end = b"\r" if first and first[0] == b"\r" else b"\n"
    while "DATA" not in header:
        stop = blob.find(end, start, start + 65536)
        if stop < 0:
            raise InputError(
                "expected a pcd header that ends with a DATA line, got none; "
                "check that this is a whole pcd file"
            )
        words = blob[start:stop].split(b"#")[0].decode("latin-1").split()
        if words:
            header[words[0].upper()] = words[1:]
        start = stop + 1
    return header, blob[start:]


def _fields(header: dict[str, list[str]]) -> list[_Field]:
    names = [name.lower() for name in header.get("FIELDS", header.get("COLUMNS", []))]
    counts = _integers(header.get("COUNT", ["1"] * len(names)))
    sizes, letters = header.get("SIZE", []), header.get("TYPE", [])
    kinds = [a.upper() + b for a, b in zip(letters, sizes, strict=False)]
    same = len(names) == len(sizes) == len(letters) == len(counts)
    if not same or not names or not _TYPES.keys() >= set(kinds):
        raise InputError(
            "expected one known SIZE, TYPE and COUNT for each of the pcd FIELDS, got "
            f"{len(names)} fields, sizes {listing(sizes)} and types {listing(letters)}; "
            "save the file again"
        )
    fields, values, size = [], 0, 0
    for name, key, count in zip(names, kinds, counts, strict=True):
        kind = np.dtype(_TYPES[key])
        fields.append(
            _Field(name=name, kind=kind, count=count, values_before=values, bytes_before=size)
        )
        values, size = values + count, size + count * kind.itemsize
    return fields


def _integers(words: list[str]) -> list[int]:
    if not words or not all(w.isascii() and w.isdigit() and len(w) < 16 for w in words):
        raise InputError(
            f"expected whole numbers in the pcd header, got '{listing(words)}'; save the file again"
        )
    return [int(word) for word in words]


def _count(header: dict[str, list[str]]) -> int:
    """Points that the header declares: POINTS, or WIDTH times HEIGHT, which must agree."""
    declared = {key: _integers(header[key])[0] for key in _SIZES if key in header}
    grid = declared["WIDTH"] * declared.get("HEIGHT", 1) if "WIDTH" in declared else None
    points = declared.get("POINTS", grid)
    if points is None or grid not in (None, points):
        raise InputError(
            "expected a number of POINTS equal to WIDTH times HEIGHT in the pcd header, got "
            f"{listing(f'{k} {v}' for k, v in declared.items()) or 'none'}; save the file again"
        )
    return points


def _text(body: bytes, points: int, fields: list[_Field], wanted: list[_Field]) -> list[np.ndarray]:
    values = numbers(body)
    width = fields[-1].values_before + fields[-1].count
    if values.size != points * width:
        raise _wrong_size(points, f"{width} numbers", f"{values.size} numbers")
    table = values.reshape(points, width)
    return [table[:, field.values_before] for field in wanted]


def _packed(
    body: bytes, points: int, fields: list[_Field], wanted: list[_Field]
) -> list[np.ndarray]:
    """Rows one after the other, each holding all fields."""
    row = _row_size(fields)
    if points * row > len(body):
        raise _wrong_size(points, f"{row} bytes", f"{len(body)} bytes")
    if not points:
        return [np.zeros(0)] * len(wanted)
    return [np.ndarray((points,), f.kind, body, f.bytes_before, (row,)) for f in wanted]


def _compressed(
    body: bytes, points: int, fields: list[_Field], wanted: list[_Field]
) -> list[np.ndarray]:
    """LZF over columns one after the other, each holding all points."""
    row = _row_size(fields)
    packed, unpacked = struct.unpack_from("<II", body) if len(body) >= 8 else (0, 0)
    if packed > len(body) - 8 or unpacked != points * row or unpacked > MAX_BYTES:
        raise _wrong_size(points, f"{row} bytes", f"{unpacked} bytes packed in {len(body)}")
    columns = _unpacked(body[8 : 8 + packed], unpacked)
    return [np.frombuffer(columns, f.kind, points, points * f.bytes_before) for f in wanted]


def _row_size(fields: list[_Field]) -> int:
    return fields[-1].bytes_before + fields[-1].count * fields[-1].kind.itemsize


def _wrong_size(points: int, each: str, got: str) -> InputError:
    return InputError(
        f"expected {points} points of {each} each as the pcd header declares, got {got}; "
        "the file is cut short or damaged, copy or export it again"
    )


def _unpacked(data: bytes, size: int) -> bytes:
    """What a block holds: LZF, or as it is, which writers do where LZF does not make it smaller."""
    try:
        return _lzf(data, size)
    except InputError:
        if len(data) == size:
            return data
        raise


def _lzf(data: bytes, size: int) -> bytes:
    """Unpack LZF into `size` bytes: plain runs, and references back into what is unpacked."""
    damaged = InputError(
        f"expected LZF data that unpack to {size} bytes, got damaged data; copy the file again"
    )
    out, at, end = bytearray(), 0, len(data)
    if size > end * _BEST_LZF:
        raise damaged
    while at < end and len(out) <= size:
        control = data[at]
        at += 1
        if control < 32:
            out += data[at : at + control + 1]
            at += control + 1
            continue
        length = (control >> 5) + 2
        if length == 9 and at < end:
            length += data[at]
            at += 1
        start = len(out) - ((control & 31) << 8) - 1 - (data[at] if at < end else len(data))
        at += 1
        if start < 0 or at > end:
            raise damaged
        if start + length > len(out):  # the reference overlaps what it writes: it repeats
            out += (out[start:] * (length // (len(out) - start) + 1))[:length]
        else:
            out += out[start : start + length]
    if len(out) != size or at != end:
        raise damaged
    return bytes(out)
