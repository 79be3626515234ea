"""LAS and LAZ, airborne and terrestrial laser scans, read by laspy (its LAZ decoder is lazrs).

laspy trusts the sizes that a file declares; here they are compared with the bytes it has.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from foundry3d.data.formats.fields import fields_of
from foundry3d.data.formats.laz import check_chunks
from foundry3d.data.formats.raw import MAX_BYTES, Raw, ignored
from foundry3d.errors import InputError
from foundry3d.extras import explained

_HEADER = 227  # bytes of the smallest header, that of version 1.0
_RECORD_HEADER = 54
_BATCH = 2**17  # points read at a time


def read_las(blob: bytes, attributes: Sequence[str] = ()) -> Raw:
    """Points of a LAS or LAZ file in world units.

    Args:
        blob: the file.
        attributes: to read where the points have them.

    Raises:
        InputError: no LAS file, or fewer data than it declares.
    """
    with explained():
        import laspy

    blob = _with_plain_owners(blob, *_records(blob))
    backend = laspy.LazBackend.Lazrs
    with laspy.open(io.BytesIO(blob), laz_backend=backend, read_evlrs=False) as reader:
        header = reader.header
        _check_points(blob, header)
        names = list(header.point_format.dimension_names)
        known = {wanted: fields_of(wanted, names) for wanted in attributes}
        held = {wanted: fields for wanted, fields in known.items() if fields}
        parts: dict[str, list[np.ndarray]] = {wanted: [] for wanted in held}
        batches = [np.zeros((0, 3), np.int32)]
        for points in reader.chunk_iterator(_BATCH):
            batches.append(np.stack([points.X, points.Y, points.Z], axis=1))
            for wanted, fields in held.items():
                parts[wanted].append(np.stack([np.asarray(points[f]) for f in fields], axis=1))
    levels = np.concatenate(batches)
    if len(levels) != header.point_count:
        raise _too_short(header, f"{len(levels)} points")
    used = {"X", "Y", "Z"}.union(*held.values())
    others = [name for name in names if name not in used]
    return Raw(
        vertices=levels * header.scales + header.offsets,
        notices=ignored("attributes", others),
        attributes={wanted: np.concatenate(found) for wanted, found in parts.items() if found},
    )


def _records(blob: bytes) -> tuple[int, int, int]:
    """Where the variable-length records start, where the points start, and how many records."""
    if blob[:4] != b"LASF" or len(blob) < _HEADER:
        raise InputError("expected a las header, got something else; check that this is a las file")
    length, points, records = struct.unpack_from("<HII", blob, 94)
    if not _HEADER <= length <= points <= len(blob) or records * _RECORD_HEADER > points - length:
        raise InputError(
            f"expected a las header of sensible sizes, got {records} records between bytes "
            f"{length} and {points} of a file of {len(blob)}; copy or export the file again"
        )
    return length, points, records


def _with_plain_owners(blob: bytes, start: int, stop: int, records: int) -> bytes:
    """The file with ASCII names of the owners of its records, which laspy insists on."""
    for _ in range(records):
        if start + _RECORD_HEADER > stop:
            break
        owner = blob[start + 2 : start + 18]
        if not owner.isascii():
            plain = owner.decode("latin-1").encode("ascii", "replace")
            blob = blob[: start + 2] + plain + blob[start + 18 :]
        start += _RECORD_HEADER + int.from_bytes(blob[start + 20 : start + 22], "little")
    return blob


def _check_points(blob: bytes, header: Any) -> None:
    """Refuse more points than the file can hold, or than may be unpacked."""
    start, size, points = header.offset_to_point_data, header.point_format.size, header.point_count
    if points * size > MAX_BYTES:
        raise InputError(
            f"expected at most {MAX_BYTES} bytes of las points, got {points} points of {size} "
            "bytes; copy the file again, or cut it into parts"
        )
    if not header.are_points_compressed:
        if points * size > len(blob) - start:
            raise _too_short(header, f"{len(blob) - start} bytes")
    elif points:
        found = header.vlrs.get("LasZipVlr")
        record = found[0].record_data if found else b""
        check_chunks(blob, start=start, record=record, size=size, points=points)


def _too_short(header: Any, got: str) -> InputError:
    return InputError(
        f"expected {header.point_count} points of {header.point_format.size} bytes as the las "
        f"header declares, got {got}; the file is cut short or damaged, copy or export it again"
    )
