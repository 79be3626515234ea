"""GLB: binary glTF 2.0, a JSON description and one block of packed numbers.

Our own reader, as trimesh 5.2 takes normalised integers unscaled, drops triangle fans, and reads
what is left uncompressed of compressed files. Only what lies inside the file is read: a buffer
elsewhere is an error, images are never touched.
Shape legend: V vertices and F triangles of one primitive.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from foundry3d.data.formats.raw import MAX_BYTES, Raw, listing
from foundry3d.errors import InputError

_JSON, _BINARY = 0x4E4F534A, 0x004E4942
_LONGEST_JSON = 2**26
_KINDS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC3": 3}
_COMPRESSED = {
    "KHR_draco_mesh_compression", "EXT_meshopt_compression", "KHR_meshopt_compression",
}  # fmt: skip
_POINTS, _TRIANGLES, _STRIP, _FAN = 0, 4, 5, 6


@dataclass(frozen=True, kw_only=True)
class _Scene:
    """The parsed JSON (of any shape: it is not to be trusted) and the block of numbers."""

    tree: dict[str, Any]
    block: bytes


def read_glb(blob: bytes) -> Raw:
    """All triangles of a GLB file's scene, each mesh placed as its nodes say.

    Points are read where the scene has no triangles. Skins, morph targets, colours and lines are
    left out.

    Raises:
        InputError: no GLB file, data cut short or outside the file, or compressed geometry.
    """
    scene = _open(blob)
    try:
        compressed = _COMPRESSED & set(scene.tree.get("extensionsRequired", []))
        if compressed:
            raise InputError(
                f"expected plain geometry, got {listing(sorted(compressed))}; "
                "export the file without compression"
            )
        return _collect(scene)
    except InputError:
        raise
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, OverflowError):
        raise InputError(
            "expected a well-formed glTF description, got one with missing or wrong entries; "
            "export the file again"
        ) from None


def _open(blob: bytes) -> _Scene:
    """The two chunks of the file."""
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
        tree = json.loads(blob[20 : 20 + size])
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
    return _Scene(tree=tree, block=block)


def _collect(scene: _Scene) -> Raw:
    """All primitives of the scene in one."""
    vertices, faces, loose = [np.zeros((0, 3))], [np.zeros((0, 3), np.int64)], [np.zeros((0, 3))]
    known, size, left_out = 0, 0, False
    for mesh, placed in _placed_meshes(scene.tree):
        for primitive in mesh["primitives"]:
            mode = primitive.get("mode", _TRIANGLES)
            if mode not in (_POINTS, _TRIANGLES, _STRIP, _FAN):
                left_out = True
                continue
            points = _accessor(scene, primitive["attributes"]["POSITION"], "VEC3")
            points = points @ placed[:3, :3].T + placed[:3, 3]
            order = np.arange(len(points))
            if "indices" in primitive:
                order = _accessor(scene, primitive["indices"], "SCALAR")[:, 0].astype(np.int64)
            size += points.nbytes + 3 * order.nbytes
            if size > MAX_BYTES:
                raise InputError(
                    f"expected a scene of at most {MAX_BYTES} bytes of geometry, got more because "
                    "meshes are repeated; export fewer copies"
                )
            if mode == _POINTS:
                loose.append(points)
                continue
            vertices.append(points)
            faces.append(_triangles(order, mode) + known)
            known += len(points)
    triangles = np.concatenate(faces)
    left_out = left_out or (len(triangles) > 0 and len(loose) > 1)
    return Raw(
        vertices=np.concatenate(vertices if len(triangles) else loose),
        faces=triangles if len(triangles) else None,
        notices=("lines and loose points ignored",) if left_out else (),
    )


def _placed_meshes(tree: dict[str, Any]) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """Every mesh that a node of the scene shows, with its (4, 4) placement in the world."""
    nodes = tree["nodes"]
    if tree.get("scenes"):
        roots = tree["scenes"][tree.get("scene", 0)].get("nodes", [])
    else:
        below = {child for node in nodes for child in node.get("children", [])}
        roots = [number for number in range(len(nodes)) if number not in below]
    waiting = [(number, np.eye(4)) for number in roots]
    visited = set()
    while waiting:
        number, above = waiting.pop()
        if number in visited:
            raise InputError(
                f"expected nodes in a tree, got node {listing([str(number)])} twice; "
                "export the file again"
            )
        visited.add(number)
        placed = above @ _placement(nodes[number])
        waiting += [(child, placed) for child in nodes[number].get("children", [])]
        if "mesh" in nodes[number]:
            yield tree["meshes"][nodes[number]["mesh"]], placed


def _placement(node: dict[str, Any]) -> np.ndarray:
    """A node's own (4, 4) matrix: given by columns, or as translation, rotation and scale."""
    if "matrix" in node:
        return np.array(node["matrix"], np.float64).reshape(4, 4).T
    x, y, z, w = (float(value) for value in node.get("rotation", (0, 0, 0, 1)))
    rotation = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    placed = np.eye(4)
    placed[:3, :3] = rotation * np.array(node.get("scale", (1, 1, 1)), np.float64).reshape(1, 3)
    placed[:3, 3] = np.array(node.get("translation", (0, 0, 0)), np.float64).reshape(3)
    return placed


def _accessor(scene: _Scene, number: int, kind: str) -> np.ndarray:
    """The (count, 1 or 3) float64 numbers that an accessor describes."""
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


def _triangles(order: np.ndarray, mode: int) -> np.ndarray:
    """The (F, 3) corners of a primitive whose vertices come in this order."""
    if mode == _TRIANGLES:
        return order[: len(order) // 3 * 3].reshape(-1, 3)
    if mode == _FAN:
        return np.stack([np.full(max(len(order) - 2, 0), order[:1]), order[1:-1], order[2:]], 1)
    return np.stack([order[:-2], order[1:-1], order[2:]], axis=1)
