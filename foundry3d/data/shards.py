"""Collections too large for memory: point clouds in tar shards, their index and their samples.

Layout (WebDataset's): in `shard-000000.tar` and its followers, a sample is `KEY.npy`, its points
(N, 3) in plain npy, and, where it has a class, `KEY.cls`, the class number in ASCII. `index.json`
lists the shards and how many samples each holds.

Tar is read by the standard library: whatever cannot be used has to be counted and named by shard
and key, and no member may unpack to more bytes than its archive has, which the readers of
WebDataset leave open.

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
from foundry3d.writing import replacing

INDEX = "index.json"
FORMAT = "foundry3d-shards"
VERSION = 1

_SHARD = re.compile(r"[\w-]+\.tar")
_MEMBER = re.compile(r"((?:.*/)?[^/.]+)\.(npy|cls)")


@dataclass(frozen=True, kw_only=True)
class Index:
    """What `index.json` says of the shards beside it.

    Attributes:
        shards: samples of each shard, by file name.
        count: samples in all.
        points: points of the smallest and of the largest cloud.
        dtype: of the coordinates.
        class_names: names by label; empty without classes.

    Raises:
        InputError: values that cannot be, or names that lead out of the folder.
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
    """Whether a path is a folder of shards."""
    folder = Path(folder)
    return (folder / INDEX).is_file() and next(folder.glob("*.tar"), None) is not None


def write_index(folder: Path, index: Index) -> None:
    """Writes `index.json`; it appears complete or not at all."""
    values = {"format": FORMAT, "version": VERSION, **asdict(index)}
    with replacing(folder / INDEX) as partial:
        partial.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def read_index(folder: str | Path) -> Index:
    """The index of a folder of shards.

    Raises:
        InputError: missing, damaged, or of another format or version.
    """
    path = Path(folder) / INDEX
    try:
        values: dict[str, Any] = dict(json.loads(path.read_text(encoding="utf-8")))
        if (values.pop("format", None), values.pop("version", None)) != (FORMAT, VERSION):
            raise InputError(f"expected format {FORMAT}, version {VERSION}; pack it again")
        names = tuple(str(name) for name in values.pop("class_names", ()))
        return Index(points=tuple(values.pop("points")), class_names=names, **values)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        kind = type(error).__name__
        raise InputError(f"{path}: no readable index of shards ({kind}); pack it again") from None


def _members(path: Path) -> Iterator[tuple[str, str, bytes | None]]:
    """Key, ending and bytes of the files in an archive; None for bytes that are not there."""
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
        tarfile.ReadError: missing or damaged; what stood before the damage has been yielded.
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
    """The points of a sample: (N, 3) float16 or float32, finite. Nothing in it is executed.

    Args:
        files: of the sample, by ending.
        classes: how many there are; a class number must lie below.

    Raises:
        InputError: no plain array of that shape, or a class that is none.
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
