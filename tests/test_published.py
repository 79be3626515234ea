"""Every published data set, written small in its own layout, comes back exactly."""

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from foundry3d.config import DataConfig
from foundry3d.data.loading import load_splits
from foundry3d.data.published.fewshot import MODELNET_FEWSHOT
from foundry3d.data.published.modelnet import MODELNET40_H5, MODELNET40_NORMAL
from foundry3d.data.published.names import MODELNET40, SCANOBJECTNN, SHAPENET55
from foundry3d.data.published.objaverse import OBJAVERSE
from foundry3d.data.published.omniobject3d import OMNIOBJECT3D, last_fifth
from foundry3d.data.published.scanobjectnn import OBJ_BG, OBJ_ONLY, PB_T50_RS
from foundry3d.data.published.shapenet55 import SHAPENET
from foundry3d.data.published.shapenetpart import (
    CATEGORIES,
    PART_NAMES,
    PARTS,
    POINTS,
)
from foundry3d.data.published.sources import DATASETS, is_published, read_published
from foundry3d.errors import InputError

RNG = np.random.default_rng(0)


def some(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def write_h5(path: Path, data: np.ndarray, label: np.ndarray | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=data, compression="gzip")
        if label is not None:
            file["label"] = label


def write_list(path: Path, names: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(names) + "\n")


def modelnet40(root: Path) -> np.ndarray:
    clouds = some(5, 32, 3)
    folder = root / "modelnet40_ply_hdf5_2048"
    write_h5(folder / "ply_data_train1.h5", clouds[2:4], np.uint8([[7], [39]]))
    write_h5(folder / "ply_data_train0.h5", clouds[:2], np.uint8([[0], [1]]))
    write_h5(folder / "ply_data_test0.h5", clouds[4:], np.uint8([[3]]))
    return clouds


def test_modelnet40_joins_its_files_in_order(tmp_path: Path) -> None:
    clouds = modelnet40(tmp_path)
    for root in (tmp_path, tmp_path / "modelnet40_ply_hdf5_2048"):
        train = MODELNET40_H5.read(root, "train")
        assert np.array_equal(train.points, clouds[:4])
        assert train.labels.tolist() == [0, 1, 7, 39]
        assert [train.class_names[i] for i in (0, 7, 39)] == ["airplane", "car", "xbox"]
        assert MODELNET40_H5.read(root, "test").labels.tolist() == [3]
        assert MODELNET40_H5.labels(root, "train").tolist() == [0, 1, 7, 39]


def test_modelnet40_as_text_has_classes_of_two_words(tmp_path: Path) -> None:
    folder, clouds = tmp_path / "ModelNet" / "modelnet40_normal_resampled", some(2, 20, 6)
    names = ["night_stand_0003", "airplane_0001"]
    write_list(folder / "modelnet40_train.txt", names)
    for name, cloud in zip(names, clouds, strict=True):
        (folder / name.rpartition("_")[0]).mkdir()
        path = folder / name.rpartition("_")[0] / f"{name}.txt"
        np.savetxt(path, cloud, delimiter=",", fmt="%.7g")
    found = MODELNET40_NORMAL.read(tmp_path, "train")
    assert np.array_equal(found.points, clouds[..., :3].astype(np.float16))
    assert [found.class_names[i] for i in found.labels] == ["night_stand", "airplane"]
    (folder / "airplane" / "airplane_0001.txt").unlink()
    assert MODELNET40_NORMAL.labels(tmp_path, "train").tolist() == [MODELNET40.index("night_stand")]
    with pytest.raises(InputError, match=r"airplane_0001\.txt.*nothing of that name"):
        MODELNET40_NORMAL.read(tmp_path, "train")


@pytest.mark.parametrize(
    ("data", "folder", "file"),
    [
        (OBJ_BG, "main_split", "{}_objectdataset.h5"),
        (OBJ_ONLY, "main_split_nobg", "{}_objectdataset.h5"),
        (PB_T50_RS, "main_split", "{}_objectdataset_augmentedrot_scale75.h5"),
    ],
)
def test_scanobjectnn_variants(tmp_path: Path, data: object, folder: str, file: str) -> None:
    clouds = some(3, 16, 3)
    base = tmp_path / "ScanObjectNN" / folder
    write_h5(base / file.format("training"), clouds[:2], np.int32([14, 0]))
    write_h5(base / file.format("test"), clouds[2:], np.int32([9]))
    assert np.array_equal(data.read(tmp_path, "train").points, clouds[:2])
    assert data.labels(tmp_path, "test").tolist() == [9]
    assert data.class_names[9] == "table" and len(SCANOBJECTNN) == 15


@pytest.mark.parametrize("layout", ["Point-JEPA", "Point-BERT", "packed"])
def test_shapenet55_in_three_layouts(tmp_path: Path, layout: str) -> None:
    clouds = some(3, 24, 3)
    names = ["04554684-b.npy", "02691156-a.npy", "02747177-c.npy"]
    folder = tmp_path / ("ShapeNet55-34" if layout == "Point-BERT" else "ShapeNet55")
    if layout == "packed":
        folder.mkdir()
        np.savez(folder / "shapenet_train.npz", data=clouds, labels=np.array([54, 0, 1]))
    else:
        write_list((folder / "ShapeNet-55" if "34" in folder.name else folder) / "train.txt", names)
        (folder / "shapenet_pc").mkdir()
        for name, cloud in zip(names, clouds, strict=True):
            np.save(folder / "shapenet_pc" / name, cloud)
    found = SHAPENET.read(tmp_path, "train")
    assert np.array_equal(found.points, clouds.astype(np.float16))
    assert found.labels.tolist() == SHAPENET.labels(tmp_path, "train").tolist() == [54, 0, 1]
    assert [found.class_names[i] for i in found.labels] == ["washer", "airplane", "trash bin"]
    assert len(SHAPENET55) == 55 and list(SHAPENET55) == sorted(SHAPENET55)


def shapenetpart(root: Path) -> dict[str, np.ndarray]:
    folder = root / "shapenetcore_partanno_segmentation_benchmark_v0_normal"
    shapes = {"02691156/a": (2500, 0, 3), "03001627/b": (300, 12, 15), "02773838/c": (2048, 4, 5)}
    rows = {}
    for name, (count, low, high) in shapes.items():
        part = RNG.integers(low, high + 1, (count, 1))
        rows[name] = np.hstack([some(count, 6).round(4), part])
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        np.savetxt(folder / f"{name}.txt", rows[name], fmt="%.4f")
    write_list(
        folder / "synsetoffset2category.txt",
        ["Airplane\t02691156", "Bag\t02773838", "Chair\t03001627"],
    )
    lists = {"train": ["02691156/a", "02691156/a"], "val": ["03001627/b"], "test": ["02773838/c"]}
    for split, names in lists.items():
        path = folder / "train_test_split" / f"shuffled_{split}_file_list.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps([f"shape_data/{name}" for name in names]))
    return rows


def test_shapenetpart_keeps_every_point_with_its_part(tmp_path: Path) -> None:
    rows = shapenetpart(tmp_path)
    data = DATASETS["shapenetpart"]
    found = data.read(tmp_path, "trainval")  # the shape listed twice is there once
    assert found.points.shape == (2, POINTS, 3) and found.labels.tolist() == [0, 4]
    for i, (name, count) in enumerate([("02691156/a", POINTS), ("03001627/b", 300)]):
        mine = {
            (*p, part) for p, part in zip(found.points[i].tolist(), found.parts[i], strict=True)
        }
        source = rows[name].astype(np.float32)
        assert mine <= {(*row[:3].tolist(), int(row[6])) for row in source}
        assert len(mine) == count
    assert data.read(tmp_path, "test").labels.tolist() == [1]
    assert [part for parts in PARTS.values() for part in parts] == list(range(len(PART_NAMES)))
    assert len(CATEGORIES) == 16 and PART_NAMES[12] == "Chair 0"


def test_a_shape_that_is_missing_is_named(tmp_path: Path) -> None:
    shapenetpart(tmp_path)
    path = next(tmp_path.rglob("b.txt"))
    path.write_text("1 2 3 4 5 6\n")
    with pytest.raises(InputError, match=r"b\.txt: expected a number in each coordinate column"):
        DATASETS["shapenetpart"].read(tmp_path, "val")
    path.unlink()
    assert DATASETS["shapenetpart"].labels(tmp_path, "trainval").tolist() == [0]
    with pytest.raises(InputError, match=r"b\.txt: there is no such file") as caught:
        DATASETS["shapenetpart"].read(tmp_path, "val")
    assert str(caught.value).count("b.txt") == 1


def test_parts_of_another_category_are_refused(tmp_path: Path) -> None:
    shapenetpart(tmp_path)
    path = next(tmp_path.rglob("b.txt"))
    np.savetxt(path, np.hstack([some(300, 6), np.full((300, 1), 3)]), fmt="%.4f")
    with pytest.raises(InputError, match=r"b\.txt: expected parts 12\.\.15 of a Chair"):
        DATASETS["shapenetpart"].read(tmp_path, "val")


def ply(path: Path, cloud: np.ndarray) -> None:
    path.parent.mkdir(parents=True)
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(cloud)}\n"
    header += "".join(f"property float {axis}\n" for axis in "xyz") + "end_header\n"
    path.write_bytes(header.encode() + cloud.astype("<f4").tobytes())


