"""Collections too large for memory: point clouds in tar shards, their index and their samples.

Layout (WebDataset's): in `shard-000000.tar` and its followers, a sample is `KEY.npy`, its points
(N, 3) in plain npy, and, where it has a class, `KEY.cls`, the class number in ASCII. `index.json`
lists the shards and how many samples each holds.

Tar is read with the standard library rather than with WebDataset's readers: samples that cannot be
used have to be counted and named by shard and key, and no member may unpack to more bytes than its
archive has.

Shapes: N points of a cloud.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from foundry3d.data.formats.arrays import read_npy
from foundry3d.errors import InputError
from foundry3d.writing import write_text

INDEX = "index.json"
FORMAT = "foundry3d-shards"
VERSION = 1

_LARGEST_INDEX = 2**28
_SMALLEST_SAMPLE = 1024
"""Bytes that a sample takes at the least: a header and a block."""
_MOST_LOST = 2**20
"""An index may claim this many samples more than the shards have room for: some may be damaged."""

_SHARD = re.compile(r"[\w-]+\.tar")
_MEMBER = re.compile(r"((?:.*/)?[^/.]+)\.(npy|cls)")


@dataclass(frozen=True, kw_only=True)
class Index:
    """The content of `index.json`, which lies in the folder of the shards.

    Attributes:
        shards: number of samples in each shard, by file name.
        count: number of samples in all shards.
        points: number of points of the smallest and of the largest cloud.
        dtype: type of the coordinates.
        class_names: names by class number; empty without classes.

    Raises:
        InputError: impossible values, or names that lead out of the folder.
    """

    shards: dict[str, int]
    count: int
    points: tuple[int, int]
    dtype: str = "float32"
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = all(_SHARD.fullmatch(name) for name in self.shards)
        numbers = [*self.shards.values(), *self.points]
        whole = all(type(n) is int and n > 0 for n in numbers) and len(self.points) == 2
        if not (names and whole and 0 < self.count == sum(self.shards.values())):
            raise InputError(
                "expected shards named *.tar with at least one sample each, their sum as count, "
                "and points as [smallest, largest]; pack the collection again"
            )


def is_sharded(folder: str | Path) -> bool:
    """Whether a path is a folder with an index and at least one shard."""
    folder = Path(folder)
    return (folder / INDEX).is_file() and next(folder.glob("*.tar"), None) is not None


def write_index(folder: Path, index: Index) -> None:
    """Writes `index.json`; the file appears complete or not at all."""
    values = {"format": FORMAT, "version": VERSION, **asdict(index)}
    write_text(folder / INDEX, json.dumps(values, indent=1) + "\n")


def read_index(folder: str | Path) -> Index:
    """The index of a folder of shards.

    Raises:
        InputError: missing or damaged, another format or version, or far more samples than the
            shards on disk can hold.
    """
    path = Path(folder) / INDEX
    try:
        if path.is_file() and path.stat().st_size > _LARGEST_INDEX:
            raise InputError(f"is larger than {_LARGEST_INDEX} bytes; pack the collection again")
        values: dict[str, Any] = dict(json.loads(path.read_text(encoding="utf-8")))
        if (values.pop("format", None), values.pop("version", None)) != (FORMAT, VERSION):
            raise InputError(f"expected format {FORMAT}, version {VERSION}; pack it again")
        names = tuple(str(name) for name in values.pop("class_names", ()))
        index = Index(points=tuple(values.pop("points")), class_names=names, **values)
        _check_room(path.parent, index)
        return index
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        kind = type(error).__name__
        raise InputError(f"{path}: no readable index of shards ({kind}); pack it again") from None


def _check_room(folder: Path, index: Index) -> None:
    """Refuses an index whose samples cannot lie in the shards.

    Samples that were lost are replaced by others when an epoch is read, which has no end where
    nearly all of them are only claimed.
    """
    files = [folder / name for name in index.shards]
    held = sum(path.stat().st_size for path in files if path.is_file()) // _SMALLEST_SAMPLE
    if index.count > held + _MOST_LOST:
        raise InputError(
            f"declares {index.count} samples, but the shards have room for {held}; pack the "
            "collection again"
        )


def _members(path: Path) -> Iterator[tuple[str, str, bytes | None]]:
    """Key, ending and bytes of the files in an archive; None for bytes that are not there."""
    if not path.is_file():  # opening a pipe or a device would wait or read for ever
        raise tarfile.ReadError("there is no such file" if not path.exists() else "it is no file")
    with (
        open(path, "rb") as file,
        tarfile.open(fileobj=file, mode="r:", ignore_zeros=True) as archive,  # past bad headers
    ):
        size = path.stat().st_size
        for info in archive:
            if info.size < 0:
                raise tarfile.ReadError("a member of negative size")
            if found := _MEMBER.fullmatch(info.name):
                plain = info.isreg() and not info.issparse()
                stream = archive.extractfile(info) if plain else None
                there = stream is not None and info.offset_data + info.size <= size
                yield found[1], found[2], stream.read() if stream and there else None


def samples(path: Path) -> Iterator[tuple[str, dict[str, bytes | None]]]:
    """Key and files, by ending, of each sample of an archive, in order.

    Raises:
        tarfile.ReadError: missing or damaged; the samples before the damage have been yielded.
    """
    key, files, fault = "", dict[str, bytes | None](), ""
    try:
        for name, ending, content in _members(path):
            if files and name != key:
                yield key, files
                files = {}
            key, files[ending] = name, content
    except (tarfile.TarError, OSError, ValueError, ArithmeticError, RecursionError) as error:
        fault = str(error) or "it is damaged"
    if files:
        yield key, files
    if fault:
        raise tarfile.ReadError(fault)


def decode(files: dict[str, bytes | None], classes: int) -> np.ndarray:
    """The points (N, 3), float16 or float32, of a sample, given its files by their endings.

    Raises:
        InputError: no plain, finite array of that shape, or a class number that is not below
            `classes`.
    """
    blob = files.get("npy")
    if blob is None:
        raise InputError("expected a whole .npy, got none")
    points = read_npy(blob).vertices
    if points.ndim != 2 or not len(points):
        raise InputError(f"expected points of shape (N, 3), got {points.shape}")
    if points.dtype not in (np.float16, np.float32):
        with np.errstate(over="ignore"):
            points = points.astype(np.float32)
    if not np.isfinite(points).all():
        raise InputError("expected finite coordinates, got NaN or infinite ones")
    if "cls" in files:
        label = files["cls"] or b""
        if not re.fullmatch(rb"\s*\d{1,9}\s*", label) or int(label) >= classes:
            raise InputError(f"expected a class below {classes}, got {label[:20]!r}")
    return points
