"""LAZ: the sizes that a compressed file declares, checked before the decoder sees them.

The decoder, lazrs, allocates what a file declares and ends the whole process when memory runs out,
so every size is compared with the bytes that the file has.
"""

from __future__ import annotations

import io
import struct

from foundry3d.data.formats.raw import listing
from foundry3d.errors import InputError
from foundry3d.extras import explained

_CHUNKED, _LAYERED = 2, 3  # compressors: of point formats 0 to 5, and of 6 to 10
_PARTS = {
    _CHUNKED: {6: 20, 7: 8, 8: 6, 9: 29},  # bytes of each kind of part of a point
    _LAYERED: {10: 30, 11: 6, 12: 8, 13: 29},
}
_EXTRA = {_CHUNKED: 0, _LAYERED: 14}  # the kind of part that may have any size
_LAYERS = {10: 9, 11: 1, 12: 2, 13: 1}  # a layer for each of its bytes in the extra part


def check_chunks(blob: bytes, *, start: int, record: bytes, size: int, points: int) -> None:
    """Refuse points, compressed from `start` on as `record` says, whose sizes do not fit the file.

    A point has `size` bytes once unpacked.
    """
    with explained():
        import lazrs

    layers = _layers(record, size)
    _check_table(blob, start, size)
    source = io.BytesIO(blob)
    source.seek(start)
    try:
        chunks = lazrs.read_chunk_table(source, lazrs.LazVlr(record))
    except lazrs.LazrsError as error:
        raise _damaged(listing([str(error)], width=80)) from None
    _check_chunks(blob, start + 8, chunks, layers, size, points)


def _damaged(found: str) -> InputError:
    return InputError(
        f"expected laz points as the file declares them, got damage: {found}; "
        "the file is cut short or changed, copy or export it again"
    )


def _layers(record: bytes, size: int) -> int:
    """Layers in each chunk (0: not layered), if the parts of a point add up to its size."""
    compressor = int.from_bytes(record[:2], "little")
    whole = len(record) >= 34 and len(record) == 34 + 6 * int.from_bytes(record[32:34], "little")
    parts = list(struct.iter_unpack("<HHH", record[34:])) if whole else []
    sizes = _PARTS.get(compressor, {})
    if (
        not sizes
        or sum(part for _, part, _ in parts) != size
        or not all(sizes.get(kind, part) == part for kind, part, _ in parts)
        or not {kind for kind, _, _ in parts} <= {*sizes, _EXTRA[compressor]}
    ):
        raise _damaged(f"no record of chunks whose points have {size} bytes")
    return sum(_LAYERS.get(kind, part) for kind, part, _ in parts) if compressor == _LAYERED else 0


def _check_table(blob: bytes, start: int, size: int) -> None:
    """Refuse a table of more chunks than fit: each begins with one point that is not compressed."""
    (table,) = struct.unpack_from("<q", blob, start) if start + 8 <= len(blob) else (0,)
    if table <= start:  # a writer that could not go back put it at the end
        (table,) = struct.unpack_from("<q", blob, len(blob) - 8)
    if not start < table <= len(blob) - 8:
        raise _damaged("no table of chunks")
    (chunks,) = struct.unpack_from("<I", blob, table + 4)
    if chunks * size > len(blob):
        raise _damaged(f"a table of {chunks} chunks")


def _check_chunks(
    blob: bytes, start: int, chunks: list[tuple[int, int]], layers: int, size: int, points: int
) -> None:
    """Refuse chunks (points, bytes) that hold too few points, or are not as long as their layers.

    A layered chunk is a plain point, a number of points, the length of each layer, the layers.
    """
    if sum(count for count, _ in chunks) < points:
        raise _damaged(f"chunks of fewer than {points} points")
    head = size + 4 + 4 * layers
    for count, length in chunks:
        if count == length == 0:
            continue
        if start + length > len(blob) or (layers and length < head):
            raise _damaged(f"a chunk of {length} bytes")
        if layers:
            inside = struct.unpack_from(f"<{layers}I", blob, start + size + 4)
            if head + sum(inside) != length:
                raise _damaged(f"layers of {sum(inside)} bytes in a chunk of {length}")
        start += length
