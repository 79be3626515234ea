"""GLB: binary glTF 2.0, a scene of meshes that nodes place.

Our own reader, because trimesh 5.2 does not scale normalised integers, drops triangle fans, and
reads the uncompressed remains of compressed files. Only what lies inside the file is read: a buffer
elsewhere is an error, and images are never opened.
Shape legend: V vertices and F triangles of one primitive, J joints of a skin.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from foundry3d.data.formats.glb_chunks import Scene, accessor, open_glb
from foundry3d.data.formats.raw import MAX_BYTES, Raw, ignored, listing
from foundry3d.errors import InputError

_GEOMETRY = {
    "KHR_draco_mesh_compression", "EXT_meshopt_compression", "KHR_meshopt_compression",
    "EXT_mesh_gpu_instancing",
}  # fmt: skip
"""Extensions that change geometry and are not read."""

_REPEATED = 2**28  # bytes of geometry that a file may unpack to, however small it is
_GROWTH = 32  # and how many times its own size a larger file
_POINTS, _TRIANGLES, _STRIP, _FAN = 0, 4, 5, 6

_Read = tuple[int, dict[str, np.ndarray]]
"""Vertices of a primitive, and their attributes."""


def read_glb(blob: bytes, attributes: Sequence[str] = ()) -> Raw:
    """All triangles of a GLB file's scene, each mesh placed as its nodes or its joints say.

    Points are read where the scene has no triangles. Morph targets, textures and lines are left
    out.

    Args:
        blob: the file.
        attributes: to read where vertices have them: normal and color (`COLOR_0`).

    Raises:
        InputError: no GLB file, data cut short or outside the file, or geometry in an extension
            that the file requires and that is not read.
    """
    scene = open_glb(blob)
    try:
        required = _GEOMETRY & set(scene.tree.get("extensionsRequired", []))
        if required:
            raise InputError(
                f"expected plain geometry, got {listing(sorted(required))}; export the file "
                "without compression and instancing"
            )
        raw = _collect(scene, min(MAX_BYTES, max(_REPEATED, _GROWTH * len(blob))), attributes)
        used = _GEOMETRY & set(scene.tree.get("extensionsUsed", []))
    except InputError:
        raise
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise InputError(
            "expected a well-formed glTF description, got one with missing or wrong entries; "
            "export the file again"
        ) from error
    notices = raw.notices + ignored("geometry in extensions", sorted(used))
    return replace(raw, notices=notices)


def _collect(scene: Scene, most: int, attributes: Sequence[str]) -> Raw:
    """All primitives of the scene in one, of at most `most` bytes."""
    vertices, faces, loose = [np.zeros((0, 3))], [np.zeros((0, 3), np.int64)], [np.zeros((0, 3))]
    known, size, left_out = 0, 0, False
    read: tuple[list[_Read], list[_Read]] = ([], [])  # of vertices, and of loose points
    for shown in _shown_meshes(scene):
        for primitive in shown.mesh["primitives"]:
            mode = primitive.get("mode", _TRIANGLES)
            if mode not in (_POINTS, _TRIANGLES, _STRIP, _FAN):
                left_out = True
                continue
            points = _placed(scene, shown, primitive["attributes"])
            order = np.arange(len(points))
            if "indices" in primitive:
                order = accessor(scene, primitive["indices"], "SCALAR")[:, 0].astype(np.int64)
            triangles = _triangles(order, mode) if mode != _POINTS else np.zeros((0, 3), np.int64)
            size += points.nbytes + triangles.nbytes
            if size > most:
                raise InputError(
                    f"expected a scene of at most {most} bytes of geometry, got more because "
                    "meshes are repeated; export fewer copies"
                )
            own = _attributes(scene, shown, primitive["attributes"], attributes)
            read[mode == _POINTS].append((len(points), own))
            if mode == _POINTS:
                loose.append(points)
                continue
            vertices.append(points)
            faces.append(triangles + known)
            known += len(points)
    found = np.concatenate(faces)
    left_out = left_out or (len(found) > 0 and len(loose) > 1)
    return Raw(
        vertices=np.concatenate(vertices if len(found) else loose),
        faces=found if len(found) else None,
        notices=("lines and loose points ignored",) if left_out else (),
        attributes=_together(read[not len(found)], attributes),
    )


@dataclass(frozen=True, kw_only=True)
class _Shown:
    """A mesh that a node shows: at the place of the node (4, 4), or bent by joints (J, 4, 4)."""

    mesh: dict[str, Any]
    place: np.ndarray
    joints: np.ndarray | None


def _shown_meshes(scene: Scene) -> Iterator[_Shown]:
    """Every mesh that a node of the scene shows."""
    nodes, places = scene.tree["nodes"], _places(scene.tree)
    for number, place in places.items():
        if "mesh" in nodes[number]:
            skin = nodes[number].get("skin")
            yield _Shown(
                mesh=scene.tree["meshes"][nodes[number]["mesh"]],
                place=place,
                joints=None if skin is None else _joints(scene, scene.tree["skins"][skin], places),
            )


def _places(tree: dict[str, Any]) -> dict[int, np.ndarray]:
    """The (4, 4) placement in the world of every node of the scene."""
    nodes = tree["nodes"]
    if tree.get("scenes"):
        roots = tree["scenes"][tree.get("scene", 0)].get("nodes", [])
    else:
        below = {child for node in nodes for child in node.get("children", [])}
        roots = [number for number in range(len(nodes)) if number not in below]
    waiting = [(number, np.eye(4)) for number in roots]
    places: dict[int, np.ndarray] = {}
    while waiting:
        number, above = waiting.pop()
        if number in places:
            raise InputError(
                f"expected nodes in a tree, got node {listing([str(number)])} twice; "
                "export the file again"
            )
        places[number] = above @ _placement(nodes[number])
        waiting += [(child, places[number]) for child in nodes[number].get("children", [])]
    return places


def _joints(scene: Scene, skin: dict[str, Any], places: dict[int, np.ndarray]) -> np.ndarray:
    """(J, 4, 4): from the mesh as it was bound to where each joint of the skin is now."""
    now = np.stack([places[number] for number in skin["joints"]])
    if "inverseBindMatrices" not in skin:
        return now
    bound = accessor(scene, skin["inverseBindMatrices"], "MAT4")
    return now @ bound[: len(now)].reshape(-1, 4, 4).transpose(0, 2, 1)


def _placed(scene: Scene, shown: _Shown, attributes: dict[str, Any]) -> np.ndarray:
    """Points (V, 3) of a primitive in the world; joints alone place what they bend."""
    points = accessor(scene, attributes["POSITION"], "VEC3")
    if shown.joints is None:
        return points @ shown.place[:3, :3].T + shown.place[:3, 3]
    joints = accessor(scene, attributes["JOINTS_0"], "VEC4").astype(np.int64)
    weights = accessor(scene, attributes["WEIGHTS_0"], "VEC4")
    total = np.zeros_like(points)
    for joint, weight in zip(joints.T, weights.T, strict=True):
        bent = shown.joints[joint]
        moved = np.einsum("vij,vj->vi", bent[:, :3, :3], points) + bent[:, :3, 3]
        total += weight[:, None] * moved
    return total


def _attributes(
    scene: Scene, shown: _Shown, held: dict[str, Any], wanted: Sequence[str]
) -> dict[str, np.ndarray]:
    """The wanted attributes (V, 3) of a primitive; normals as the node places them.

    Normals that joints bend are left out, so that those of the triangles are taken.
    """
    found = {}
    if "normal" in wanted and "NORMAL" in held and shown.joints is None:
        turn = np.linalg.pinv(shown.place[:3, :3])
        found["normal"] = accessor(scene, held["NORMAL"], "VEC3") @ turn
    if "color" in wanted and "COLOR_0" in held:
        kind = str(scene.tree["accessors"][held["COLOR_0"]]["type"])
        if kind in ("VEC3", "VEC4"):
            found["color"] = accessor(scene, held["COLOR_0"], kind)[:, :3]
    return found


def _together(read: list[_Read], wanted: Sequence[str]) -> dict[str, np.ndarray]:
    """Attributes of all primitives, NaN for those without; none that no primitive has."""
    return {
        name: np.concatenate([own.get(name, np.full((count, 3), np.nan)) for count, own in read])
        for name in wanted
        if any(name in own for _, own in read)
    }


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


def _triangles(order: np.ndarray, mode: int) -> np.ndarray:
    """The (F, 3) corners of a primitive whose vertices come in this order."""
    if mode == _TRIANGLES:
        return order[: len(order) // 3 * 3].reshape(-1, 3)
    if mode == _FAN:
        return np.stack([np.full(max(len(order) - 2, 0), order[:1]), order[1:-1], order[2:]], 1)
    return np.stack([order[:-2], order[1:-1], order[2:]], axis=1)
