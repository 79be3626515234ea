"""Archives and published files that lie about what they hold: one sentence, and no memory."""

import os
import pickle
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from foundry3d.data import members
from foundry3d.data.archive import read_archive, write_archive
from foundry3d.data.clouds import Clouds
from foundry3d.data.published.commands import compare
from foundry3d.data.published.fewshot import MODELNET_FEWSHOT
from foundry3d.data.published.modelnet import MODELNET40_H5, MODELNET40_NORMAL
from foundry3d.data.published.objaverse import OBJAVERSE
from foundry3d.data.published.omniobject3d import OMNIOBJECT3D
from foundry3d.data.published.shapenet55 import SHAPENET
from foundry3d.errors import InputError


def some(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def save(folder: Path, **arrays: np.ndarray) -> Path:
    np.savez_compressed(folder / "some.npz", points=some(4, 8, 3), **arrays)
    return folder / "some.npz"


def refused(read: Callable[[], object], says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        read()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"labels": np.array([0, 0.5, 1, 2])}, r"'labels' must be whole numbers, found 0\.5"),
        ({"labels": np.array([0, np.nan, 1, 2])}, "'labels' must be whole numbers, found nan"),
        ({"labels": np.array(["cup", "mug", "cup", "cup"])}, "'labels' must be whole numbers"),
        ({"labels": np.array([0, 1, 2, 2**63], np.uint64)}, "'labels' must be whole numbers"),
        ({"labels": np.arange(4), "names": np.array("cup")}, "'names' must be a list of names"),
        ({"labels": np.arange(4), "names": np.ones((4, 2))}, "'names' must be a list of names"),
        ({"labels": np.arange(4), "names": np.array([b"\xff"] * 4)}, "not UTF-8"),
        ({"labels": np.array(3)}, "expected 4 labels, one per cloud"),
        ({"labels": np.array([0, 1, 2, 200_000_000])}, "class number of 200000000 without names"),
        ({"parts": np.full((4, 8), 0.5)}, "'parts' must be whole numbers"),
        ({"parts": np.full((4, 8), "leg")}, "'parts' must be whole numbers"),
        ({"parts": np.full((4, 8), 200_000_000)}, "part number of 200000000 without names"),
        ({"parts": np.zeros((4, 7), int)}, "expected part labels of shape"),
    ],
)
def test_labels_parts_and_names_are_checked_at_the_door(
    tmp_path: Path, arrays: dict[str, np.ndarray], says: str
) -> None:
    refused(lambda: read_archive(save(tmp_path, **arrays)), says)


def test_whole_floats_and_names_as_bytes_are_read(tmp_path: Path) -> None:
    names = np.array(["tasse à café".encode(), b"mug"])
    found = read_archive(save(tmp_path, labels=np.array([0.0, 1, 1, -1]), names=names))
    assert found.labels.dtype == np.int64
    assert found.labels.tolist() == [0, 1, 1, -1]
    assert found.class_names == ("tasse à café", "mug")
    assert read_archive(save(tmp_path, labels=np.array([2, 0, 1, 2]))).class_names == (
        *("class 0", "class 1", "class 2"),
    )


def test_labels_above_the_range_of_int16_survive(tmp_path: Path) -> None:
    names = tuple(f"n{i}" for i in range(40_000))
    write_archive(
        tmp_path / "many.npz",
        Clouds(points=some(2, 8, 3), labels=np.array([39_999, 1]), class_names=names),
    )
    assert read_archive(tmp_path / "many.npz").labels.tolist() == [39_999, 1]


def test_clouds_take_integer_labels_alone() -> None:
    for labels in (np.zeros(2), np.array(["a", "b"])):
        refused(
            lambda labels=labels: Clouds(points=some(2, 8, 3), labels=labels, class_names=("a",)),
            "labels must be whole numbers, found",
        )


def header(shape: tuple[int, ...], kind: str = "<f4") -> bytes:
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}"
    return b"\x93NUMPY\x01\x00\x76\x00" + text.ljust(117).encode() + b"\n"


