"""Meshes, scenes and sensors' clouds as they are found: each case is read right or refused."""

from __future__ import annotations

import json
import logging
import struct

import numpy as np
import pytest
from test_files import (
    CLOUD,
    CLOUDS,
    CORNERS,
    MESHES,
    QUADS,
    ROWS,
    TRIANGLES,
    glb_tree,
    las,
    npy,
    obj,
    off,
    pack_glb,
    pcd,
    ply,
    refused,
    same_as,
    stl,
    write,
)

from foundry3d.cli import main
from foundry3d.config import PackConfig
from foundry3d.data import files
from foundry3d.data.files import read_points
from foundry3d.data.folder import read_folder
from foundry3d.data.formats.glb import read_glb
from foundry3d.data.formats.meshes import read_obj
from foundry3d.data.formats.polygons import triangles
from foundry3d.data.packing import pack
from foundry3d.errors import InputError

# ---------------------------------------------------------------- ply and pcd


def test_ascii_rows_wider_than_the_header_are_refused(tmp_path):
    head = b"ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\nproperty float y\n"
    head += b"property float z\nend_header\n"
    refused(write(tmp_path, "a.ply", head + b"1 2 3 255 0 0\n4 5 6 255 0 0\n"), "got 6 in row 1")
    refused(write(tmp_path, "b.ply", head + b"1 2 3\n4 5\n6\n"), "got 2 in row 2")
    faces = MESHES["ascii.ply"].replace(b"4 4 5 6 7 3\n", b"4 4 5 6 7 3 9\n")
    refused(write(tmp_path, "c.ply", faces), "'face'", "expected 6 numbers", "got 7 in row 2")


def test_empty_files_are_refused_in_one_sentence(tmp_path):
    empty = np.zeros((0, 3), np.float32)
    for name, data in {
        "a.stl": stl(empty.reshape(0, 3, 3)),
        "a.pcd": pcd("binary", empty),
        "b.pcd": pcd("ascii", empty),
        "c.pcd": pcd("binary_compressed", empty),
        "a.ply": ply("binary_little_endian", empty),
        "a.off": b"OFF\n0 0 0\n",
        "a.las": las(np.zeros((0, 3), np.int32)),
    }.items():
        refused(write(tmp_path, name, data), "at least one point")


def test_compressed_pcd_stored_as_it_is(tmp_path):
    head = CLOUDS["compressed.pcd"].split(b"DATA binary_compressed\n")[0]
    plain = CLOUD.T.tobytes() + np.zeros(60, "<u4").tobytes() + bytes(240)
    data = head + b"DATA binary_compressed\n" + struct.pack("<II", len(plain), len(plain)) + plain
    np.testing.assert_array_equal(read_points(write(tmp_path, "a.pcd", data)).points, CLOUD)


@pytest.mark.parametrize("name", ["a.pcd", "b.ply"])
def test_points_that_a_sensor_did_not_see_are_dropped(tmp_path, name):
    seen = CLOUD.copy()
    seen[::7] = np.nan
    data = pcd("binary", seen) if name == "a.pcd" else ply("ascii", seen)
    path = write(tmp_path, name, data)
    for invalid in (None, "drop"):
        cloud = read_points(path, invalid=invalid)
        np.testing.assert_array_equal(cloud.points, CLOUD[np.isfinite(seen[:, 0])])
        assert cloud.dropped == 9 and "9 points" in cloud.notices[-1]
    refused(path, "9 of 60", "--invalid drop", invalid="refuse")
    other = write(tmp_path, "c.npy", npy(seen))
    refused(other, "9 of 60")
    assert read_points(other, invalid="drop").dropped == 9


# ---------------------------------------------------------------- meshes

