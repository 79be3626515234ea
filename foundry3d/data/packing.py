"""`foundry3d data pack`: clouds of any source into tar shards that training streams.

The layout is that of `foundry3d.data.shards`. Clouds are written in random order, because reading
mixes neighbouring shards only.

Shapes: N points of a cloud.
"""

from __future__ import annotations

import io
import logging
import tarfile
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path

import numpy as np

from foundry3d.config import PackConfig
from foundry3d.config.reading import column_names
from foundry3d.data import procedural
from foundry3d.data.archive import read_archive
from foundry3d.data.files import Points, read_clouds
from foundry3d.data.folder import find_files
from foundry3d.data.progress import with_progress
from foundry3d.data.shards import Index, write_index
from foundry3d.errors import InputError
from foundry3d.writing import replacing

log = logging.getLogger("foundry3d")

Sample = tuple[np.ndarray, int]
"""Points (N, 3), float16 or float32, and a class, -1 = none."""

_BLOCK = 1000
_STRIDE = 1_000_003  # between the seeds of blocks


def pack(config: PackConfig) -> Index:
    """Writes a collection as shards; every file appears complete or not at all, the index last.

    Returns:
        The index.

    Raises:
        InputError: a source that cannot be read, or a folder that is not empty.
    """
    out = Path(config.out)
    if out.exists() and not (out.is_dir() and next(out.iterdir(), None) is None):
        raise InputError(f"{out} is not an empty folder; choose another --out or remove it")
    names, samples = open_source(config)
    out.mkdir(parents=True, exist_ok=True)
    shards: dict[str, int] = {}
    sizes: set[tuple[int, str]] = set()
    for first in samples:
        name = f"shard-{len(shards):06d}.tar"
        rest = islice(samples, config.shard_clouds - 1)
        written = write_shard(out / name, chain([first], rest), sum(shards.values()))
        shards[name] = len(written)
        sizes.update(written)
    points, kinds = [size for size, _ in sizes], {kind for _, kind in sizes}
    index = Index(
        shards=shards,
        count=sum(shards.values()),
        points=(min(points), max(points)),
        dtype="/".join(sorted(kinds)),
        class_names=names,
    )
    write_index(out, index)
    log.info("%s: %d clouds in %d shards", out, index.count, len(shards))
    return index


def write_shard(path: Path, samples: Iterable[Sample], start: int) -> list[tuple[int, str]]:
    """Writes one shard, whose keys count from `start`.

    Returns:
        Number of points and type of each cloud.
    """
    written = []
    with (
        replacing(path) as partial,
        tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for key, (points, label) in enumerate(samples, start):
            _add(archive, f"{key:09d}.npy", _npy(points))
            if label >= 0:
                _add(archive, f"{key:09d}.cls", str(label).encode())
            written.append((len(points), points.dtype.name))
    return written


def _npy(points: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.ascontiguousarray(points), allow_pickle=False)
    return stream.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


def open_source(config: PackConfig) -> tuple[tuple[str, ...], Iterator[Sample]]:
    """Class names and samples, in random order, of what the configuration names.

    Raises:
        InputError: neither `procedural`, nor an archive, nor a folder with files.
    """
    rng = np.random.default_rng(config.seed)
    if config.source == "procedural":
        return procedural.CATEGORIES, _shapes(config)
    if Path(config.source).is_dir():
        return _folder(config, rng)
    clouds = read_archive(config.source)
    order = rng.permutation(len(clouds))
    return clouds.class_names, ((clouds.points[i], int(clouds.labels[i])) for i in order)


def _shapes(config: PackConfig) -> Iterator[Sample]:
    """Built-in shapes, some at a time; their seeds are even, those of test clouds are odd."""
    for number, start in enumerate(range(0, config.clouds, _BLOCK)):
        clouds = procedural.generate(
            min(_BLOCK, config.clouds - start),
            points=config.points,
            seed=2 * (config.seed + _STRIDE * number),
        )
        yield from zip(clouds.points, clouds.labels.tolist(), strict=True)


def _folder(
    config: PackConfig, rng: np.random.Generator
) -> tuple[tuple[str, ...], Iterator[Sample]]:
    """Classes are the first folders below the source; files beside them have none."""
    folder = Path(config.source)
    files = find_files(folder)
    below = {path: path.relative_to(folder).parts for path in files}
    names = sorted({parts[0] for parts in below.values() if len(parts) > 1})
    labels = {path: names.index(p[0]) if len(p) > 1 else -1 for path, p in below.items()}
    order = [files[i] for i in rng.permutation(len(files))]
    return tuple(names), _read_files(order, labels, config)


def _read_files(order: list[Path], labels: dict[Path, int], config: PackConfig) -> Iterator[Sample]:
    """Every cloud of the files; what cannot be read is left out and told.

    Raises:
        InputError: not one file can be read.
    """
    left_out: list[str] = []
    found, dropped = 0, 0
    for path in with_progress(order, "packed"):
        for cloud in _clouds(path, config, left_out):
            found += 1
            dropped += cloud.dropped
            yield cloud.points, labels[path]
    if not found:
        raise InputError(f"not one cloud of {config.source} can be read; the first: {left_out[0]}")
    if dropped:
        log.info("%d points with NaN or infinite coordinates left out", dropped)
    if left_out:
        log.warning("%d clouds left out; the first: %s", len(left_out), left_out[0])


def _clouds(path: Path, config: PackConfig, left_out: list[str]) -> Iterator[Points]:
    """The clouds of a file; why others cannot be read is added to `left_out`."""
    try:
        clouds = read_clouds(
            path,
            samples=config.points,
            seed=config.seed,
            invalid=config.invalid,
            columns=column_names(config.columns),
        )
    except InputError as error:
        left_out.append(str(error))
        return
    while True:
        try:
            cloud = next(clouds, None)
        except InputError as error:
            left_out.append(str(error))
            continue
        if cloud is None:
            return
        yield cloud