def test_declared_sizes_are_compared_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "lies.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("points.npy", header((10**6, 10**6, 3)) + bytes(120))
    refused(lambda: read_archive(path), "archive declares 120")
    claimed = 10 * 4096 * 3 * 4
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("points.npy", header((10, 4096, 3)) + bytes(120))
    told, true = (n.to_bytes(4, "little") for n in (128 + claimed, 128 + 120))
    path.write_bytes(path.read_bytes().replace(true, told))  # in the directory of the archive too
    refused(lambda: read_archive(path), "is not a plain array of shape|not a readable")


def test_growth_is_limited_for_what_is_wanted_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(members, "MAX_BYTES", 2**20)
    path = save(tmp_path, heat=np.zeros(2**21, np.uint8))  # nobody asked for it
    assert len(read_archive(path)) == 4
    np.savez_compressed(path, points=np.zeros((2**15, 8, 3), np.float32))
    refused(lambda: read_archive(path), r"'points' would take 0\.0 GiB, far more than the archive")
    np.savez(path, points=np.zeros((2**15, 8, 3), np.float32))  # as large as its file
    assert len(read_archive(path)) == 2**15


def test_unused_arrays_are_not_unpacked(tmp_path: Path) -> None:
    path = save(tmp_path, heat=np.arange(9))
    with zipfile.ZipFile(path) as archive:
        place = archive.getinfo("heat.npy").header_offset + 50
        kept = archive.read("points.npy")
    content = bytearray(path.read_bytes())
    content[place : place + 20] = bytes(20)  # unpacking it would fail
    path.write_bytes(content)
    with zipfile.ZipFile(path) as archive, pytest.raises((zlib.error, zipfile.BadZipFile)):
        archive.read("heat.npy")
    assert kept.endswith(read_archive(path).points.tobytes())


def test_other_compressions_passwords_and_objects_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "some.npz"
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.writestr("points.npy", header((4, 8, 3)) + some(4, 8, 3).tobytes())
        refused(lambda: read_archive(path), "compression that numpy does not write")
    content = save(tmp_path).read_bytes()
    flags = content.index(b"PK\x01\x02") + 8  # of the first entry of the directory
    path.write_bytes(content[:flags] + b"\x01" + content[flags + 1 :])
    refused(lambda: read_archive(path), "password")
    np.savez(path, points=np.array([{}], dtype=object))
    refused(lambda: read_archive(path), "is not a plain array")
    np.savez(path, points=np.zeros(4, [("x", "f4"), ("y", "f4")]))
    refused(lambda: read_archive(path), "'points' must be numbers|not a plain array")


def test_an_archive_that_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npz")
    refused(lambda: read_archive(tmp_path / "pipe.npz"), "no such archive")
    refused(lambda: read_archive("/dev/zero"), "no such archive")


def write_h5(path: Path, data: np.ndarray, label: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=data, compression="gzip")
        if label is not None:
            file["label"] = label


def modelnet40(root: Path) -> Path:
    folder = root / "modelnet40_ply_hdf5_2048"
    write_h5(folder / "ply_data_train0.h5", some(2, 8, 3), np.uint8([[0], [1]]))
    return folder


def test_copies_and_hidden_files_are_no_part_of_a_data_set(tmp_path: Path) -> None:
    folder = modelnet40(tmp_path / "a")
    content = (folder / "ply_data_train0.h5").read_bytes()
    (folder / "ply_data_train0 (1).h5").write_bytes(content)
    (folder / "ply_data_train_old.h5").write_bytes(content)
    (folder / "._ply_data_train0.h5").write_bytes(b"macOS")
    assert len(MODELNET40_H5.read(tmp_path / "a", "train")) == 2

    base = tmp_path / "b" / "point_clouds" / "hdf5_files" / "4096"
    write_h5(base / "book_4096.hdf5", some(5, 8, 3))
    write_h5(base / "book_4096 (1).hdf5", some(5, 8, 3))
    (base / "._book_4096.hdf5").write_bytes(b"macOS")
    assert OMNIOBJECT3D.read(tmp_path / "b", "train").class_names == ("book",)

    objects = tmp_path / "c" / "point_clouds" / "ply_files" / "4096" / "book"
    head = "ply\nformat ascii 1.0\nelement vertex 2\n"
    head += "".join(f"property float {axis}\n" for axis in "xyz") + "end_header\n0 0 0\n1 1 1\n"
    for name in ("0/pcd_4096.ply", "1/pcd_4096.ply", "1/pcd_4096 (1).ply", "1/._pcd_4096.ply"):
        (objects / name).parent.mkdir(parents=True, exist_ok=True)
        (objects / name).write_text(head)
    assert len(OMNIOBJECT3D.labels(tmp_path / "c", "train")) == 1
    assert len(OMNIOBJECT3D.labels(tmp_path / "c", "test")) == 1

    clouds = tmp_path / "d" / "8192_npy"
    clouds.mkdir(parents=True)
    (tmp_path / "d" / "val_object_ids_3000.txt").write_text("b\n")
    for name in "ab":
        np.save(clouds / f"{name}_8192.npy", some(16, 6))
    (clouds / "._a_8192.npy").write_bytes(b"macOS")
    assert len(OBJAVERSE.read(tmp_path / "d", "train")) == 1


