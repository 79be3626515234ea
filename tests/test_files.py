"""Files of every format are read exactly, and damaged or hostile ones end in one InputError."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import struct
import sys
import zipfile
from pathlib import Path

import lazrs
import numpy as np
import pytest

from foundry3d.data.files import EXTENSIONS, Points, read_clouds, read_points
from foundry3d.data.formats import arrays, glb
from foundry3d.data.formats.pcd import _lzf
from foundry3d.data.surface import sample_surface
from foundry3d.errors import InputError

CLOUD = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
ROWS = [" ".join(f"{v:.9g}" for v in row) for row in CLOUD.tolist()]

# Two squares as quads, sides 1 and 2 at heights 0 and 5: areas 1 and 4.
CORNERS = np.array(
    [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 5], [2, 0, 5], [2, 2, 5], [0, 2, 5]],
    np.float32,
)
QUADS = np.array([[0, 1, 2, 3], [4, 5, 6, 7]])
TRIANGLES = np.array([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]])


# ---------------------------------------------------------------- writers, one for each format


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def npz(**arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def ply(kind: str, vertices: np.ndarray, faces: list[list[int]] | None = None) -> bytes:
    """Vertices with a colour in between, and faces of any number of corners."""
    head = f"ply\nformat {kind} 1.0\ncomment a\nelement vertex {len(vertices)}\nproperty float x\n"
    head += "property uchar red\nproperty float y\nproperty float z\n"
    if faces is not None:
        head += f"element face {len(faces)}\nproperty list uchar int vertex_indices\n"
        head += "property uchar group\n"
    head += "end_header\n"
    if kind == "ascii":
        body = "".join(f"{x:.9g} 7 {y:.9g} {z:.9g}\n" for x, y, z in vertices.tolist())
        body += "".join(f"{len(f)} {' '.join(map(str, f))} 3\n" for f in faces or [])
        return (head + body).encode()
    order = "<" if "little" in kind else ">"
    body = b"".join(struct.pack(f"{order}fBff", x, 7, y, z) for x, y, z in vertices.tolist())
    for face in faces or []:
        body += struct.pack(f"{order}B{len(face)}iB", len(face), *face, 3)
    return head.encode() + body


def lzf(data: bytes) -> bytes:
    """A simple LZF packer: refer back where three bytes were seen before, else copy."""
    out, plain, seen, at = bytearray(), bytearray(), dict[bytes, int](), 0

    def flush() -> None:
        for i in range(0, len(plain), 32):
            out.append(len(plain[i : i + 32]) - 1)
            out.extend(plain[i : i + 32])
        plain.clear()

    while at < len(data):
        back = at - seen.get(data[at : at + 3], at) - 1
        seen[data[at : at + 3]] = at
        if not 0 <= back < 8192 or at + 3 > len(data):
            plain.append(data[at])
            at += 1
            continue
        length = 3
        while length < 264 and at + length < len(data):
            if data[at + length] != data[at + length - back - 1]:
                break
            length += 1
        flush()
        long = bytes([length - 9]) if length >= 9 else b""
        out += bytes([min(length - 2, 7) << 5 | back >> 8]) + long + bytes([back & 255])
        at += length
    flush()
    return bytes(out)


def pcd(kind: str, points: np.ndarray) -> bytes:
    n = len(points)
    head = "# .PCD\nVERSION .7\nFIELDS x y z rgb _\nSIZE 4 4 4 4 1\n"
    head += "TYPE F F F U U\nCOUNT 1 1 1 1 4\n"
    head += f"WIDTH {n}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {n}\nDATA {kind}\n"
    if kind == "ascii":
        return (
            head + "".join(f"{x:.9g} {y:.9g} {z:.9g} 255 0 0 0 0\n" for x, y, z in points)
        ).encode()
    table = np.zeros(n, [("p", "<f4", 3), ("rgb", "<u4"), ("pad", "u1", 4)])
    table["p"] = points
    if kind == "binary":
        return head.encode() + table.tobytes()
    plain = points.T.tobytes() + table["rgb"].tobytes() + table["pad"].tobytes()
    packed = lzf(plain)
    return head.encode() + struct.pack("<II", len(packed), len(plain)) + packed


def obj(vertices: np.ndarray, faces: np.ndarray, back: bool = False) -> bytes:
    text = "# a\nmtllib /etc/passwd\no part\n"
    text += "".join(f"v {x:.9g} {y:.9g}\t{z:.9g} 0.5 0.5 0.5\n" for x, y, z in vertices.tolist())
    text += "vn 0 0 1\nvt 0 0\nusemtl red\ns off\n"
    shift = -len(vertices) if back else 1
    for face in (faces + shift).tolist():
        text += "f " + " ".join(f"{i}/1/1" for i in face[:-1]) + f" \\\n{face[-1]}//1 # last\n"
    return text.encode()


def off(vertices: np.ndarray, faces: np.ndarray, head: str = "OFF\n# note\n") -> bytes:
    text = f"{head}{len(vertices)} {len(faces)} 0\n\n"
    text += "".join(f"{x:.9g} {y:.9g} {z:.9g}\n" for x, y, z in vertices.tolist())
    text += "".join(f"{len(f)} {' '.join(map(str, f))} 255 0 0\n" for f in faces.tolist())
    return text.encode()


def stl(triangles: np.ndarray, text: bool = False) -> bytes:
    if text:
        out = "solid a\n"
        for corners in triangles.tolist():
            rows = "".join(f"vertex {x:.9g} {y:.9g} {z:.9g}\n" for x, y, z in corners)
            out += f"facet normal 0 0 1\nouter loop\n{rows}endloop\nendfacet\n"
        return (out + "endsolid a\n").encode()
    table = np.zeros(
        len(triangles), [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("a", "<u2")]
    )
    table["corners"] = triangles
    return b"solid".ljust(80, b" ") + struct.pack("<I", len(triangles)) + table.tobytes()


def pack_glb(tree: dict, block: bytes) -> bytes:
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    body = struct.pack("<II", len(text), 0x4E4F534A) + text
    body += struct.pack("<II", len(block), 0x004E4942) + block
    return struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body


def glb_tree(vertices: np.ndarray, order: np.ndarray | None, mode: int = 4) -> tuple[dict, bytes]:
    """A scene with one mesh: float32 vertices and, if given, uint16 indices."""
    block = vertices.astype("<f4").tobytes()
    views = [{"buffer": 0, "byteLength": len(block)}]
    accessors = [{"bufferView": 0, "componentType": 5126, "count": len(vertices), "type": "VEC3"}]
    primitive = {"attributes": {"POSITION": 0}, "mode": mode}
    if order is not None:
        packed = order.astype("<u2").tobytes()
        views.append({"buffer": 0, "byteOffset": len(block), "byteLength": len(packed)})
        accessors.append(
            {"bufferView": 1, "componentType": 5123, "count": order.size, "type": "SCALAR"}
        )
        primitive["indices"] = 1
        block += packed
    tree = {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [primitive]}],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": len(block)}],
        "images": [{"uri": "http://example.invalid/a.png"}],
    }
    return tree, block


LEVELS = np.round(CLOUD * 1000).astype("<i4")
LAS_POINTS = (LEVELS * 0.001).astype(np.float32)


def las(levels: np.ndarray, minor: int = 2, compress: bool = False) -> bytes:
    """Point format 0, or 6 (compressed in layers) with minor version 4; scale 0.001."""
    length, kind, size = (375, 6, 30) if minor == 4 else (227, 0, 20)
    table = np.zeros(len(levels), [("p", "<i4", 3), ("rest", "u1", size - 12)])
    table["p"] = levels
    body, records = table.tobytes(), b""
    if compress:
        record = lazrs.LazVlr.new_for_compression(kind, 0)
        stream = io.BytesIO()
        packer = lazrs.LasZipCompressor(stream, record)
        packer.compress_many(body)
        packer.done()
        data = bytes(record.record_data())
        records = struct.pack("<H16sHH32s", 0, b"laszip encoded", 22204, len(data), b"") + data
        body = stream.getvalue()
        where = length + len(records)  # the offset of the chunk table counts from the file's start
        body = struct.pack("<q", struct.unpack_from("<q", body)[0] + where) + body[8:]
    head = bytearray(length)
    head[:4], head[24:26] = b"LASF", bytes([1, minor])
    legacy = 0 if minor == 4 else len(levels)
    kind |= 0x80 if compress else 0
    start = length + len(records)
    struct.pack_into("<HIIBHI", head, 94, length, start, int(compress), kind, size, legacy)
    struct.pack_into("<6d", head, 131, 0.001, 0.001, 0.001, 0, 0, 0)
    if minor == 4:
        struct.pack_into("<Q", head, 247, len(levels))
    return bytes(head) + records + body


TEXT = "\n".join(ROWS)
CLOUDS: dict[str, bytes] = {
    "ascii.ply": ply("ascii", CLOUD),
    "little.ply": ply("binary_little_endian", CLOUD),
    "big.ply": ply("binary_big_endian", CLOUD),
    "crlf.ply": ply("ascii", CLOUD).replace(b"\n", b"\r\n"),
    "nofaces.ply": ply("binary_big_endian", CLOUD, []),
    "ascii.pcd": pcd("ascii", CLOUD),
    "binary.pcd": pcd("binary", CLOUD),
    "compressed.pcd": pcd("binary_compressed", CLOUD),
    "a.obj": obj(CLOUD, np.zeros((0, 3), int)),
    "a.off": off(CLOUD, np.zeros((0, 3), int)),
    "joined.off": off(CLOUD, np.zeros((0, 3), int), head="OFF"),
    "a.glb": pack_glb(*glb_tree(CLOUD, None, mode=0)),
    "a.xyz": TEXT.encode(),
    "colours.xyz": "\n".join(f"{row} 1 2 3" for row in ROWS).encode(),
    "comment.txt": ("# made by hand\n// x y z\n\n" + TEXT + "\n\n").encode(),
    "header.txt": ("X Y Z\r\n" + TEXT.replace("\n", "\r\n")).encode(),
    "bom.csv": b"\xef\xbb\xbf" + ("x,y,z\n" + TEXT.replace(" ", ",")).encode(),
    "named.csv": ("id,X,Y,Z\n" + "".join(f"9,{r.replace(' ', ', ')}\n" for r in ROWS)).encode(),
    "semicolon.csv": TEXT.replace(" ", ";").encode(),
    "counted.pts": (f"{len(CLOUD)}\n" + "\n".join(f"{r} 5 6 7 8" for r in ROWS)).encode(),
    "UPPER.NPY": npy(CLOUD),
    "columns.npy": npy(np.c_[CLOUD, CLOUD]),
    "fortran.npy": npy(np.asfortranarray(CLOUD)),
    "big.npy": npy(CLOUD.astype(">f8")),
    "one.npy": npy(CLOUD[None]),
    "points.npz": npz(points=CLOUD, labels=np.zeros(60), ids=np.array(["a"])),
    "sole.npz": npz(anything=CLOUD),
}  # fmt: skip
MESHES: dict[str, bytes] = {
    "ascii.ply": ply("ascii", CORNERS, QUADS.tolist()),
    "little.ply": ply("binary_little_endian", CORNERS, QUADS.tolist()),
    "mixed.ply": ply("binary_big_endian", CORNERS, [*TRIANGLES[:2].tolist(), QUADS[1].tolist()]),
    "mixedtext.ply": ply("ascii", CORNERS, [[1, 2], QUADS[0].tolist(), *TRIANGLES[2:].tolist()]),
    "a.obj": obj(CORNERS, QUADS),
    "back.obj": obj(CORNERS, TRIANGLES, back=True),
    "a.off": off(CORNERS, QUADS),
    "colour.off": off(CORNERS, TRIANGLES, head="COFF\n"),
    "binary.stl": stl(CORNERS[TRIANGLES]),
    "text.stl": stl(CORNERS[TRIANGLES], text=True),
    "a.glb": pack_glb(*glb_tree(CORNERS, TRIANGLES)),
    "soup.glb": pack_glb(*glb_tree(CORNERS[TRIANGLES].reshape(-1, 3), None)),
}


def write(folder: Path, name: str, data: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def refused(path: Path, *words: str, **options: object) -> str:
    """The message of the InputError, which names the file and holds the words, in one line."""
    with pytest.raises(InputError) as caught:
        list(read_clouds(path, **options))  # type: ignore[arg-type]
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message
    assert "expected" in message and all(word in message for word in words), message
    return message


def same_as(folder: Path, name: str, data: bytes, changed: bytes) -> None:
    expected = read_points(write(folder, f"as-it-was-{name}", data), samples=99)
    found = read_points(write(folder, name, changed), samples=99)
    np.testing.assert_array_equal(found.points, expected.points)


# ---------------------------------------------------------------- what is right is read exactly


@pytest.mark.parametrize("name", CLOUDS)
def test_clouds_are_read_exactly(tmp_path, name):
    path = write(tmp_path, name, CLOUDS[name])
    cloud = read_points(path)
    assert cloud.points.dtype == np.float32 and cloud.points.flags["C_CONTIGUOUS"]
    assert cloud.points.flags.writeable and cloud.origin == (0, 0, 0)
    np.testing.assert_array_equal(cloud.points, CLOUD)
    (same,) = read_clouds(path)
    np.testing.assert_array_equal(same.points, CLOUD)


@pytest.mark.parametrize("minor", [2, 4])
@pytest.mark.parametrize("name", ["a.las", "a.laz"])
def test_las_is_read_exactly(tmp_path, name, minor):
    path = write(tmp_path, name, las(LEVELS, minor, compress=name.endswith("laz")))
    np.testing.assert_array_equal(read_points(path).points, LAS_POINTS)


@pytest.mark.parametrize("name", MESHES)
def test_every_mesh_format_gives_the_same_samples(tmp_path, name):
    cloud = read_points(write(tmp_path, name, MESHES[name]), samples=500, seed=3)
    expected = sample_surface(CORNERS, TRIANGLES, 500, np.random.default_rng(3))
    np.testing.assert_array_equal(cloud.points, expected.astype(np.float32))
    assert any("sampled" in notice for notice in cloud.notices)


def test_every_extension_is_tested():
    endings = {
        name.lower().split(".")[-1] for name in [*CLOUDS, *MESHES, "a.las", "a.laz", "a.parquet"]
    }
    assert endings == set(EXTENSIONS)


def test_notices_say_what_was_ignored(tmp_path):
    notices = read_points(write(tmp_path, "a.ply", CLOUDS["little.ply"])).notices
    assert notices == ("vertex properties red ignored",)
    assert read_points(write(tmp_path, "a.pcd", CLOUDS["binary.pcd"])).notices == (
        "fields rgb ignored",
    )
    assert "labels" in read_points(write(tmp_path, "a.npz", CLOUDS["points.npz"])).notices[0]


def test_records_are_frozen():
    with pytest.raises(AttributeError):
        Points(points=CLOUD, source="a").source = "b"  # type: ignore[misc]


def test_many_clouds_of_an_archive(tmp_path):
    many = np.stack([CLOUD, CLOUD + 1]).astype(np.float16)
    path = write(tmp_path, "many.npz", npz(points=many, labels=np.zeros(2)))
    clouds = list(read_clouds(path))
    assert [cloud.source for cloud in clouds] == [f"{path}[0]", f"{path}[1]"]
    for cloud, expected in zip(clouds, many, strict=True):
        np.testing.assert_array_equal(cloud.points, expected.astype(np.float32))
    with pytest.raises(InputError, match=r"many\.npz.*one cloud, got 2.*read_clouds"):
        read_points(path)


def test_a_bad_cloud_of_many_is_named(tmp_path):
    many = np.stack([CLOUD, CLOUD])
    many[1, 5] = np.nan
    clouds = read_clouds(write(tmp_path, "many.npy", npy(many)))
    next(clouds)
    with pytest.raises(InputError, match=r"many\.npy\[1\].*got 1 of 60"):
        next(clouds)


def test_levels_with_scale_and_offset(tmp_path):
    levels = np.random.default_rng(1).integers(-32768, 32767, (50, 3)).astype(np.int16)
    offset = np.array([512600.0, 5403579.75, 337.0])
    data = npz(points_i16=levels, scale=np.float32(0.0168), offset=offset, rgb=np.zeros((50, 3)))
    cloud = read_points(write(tmp_path, "scene.npz", data))
    expected = levels * np.float64(np.float32(0.0168)) + offset
    np.testing.assert_allclose(cloud.points + np.array(cloud.origin), expected, atol=1e-4)
    assert cloud.notices[0] == "arrays rgb ignored" and "origin" not in cloud.notices[0]


def test_far_clouds_are_moved_only_where_float32_needs_it(tmp_path):
    far = CLOUD.astype(np.float64) + np.array([5e5, 5.4e6, 0])
    cloud = read_points(write(tmp_path, "far.npy", npy(far)))
    np.testing.assert_allclose(cloud.points + np.array(cloud.origin), far, atol=1e-6)
    assert np.abs(cloud.points).max() < 10 and "moved" in cloud.notices[0]
    held = far.astype(np.float32)
    np.testing.assert_array_equal(read_points(write(tmp_path, "held.npy", npy(held))).points, held)
    near = CLOUD.astype(np.float64) + 10.1
    assert read_points(write(tmp_path, "near.npy", npy(near))).origin == (0, 0, 0)


# ---------------------------------------------------------------- surfaces


def test_samples_are_even_by_area(tmp_path):
    points = read_points(write(tmp_path, "a.obj", MESHES["a.obj"]), samples=40000).points
    assert set(np.unique(points[:, 2])) == {0, 5}
    low = points[points[:, 2] == 0]
    assert abs(len(low) / 40000 - 1 / 5) < 4 * np.sqrt(0.16 / 40000)
    cells, _, _ = np.histogram2d(low[:, 0], low[:, 1], bins=8, range=[[0, 1], [0, 1]])
    chi = ((cells - cells.mean()) ** 2 / cells.mean()).sum()
    assert cells.sum() == len(low) and chi < 103.4  # 99.9 % quantile, 63 degrees of freedom


def test_samples_depend_on_the_seed_alone(tmp_path):
    path = write(tmp_path, "a.stl", MESHES["binary.stl"])
    first, again = read_points(path, samples=99), read_points(path, samples=99)
    other = read_points(path, samples=99, seed=1)
    np.testing.assert_array_equal(first.points, again.points)
    assert first.points.shape == (99, 3) and not (first.points == other.points).all()


def test_meshes_that_cannot_be_sampled(tmp_path):
    flat = write(tmp_path, "flat.obj", obj(CORNERS * 0, TRIANGLES))
    refused(flat, "area", "got 4 without")
    whole = write(tmp_path, "a.obj", MESHES["a.obj"])
    refused(whole, "samples of at least 1", samples=0)
    refused(whole, "seed", seed=-1)
    refused(write(tmp_path, "b.obj", obj(CORNERS[:6], TRIANGLES)), "vertices 0 to 5, got 0 to 7")
    refused(write(tmp_path, "c.obj", "v 0 0 0\nf -2 1 1\n"), "got -1 to 0")


# ---------------------------------------------------------------- glb scenes


def test_glb_nodes_place_their_meshes(tmp_path):
    tree, block = glb_tree(CORNERS, TRIANGLES)
    half = np.sqrt(0.5)
    tree["scenes"] = [{"nodes": [0, 2]}]
    matrix = np.diag([2.0, 2, 2, 1])
    matrix[:3, 3] = 1, 2, 3
    tree["nodes"] = [
        {"children": [1], "matrix": matrix.T.reshape(-1).tolist()},
        {"mesh": 0, "rotation": [0, 0, half, half], "scale": [1, 3, 1], "translation": [0, 0, 1]},
        {"mesh": 0},
    ]
    raw = glb.read_glb(pack_glb(tree, block))
    turned = CORNERS * [1, 3, 1] @ np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1]]) + [0, 0, 1]
    placed = np.concatenate([CORNERS, turned * 2 + [1, 2, 3]])
    order = raw.vertices[raw.faces].reshape(-1, 3)
    expected = placed[np.concatenate([TRIANGLES, TRIANGLES + 8])].reshape(-1, 3)
    np.testing.assert_allclose(order, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("mode", "faces"), [(5, [[0, 1, 2], [1, 2, 3]]), (6, [[0, 1, 2], [0, 2, 3]])]
)
def test_glb_strips_and_fans(mode, faces):
    raw = glb.read_glb(pack_glb(*glb_tree(CORNERS[:4], np.arange(4), mode)))
    assert raw.faces is not None and raw.faces.tolist() == faces
    short = glb.read_glb(pack_glb(*glb_tree(CORNERS[:4], np.arange(1), mode)))
    assert short.faces is None


def test_glb_packed_with_stride_and_normalised():
    tree, _ = glb_tree(CORNERS[:3], None)
    table = np.array([[32767, 0, -32768, 9], [0, 32767, 0, 9], [0, 0, 0, 9]], "<i2")
    tree["accessors"][0] |= {"componentType": 5122, "normalized": True}
    tree["bufferViews"][0] |= {"byteLength": 24, "byteStride": 8}
    raw = glb.read_glb(pack_glb(tree, table.tobytes()))
    np.testing.assert_array_equal(raw.vertices, [[1, 0, -1], [0, 1, 0], [0, 0, 0]])


def damaged_glbs() -> dict[str, tuple[str, dict]]:
    """What to find in the message, and the damaged tree."""
    trees = {}
    for name, word, change in [
        ("uri", "buffer elsewhere", {"buffers": [{"uri": "http://example.invalid/a.bin"}]}),
        ("other buffer", "buffer elsewhere", {"bufferViews": [{"buffer": 1, "byteLength": 96}]}),
        ("cycle", "twice", {"nodes": [{"children": [0]}]}),
        ("draco", "compression", {"extensionsRequired": ["KHR_draco_mesh_compression"]}),
        ("count", "1000000000000 entries", {"accessors": [{"bufferView": 0, "count": 10**12,
            "componentType": 5126, "type": "VEC3"}]}),
        ("stride", "entries of 1 bytes", {"bufferViews": [{"buffer": 0, "byteLength": 96,
            "byteStride": 1}]}),
        ("negative", "well-formed", {"bufferViews": [{"buffer": 0, "byteLength": 96,
            "byteOffset": -96}]}),
        ("list", "well-formed", {"nodes": 5}),
        ("wrong mesh", "well-formed", {"nodes": [{"mesh": "a"}]}),
        ("matrix", "well-formed", {"nodes": [{"mesh": 0, "matrix": [1]}]}),
        ("empty", "at least one point", {"nodes": []}),
        ("sparse", "sparse", {"accessors": [{"bufferView": 0, "count": 8, "sparse": {},
            "componentType": 5126, "type": "VEC3"}]}),
        ("nan", "finite", {"nodes": [{"mesh": 0, "translation": [float("nan"), 0, 0]}]}),
    ]:  # fmt: skip
        tree, _ = glb_tree(CORNERS, None)
        trees[name] = (word, tree | change)
    trees["empty"][1]["scenes"] = [{}]
    return trees


@pytest.mark.parametrize("name", damaged_glbs())
def test_glb_damaged_scenes(tmp_path, bounded, name):
    word, tree = damaged_glbs()[name]
    refused(write(tmp_path, "a.glb", pack_glb(tree, CORNERS.tobytes())), word)


def test_glb_repeated_meshes_are_bounded(tmp_path, monkeypatch):
    tree, block = glb_tree(CORNERS, TRIANGLES)
    tree["nodes"] = [{"mesh": 0}] * 100
    tree["scenes"] = [{"nodes": list(range(100))}]
    path = write(tmp_path, "a.glb", pack_glb(tree, block))
    assert len(read_points(path, samples=7).points) == 7
    monkeypatch.setattr(glb, "MAX_BYTES", 10000)
    refused(path, "10000 bytes of geometry")


def test_glb_deep_json_and_other_versions(tmp_path):
    text = b"[" * 100000
    head = struct.pack("<4sIIII", b"glTF", 2, 20 + len(text), len(text), 0x4E4F534A)
    refused(write(tmp_path, "a.glb", head + text), "JSON")
    refused(write(tmp_path, "b.glb", struct.pack("<4sIIII", b"glTF", 1, 20, 0, 0)), "2.0")


# ---------------------------------------------------------------- what is wrong is refused


def test_what_is_no_file(tmp_path):
    refused(tmp_path / "missing.ply", "nothing of that name")
    refused(tmp_path, "directory")
    refused(write(tmp_path, "empty.ply", b""), "1 to", "got 0")
    message = refused(write(tmp_path, "a.docx", b"abc"), "'docx'", "convert")
    assert all(ending in message for ending in EXTENSIONS)
    refused(write(tmp_path, "plain", b"abc"), "got ''")
    if sys.platform != "win32":
        os.mkfifo(tmp_path / "pipe.ply")
        refused(tmp_path / "pipe.ply", "nothing of that name")


def test_too_large_files_are_not_opened(tmp_path):
    path = tmp_path / "huge.ply"
    with path.open("wb") as stream:
        stream.truncate(2**32 + 1)  # sparse: takes no room
    refused(path, "got 4294967297", "parts")


def test_coordinates_must_be_finite(tmp_path):
    bad = CLOUD.copy()
    bad[3, 1], bad[7] = np.nan, np.inf
    path = write(tmp_path, "bad.ply", ply("binary_little_endian", bad))
    refused(path, "got 2 of 60 points", "--invalid drop", invalid="refuse")
    cloud = read_points(path, invalid="drop")
    np.testing.assert_array_equal(cloud.points, np.delete(CLOUD, [3, 7], axis=0))
    assert "2 points" in cloud.notices[-1]
    refused(write(tmp_path, "large.npy", npy(CLOUD.astype(float) * 1e39)), "infinite")
    refused(write(tmp_path, "none.npy", npy(bad[7:8])), "1 of 1", invalid="drop")
    signalling = np.full((2, 3), 0x7FA00000, np.uint32).view(np.float32)
    refused(write(tmp_path, "signal.npy", npy(signalling)), "2 of 2")


def test_dropped_vertices_take_their_faces_along(tmp_path):
    corners = CORNERS.copy()
    corners[2] = np.nan  # of both triangles of the small square
    path = write(tmp_path, "a.ply", ply("ascii", corners, QUADS.tolist()))
    refused(path, "1 of 8")
    points = read_points(path, samples=50, invalid="drop").points
    assert (points[:, 2] == 5).all()


LIES = {
    "vertices.ply": (CLOUDS["little.ply"].replace(b"vertex 60", b"vertex 999999999999"), "999999"),
    "text.ply": (CLOUDS["ascii.ply"].replace(b"vertex 60", b"vertex 61"), "61 rows"),
    "faces.ply": (MESHES["little.ply"].replace(b"face 2", b"face 4000000000"), "4000000000 rows"),
    "list.ply": (MESHES["little.ply"].replace(b"list uchar", b"list uint"), "2 rows of 'face'"),
    "cut.ply": (CLOUDS["big.ply"][:-1], "60 rows"),
    "nothing.ply": (b"ply\nformat ascii 1.0\nend_header\n", "element 'vertex'"),
    "noxyz.ply": (CLOUDS["big.ply"].replace(b"float y", b"float q"), "x, red, q, z"),
    "type.ply": (CLOUDS["big.ply"].replace(b"float y", b"foo y"), "property foo y"),
    "noend.ply": (CLOUDS["ascii.ply"][:80], "end_header"),
    "letters.ply": (CLOUDS["ascii.ply"] + b"abc", "numbers"),
    "fraction.ply": (MESHES["ascii.ply"].replace(b"0 1 2 3", b"0 1 2.5 3"), "whole numbers"),
    "points.pcd": (re.sub(rb"(WIDTH|POINTS) 60", rb"\1 60000000000", CLOUDS["binary.pcd"]), "6000"),
    "grid.pcd": (CLOUDS["binary.pcd"].replace(b"POINTS 60", b"POINTS 61"), "POINTS 61"),
    "cut.pcd": (CLOUDS["binary.pcd"][:-1], "60 points"),
    "cuttext.pcd": (CLOUDS["ascii.pcd"][:-4], "60 points"),
    "cutpacked.pcd": (CLOUDS["compressed.pcd"][:-1], "60 points"),
    "count.pcd": (CLOUDS["binary.pcd"].replace(b"1 1 4\n", b"1 1 4000000000000\n"), "60 points"),
    "fields.pcd": (CLOUDS["binary.pcd"].replace(b"SIZE 4", b"SIZE 3"), "SIZE"),
    "data.pcd": (CLOUDS["binary.pcd"].replace(b"DATA binary", b"DATA gzip"), "gzip"),
    "nodata.pcd": (CLOUDS["ascii.pcd"][:60], "DATA"),
    "bomb.pcd": (b"FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nPOINTS 50000000\nDATA binary_compressed\n"
        + struct.pack("<II", 9, 600000000) + bytes(9), "LZF"),
    "a.off": (MESHES["a.off"].replace(b"8 2 0", b"8 99999999999 0"), "99999999999 faces"),
    "corners.off": (MESHES["a.off"].replace(b"4 0 1 2 3", b"9 0 1 2 3"), "fewer"),
    "binary.off": (b"OFF BINARY\n\0\0\0\1", "plain OFF"),
    "letters.off": (MESHES["a.off"].replace(b"2 2 5", b"2 b 5"), "column 2"),
    "cut.stl": (MESHES["binary.stl"].replace(b"solid", b"     ")[:-1], "4 packed stl triangles"),
    "count.stl": (bytes(80) + b"\xff\xff\xff\xff" + bytes(50), "4294967295 packed"),
    "short.stl": (b"abc", "0 packed"),
    "cuttext.stl": (MESHES["text.stl"][:-60], "endsolid"),
    "none.obj": (b"mtllib a.mtl\n", "lines 'v x y z'"),
    "empty.obj": (b"v\nv \nv 1 2 3\nv  \n", "empty ones"),
    "letters.obj": (b"v 1 2 a\n", "'a'"),
    "two.obj": (b"v 1 2\n", "column"),
    "zero.obj": (b"v 1 2 3\nf 0 1 1\n", "from 1 on"),
    "word.obj": (b"v 1 2 3\nf 1 1 a\n", "numbers"),
    "poem.txt": (b"roses are red\nviolets are blue\n", "roses, are, red"),
    "poem.xyz": (b"1 2 3\nviolets are blue\n", "violets"),
    "binary.csv": (bytes(range(256)), "at least three numbers"),
    "two.xyz": (b"1 2\n3 4\n", "at least three numbers"),
    "ragged.xyz": (b"1 2 3\n3 4\n", "row 2"),
    "decimal.csv": (b"1,5;2,5;3,5\n", "at least three numbers"),
    "counted.pts": (b"99999999999\n1 2 3\n", "99999999999 points"),
    "comments.txt": (b"# a\n# b\n", "at least three numbers"),
    "points.las": (las(LEVELS)[:107] + b"\xff\xff\xff\x00" + las(LEVELS)[111:], "16777215 points"),
    "count.las": (las(LEVELS)[:107] + b"\xff\xff\xff\xff" + las(LEVELS)[111:], "4294967295 points"),
    "cut.las": (las(LEVELS)[:-1], "60 points"),
    "other.las": (b"LAS?" + bytes(300), "las header"),
    "record.laz": (las(LEVELS)[:104] + b"\x80" + las(LEVELS)[105:], "laz"),
    "shape.npy": (npy(CLOUD).replace(b"(60, 3)", b"(6000000000000, 3)"), "6000000000000"),
    "cut.npy": (npy(CLOUD)[:-1], "cut short"),
    "flat.npy": (npy(CLOUD[:, 0]), "(60,)"),
    "two.npy": (npy(CLOUD[:, :2]), "(60, 2)"),
    "deep.npy": (npy(np.zeros((2,) * 20)), "shape"),
    "none.npy": (npy(CLOUD[:0]), "at least one point"),
    "words.npy": (npy(np.array([["a", "b", "c"]])), "plain real numbers"),
    "complex.npy": (npy(CLOUD.astype(complex)), "plain real numbers"),
    "text.npy": (b"abc", "plain real numbers"),
    "none.npz": (npz(a=CLOUD, b=CLOUD), "a, b"),
    "cut.npz": (CLOUDS["points.npz"][:-30], "damaged"),
    "scale.npz": (npz(points_i16=LEVELS, scale=np.zeros(5), offset=np.zeros(3)), "(5,)"),
    "text.npz": (b"PK\x03\x04" + bytes(50), "damaged"),
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_lies_are_found_without_believing_them(tmp_path, bounded, name):
    data, word = LIES[name]
    refused(write(tmp_path, name, data), word)


class Trap:
    """Unpickled, it would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_pickles_never_run(tmp_path):
    mark = tmp_path / "mark"
    trap = np.array([[Trap(mark)] * 3], dtype=object)
    refused(write(tmp_path, "a.npy", npy(trap)), "plain real numbers")
    refused(write(tmp_path, "a.npz", npz(points=trap)), "plain real numbers")
    refused(write(tmp_path, "b.npy", pickle.dumps(Trap(mark))), "plain real numbers")
    read_points(write(tmp_path, "c.npz", npz(points=CLOUD, names=trap)))
    assert not mark.exists()