NOTCH = np.array([[0, 0, 1], [5, 0, 1], [5, 4, 1], [2.5, 1, 1], [0, 4, 1]], float)  # area 12.5
NOTCHED = {
    "a.obj": obj(NOTCH, np.array([[0, 1, 2, 3, 4]])),
    "a.off": off(NOTCH, np.array([[0, 1, 2, 3, 4]])),
    "a.ply": ply("ascii", NOTCH, [[0, 1, 2, 3, 4]]),
    "b.ply": ply("binary_little_endian", NOTCH, [[0, 1, 2, 3, 4], [1, 2, 2]]),
}


@pytest.mark.parametrize("name", NOTCHED)
@pytest.mark.parametrize("shift", range(5))
def test_concave_polygons_are_covered_and_nothing_else(tmp_path, name, shift):
    points = read_points(write(tmp_path, name, NOTCHED[name]), samples=4000).points
    x, y = points[:, 0], points[:, 1]
    assert (y <= 1 + 1.2 * np.abs(x - 2.5) + 1e-5).all()
    counts, corners = np.array([5]), np.roll(np.arange(5), shift)
    for vertices in (NOTCH, NOTCH[:, [2, 0, 1]], NOTCH * [1, -1, 1]):
        faces = triangles(counts, corners, vertices)
        a, b, c = np.moveaxis(vertices[faces], 1, 0)
        normals = np.cross(b - a, c - a) / 2
        assert abs(np.linalg.norm(normals, axis=1).sum() - 12.5) < 1e-9
        whole = np.cross(vertices, np.roll(vertices, -1, axis=0)).sum(axis=0)
        assert (normals @ whole > 0).all()  # no triangle is turned over


def test_polygons_of_many_kinds_keep_their_areas():
    rng = np.random.default_rng(7)
    counts, corners, vertices, area = [], [], [], 0.0
    for size in (3, 4, 9, 2, 40, 1, 5):
        angles = np.sort(rng.random(size)) * 2 * np.pi
        radius = 0.2 + rng.random(size)  # seen from the middle: simple, mostly concave
        flat = np.c_[np.cos(angles) * radius, np.sin(angles) * radius]
        if size > 3:
            flat = np.c_[np.cos(np.arange(size) * 2 * np.pi / size) * radius,
                         np.sin(np.arange(size) * 2 * np.pi / size) * radius]  # fmt: skip
        corners += list(range(len(vertices), len(vertices) + size))
        counts.append(size)
        vertices += [[x, 3.0, y] for x, y in flat.tolist()]
        if size > 2:
            after = np.roll(flat, -1, axis=0)
            area += abs((flat[:, 0] * after[:, 1] - flat[:, 1] * after[:, 0]).sum()) / 2
    points = np.array(vertices)
    faces = triangles(np.array(counts), np.array(corners), points)
    a, b, c = np.moveaxis(points[faces], 1, 0)
    found = np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2
    assert len(faces) == sum(size - 2 for size in counts if size > 2)
    assert abs(found - area) < 1e-9


def test_polygons_without_end_are_refused(tmp_path, bounded):
    face = b"f " + b"1 2 3 " * 300000 + b"\n"
    path = write(tmp_path, "a.obj", b"v 0 0 0\nv 1 0 0\nv 1 1 0\n" + face)
    refused(path, "16384 corners")
    short = write(tmp_path, "b.obj", b"v 0 0 0\nv 1 0 0\nv 1 1 0\nf " + b"1 2 3 " * 6000 + b"\n")
    refused(short, "one of 18000")


def test_negative_indices_of_obj_count_from_where_they_stand(tmp_path):
    text = "v 0 0 0\nv 1 0 0\nv 1 1 0\n  f -3 -2 -1 # low\nv 0 0 5\nv 1 0 5\nv 1 1 5\nf -3 -2 -1\n"
    raw = read_obj(text.encode())
    assert raw.faces.tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("keyword", ["off", "OFF", "Off", "coff"])
