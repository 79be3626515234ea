"""Units of `foundry3d embed`: what one part of the features is made from.

A unit is a shard of `data pack`, or a block of files. Its mark is a hash of the names and sizes of
its files, so a part can be recognised as that of a unit.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from foundry3d.config import EmbedConfig
from foundry3d.data.files import Points, try_clouds
from foundry3d.data.shards import decode, is_sharded, read_index, samples
from foundry3d.errors import InputError

SHARD = ".tar"
MOST_CLASSES = 10**9
"""Class numbers in shards must lie below; which classes there are does not matter here."""


@dataclass(frozen=True, kw_only=True)
class Unit:
    """What one part is made from.

    Attributes:
        number: of the part, from 0.
        paths: one shard, or files of point clouds and meshes.
        mark: of the names and sizes of these files.
    """

    number: int
    paths: tuple[str, ...]
    mark: str

    @property
    def name(self) -> str:
        """Name of the part's file."""
        return f"part-{self.number:06d}-{self.mark}.parquet"


def shards_in(folder: Path) -> list[Path]:
    """The shards that the index of a folder names, in order; none without an index.

    Raises:
        InputError: the index is damaged.
    """
    if not is_sharded(folder):
        return []
    return [folder / name for name in sorted(read_index(folder).shards)]


def units_of(files: Iterable[Path], block: int) -> list[Unit]:
    """The units of a command: each shard is one, other files share one in blocks, in order."""
    blocks: list[list[str]] = []
    loose: list[str] | None = None
    for path in dict.fromkeys(map(str, files)):
        if path.endswith(SHARD):
            blocks.append([path])
        elif loose is not None and len(loose) < block:
            loose.append(path)
        else:
            loose = [path]
            blocks.append(loose)
    return [Unit(number=i, paths=tuple(paths), mark=_mark(paths)) for i, paths in enumerate(blocks)]


def _mark(paths: Iterable[str]) -> str:
    found = hashlib.sha256()
    for path in paths:
        there = Path(path)
        found.update(f"{path}\0{there.stat().st_size if there.is_file() else -1}\0".encode())
    return found.hexdigest()[:12]


def clouds_in(
    path: Path, config: EmbedConfig, attributes: Sequence[str] = ()
) -> Iterator[tuple[str, Points | InputError]]:
    """Each cloud of a file or shard, or why it cannot be used, after its name.

    Args:
        path: of the file.
        config: of the command.
        attributes: that a model reads; shards have none.
    """
    if path.suffix == SHARD:
        return _packed_clouds(path)
    return try_clouds(path, config, attributes, config.normals)


def _packed_clouds(path: Path) -> Iterator[tuple[str, Points | InputError]]:
    """The clouds of a shard, named `SHARD/KEY`; the shard itself where some of them are missing."""
    met, fault = 0, ""
    try:
        for key, files in samples(path):
            met += 1
            name = f"{path}/{key}"
            try:
                points = decode(files, MOST_CLASSES).astype("float32")
            except InputError as error:
                yield name, InputError(f"{name}: {error}")
            else:
                yield name, Points(points=points, source=name)
    except tarfile.ReadError as error:
        fault = str(error)
    index = read_index(path.parent).shards if is_sharded(path.parent) else {}
    expected = index.get(path.name, max(met, 1))
    if met < expected or fault:
        fault = fault or "the archive ends too early"
        yield (
            str(path),
            InputError(
                f"{path}: expected {expected} clouds, got {met} ({fault}); those are used, pack "
                "the collection again for the others"
            ),
        )
