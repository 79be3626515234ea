"""What `foundry3d data pack` reads: an archive, a folder of files, or built-in shapes.

A source is a list of pieces in packing order. A piece can be read without those before it, so that
packing can continue where it was stopped.

Shapes: N points of a cloud.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from foundry3d.config import PackConfig
from foundry3d.data import procedural
from foundry3d.data.archive import read_archive
from foundry3d.data.files import try_clouds
from foundry3d.data.folder import find_files
from foundry3d.errors import InputError

log = logging.getLogger("foundry3d")

Sample = tuple[np.ndarray, int]
"""Points (N, 3), float16 or float32, and a class, -1 = none."""

_BLOCK = 1000
_STRIDE = 1_000_003  # between the seeds of blocks


@dataclass(frozen=True, kw_only=True)
class Source:
    """Clouds to pack, in random order.

    Attributes:
        class_names: names by class number.
        pieces: what is read one after the other: clouds, blocks of shapes, or files.
        unit: what the pieces are, for progress lines.
        read: the samples of a piece, and a sentence for each cloud that cannot be read.
        fingerprint: differs when the pieces differ.
    """

    class_names: tuple[str, ...]
    pieces: Sequence[Any]
    unit: str
    read: Callable[[Any], Iterator[Sample | str]]
    fingerprint: str = ""


def open_source(config: PackConfig) -> Source:
    """The source that the configuration names.

    Raises:
        InputError: neither `procedural`, nor an archive, nor a folder with files.
    """
    if config.source == "procedural":
        return _shapes(config)
    if Path(config.source).is_dir():
        return _folder(config)
    return _archive(config)


def _archive(config: PackConfig) -> Source:
    clouds = read_archive(config.source)
    order = np.random.default_rng(config.seed).permutation(len(clouds))

    def read(i: int) -> Iterator[Sample]:
        yield clouds.points[i], int(clouds.labels[i])

    size = os.stat(config.source).st_size
    return Source(
        class_names=clouds.class_names,
        pieces=order.tolist(),
        unit="clouds",
        read=read,
        fingerprint=f"{size} bytes",
    )


def _shapes(config: PackConfig) -> Source:
    """Built-in shapes in blocks; their seeds are even, those of test clouds are odd."""

    def read(number: int) -> Iterator[Sample]:
        clouds = procedural.generate(
            min(_BLOCK, config.clouds - number * _BLOCK),
            points=config.samples,
            seed=2 * (config.seed + _STRIDE * number),
        )
        yield from zip(clouds.points, clouds.labels.tolist(), strict=True)

    blocks = range(-(-config.clouds // _BLOCK))
    return Source(class_names=procedural.CATEGORIES, pieces=blocks, unit="blocks", read=read)


def _folder(config: PackConfig) -> Source:
    """Classes are the first folders below the source; files outside these folders have none."""
    folder = Path(config.source)
    files = find_files(folder)
    kinds = {path: path.relative_to(folder).parts[:-1][:1] for path in files}
    names = sorted({name for kind in kinds.values() for name in kind})
    order = np.random.default_rng(config.seed).permutation(len(files))

    def read(path: Path) -> Iterator[Sample | str]:
        label = names.index(kinds[path][0]) if kinds[path] else -1
        for _, found in try_clouds(path, config):
            if isinstance(found, InputError):
                yield str(found)
                continue
            if found.dropped:
                notice = "%s: %d points with NaN or infinite coordinates left out"
                log.info(notice, path, found.dropped)
            yield found.points, label

    listed = b"\n".join(os.fsencode(path.relative_to(folder)) for path in files)
    return Source(
        class_names=tuple(names),
        pieces=[files[i] for i in order],
        unit="files",
        read=read,
        fingerprint=hashlib.sha256(listed).hexdigest(),
    )
