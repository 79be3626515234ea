"""A folder of files is a data set: classes by name, equal sizes, every broken file named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_files import CLOUDS, CORNERS, MESHES, QUADS, npy, off, write

from foundry3d.config import DataConfig
from foundry3d.data.folder import find_files, read_folder
from foundry3d.data.loading import Splits, load_splits
from foundry3d.errors import InputError
from foundry3d.evaluation.probe import probe

RNG = np.random.default_rng(5)


def cloud(size: int) -> bytes:
    return npy(RNG.normal(size=(size, 3)).astype(np.float32))


def tree(root: Path, **classes: dict[str, bytes]) -> Path:
    for name, files in classes.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for file, content in files.items():
            write(root / name, file, content)
    return root


@pytest.fixture
def train(tmp_path: Path) -> Path:
    return tree(
        tmp_path / "train",
        chair={f"{i}.npy": cloud(90 + i) for i in range(4)},
        bed={f"{i}.npy": cloud(300) for i in range(3)} | {"mesh.off": off(CORNERS, QUADS)},
    )


def test_classes_are_sorted_folder_names(train: Path) -> None:
    write(train / "bed", "material.mtl", b"left out")
    (train / ".cache").mkdir()
    found = read_folder(train, points=32, seed=1)
    assert found.name == "train" and found.class_names == ("bed", "chair")
    assert found.labels.tolist() == [0] * 4 + [1] * 4
    assert found.points.shape == (8, 64, 3) and found.points.dtype == np.float32
    assert np.array_equal(found.points, read_folder(train, points=32, seed=1).points)
    assert not np.array_equal(found.points, read_folder(train, points=32, seed=2).points)


def test_points_come_from_their_files_in_random_order(train: Path) -> None:
    found = read_folder(train, points=60)
    assert found.points.shape[1] == 90  # the smallest file, below 2 x 60
    source = np.load(train / "chair" / "0.npy")
    mine = found.points[4]
    assert np.array_equal(np.unique(mine, axis=0), np.unique(source, axis=0))
    assert not np.array_equal(mine, source)
    heights = found.points[3][:, 2]  # the mesh: areas 1 and 4 at heights 0 and 5
    assert 0.6 < (heights > 4).mean() < 0.95


def test_every_format_without_classes(tmp_path: Path) -> None:
    for name, content in CLOUDS.items():
        write(tmp_path, name, content)
    found = read_folder(tmp_path, points=40)
    assert found.points.shape == (len(CLOUDS), 60, 3)
    assert set(found.labels) == {-1} and found.class_names == ()
    for name, content in MESHES.items():
        write(tmp_path, f"mesh-{name}", content)
    assert len(read_folder(tmp_path, points=40)) == len(CLOUDS) + len(MESHES)
    assert len(find_files(tmp_path)) == len(CLOUDS) + len(MESHES)


def test_test_classes_are_matched_by_name(train: Path, tmp_path: Path) -> None:
    test = tree(tmp_path / "test", chair={"a.npy": cloud(80)})
    splits = load_splits(
        DataConfig(train=str(train), test=str(test), points=32, validation=0.5), seed=0
    )
    assert splits.test is not None and splits.test.class_names == ("bed", "chair")
    assert splits.test.labels.tolist() == [1]
    assert splits.validation is not None and len(splits.validation) == 4
    tree(test, stool={"a.npy": cloud(80)})
    with pytest.raises(InputError, match=r"no class stool in the training data.*bed, chair"):
        load_splits(DataConfig(train=str(train), test=str(test), points=32))


def test_a_probe_refuses_other_classes(train: Path, tmp_path: Path) -> None:
    splits = load_splits(DataConfig(train=str(train), test=None, points=32, validation=0.5))
    other = read_folder(
        tree(tmp_path / "other", car={"a.npy": cloud(80)}, dog={"a.npy": cloud(80)}), points=32
    )
    with pytest.raises(InputError, match=r"classes car, dog are not those of train, bed, chair"):
        probe(
            lambda points: pytest.fail("never called"),
            Splits(train=splits.train, validation=splits.validation, test=other),
            points=32,
        )


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("cut.ply", b"ply\nformat ascii 1.0\n", "ply header"),
        ("small.npy", cloud(20), r"at least 32 points \(data.points\), got 20"),
        ("same.npy", npy(np.ones((50, 3))), "50 times the same"),
        ("nan.npy", npy(np.full((50, 3), np.nan)), "NaN"),
        ("many.npy", npy(np.zeros((4, 50, 3))), "expected one cloud, got 4"),
    ],
)
def test_a_bad_file_is_named(train: Path, name: str, content: bytes, says: str) -> None:
    path = write(train / "chair", name, content)
    with pytest.raises(InputError, match=says) as caught:
        read_folder(train, points=32)
    assert str(caught.value).startswith(str(path))


def test_other_layouts_are_refused(train: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for act in (read_folder, lambda path, **_: find_files(path)):
        with pytest.raises(InputError, match="no file ends in ply"):
            act(empty, points=32)
    loose = write(train, "loose.npy", cloud(50))
    with pytest.raises(InputError, match="got both"):
        read_folder(train, points=32)
    loose.unlink()
    (train / "sofa").mkdir()
    with pytest.raises(InputError, match="sofa: no file ends in"):
        read_folder(train, points=32)
    (train / "sofa" / "test").mkdir()
    with pytest.raises(InputError, match="expected files in a class folder, got a folder"):
        read_folder(train, points=32)
