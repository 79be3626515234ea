"""ShapeNet55 of Point-BERT and Point-JEPA: 8,192 points of 52,470 shapes in 55 classes.

Three layouts: a folder of `.npy` with the lists next to it (Point-JEPA) or in `ShapeNet-55/`
(Point-BERT, Point-MAE), and Point-JEPA's packed `shapenet_{train,test}.npz`, which is read if it
exists. Coordinates are held as float16: the training split takes 2 GB.

Shape legend: n clouds, N points of each.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from foundry3d.data.clouds import Clouds
from foundry3d.data.files import read_points
from foundry3d.data.members import read_members, whole_numbers
from foundry3d.data.published.names import SHAPENET55
from foundry3d.data.published.record import Published, Split, below, lines, number, present, stack
from foundry3d.errors import InputError

_SYNSETS, _NAMES = tuple(SHAPENET55), tuple(SHAPENET55.values())


def _folder(root: Path) -> Path:
    return below(root, "ShapeNet55", "ShapeNet55-34")


def _packed(root: Path, split: str) -> Path:
    return _folder(root) / f"shapenet_{split}.npz"


def _listed(root: Path, split: str) -> tuple[list[Path], np.ndarray]:
    """Files and labels (n,) of a split, as its list names them."""
    folder = _folder(root)
    path = below(folder, "ShapeNet-55") / f"{split}.txt"
    names = lines(path)
    labels = [number(_SYNSETS, name.partition("-")[0], path) for name in names]
    return [folder / "shapenet_pc" / Path(name).name for name in names], np.array(labels)


def _array(path: Path, name: str) -> np.ndarray:
    """One array of numbers of a packed split."""
    found, present = read_members(path, (name,))
    if name not in found or found[name].dtype.kind not in "fiu":
        raise InputError(
            f"{path}: expected arrays of numbers 'data' and 'labels', found {present[:8]}; pack it "
            "again, or move it away so that the .npy files are read"
        )
    return found[name]


def _labels(root: Path, split: str) -> np.ndarray:
    path = _packed(root, split)
    if path.is_file():
        return whole_numbers(_array(path, "labels"), f"{path}: 'labels'").ravel()
    return present(*_listed(root, split))


def _read(root: Path, split: str) -> Clouds:
    path = _packed(root, split)
    if path.is_file():
        points, labels = _array(path, "data"), _labels(root, split)
        if points.ndim != 3 or points.shape[-1] < 3:
            raise InputError(f"{path}: expected 'data' of shape (n, N, 3), got {points.shape}")
        with np.errstate(over="ignore"):  # what float16 cannot hold is refused as not finite
            points = points[..., :3].astype(np.float16)
    else:
        files, labels = _listed(root, split)
        points = stack(files, lambda file: read_points(file).points, dtype=np.float16)
    return Clouds(points=points, labels=labels, class_names=_NAMES, name=f"shapenet55 {split}")


SHAPENET = Published(
    title="ShapeNet55",
    layout="ShapeNet55/{shapenet_pc/*.npy, train.txt, test.txt} or shapenet_{train,test}.npz, or "
    "ShapeNet55-34/{shapenet_pc/*.npy, ShapeNet-55/*.txt}",
    owner="shapenet.org (the sampled points are those of the Point-BERT authors)",
    splits={
        "train": Split(clouds=41952, classes=55),
        "test": Split(clouds=10518, classes=55),
        **{f"train_{share}": Split(optional=True) for share in (25, 50, 75)},
    },
    labels=_labels,
    read=_read,
    class_names=_NAMES,
)