def test_off_in_any_case_and_form(tmp_path, keyword):
    colour = " 1 0 0 1" if keyword == "coff" else ""
    rows = [f"{x:.9g} {y:.9g} {z:.9g}{colour}" for x, y, z in CORNERS.tolist()]
    faces = [f"4 {' '.join(map(str, face))}" for face in QUADS.tolist()]
    words = " ".join([keyword, "8 2 0", *rows, *faces])
    same_as(tmp_path, "a.off", MESHES["a.off"], words.encode())
    folded = "\n".join([f"{keyword} 8 2 0", " ".join(rows), " ".join(faces)])
    same_as(tmp_path, "b.off", MESHES["a.off"], folded.encode())
    refused(write(tmp_path, "c.off", words[:-9]), "8 vertices and 2 faces")


def test_packed_stl_that_calls_itself_solid_and_goes_on(tmp_path):
    same_as(tmp_path, "a.stl", MESHES["binary.stl"], MESHES["binary.stl"] + b"more")


# ---------------------------------------------------------------- glb


@pytest.mark.parametrize("name", ["KHR_draco_mesh_compression", "EXT_mesh_gpu_instancing",
    "EXT_meshopt_compression"])  # fmt: skip
def test_glb_extensions_that_change_geometry(tmp_path, name):
    tree, block = glb_tree(CORNERS, TRIANGLES)
    required = pack_glb(tree | {"extensionsRequired": [name]}, block)
    refused(write(tmp_path, "a.glb", required), name)
    used = pack_glb(tree | {"extensionsUsed": [name, "KHR_materials_unlit"]}, block)
    notices = read_points(write(tmp_path, "b.glb", used)).notices
    assert f"geometry in extensions {name} ignored" in notices
    harmless = pack_glb(tree | {"extensionsRequired": ["KHR_mesh_quantization"]}, block)
    same_as(tmp_path, "c.glb", MESHES["a.glb"], harmless)


@pytest.mark.parametrize("padding", [b"\0", b"\0\0\0\0", b" \0", b"   "])
def test_glb_descriptions_padded_with_anything(tmp_path, padding):
    tree, block = glb_tree(CORNERS, TRIANGLES)
    text = json.dumps(tree).encode() + padding
    body = struct.pack("<II", len(text), 0x4E4F534A) + text
    body += struct.pack("<II", len(block), 0x004E4942) + block
    data = struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body
    same_as(tmp_path, "a.glb", MESHES["a.glb"], data)


def skinned(inverse: np.ndarray | None) -> bytes:
    """Two joints above a mesh: vertices 0 to 3 follow the first, the others half of each."""
    tree, block = glb_tree(CORNERS, TRIANGLES)
    joints = np.tile(np.array([0, 1, 0, 0], "u1"), (8, 1))
    weights = np.zeros((8, 4), "<f4")
    weights[:4, 0], weights[4:, :2] = 1, 0.5
    parts = [(joints.tobytes(), 5121, 8, "VEC4"), (weights.tobytes(), 5126, 8, "VEC4")]
    if inverse is not None:
        columns = inverse.transpose(0, 2, 1).astype("<f4").tobytes()
        parts.append((columns, 5126, len(inverse), "MAT4"))
    for data, kind, count, shape in parts:
        view = {"buffer": 0, "byteOffset": len(block), "byteLength": len(data)}
        tree["accessors"].append({"bufferView": len(tree["bufferViews"]), "componentType": kind,
            "count": count, "type": shape})  # fmt: skip
        tree["bufferViews"].append(view)
        block += data
    tree["meshes"][0]["primitives"][0]["attributes"] |= {"JOINTS_0": 2, "WEIGHTS_0": 3}
    tree["nodes"] = [
        {"mesh": 0, "skin": 0, "translation": [100, 100, 100], "scale": [9, 9, 9]},
        {"translation": [1, 0, 0], "children": [2]},
        {"translation": [0, 2, 0]},
    ]
    tree["scenes"] = [{"nodes": [0, 1]}]
    tree["skins"] = [{"joints": [1, 2]} | ({} if inverse is None else {"inverseBindMatrices": 4})]
    return pack_glb(tree, block)