@pytest.mark.parametrize("form", ["hdf5", "ply"])
def test_omniobject3d_tests_on_the_last_fifth(tmp_path: Path, form: str) -> None:
    base = tmp_path / "point_clouds" / f"{form}_files" / "4096"
    clouds = {"book": some(6, 12, 3), "toy_car": some(1, 12, 3), "zongzi": some(2, 12, 3)}
    for name, group in clouds.items():
        if form == "hdf5":
            write_h5(base / f"{name}_4096.hdf5", group, None)
        else:
            for i, cloud in enumerate(group):
                ply(base / name / f"{name}_{i:03d}" / "pcd_4096.ply", cloud)
    train = OMNIOBJECT3D.read(tmp_path, "train")
    test = OMNIOBJECT3D.read(tmp_path, "test")
    assert train.class_names == tuple(clouds)
    assert train.labels.tolist() == [0, 0, 0, 0, 1, 2]
    assert test.labels.tolist() == OMNIOBJECT3D.labels(tmp_path, "test").tolist() == [0, 0, 2]
    assert np.array_equal(train.points[:4], clouds["book"][:4])
    assert np.array_equal(test.points, [*clouds["book"][4:], clouds["zongzi"][1]])


@pytest.mark.parametrize(("objects", "tests"), [(100, 20), (5, 1), (6, 2), (2, 1), (1, 0)])
def test_fifths_cover_a_class_without_overlap(objects: int, tests: int) -> None:
    every = list(range(objects))
    train, test = every[last_fifth(objects, "train")], every[last_fifth(objects, "test")]
    assert train + test == every
    assert len(test) == tests


