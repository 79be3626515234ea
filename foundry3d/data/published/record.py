"""The description of a published data set, and the steps that readers of data sets share.

Shape legend: n clouds, N points of each, C columns.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from foundry3d.data.clouds import Clouds
from foundry3d.data.progress import with_progress
from foundry3d.errors import InputError

log = logging.getLogger("foundry3d")

ASK = "`foundry3d data check` shows what is missing and where its owners offer it"


@dataclass(frozen=True, kw_only=True)
class Split:
    """Published figures of a split; None where no figure is certain.

    Attributes:
        clouds: number of clouds.
        classes: number of classes with at least one cloud.
        per_class: number of clouds of each class, by label.
        optional: whether a copy of the data is complete without it.
    """

    clouds: int | None = None
    classes: int | None = None
    per_class: tuple[int, ...] | None = None
    optional: bool = False


@dataclass(frozen=True, kw_only=True)
class Published:
    """One data set in one published layout.

    Attributes:
        title: its name in papers.
        layout: the files expected below the folder, in one phrase.
        owner: the page where its owners offer it.
        splits: its splits and their published figures.
        labels: reads the classes (n,) int64 of the clouds of a split that exist, not their points.
        read: reads the clouds of a split, points in the order of the files.
        class_names: by label; empty where the files name them.
        train: the split for training.
        test: the split for testing.
    """

    title: str
    layout: str
    owner: str
    splits: dict[str, Split]
    labels: Callable[[Path, str], np.ndarray]
    read: Callable[[Path, str], Clouds]
    class_names: tuple[str, ...] = ()
    train: str = "train"
    test: str = "test"


def below(root: Path, *names: str) -> Path:
    """The first of the folders `names` in the folder `root` that exists, otherwise `root`."""
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; name the one that holds {names[0]}")
    return next((root / name for name in names if (root / name).is_dir()), root)


def need(path: Path) -> Path:
    """The path, which must be that of a regular file (else InputError)."""
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; {ASK}")
    return path


def lines(path: Path) -> list[str]:
    """The lines of a text file, which must be there, be text, and hold more than empty lines."""
    try:
        found = [line.strip() for line in need(path).read_text("utf-8").splitlines()]
    except UnicodeDecodeError:
        raise InputError(f"{path}: expected a list in plain text; download it again") from None
    found = [line for line in found if line]
    if not found:
        raise InputError(
            f"{path}: expected one name per line, got an empty file; download it again"
        )
    return found


def number(names: Sequence[str], name: str, path: Path) -> int:
    """The label of a class that a file names, which must be one of `names`."""
    if name not in names:
        raise InputError(
            f"{path}: {ascii(name)[:40]} is not one of the {len(names)} classes "
            f"{', '.join(names[:3])} ...; is it the list of another data set?"
        )
    return names.index(name)


def stack(
    paths: Sequence[Path],
    read: Callable[[Path], np.ndarray],
    *,
    dtype: type[np.floating] = np.float32,
) -> np.ndarray:
    """The rows (N, C) that `read` returns for each of one or more files, stacked: (n, N, C).

    float16 halves the memory of large sets.

    Raises:
        InputError: a file that `read` refuses, or one with another size than the first.
    """
    need(paths[0])
    points = np.zeros((0, 0, 0), dtype)
    for i, path in enumerate(with_progress(paths, "read")):
        cloud = read(path)
        if not i:
            points = _room((len(paths), *cloud.shape), dtype)
        if cloud.shape != points.shape[1:]:
            raise InputError(
                f"{path}: expected {len(points[0])} points as in {paths[0].name}, "
                f"got {len(cloud)}; download it again"
            )
        with np.errstate(over="ignore"):  # what float16 cannot hold is refused as not finite
            points[i] = cloud
    return points


def _room(shape: tuple[int, ...], dtype: type[np.floating]) -> np.ndarray:
    try:
        return np.empty(shape, dtype)
    except MemoryError:
        size = math.prod(shape) * np.dtype(dtype).itemsize / 2**30
        raise InputError(
            f"{shape[0]} clouds of {shape[1]} points take {size:.0f} GiB of memory, more than is "
            "available; `foundry3d data pack` packs a folder into shards, which training streams"
        ) from None


def require_held(arrays: Iterable[np.ndarray], path: Path) -> None:
    """Refuses arrays that take more bytes than their file: one array used for many clouds."""
    wanted, there = sum(array.nbytes for array in arrays), path.stat().st_size
    if wanted > there:
        raise InputError(
            f"{path}: its clouds take {wanted} bytes, the file has {there}; download it again"
        )


def present(files: Sequence[Path], labels: np.ndarray) -> np.ndarray:
    """Labels (n,) of the files that exist; logs how many are missing, and which is the first."""
    there = np.array([path.is_file() for path in files])
    if not there.all():
        first = files[int(np.argmin(there))]
        log.warning("%d of %d files are missing; the first: %s", (~there).sum(), len(files), first)
    return labels[there]


def unit_sphere(points: np.ndarray) -> np.ndarray:
    """Points (N, 3) with their mean at the origin and the farthest at distance 1."""
    points = points - points.mean(axis=0)
    radius = np.linalg.norm(points, axis=1).max()
    return points / radius if radius > 0 else points