def test_glb_skins_are_placed_by_their_joints_alone():
    moved = read_glb(skinned(None)).vertices - CORNERS
    np.testing.assert_allclose(moved[:4], np.tile([1, 0, 0], (4, 1)), atol=1e-6)
    np.testing.assert_allclose(moved[4:], np.tile([1, 1, 0], (4, 1)), atol=1e-6)
    inverse = np.tile(np.eye(4), (2, 1, 1))
    inverse[0, :3, 3], inverse[1, :3, 3] = [-1, 0, 0], [-1, -2, 0]  # as they were when bound
    np.testing.assert_allclose(read_glb(skinned(inverse)).vertices, CORNERS, atol=1e-6)


def test_glb_mirrored_meshes_keep_their_places():
    tree, block = glb_tree(CORNERS, TRIANGLES)
    tree["nodes"] = [{"mesh": 0, "scale": [-1, 2, 1], "translation": [1, 2, 3]}]
    raw = read_glb(pack_glb(tree, block))
    np.testing.assert_allclose(raw.vertices, CORNERS * [-1, 2, 1] + [1, 2, 3], atol=1e-6)


# ---------------------------------------------------------------- what nobody foresaw


@pytest.fixture
def told(caplog, monkeypatch):
    """What the package logs, whether or not a command has set its logger up before."""
    log = logging.getLogger("foundry3d")
    level = log.level
    monkeypatch.setattr(log, "handlers", [caplog.handler])
    monkeypatch.setattr(log, "propagate", False)
    log.setLevel("DEBUG")
    yield caplog
    log.setLevel(level)


def test_an_unknown_exception_is_one_sentence_and_logged_whole(tmp_path, monkeypatch, told):
    def broken(blob: bytes) -> None:
        raise ZeroDivisionError("a defect\nof two lines")

    monkeypatch.setitem(files._READERS, "obj", broken)
    path = write(tmp_path, "a.obj", MESHES["a.obj"])
    refused(path, "obj file", "ZeroDivisionError", "--debug")
    assert "in broken" in told.text and str(path) in told.text


def test_a_reader_without_memory_is_one_sentence(tmp_path, monkeypatch):
    def hungry(blob: bytes) -> None:
        raise MemoryError

    monkeypatch.setitem(files._READERS, "obj", hungry)
    refused(write(tmp_path, "a.obj", MESHES["a.obj"]), "fit into memory")


def test_a_batch_goes_on_and_says_more_when_asked(tmp_path, monkeypatch, told, capsys):
    def broken(blob: bytes) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setitem(files._READERS, "obj", broken)
    write(tmp_path, "a.obj", MESHES["a.obj"])
    seen = CLOUD.copy()
    seen[:5] = np.inf
    write(tmp_path, "b.pcd", pcd("binary", seen))
    write(tmp_path, "c.csv", "lat,lon,alt\n" + "\n".join(ROWS).replace(" ", ","))
    out = str(tmp_path / "out")
    with pytest.raises(SystemExit) as stop:
        main(["data", "pack", str(tmp_path), "--out", out, "--columns", "x=lat,y=lon,z=3"])
    assert stop.value.code == 1
    assert "2 clouds in 1 shards" in told.text
    assert "1 clouds left out" in capsys.readouterr().err
    assert "5 points with NaN or infinite coordinates left out" in told.text
    assert "in broken" not in told.text
    with pytest.raises(SystemExit):
        main(["data", "pack", str(tmp_path), "--debug", "--out", out + "2"])
    assert "in broken" in told.text
    config = PackConfig(source=str(tmp_path), out=str(tmp_path / "again"), invalid="refuse")
    with pytest.raises(InputError, match="not one cloud"):
        pack(config)


def test_folders_of_sensors_clouds_are_training_data(tmp_path, told):
    seen = CLOUD.copy()
    seen[:5] = np.nan
    write(tmp_path, "b.pcd", pcd("binary", seen))
    assert read_folder(tmp_path, points=50).points.shape == (1, 55, 3)
    assert "5 points with NaN" in told.text
    with pytest.raises(InputError, match="5 of 60"):
        read_folder(tmp_path, points=50, invalid="refuse")
