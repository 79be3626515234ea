"""The package by itself: geometry against loops, files, preparation, bad input, the command."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_onnx
from foundry3d_edge import InputError, Model, geometry, read_cloud
from foundry3d_edge.cli import main
from foundry3d_edge.metadata import Preparation, parse
from foundry3d_edge.preparation import check, prepare

HOW = Preparation(normalise=True, up="z", points=None)


def cloud(size: int = 30, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((size, 3)) * 4 + [10, -5, 3]


def ply(points: np.ndarray, encoding: str, before: bool = True) -> bytes:
    """A file whose vertices have other properties too, maybe behind an element with lists."""
    faces = "element face 2\nproperty list uchar int vertex_indices\n"
    vertices = (
        f"element vertex {len(points)}\nproperty uchar red\nproperty float x\n"
        "property double y\nproperty float z\n"
    )
    header = f"ply\nformat {encoding} 1.0\ncomment made here\n"
    header += (faces + vertices if before else vertices + faces) + "end_header\n"
    if encoding == "ascii":
        rows = "".join(f"7 {x} {y} {z}\n" for x, y, z in points)
        lists = "3 0 1 2\n4 0 1 2 3\n"
        return (header + (lists + rows if before else rows + lists)).encode()
    order = "<" if "little" in encoding else ">"
    kind = [("r", "u1"), ("x", order + "f4"), ("y", order + "f8"), ("z", order + "f4")]
    packed = np.array([(7, *p) for p in points], np.dtype(kind)).tobytes()
    lists = b"".join(
        bytes([n]) + np.arange(n, dtype=np.dtype(order + "i4")).tobytes() for n in (3, 4)
    )
    return header.encode() + (lists + packed if before else packed + lists)


def test_ties_go_to_the_lowest_index() -> None:
    square = np.array([[[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0], [1, 0, 0]]], np.float32)
    assert geometry.farthest_point_sample(square, 5).tolist() == [[0, 1, 2, 0, 0]]
    assert geometry.nearest_neighbors(square[:, :1], square, 5).tolist() == [[[0, 3, 1, 2, 4]]]


def test_neighbours_do_not_depend_on_how_many_queries_are_computed_at_once(monkeypatch) -> None:
    points = np.random.default_rng(1).standard_normal((2, 50, 3)).astype(np.float32)
    whole = geometry.nearest_neighbors(points, points, 7)
    monkeypatch.setattr(geometry, "MOST_DISTANCES", 200)
    np.testing.assert_array_equal(geometry.nearest_neighbors(points, points, 7), whole)


@pytest.mark.parametrize("encoding", ["ascii", "binary_little_endian", "binary_big_endian"])
@pytest.mark.parametrize("before", [True, False])
def test_ply_files_of_every_encoding(tmp_path: Path, encoding: str, before: bool) -> None:
    points = cloud().astype(np.float32)
    path = tmp_path / "a.ply"
    path.write_bytes(ply(points, encoding, before))
    np.testing.assert_array_equal(read_cloud(path), points)


def test_text_and_numpy_files(tmp_path: Path) -> None:
    points = cloud()
    (tmp_path / "a.xyz").write_text(
        "# made here\nx,y,z,i\n" + "".join(f"{x},{y},{z},1\n" for x, y, z in points)
    )
    np.save(tmp_path / "a.npy", np.hstack([points, points]))
    np.testing.assert_array_equal(read_cloud(tmp_path / "a.xyz"), points)
    np.testing.assert_array_equal(read_cloud(tmp_path / "a.npy"), points)


BAD = {
    "a.ply": b"nonsense",
    "no_format.ply": b"ply\nelement vertex 1\nend_header\n",
    "short.ply": ply(cloud(), "binary_little_endian", False)[:300],
    "lists_short.ply": ply(cloud(), "binary_big_endian")[:-700],
    "text_short.ply": b"\n".join(ply(cloud(), "ascii", False).split(b"\n")[:15]),
    "words.ply": ply(cloud(3), "ascii", False).replace(b"7 ", b"7 word"),
    "no_xyz.ply": ply(cloud(), "ascii").replace(b"float x", b"float u"),
    "a.npy": b"\x93NUMPY",
    "a.xyz": b"no numbers here\n",
    "b.xyz": b"1 2 3\n1 2\n",
    "a.step": b"1 2 3\n",
}


@pytest.mark.parametrize("name", BAD)
def test_damaged_files_are_refused_in_one_sentence(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(BAD[name])
    with pytest.raises(InputError, match=name):
        read_cloud(path)
    with pytest.raises(InputError, match="check the path"):
        read_cloud(tmp_path / "missing.ply")


def test_prepared_clouds_are_centred_scaled_and_can_be_taken_back() -> None:
    points = cloud(200)
    for up, turn in (("z", 0), ("y", 1), ("x", 2)):
        ready = prepare(points, HOW, up=up, seed=0, source="a")
        exact = ready.points.astype(np.float64)
        np.testing.assert_allclose(exact.mean(axis=0), 0, atol=1e-6)
        assert np.linalg.norm(exact, axis=1).max() == pytest.approx(1, abs=1e-6)
        np.testing.assert_allclose(ready.original(ready.points), points, atol=1e-5)
        # the axis that points up becomes z
        assert ready.points[:, 2].argmax() == points[:, "xyz".index(up)].argmax()
        assert ready.turn == turn


def test_large_clouds_are_reduced_by_a_seed() -> None:
    how = Preparation(normalise=False, up=None, points=20)
    points = cloud(50)
    one, two, other = (prepare(points, how, up=None, seed=s, source="a") for s in (0, 0, 1))
    np.testing.assert_array_equal(one.points, two.points)
    np.testing.assert_array_equal(one.points, points[one.index].astype(np.float32))
    assert len(set(one.index.tolist())) == 20 and (one.index != other.index).any()
    with pytest.raises(InputError, match="does not record"):
        prepare(points, how, up="y", seed=0, source="a")


@pytest.mark.parametrize(
    ("points", "sentence"),
    [
        (np.zeros((9, 2)), "shape"),
        (np.array([["a", "b", "c"]]), "real numbers"),
        (np.full((9, 3), np.nan), "finite"),
        (cloud(3), "at least 4 points"),
        (np.ones((9, 3)), "differ"),
        (np.ma.masked_array(cloud(), np.eye(30, 3)), "mask"),
        ([[1, 2, 3], [1, 2]], "real numbers"),
    ],
)
def test_clouds_that_no_model_can_read_are_refused(points, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        check(points, 4, "cloud 0")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "foundry3d export wrote"),
        ("{}", "foundry3d export wrote"),
        ("{", "damaged"),
        (json.dumps({"format": "foundry3d-export", "version": 2}), "upgrade"),
        (json.dumps({"format": "foundry3d-export", "version": 1}), "damaged"),
    ],
)
def test_files_without_our_record_are_refused(text: str | None, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        parse(text, "a.onnx")


def test_importing_loads_neither_torch_nor_the_runtime() -> None:
    code = (
        "import foundry3d_edge, foundry3d_edge.cli, sys; "
        "print({'torch', 'foundry3d', 'onnxruntime'} & set(sys.modules))"
    )
    root = Path(geometry.__file__).parents[1]
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    )
    assert found.stdout.strip() == "set()"


@pytest.fixture
def model(tmp_path: Path) -> Model:
    pytest.importorskip("onnxruntime")
    return Model(tiny_onnx.write(tmp_path / "tiny.onnx"), threads=1)


def expected(points: np.ndarray) -> dict[str, np.ndarray]:
    """The outputs of the tiny model, in closed form."""
    ready = prepare(points, HOW, up=None, seed=0, source="a")
    batch = ready.points[None]
    centers, near = geometry.group_points(batch, tiny_onnx.GROUPS, tiny_onnx.GROUP_SIZE)
    features = near.max(axis=2)[0]
    pooled = np.concatenate([features.max(axis=0), features.mean(axis=0)])
    return {"features": features, "centers": ready.original(centers[0]), "pooled": pooled}


def test_one_cloud_and_many(model: Model) -> None:
    clouds = [cloud(size, seed) for seed, size in enumerate((30, 12, 30, 64, 12))]
    many = model(clouds)
    for i, points in enumerate(clouds):
        one, right = model(points), expected(points)
        for name, value in right.items():
            np.testing.assert_allclose(getattr(one, name), value, atol=1e-6)
            np.testing.assert_allclose(getattr(many, name)[i], value, atol=1e-6)
        odds = np.exp(right["pooled"]) / np.exp(right["pooled"]).sum()
        assert one.label == [*"abcde", "f é"][odds.argmax()] == many.label[i]
        assert one.confidence == pytest.approx(odds.max(), abs=1e-6)
    assert one.index is None and many.index is None and one.assignment is None
    stacked = model(np.stack([clouds[0], clouds[2]]))
    np.testing.assert_array_equal(stacked.features, np.asarray(many.features)[[0, 2]])
    assert model([cloud(100), clouds[0]]).index[1] is None


def test_points_may_be_taken_as_they_are(model: Model) -> None:
    points = cloud().astype(np.float32)
    ready = prepare(points, HOW, up=None, seed=0, source="a").points
    one, two = model(points), model(ready, prepared=True)
    np.testing.assert_array_equal(one.features, two.features)
    np.testing.assert_array_equal(two.centers[0], ready[0])
    assert (points == cloud().astype(np.float32)).all()


def test_only_the_parts_of_a_category_are_labels(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    path = tiny_onnx.write(tmp_path / "a.onnx", categories=["x"], owned=[[4]])
    found = Model(path)(cloud())
    assert found.label == "e" and found.confidence == 1


@pytest.mark.parametrize(
    "points", [np.zeros(3), [], np.zeros((2, 3, 3, 3)), "word", np.zeros((0, 9, 3)), None, [None]]
)
def test_calls_with_other_shapes_are_refused(model: Model, points) -> None:
    with pytest.raises(InputError, match=r"shape \(N, 3\)"):
        model(points)


def test_the_command(model: Model, tmp_path: Path, capsys) -> None:
    (tmp_path / "a.ply").write_bytes(ply(cloud(), "binary_big_endian"))
    np.save(tmp_path / "b.npy", cloud(40, 1))
    np.save(tmp_path / "nan.npy", np.full((40, 3), np.nan))
    a, b, bad, out = (str(tmp_path / name) for name in ("a.ply", "b.npy", "nan.npy", "f.npz"))
    assert main(["run", str(model.path), a, b, "--json", "--out", out]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    found = model.embed([a, b])
    assert [line["label"] for line in lines] == list(found.label)
    with np.load(out) as stored:
        np.testing.assert_array_equal(stored["features"], found.features)
        assert stored["names"].tolist() == [a, b]
    assert main(["run", str(model.path), a, bad]) == 1
    shown = capsys.readouterr()
    assert a[-31:] in shown.out and shown.err.count("\n") == 1 and bad in shown.err
    assert main(["run", str(model.path), bad]) == 2
    assert main(["bench", str(model.path), "--repeats", "2", "--json", "--threads", "1"]) == 0
    row = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert row["points"] == 64 and 0 < row["median"] <= row["p95"]
    assert main(["bench", str(model.path), "--points", "3"]) == 2
    assert main(["run", a, a]) == 2
    assert main(["run", str(tmp_path / "no.onnx"), a]) == 2
    foreign = tiny_onnx.write(tmp_path / "foreign.onnx", format="other")
    assert main(["run", str(foreign), a]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 4 and all(line.startswith("foundry3d-edge: ") for line in errors)