def test_zip_bombs(tmp_path, monkeypatch, bounded):
    def archive(data: bytes, kind: int = zipfile.ZIP_DEFLATED) -> bytes:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", kind) as out:
            out.writestr("points.npy", data)
        return stream.getvalue()

    refused(write(tmp_path, "padded.npz", archive(npy(CLOUD) + bytes(2**24))), "720 bytes")
    bomb = archive(npy(np.zeros((2**20, 3), np.float32)))
    assert len(bomb) < 20000
    believed = npy(np.zeros((4, 3), np.float32))
    size = struct.pack("<I", len(npy(np.zeros((2**20, 3), np.float32))))
    lying = bomb.replace(size, struct.pack("<I", len(believed)))
    refused(write(tmp_path, "lying.npz", lying), "npz")
    refused(write(tmp_path, "other.npz", archive(npy(CLOUD), zipfile.ZIP_BZIP2)), "compression")
    monkeypatch.setattr(arrays, "MAX_BYTES", 2**20)
    refused(write(tmp_path, "large.npz", bomb), "1048576 bytes", "declares 12583040")


def test_lzf_packs_and_unpacks():
    data = b"abcabcabcabd" * 40 + bytes(700) + CLOUD.tobytes()
    assert len(lzf(data)) < len(data) and _lzf(lzf(data), len(data)) == data
    for damaged in (b"\x20\x05", b"\xe0", b"\x00a\x20", b"\x05ab"):
        with pytest.raises(InputError):
            _lzf(damaged, 3)


