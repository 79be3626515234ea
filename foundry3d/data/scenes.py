"""What pre-training and distillation read: splits, shards, crops of large clouds, stored features.

Shapes: n clouds, N points.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from foundry3d.config import DataConfig, PackConfig
from foundry3d.data.clouds import Clouds
from foundry3d.data.crop_samples import Needs, StoredBatch
from foundry3d.data.crop_stream import MEMORY, CropStream, Part, Read
from foundry3d.data.files import try_clouds
from foundry3d.data.folder import files_below
from foundry3d.data.loading import (
    MOST_MEASURED,
    Measured,
    Stream,
    hold_out,
    load_and_measured,
    load_train,
)
from foundry3d.data.stored import feature_files, read_stored
from foundry3d.data.stored_parquet import read_parquet
from foundry3d.errors import InputError

log = logging.getLogger("foundry3d")

SAMPLES = 16384
"""Points drawn from a mesh, at least."""


@dataclass(frozen=True, kw_only=True)
class MeasuredStream:
    """Draws that a trained model is measured on, and which part of the data they are."""

    part: str
    stream: CropStream
    seed: int

    def __len__(self) -> int:
        return min(MOST_MEASURED, len(self.stream))

    def batches(self, batch_size: int = 64) -> Iterator[Tensor | StoredBatch]:
        """The same batches every time."""
        return self.stream.in_order(batch_size, seed=self.seed, most=MOST_MEASURED)


def load_stored(
    folder: str, config: DataConfig, *, seed: int, needs: Needs, memory: int
) -> tuple[CropStream, MeasuredStream]:
    """Clouds with stored features, and what a student of them is measured on.

    That is a share `config.validation` of the files, or those of the folder `config.test`, or, if
    there are neither, the training clouds.

    Args:
        folder: of files as `data.stored` describes them.
        config: points, crops, validation and test.
        seed: of the split.
        needs: of the student.
        memory: MB of clouds that stay in memory.

    Raises:
        InputError: no file can be used, or the test features differ from the others in width.
    """
    read: Read = lambda path: [read_stored(path)]  # noqa: E731
    train, held = _split(feature_files(folder), folder, read, config, seed, needs, memory)
    if held is None and config.test is not None:
        held = _stream(feature_files(config.test), config.test, read, config, needs, memory)
        if (held.width, bool(held.sampler.tokens)) != (train.width, bool(train.sampler.tokens)):
            raise InputError(
                f"{config.test}: expected features of width {train.width} as in {folder}, and of "
                f"points or tokens as there, got width {held.width}"
            )
        return train, MeasuredStream(part="test clouds", stream=held, seed=seed)
    return train, _measured(train, held, seed)


def load_unlabelled(config: DataConfig, *, seed: int, needs: Needs) -> Clouds | Stream:
    """What pre-training reads: `load_train`, or with `config.crop` crops of large clouds.

    Raises:
        InputError: no training clouds are named, or none can be used.
    """
    if config.crop is None:
        return load_train(config, seed=seed)
    files = _files(config.train)
    return _split(files, config.train, _reader(config), config, seed, needs, MEMORY)[0]


def load_for_distillation(
    config: DataConfig, *, seed: int, needs: Needs
) -> tuple[Clouds | Stream, Measured | None]:
    """What distillation from a live teacher reads: `load_and_measured`, or crops of large clouds.

    Raises:
        InputError: no training clouds are named, or none can be used.
    """
    if config.crop is None:
        return load_and_measured(config, seed=seed)
    read, files = _reader(config), _files(config.train)
    train, held = _split(files, config.train, read, config, seed, needs, MEMORY)
    found = _measured(train, held, seed)
    if held is None and config.test is not None:
        test = _stream(_files(config.test), config.test, read, config, needs, MEMORY)
        found = MeasuredStream(part="test clouds", stream=test, seed=seed)
    points = np.concatenate([np.asarray(batch) for batch in found.batches()])
    labels = np.full(len(points), -1)
    return train, Measured(found.part, Clouds(points=points, labels=labels, name=found.stream.name))


def _measured(train: CropStream, held: CropStream | None, seed: int) -> MeasuredStream:
    what = "crops" if train.cropped else "clouds"
    part = f"training {what}" if held is None else f"held-out {what}"
    return MeasuredStream(part=part, stream=held or train, seed=seed)


def _split(
    files: Sequence[Path],
    source: str,
    read: Read,
    config: DataConfig,
    seed: int,
    needs: Needs,
    memory: int,
) -> tuple[CropStream, CropStream | None]:
    """The training files and those held out of them; None = none, or none that can be used."""
    kept, held = hold_out(np.zeros(len(files), int), config.validation, seed)
    make = partial(_stream, source=source, read=read, config=config, needs=needs, memory=memory)
    train = make([files[i] for i in kept])
    if not len(held):
        return train, None
    try:
        return train, make([files[i] for i in held])
    except InputError as error:
        log.warning("%s; the student is measured on other clouds", error)
        return train, None


def _stream(
    files: Sequence[Path],
    source: str,
    read: Read,
    config: DataConfig,
    needs: Needs,
    memory: int,
) -> CropStream:
    name = Path(source).resolve().name
    return CropStream(files, read, config, needs=needs, name=name, memory=memory)


def _reader(config: DataConfig) -> Read:
    """Reads every cloud of a point-cloud file; of Parquet files the points."""

    def read(path: Path) -> list[Part]:
        if path.suffix.lower() == ".parquet":
            return [_parquet_points(path)]
        asked = PackConfig(
            source=str(path),
            samples=max(SAMPLES, config.points),
            columns=config.columns,
            invalid=config.invalid,
        )
        found = [cloud for _, cloud in try_clouds(path, asked)]
        return [c if isinstance(c, InputError) else c.points for c in found]

    return read


def _parquet_points(path: Path) -> np.ndarray:
    """The points (N, 3) of a Parquet file, moved to zero where float32 would round them."""
    found = read_parquet(path, ("points",))
    points = found.get("points", np.empty((0, 0)))
    if points.ndim != 2 or points.shape[1] != 3 or not len(points):
        raise InputError(f"{path}: expected columns x, y, z or points of three numbers")
    points = points.astype(np.float64)
    if not np.isfinite(points).all():
        raise InputError(f"{path}: expected finite coordinates, got others")
    return (points - points.mean(axis=0)).astype(np.float32)


def _files(source: str) -> list[Path]:
    """The files of a folder and those below it, or one file.

    Raises:
        InputError: there is none.
    """
    path = Path(source)
    if not path.is_dir():
        if not path.is_file():
            raise InputError(f"{source}: crops are taken of a file or a folder of files, got none")
        return [path]
    more = [p for p in path.rglob("*.parquet") if not p.name.startswith(".")]
    found = sorted({*files_below(path), *more})
    if not found:
        raise InputError(f"{source}: expected files of point clouds, got none")
    return found