def test_objaverse_holds_out_the_listed_objects(tmp_path: Path) -> None:
    folder = tmp_path / "8192_npy"
    folder.mkdir()
    for name in "abc":
        np.save(folder / f"{name}_8192.npy", some(16, 6) * 3 + 5)
    with pytest.raises(InputError, match=r"no val_object_ids_3000\.txt"):
        OBJAVERSE.read(tmp_path, "train")
    write_list(tmp_path / "val_object_ids_3000.txt", ["b", "elsewhere"])
    train = OBJAVERSE.read(tmp_path, "train")
    assert train.points.dtype == np.float16 and set(train.labels) == {-1}
    assert len(train) == 2 and len(OBJAVERSE.read(tmp_path, "test")) == 1
    points = train.points.astype(np.float32)
    assert np.abs(points.mean(1)).max() < 1e-3
    assert np.allclose(np.linalg.norm(points, axis=2).max(1), 1, atol=1e-3)


def test_sources_are_told_from_files(tmp_path: Path) -> None:
    assert is_published("modelnet40:data") and is_published("shapenet55:/a/b:train_25")
    assert not any(map(is_published, ["procedural", "train.npz", r"C:\data\train.npz", "a/b.npz"]))
    odd = tmp_path / "some:file.npz"
    odd.touch()
    assert not is_published(str(odd))
    with pytest.raises(InputError, match="no data set 'modelnet'; known are modelnet40, "):
        read_published("modelnet:data", train=True)
    with pytest.raises(InputError, match="has no split 'val'; train, test"):
        read_published("modelnet40:data:val", train=True)
    with pytest.raises(InputError, match="no such folder"):
        read_published(f"modelnet40:{tmp_path / 'nothing'}", train=True)


