"""What is known of a published data set, and the few steps that all its readers share.

Shape legend: n clouds, N points of each, C columns.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from foundry3d.data.clouds import Clouds
from foundry3d.data.progress import with_progress
from foundry3d.errors import InputError

log = logging.getLogger("foundry3d")

ASK = "`foundry3d data check` tells what is missing and where its owners offer it"


@dataclass(frozen=True, kw_only=True)
class Split:
    """What was published about a split; None where no figure is known for sure.

    Attributes:
        clouds: how many there are.
        classes: how many classes have at least one.
        per_class: how many of each class, by label.
        optional: whether a copy of the data is whole without it.
    """

    clouds: int | None = None
    classes: int | None = None
    per_class: tuple[int, ...] | None = None
    optional: bool = False


@dataclass(frozen=True, kw_only=True)
class Published:
    """One data set in one published layout.

    Attributes:
        title: what papers call it.
        layout: what is expected below the folder that is named, in one phrase.
        owner: the page where its owners offer it.
        splits: its parts and what is known of them.
        labels: classes (n,) int64 of the clouds of a split that are there, without their points.
        read: the clouds of a split, points in the order of the files.
        class_names: by label; empty where the files tell them.
        train: the split that training takes.
        test: the split that testing takes.
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
    """The first of the folders `names` below `root`, or `root` itself where it has none of them.

    Raises:
        InputError: `root` is no folder.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; name the one that holds {names[0]}")
    return next((root / name for name in names if (root / name).is_dir()), root)


def need(path: Path) -> Path:
    """The path of a file that must be there.

    Raises:
        InputError: it is not.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; {ASK}")
    return path


def lines(path: Path) -> list[str]:
    """The lines of a list, without empty ones.

    Raises:
        InputError: missing, no text, or empty.
    """
    try:
        found = [line.strip() for line in need(path).read_text("utf-8").splitlines()]
    except UnicodeDecodeError:
        raise InputError(f"{path}: expected a list in plain text; download it again") from None
    found = [line for line in found if line]
    if not found:
        raise InputError(f"{path}: expected one name a line, got an empty file; download it again")
    return found


def number(names: Sequence[str], name: str, path: Path) -> int:
    """The label of a class that a file names.

    Raises:
        InputError: there is no such class.
    """
    if name not in names:
        raise InputError(
            f"{path}: {ascii(name)[:40]} is none of the {len(names)} classes "
            f"{', '.join(names[:3])} ...; is it the list of another data set?"
        )
    return names.index(name)


def stack(
    paths: Sequence[Path],
    read: Callable[[Path], np.ndarray],
    *,
    dtype: type[np.floating] = np.float32,
) -> np.ndarray:
    """Clouds of one size, each from a file of its own.

    Args:
        paths: at least one.
        read: the points (N, C) of a file.
        dtype: of the result; float16 halves large sets, as archives do.

    Returns:
        (n, N, C).

    Raises:
        InputError: a file that `read` refuses, or one of another size than the first.
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
            f"{shape[0]} clouds of {shape[1]} points take {size:.0f} GiB of memory, more than "
            "there is; `foundry3d data pack` makes shards of a folder, which training streams"
        ) from None


def distinct(values: Sequence[Any], path: Path) -> list[Any]:
    """Clouds out of one file, each stored on its own.

    Raises:
        InputError: one object several times, which would take its memory that many times.
    """
    kept = list(values)
    if len({id(value) for value in kept}) < len(kept):
        raise InputError(f"{path}: the same array stands for several clouds; download it again")
    return kept


def present(files: Sequence[Path], labels: np.ndarray) -> np.ndarray:
    """Labels (n,) of the files that are there; says how many are not, and which is the first."""
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
