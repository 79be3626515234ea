"""OmniObject3D: scans of real objects in 216 classes, one HDF5 file per class or PLY per object.

Neither form comes with a split. The paper's (appendix A.1) is used: the last fifth of every class,
in the order of the file names, is for testing. Rounding the fifth up is closest to its 4,641 and
1,270 objects; the only object of a class is for training. Of the published sizes, 4,096 points are
read, otherwise 16,384, otherwise 1,024.

Shape legend: n clouds, N points of each.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from foundry3d.data.clouds import Clouds
from foundry3d.data.files import read_points
from foundry3d.data.progress import with_progress
from foundry3d.data.published.hdf5 import points_of, read_h5
from foundry3d.data.published.record import ASK, Published, Split, below, stack
from foundry3d.errors import InputError

_SIZES = (4096, 16384, 1024)


def last_fifth(objects: int, split: str) -> slice:
    """The objects of a class that are in `train` or `test`."""
    kept = max(4 * objects // 5, 1)
    return slice(None, kept) if split == "train" else slice(kept, None)


def _sources(root: Path) -> dict[str, Path]:
    """An HDF5 file, or a folder of objects, for each class, sorted by name."""
    base = below(root, "point_clouds", "raw/point_clouds")
    for size in _SIZES:
        files = _visible(base / "hdf5_files" / str(size), f"*_{size}.hdf5")
        if files:
            return {path.name.removesuffix(f"_{size}.hdf5"): path for path in files}
        objects = _visible(base / "ply_files" / str(size), f"*/*/pcd_{size}.ply")
        folders = sorted({path.parents[1] for path in objects})
        if folders:
            return {path.name: path for path in folders}
    raise InputError(
        f"{base}: no hdf5_files/SIZE/CLASS_SIZE.hdf5 and no ply_files/SIZE/CLASS/OBJECT/pcd_SIZE"
        f".ply, with SIZE one of {', '.join(map(str, _SIZES))}; {ASK}"
    )


def _visible(folder: Path, pattern: str) -> list[Path]:
    """The files below a folder that match, sorted; nothing hidden, such as `._x` of macOS."""
    return sorted(
        path
        for path in folder.glob(pattern)
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def _objects(folder: Path) -> list[Path]:
    """The files of the objects of a class, in its folder `SIZE/CLASS`."""
    return _visible(folder, f"*/pcd_{folder.parent.name}.ply")


def _count(source: Path) -> int:
    return len(_objects(source)) if source.is_dir() else len(read_h5(source, "data", 3))


def _labels(root: Path, split: str) -> np.ndarray:
    counts = [_count(source) for source in _sources(root).values()]
    shares = [len(range(count)[last_fifth(count, split)]) for count in counts]
    return np.repeat(np.arange(len(shares)), shares)


def _load(source: Path, split: str) -> np.ndarray:
    """The objects of a class in a split, (n, N, 3) float32; n may be 0."""
    if not source.is_dir():
        points = points_of(source)
        return points[last_fifth(len(points), split)]
    files = _objects(source)
    files = files[last_fifth(len(files), split)]
    if not files:
        return np.zeros((0, 0, 3), np.float32)
    return stack(files, lambda file: read_points(file).points)


def _read(root: Path, split: str) -> Clouds:
    sources = _sources(root)
    found = [_load(source, split) for source in with_progress(list(sources.values()), "read")]
    parts = [part for part in found if len(part)]
    if len({part.shape[1] for part in parts}) != 1:
        raise InputError(
            f"{root}: expected {split} objects of one size, got "
            f"{sorted({part.shape[1] for part in parts})} points; download the set again"
        )
    return Clouds(
        points=np.concatenate(parts),
        labels=np.repeat(np.arange(len(found)), [len(part) for part in found]),
        class_names=tuple(sources),
        name=f"omniobject3d {split}",
    )


OMNIOBJECT3D = Published(
    title="OmniObject3D",
    layout="point_clouds/{hdf5_files/SIZE/CLASS_SIZE.hdf5, ply_files/SIZE/CLASS/OBJECT/"
    "pcd_SIZE.ply}",
    owner="omniobject3d.github.io",
    splits={"train": Split(clouds=4641, classes=216), "test": Split(clouds=1270)},
    labels=_labels,
    read=_read,
)
