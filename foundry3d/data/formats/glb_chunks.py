"""The two chunks of a GLB file: its description in JSON and its block of packed numbers."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from foundry3d.errors import InputError

_JSON, _BINARY = 0x4E4F534A, 0x004E4942
_LONGEST_JSON = 2**26
_KINDS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC3": 3, "VEC4": 4, "MAT4": 16}


@dataclass(frozen=True, kw_only=True)
class Scene:
    """The parsed JSON, which may have any shape, and the block of numbers."""

    tree: dict[str, Any]
    block: bytes


def open_glb(blob: bytes) -> Scene:
    """The two chunks of the file, which must be a whole GLB file."""
    header = struct.unpack_from("<4sIIII", blob) if len(blob) >= 20 else (b"", 0, 0, 0, 0)
    magic, version, length, size, kind = header
    if magic != b"glTF" or version != 2 or kind != _JSON:
        raise InputError("expected a binary glTF 2.0 file, got something else; export it again")
    if length > len(blob) or 20 + size > length or size > _LONGEST_JSON:
        raise InputError(
            f"expected {length} bytes with {size} of description (of {_LONGEST_JSON} at the most) "
            f"as the glb header declares, got {len(blob)} bytes; copy or export the file again"
        )
    try:
        tree = json.loads(blob[20 : 20 + size].rstrip(b"\0 "))
    except (ValueError, RecursionError):
        tree = None
    if not isinstance(tree, dict):
        raise InputError("expected a glTF description in JSON, got none; export the file again")
    start, block = 20 + size, b""
    if start + 8 <= length:
        size, kind = struct.unpack_from("<II", blob, start)
        if start + 8 + size > length:
            raise InputError(
                f"expected {size} bytes of packed numbers, got {length - start - 8}; "
                "the file is cut short, copy or export it again"
            )
        block = blob[start + 8 : start + 8 + size] if kind == _BINARY else b""
    return Scene(tree=tree, block=block)


def accessor(scene: Scene, number: int, kind: str) -> np.ndarray:
    """The (count, 1, 3, 4 or 16) float64 numbers of an accessor of kind SCALAR, VEC3, VEC4 or MAT4.

    Raises:
        InputError: an accessor of another kind, or of numbers that are not in the file.
        KeyError, TypeError, IndexError, ValueError: a description that is not well-formed.
    """
    accessor = scene.tree["accessors"][number]
    if "sparse" in accessor or "bufferView" not in accessor or accessor["type"] != kind:
        raise InputError(
            f"expected a plain accessor of type {kind}, got a sparse, empty or other one; "
            "export the file without sparse accessors"
        )
    view = scene.tree["bufferViews"][accessor["bufferView"]]
    if view["buffer"] != 0 or "uri" in scene.tree["buffers"][0]:
        raise InputError(
            "expected all geometry inside the file, got a buffer elsewhere; "
            "export one self-contained glb file"
        )
    dtype, width = np.dtype(_KINDS[accessor["componentType"]]), _WIDTHS[kind]
    count, item = _natural(accessor["count"]), dtype.itemsize * width
    step = _natural(view.get("byteStride", 0)) or item
    inside = _natural(accessor.get("byteOffset", 0))
    start = _natural(view.get("byteOffset", 0)) + inside
    room = min(_natural(view["byteLength"]) - inside, len(scene.block) - start)
    if step < item or (count and (count - 1) * step + item > room):
        raise InputError(
            f"expected {count} entries of {step} bytes in a buffer view, got {max(room, 0)} bytes; "
            "the file is damaged, export it again"
        )
    values = np.zeros((0, width))
    if count:
        packed = np.ndarray((count, width), dtype, scene.block, start, (step, dtype.itemsize))
        values = packed.astype(np.float64)
    if accessor.get("normalized") and dtype.kind != "f":
        values = np.maximum(values / np.iinfo(dtype).max, -1)
    return values


def _natural(value: Any) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError("not a natural number")
    return value
