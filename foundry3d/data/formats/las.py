"""LAS, airborne and terrestrial laser scans; compressed ones (LAZ) are unpacked next door."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from foundry3d.data.formats.laz import unpack
from foundry3d.data.formats.raw import MAX_BYTES, Raw
from foundry3d.errors import InputError

_HEADER = 227  # bytes of the smallest header, that of version 1.0
_HEADER_1_4 = 375
_RECORD_HEADER = 54
_LASZIP = (b"laszip encoded\0\0", 22204)


@dataclass(frozen=True, kw_only=True)
class _Header:
    data: int  # where points start
    records: int  # variable-length records between the header and the points
    first_record: int
    compressed: bool
    size: int  # bytes of a point
    points: int
    scale: np.ndarray  # (3,)
    offset: np.ndarray  # (3,)


def read_las(blob: bytes) -> Raw:
    """Points of a LAS or LAZ file in world units; every other attribute is left out.

    Raises:
        InputError: no LAS file, fewer data than it declares, or LAZ without its decoder.
    """
    header = _header(blob)
    if header.compressed:
        levels = unpack(
            blob,
            start=header.data,
            record=_laszip_record(blob, header),
            size=header.size,
            points=header.points,
        )
    else:
        if header.points * header.size > len(blob) - header.data:
            raise _too_short(header, f"{len(blob) - header.data} bytes")
        shape = (header.points, 3)
        levels = np.ndarray(shape, "<i4", blob, header.data, (header.size, 4))
    return Raw(
        vertices=levels * header.scale + header.offset,
        notices=("attributes beside coordinates ignored",),
    )


def _header(blob: bytes) -> _Header:
    if blob[:4] != b"LASF" or len(blob) < _HEADER:
        raise InputError("expected a las header, got something else; check that this is a las file")
    length, data, records, kind, size, points = struct.unpack_from("<HIIBHI", blob, 94)
    placement = np.frombuffer(blob, "<f8", 6, 131)
    if blob[25] >= 4 and length >= _HEADER_1_4 and len(blob) >= _HEADER_1_4:
        points = struct.unpack_from("<Q", blob, 247)[0] or points
    if not _HEADER <= length <= data <= len(blob) or size < 12 or points * size > MAX_BYTES:
        raise InputError(
            f"expected a las header of sensible sizes, got {points} points of {size} bytes from "
            f"byte {data} on in a file of {len(blob)}; copy or export the file again"
        )
    return _Header(
        data=data,
        records=records,
        first_record=length,
        compressed=bool(kind & 0xC0),
        size=size,
        points=points,
        scale=placement[:3],
        offset=placement[3:],
    )


def _laszip_record(blob: bytes, header: _Header) -> bytes:
    """The record that says how points are compressed; empty if there is none."""
    at = header.first_record
    for _ in range(header.records):
        if at + _RECORD_HEADER > header.data:
            break
        user, kind, length = struct.unpack_from("<16sHH", blob, at + 2)
        at += _RECORD_HEADER
        if (user, kind) == _LASZIP:
            return blob[at : min(at + length, header.data)]
        at += length
    return b""


def _too_short(header: _Header, got: str) -> InputError:
    return InputError(
        f"expected {header.points} points of {header.size} bytes as the las header declares, "
        f"got {got}; the file is cut short or damaged, copy or export it again"
    )