def test_labels_of_published_files_are_whole(tmp_path: Path) -> None:
    folder = modelnet40(tmp_path)
    write_h5(folder / "ply_data_train0.h5", some(2, 8, 3), np.array([0.0, 0.5]))
    refused(lambda: MODELNET40_H5.read(tmp_path, "train"), r"train0\.h5: 'label' must be whole")
    (tmp_path / "ShapeNet55").mkdir()
    packed = tmp_path / "ShapeNet55" / "shapenet_train.npz"
    np.savez(packed, data=some(2, 8, 3), labels=np.array([0.0, 0.5]))
    refused(lambda: SHAPENET.read(tmp_path, "train"), r"train\.npz: 'labels' must be whole")
    np.savez(packed, data=some(2, 8, 3), labels=np.array(["cup", "mug"]))
    refused(lambda: SHAPENET.read(tmp_path, "train"), "found 'labels'|arrays of numbers")


def test_a_huge_label_is_counted_without_a_table_of_its_size(tmp_path: Path) -> None:
    folder = modelnet40(tmp_path)
    write_h5(folder / "ply_data_test0.h5", some(2, 8, 3), np.array([0, 2**62]))
    rows, _ = compare(MODELNET40_H5, tmp_path)
    assert not next(row.ok for row in rows if row.what == "of each class")


@pytest.mark.parametrize("chunks", [None, (1024, 64, 3)])
def test_hdf5_values_that_were_never_written_are_refused(
    tmp_path: Path, chunks: tuple[int, ...] | None
) -> None:
    folder = modelnet40(tmp_path)
    with h5py.File(folder / "ply_data_train0.h5", "w") as file:
        file.create_dataset("data", shape=(4096, 64, 3), dtype="f4", chunks=chunks, fillvalue=1)
        if chunks:
            file["data"][:1024] = 0
        file["label"] = np.zeros(4096, np.uint8)
    refused(lambda: MODELNET40_H5.read(tmp_path, "train"), "not all of it was ever written")


def test_one_array_that_stands_for_many_clouds_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "modelnet40_normal_resampled"
    folder.mkdir()
    path = folder / "modelnet40_train_8192pts_fps.dat"
    one = some(8, 6)
    path.write_bytes(pickle.dumps([[one] * 8000, [np.array([0])] * 8000]))
    refused(
        lambda: MODELNET40_NORMAL.read(tmp_path, "train"), "clouds take 1536000 bytes, the file"
    )
    path.write_bytes(pickle.dumps([[one, one + 1], [np.array([0]), np.array([3])]]))
    assert MODELNET40_NORMAL.read(tmp_path, "train").labels.tolist() == [0, 3]
    fold = tmp_path / "ModelNetFewshot" / "5way_10shot" / "0.pkl"
    fold.parent.mkdir(parents=True)
    fold.write_bytes(pickle.dumps({"train": [(one, 0, 7)] * 800, "test": [(one, 0, 7)]}))
    refused(
        lambda: MODELNET_FEWSHOT.read(tmp_path, "5way_10shot/0/train"), "clouds take 153600 bytes"
    )
