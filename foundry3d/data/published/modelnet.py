"""ModelNet40 in its two published forms: 2,048 points in HDF5, and 10,000 with normals as text.

Instead of the text form, a `.dat` pickle of 8,192 farthest points, as Point-BERT and its followers
use, is read if it exists.

Shape legend: n clouds, N points of each.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from foundry3d.data.clouds import Clouds
from foundry3d.data.files import read_points
from foundry3d.data.published.hdf5 import labelled, labels_of
from foundry3d.data.published.names import MODELNET40, MODELNET40_COUNTS
from foundry3d.data.published.pickles import numbers, read_pickle, stacked, whole
from foundry3d.data.published.record import (
    ASK,
    Published,
    Split,
    below,
    lines,
    number,
    present,
    require_held,
    stack,
)
from foundry3d.errors import InputError

_OWNER = "modelnet.cs.princeton.edu"
_TRAIN, _TEST = zip(*MODELNET40_COUNTS.values(), strict=True)


def _h5_files(root: Path, split: str) -> list[Path]:
    folder = below(root, "modelnet40_ply_hdf5_2048")
    name = re.compile(rf"ply_data_{split}\d+\.h5")  # not `ply_data_train0 (1).h5`
    files = sorted(path for path in folder.iterdir() if name.fullmatch(path.name))
    if not files:
        raise InputError(f"{folder}: no file is named ply_data_{split}*.h5; {ASK}")
    return files


def _read_h5(root: Path, split: str) -> Clouds:
    points, labels = labelled(_h5_files(root, split))
    return Clouds(points=points, labels=labels, class_names=MODELNET40, name=f"modelnet40 {split}")


MODELNET40_H5 = Published(
    title="ModelNet40, 2,048 points (HDF5)",
    layout="modelnet40_ply_hdf5_2048/ply_data_{train,test}*.h5",
    owner=f"{_OWNER} (the HDF5 files are those of the PointNet authors)",
    splits={  # three of the 9,843 official training shapes are not in the files
        "train": Split(clouds=9840, classes=40),
        "test": Split(clouds=2468, classes=40, per_class=_TEST),
    },
    labels=lambda root, split: labels_of(_h5_files(root, split)),
    read=_read_h5,
    class_names=MODELNET40,
)


def _folder(root: Path) -> Path:
    return below(root, "modelnet40_normal_resampled", "ModelNet/modelnet40_normal_resampled")


def _cache(root: Path, split: str) -> Path:
    return _folder(root) / f"modelnet40_{split}_8192pts_fps.dat"


def _listed(root: Path, split: str) -> tuple[list[Path], np.ndarray]:
    """Files and labels (n,) of a split, as the official list names them."""
    folder = _folder(root)
    path = folder / f"modelnet40_{split}.txt"
    names = lines(path)
    classes = [name.rpartition("_")[0] for name in names]
    labels = [number(MODELNET40, kind, path) for kind in classes]
    files = [folder / kind / f"{name}.txt" for kind, name in zip(classes, names, strict=True)]
    return files, np.array(labels)


def _read_cache(path: Path) -> tuple[list[Any], np.ndarray]:
    """Clouds, as values of the pickle, and labels (n,) of a `.dat` pickle."""
    found = read_pickle(path)
    pair = isinstance(found, list | tuple) and len(found) == 2
    if not (pair and all(isinstance(part, list) and part for part in found)):
        raise InputError(
            f"{path}: expected a list of clouds and a list of labels; download it again"
        )
    labels = np.array([whole(value, path) for value in found[1]])
    if len(labels) != len(found[0]):
        raise InputError(f"{path}: expected one label for each cloud; download it again")
    require_held((numbers(cloud, path) for cloud in found[0]), path)
    return found[0], labels


def _normal_labels(root: Path, split: str) -> np.ndarray:
    if _cache(root, split).is_file():
        return _read_cache(_cache(root, split))[1]
    return present(*_listed(root, split))


def _read_normal(root: Path, split: str) -> Clouds:
    path = _cache(root, split)
    if path.is_file():
        arrays, labels = _read_cache(path)
        points = stacked(arrays, path, np.float16)
    else:
        files, labels = _listed(root, split)
        points = stack(files, lambda file: read_points(file).points, dtype=np.float16)
    return Clouds(
        points=points, labels=labels, class_names=MODELNET40, name=f"modelnet40-normal {split}"
    )


MODELNET40_NORMAL = Published(
    title="ModelNet40, normal_resampled (text, or the .dat of 8,192 farthest points)",
    layout="modelnet40_normal_resampled/{modelnet40_train.txt, modelnet40_test.txt, CLASS/ID.txt}",
    owner=f"{_OWNER} (the resampled files are those of the PointNet++ authors)",
    splits={
        "train": Split(clouds=9843, classes=40, per_class=_TRAIN),
        "test": Split(clouds=2468, classes=40, per_class=_TEST),
    },
    labels=_normal_labels,
    read=_read_normal,
    class_names=MODELNET40,
)