# ---------------------------------------------------------------- anything at all


def mutants(data: bytes, rng: np.random.Generator, count: int):
    """Copies of a file with its end cut off, bytes changed, or a piece repeated or removed."""
    for _ in range(count):
        out = bytearray(data)
        if rng.random() < 0.3:
            del out[int(rng.integers(len(out))) :]
        elif rng.random() < 0.2:
            at, size = int(rng.integers(len(out))), int(rng.integers(1, 40))
            out[at : at + int(rng.integers(0, 40))] = out[at : at + size] * 2
        else:
            reach = len(out) if rng.random() < 0.5 else min(len(out), 300)  # often the header
            for at in rng.integers(reach, size=int(rng.integers(1, 6))):
                out[at] = int(rng.integers(256))
        yield bytes(out)


FUZZED = (
    CLOUDS
    | {f"mesh_{name}": data for name, data in MESHES.items()}
    | {"a.las": las(LEVELS), "b.las": las(LEVELS, minor=4)}
)


def survives(folder: Path, name: str, data: bytes, count: int) -> None:
    path = folder / name
    for mutant in mutants(data, np.random.default_rng(len(data)), count):
        path.write_bytes(mutant)
        try:
            clouds = list(read_clouds(path, samples=20))
        except InputError as error:
            assert str(error).startswith(str(path)) and len(str(error)) < 600 + len(str(path))
        else:
            assert all(np.isfinite(cloud.points).all() for cloud in clouds)


@pytest.mark.parametrize("name", FUZZED)
def test_damaged_files_raise_nothing_else(tmp_path, bounded, name):
    survives(tmp_path, name, FUZZED[name], 50)


@pytest.mark.parametrize("minor", [2, 4])
def test_laz_sizes_are_checked_before_the_decoder_sees_them(tmp_path, minor):
    data = las(LEVELS, minor, compress=True)
    (start,) = struct.unpack_from("<I", data, 96)
    (table,) = struct.unpack_from("<q", data, start)
    huge = b"\xff\xff\xff\x7f"
    refused(write(tmp_path, "a.laz", data[: table + 4] + huge + data[table + 8 :]), "2147483647")
    empty = bytes(8)
    refused(write(tmp_path, "b.laz", data[:table] + empty + data[table + 8 :]), "fewer than 60")
    layer = start + 8 + 30 + 4 + 8
    if minor == 4:
        refused(write(tmp_path, "c.laz", data[:layer] + huge + data[layer + 4 :]), "layers of")


@pytest.mark.parametrize("minor", [2, 4])
def test_damaged_laz_raises_nothing_else(tmp_path, minor):
    survives(tmp_path, "a.laz", las(LEVELS, minor, compress=True), 200)