def test_training_reads_them_by_name(tmp_path: Path) -> None:
    clouds = modelnet40(tmp_path)
    source = f"modelnet40:{tmp_path}"
    splits = load_splits(DataConfig(train=source, test=source, points=32, validation=0))
    assert splits.test is not None
    assert (len(splits.train), len(splits.test)) == (4, 1)
    for mine, theirs in zip(splits.train.points, clouds, strict=False):
        assert not np.array_equal(mine, theirs)  # points of a cloud in a random order
        assert {tuple(p) for p in mine.tolist()} == {tuple(p) for p in theirs.tolist()}
    again = load_splits(DataConfig(train=source, test=None, points=32, validation=0)).train
    assert np.array_equal(again.points, splits.train.points)
    with pytest.raises(InputError, match=r"lower data\.points"):
        load_splits(DataConfig(train=source, test=None, points=64))


def test_the_order_of_points_takes_parts_along(tmp_path: Path) -> None:
    rows = shapenetpart(tmp_path)["02773838/c"].astype(np.float32)
    found = read_published(f"shapenetpart:{tmp_path}", train=False)
    mine = np.hstack([found.points[0], found.parts[0][:, None]])
    assert {tuple(r) for r in mine.tolist()} == {tuple(r) for r in rows[:, [0, 1, 2, 6]].tolist()}


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def _flat(path: Path) -> None:
    write_h5(path, some(2, 3), np.int32([0, 1]))


def _linked(path: Path) -> None:
    write_h5(path.with_name("other.h5"), some(2, 32, 3), np.int32([0, 1]))
    with h5py.File(path, "w") as file:
        file["data"] = h5py.ExternalLink("other.h5", "data")
        file["label"] = np.int32([0, 1])


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (Path.unlink, "no file is named|expected a whole|is no such file"),
        (_cut, "expected a whole HDF5 file, got a damaged one"),
        (lambda path: path.write_bytes(b"hello"), "expected a whole HDF5 file"),
        (lambda path: write_h5(path, some(2, 32, 3), None), "expected an array 'label'"),
        (_flat, "with 3 dimensions, got shape"),
        (_linked, "expected an array 'data'"),
        (lambda path: write_h5(path, some(2, 32, 2), np.int32([0, 1])), r"of shape \(n, N, 3\)"),
        (
            lambda path: write_h5(path, some(1, 32, 3), np.int32([40])),
            r"labels must lie in -1\.\.39",
        ),
        (lambda path: write_h5(path, some(1, 32, 3) * np.nan, np.int32([4])), "NaN"),
    ],
)
def test_bad_h5_is_one_sentence(tmp_path: Path, spoil: Callable[[Path], None], says: str) -> None:
    modelnet40(tmp_path)
    spoil(next(tmp_path.rglob("ply_data_test0.h5")))
    with pytest.raises(InputError, match=says) as caught:
        MODELNET40_H5.read(tmp_path, "test")
    assert "\n" not in str(caught.value)


def test_lists_of_another_data_set_are_refused(tmp_path: Path) -> None:
    write_list(tmp_path / "modelnet40_train.txt", ["sheep_0001"])
    with pytest.raises(InputError, match="'sheep' is not one of the 40 classes"):
        MODELNET40_NORMAL.read(tmp_path, "train")
    with pytest.raises(
        InputError, match=r"modelnet40_test\.txt: there is no such file.*data check"
    ):
        MODELNET40_NORMAL.read(tmp_path, "test")


def test_every_default_split_is_published() -> None:
    for data in DATASETS.values():
        assert {data.train, data.test} <= set(data.splits)
        for split in data.splits.values():
            if split.per_class is not None:
                assert sum(split.per_class) == split.clouds
                assert len(split.per_class) == len(data.class_names) == split.classes
    assert len(MODELNET_FEWSHOT.splits) == 80
