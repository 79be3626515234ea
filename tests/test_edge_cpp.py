"""The C++ header against this package, and the example against the package for the edge."""

import importlib.util
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tiny_onnx
import torch
from foundry3d_edge import geometry as edge
from foundry3d_edge.metadata import Preparation
from foundry3d_edge.preparation import prepare

from foundry3d import geometry

ROOT = Path(__file__).parents[1] / "edge/cpp"
STRICT = ["-std=c++17", "-O2", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", f"-I{ROOT}"]


def compiled(out: Path, source: str, *options: str) -> Path:
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    command = [compiler, *STRICT, str(ROOT / source), *options, "-o", str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def indices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("cpp") / "indices", "tests/indices.cpp")


def called(program: Path, *words: object) -> str:
    command = [str(program), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(program: Path, *words: object) -> str:
    done = subprocess.run([str(program), *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.count("\n") == 1
    return done.stderr


def cloud(kind: str, size: int = 200) -> np.ndarray:
    g = np.random.default_rng(5)
    x = g.standard_normal((size, 3)).astype(np.float32)
    return {
        "random": x,
        "clustered": x * np.float32(0.01) + g.integers(0, 3, (size, 1)).astype(np.float32),
        "duplicated": x[g.integers(0, size // 4, size)],
        "far": x + np.float32(1000),
        "grid": np.round(x * 1.5) / np.float32(1.5),
    }[kind]


def ply(path: Path, points: np.ndarray, encoding: str = "binary_little_endian") -> Path:
    """Vertices with a color, behind faces of different lengths."""
    header = (
        f"ply\nformat {encoding} 1.0\nelement face 2\nproperty list uchar int vertex_indices\n"
        f"element vertex {len(points)}\nproperty uchar red\nproperty float x\nproperty float y\n"
        "property float z\nend_header\n"
    ).encode()
    if encoding == "ascii":
        rows = "".join(f"9 {x} {y} {z}\n" for x, y, z in points.tolist())
        path.write_bytes(header + b"3 0 1 2\n4 0 1 2 3\n" + rows.encode())
        return path
    order = "<" if "little" in encoding else ">"
    lists = b"".join(bytes([n]) + np.arange(n).astype(order + "i4").tobytes() for n in (3, 4))
    kind = [("red", "u1"), *((axis, order + "f4") for axis in "xyz")]
    rows = np.array([(9, *point) for point in points.tolist()], np.dtype(kind))
    path.write_bytes(header + lists + rows.tobytes())
    return path


@pytest.mark.parametrize("kind", ["random", "clustered", "duplicated", "far", "grid"])
def test_indices_are_those_of_the_definition(indices: Path, kind: str, tmp_path: Path) -> None:
    points = cloud(kind)
    x = torch.from_numpy(points)[None]
    chosen = geometry.farthest_point_sample(x, 64, backend="torch")
    for k in (1, 16, len(points)):
        near = geometry.nearest_neighbors(x[:, chosen[0]], x, k, backend="torch")
        shown = called(indices, "neighbours", ply(tmp_path / "a.ply", points), 64, k)
        one, two = (np.array(line.split(), int) for line in shown.splitlines())
        np.testing.assert_array_equal(one, chosen[0])
        np.testing.assert_array_equal(two, near.flatten())


@pytest.mark.parametrize("encoding", ["ascii", "binary_little_endian", "binary_big_endian", "xyz"])
@pytest.mark.parametrize("up", ["-", "x", "y", "z"])
def test_files_and_preparation_are_those_of_python(
    indices: Path, encoding: str, up: str, tmp_path: Path
) -> None:
    points = cloud("far", 50)
    if encoding == "xyz":
        path = tmp_path / "a.xyz"
        path.write_text(
            "# made\nx y z\n" + "".join(f"{x!r};{y!r};{z!r};1\n" for x, y, z in points.tolist())
        )
    else:
        path = ply(tmp_path / "a.ply", points, encoding)
    how = Preparation(normalise=True, up="z", points=None)
    right = prepare(points, how, up=None if up == "-" else up, seed=0, source="a")
    found = np.array(called(indices, "prepare", path, up, 0).split(), float).reshape(2, 50, 3)
    np.testing.assert_allclose(found[0], right.points, rtol=0, atol=1e-7)
    np.testing.assert_allclose(found[1], points, rtol=1e-6)


def test_large_clouds_are_reduced_to_different_points(indices: Path, tmp_path: Path) -> None:
    path = ply(tmp_path / "a.ply", cloud("random", 50))
    shown = called(indices, "prepare", path, "-", 20).split()
    chosen = [int(word) for word in shown[120:]]
    assert len(set(chosen)) == 20 and set(chosen) <= set(range(50))


def test_the_record_of_a_file_is_read(indices: Path, tmp_path: Path) -> None:
    path = tiny_onnx.write(tmp_path / "a.onnx", radius=0.25, classes=['a "b"', "ü\n", "😀"])
    shown = called(indices, "record", path)
    assert shown == 'classifier|1|4|3|0.25|1|z|64|a "b"|ü\n|😀\n'


@pytest.mark.parametrize("kind", ["header", "short", "no xyz", "nan", "few", "same", "record"])
def test_bad_input_is_refused_in_one_sentence(indices: Path, kind: str, tmp_path: Path) -> None:
    points, path = cloud("random"), tmp_path / "a.ply"
    blob = ply(path, points).read_bytes()
    bad = {
        "header": b"nonsense",
        "short": blob[:-200],
        "no xyz": blob.replace(b"float y", b"float v"),
        "nan": ply(path, points * np.nan).read_bytes(),
        "same": ply(path, points * 0).read_bytes(),
    }
    path.write_bytes(bad.get(kind, blob))
    words = ("sample", path, 400) if kind == "few" else ("prepare", path, "-", 0)
    assert refused(indices, *(("record", path) if kind == "record" else words))


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = importlib.util.find_spec("openvino")
    folder = Path(found.origin).parent if found and found.origin else Path()
    libraries = sorted((folder / "libs").glob("libopenvino.so*"))
    if not libraries:
        pytest.skip("needs OpenVINO's wheel")
    return compiled(
        tmp_path_factory.mktemp("cpp") / "example",
        "main.cpp",
        "-DFOUNDRY3D_OPENVINO",
        f"-isystem{folder / 'include'}",
        str(libraries[0]),
        f"-Wl,-rpath,{folder / 'libs'}",
    )


def test_the_example_prints_what_the_model_says(example: Path, tmp_path: Path) -> None:
    points = cloud("random", 60)
    model = tiny_onnx.write(tmp_path / "a.onnx", radius=0.5)
    path = ply(tmp_path / "a.ply", points)
    shown = called(example, model, path, "--repeats", 2, "--features").splitlines()
    how = Preparation(normalise=True, up="z", points=64)
    ready = prepare(points, how, up=None, seed=0, source="a").points[None]
    features = edge.group_points(ready, tiny_onnx.GROUPS, tiny_onnx.GROUP_SIZE, 0.5)[1].max(axis=2)
    pooled = np.concatenate([features.max(axis=1), features.mean(axis=1)], axis=1)[0]
    said = {line.split()[0]: line.split()[1:] for line in shown}
    assert said["label"] == tiny_onnx.record()["classes"][pooled.argmax()].split()
    odds = np.exp(pooled - pooled.max())
    assert float(said["confidence"][0]) == pytest.approx(1 / odds.sum(), abs=1e-4)
    np.testing.assert_allclose(np.array(said["features"][3:], float), features.flatten(), atol=1e-6)
    assert said["latency:"][0] == "median"


def test_the_example_refuses_other_files(example: Path, tmp_path: Path) -> None:
    path = ply(tmp_path / "a.ply", cloud("random"))
    foreign = tiny_onnx.write(tmp_path / "a.onnx", format="other")
    few = ply(tmp_path / "few.ply", cloud("random")[:3])
    model = tiny_onnx.write(tmp_path / "b.onnx")
    for words in ((foreign, path), (path, path), (model, few), (model,)):
        done = subprocess.run([example, *words], capture_output=True, text=True)
        assert done.returncode == 2
        assert done.stderr.splitlines()[-1].startswith("foundry3d_edge: ")
