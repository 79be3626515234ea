"""`foundry3d data pack`: packs the clouds of a source into tar shards for training.

The layout is that of `foundry3d.data.shards`. Clouds are written in random order, because reading
mixes neighbouring shards only. A run that was stopped continues with the next shard when the same
command is given again.

Shapes: N points of a cloud.
"""

from __future__ import annotations

import io
import logging
import tarfile
from collections.abc import Iterable
from itertools import chain, islice
from pathlib import Path

import numpy as np

from foundry3d.config import PackConfig
from foundry3d.data.pack_progress import PROGRESS, Packed, begin, settings_of
from foundry3d.data.pack_source import Sample, open_source
from foundry3d.data.shards import Index, write_index
from foundry3d.errors import InputError, PartialFailure
from foundry3d.writing import replacing

log = logging.getLogger("foundry3d")


def pack(config: PackConfig) -> Index:
    """Writes a collection as shards; every file appears complete or not at all, the index last.

    Returns:
        The index.

    Raises:
        InputError: a source that cannot be read, not one readable cloud, or a folder that holds
            something else than an unfinished collection of the same settings.
        PartialFailure: some clouds cannot be read; the shards and their index hold the others.
    """
    out = Path(config.out)
    source = open_source(config)
    packed = begin(out, settings_of(config, source))
    if packed.shards:
        log.info("%s: continues after %d shards, %d clouds", out, len(packed.shards), packed.count)
    packed.write(out)
    samples = packed.samples(source)
    for first in samples:
        name = f"shard-{len(packed.shards):06d}.tar"
        rest = islice(samples, config.shard_clouds - 1)
        packed.add(name, write_shard(out / name, chain([first], rest), packed.count))
        packed.write(out)
    if packed.points is None:
        (out / PROGRESS).unlink()
        raise InputError(
            f"not one cloud of {config.source} can be read; the first: {packed.first_left_out}"
        )
    return _finish(out, packed, packed.points, source.class_names)


def _finish(
    out: Path, packed: Packed, points: tuple[int, int], class_names: tuple[str, ...]
) -> Index:
    """Writes the index and reports what is missing from it."""
    index = Index(
        shards=packed.shards,
        count=packed.count,
        points=points,
        dtype="/".join(packed.dtypes),
        class_names=class_names,
    )
    write_index(out, index)
    (out / PROGRESS).unlink()
    log.info("%s: %d clouds in %d shards", out, index.count, len(index.shards))
    if packed.left_out:
        raise PartialFailure(
            f"{packed.left_out} clouds left out; the first: {packed.first_left_out}; the other "
            f"{index.count} are in {out}"
        )
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
