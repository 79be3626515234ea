"""From a data configuration to splits in memory.

Shapes: B clouds of a batch, N points.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from foundry3d.config import DataConfig, require_data
from foundry3d.config.reading import column_names
from foundry3d.data import procedural
from foundry3d.data.archive import read_archive
from foundry3d.data.clouds import Clouds, complete, with_only
from foundry3d.data.folder import read_folder
from foundry3d.data.programs import Programs, programs_in
from foundry3d.data.published.sources import is_published, read_published
from foundry3d.data.shards import is_sharded
from foundry3d.data.streaming import Shards
from foundry3d.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Splits:
    """Training, validation (held out of training) and test clouds; the last two may be None."""

    train: Clouds
    validation: Clouds | None
    test: Clouds | None

    def reading(self, attributes: tuple[str, ...]) -> Splits:
        """The same clouds with exactly these attributes, NaN where they have not got one."""
        parts = (self.train, self.validation, self.test)
        train, held, test = (part and with_only(part, attributes) for part in parts)
        assert train is not None
        return Splits(train=train, validation=held, test=test)


class Stream(Protocol):
    """Training data that makes its own batches, for collections larger than memory."""

    @property
    def name(self) -> str:
        """How reports refer to this data."""

    def __len__(self) -> int: ...

    def batches(self, batch_size: int, *, seed: int, rank: int, world: int) -> Iterable[Any]:
        """Training batches like `Batches`, with `sampler` and `set_epoch`.

        Each is a tensor of points (B, N, 3), or a record that has more.
        """


def _read(
    config: DataConfig,
    source: str,
    count: int,
    seed: int,
    class_names: tuple[str, ...] | None = None,
    *,
    train: bool,
) -> Clouds:
    if source == "procedural":
        return _with_attributes(procedural.generate(count, points=config.points, seed=seed), config)
    if source == "colored":
        clouds = procedural.generate_colored(count, points=config.points, seed=seed)
        return _with_attributes(clouds, config)
    shapes = programs_in(source, count)
    if shapes is not None:
        made = Programs(shapes, points=config.points, seed=seed).in_memory()
        return _with_attributes(made, config)
    if is_sharded(source):
        raise InputError(
            f"{source} holds shards, which can only be streamed for training, as data.train; name "
            "the archive or folder they were packed from"
        )
    if Path(source).is_dir():
        return read_folder(
            source,
            points=config.points,
            seed=seed,
            class_names=class_names,
            columns=column_names(config.columns),
            invalid=config.invalid,
            attributes=config.attributes,
            absent=config.absent or "drop",
            normals=config.normals,
        )
    published = is_published(source)
    if published:
        clouds = _with_attributes(read_published(source, train=train), config)
    else:
        clouds = complete(read_archive(source, config.attributes), config.absent or "drop")
    if clouds.points.shape[1] < config.points:
        raise InputError(
            f"{source}: its clouds have {clouds.points.shape[1]} points, data.points asks for "
            f"{config.points}; lower data.points"
        )
    return clouds


def _with_attributes(clouds: Clouds, config: DataConfig) -> Clouds:
    """Clouds that are not read from files, with the attributes that are asked for."""
    return complete(with_only(clouds, config.attributes), config.absent or "drop")


def hold_out(labels: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Sorted indices (kept, held out) of labels (n,), the same share of every class held out."""
    generator = np.random.default_rng(seed)
    held = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = min(round(share * len(members)), len(members) - 1)
        held[generator.permutation(members)[:count]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def load_splits(config: DataConfig, *, seed: int = 0) -> Splits:
    """Reads or generates what the configuration names.

    Procedural test clouds have another seed than the training ones. The held-out clouds are drawn
    from training, never from test.

    Raises:
        InputError: no training clouds are named, a source cannot be read, clouds have too few
            points, or a test folder has a class that training does not have.
    """
    require_data(config)
    if config.crop is not None:
        raise InputError(
            "crops are for pretrain and distill, which need no labels; leave data.crop out"
        )
    train = _read(config, config.train, config.train_clouds, 2 * seed, train=True)
    names, test = train.class_names or None, None
    if config.test is not None:
        test = _read(config, config.test, config.test_clouds, 2 * seed + 1, names, train=False)
    kept, held = hold_out(train.labels, config.validation, seed)
    return Splits(
        train=train.take(kept) if len(held) else train,
        validation=train.take(held) if len(held) else None,
        test=test,
    )


def _streamed(config: DataConfig, seed: int) -> Shards | Programs | None:
    """Training data that is not read into memory; None = it is."""
    if is_sharded(config.train):
        return Shards(config.train, points=config.points)
    shapes = programs_in(config.train, config.train_clouds)
    if shapes is None:
        return None
    return Programs(shapes, points=config.points, seed=2 * seed, workers=config.workers)


def load_train(config: DataConfig, *, seed: int = 0) -> Clouds | Shards | Programs:
    """The training data alone: shards and programs as a stream, else without held-out clouds.

    Raises:
        InputError: no training clouds are named, the source cannot be read, or clouds have too few
            points.
    """
    require_data(config)
    if config.attributes and is_sharded(config.train):
        raise InputError(
            f"{config.train}: shards hold coordinates alone, the model reads "
            f"{', '.join(config.attributes)}; train from the archive or folder"
        )
    return _streamed(config, seed) or load_splits(replace(config, test=None), seed=seed).train


class Measured(NamedTuple):
    """Clouds that a trained model is measured on, and which part of the data they are."""

    part: str
    clouds: Clouds


def measured(splits: Splits) -> Measured:
    """Held-out clouds where there are any, or else test, or else training clouds."""
    if splits.validation is not None:
        return Measured("held-out clouds", splits.validation)
    if splits.test is not None:
        return Measured("test clouds", splits.test)
    return Measured("training clouds", splits.train)


MOST_MEASURED = 1024
"""Clouds on which a distillation measures its student."""


def load_and_measured(
    config: DataConfig, *, seed: int = 0
) -> tuple[Clouds | Shards | Programs, Measured | None]:
    """The training data of `load_train`, and what a student of it is measured on.

    That is at most `MOST_MEASURED` clouds of `measured`, evenly spaced. Test clouds are only read
    where nothing is held out. Of programs, other shapes are made. None = shards without test
    clouds, or programs with neither test clouds nor a share held out.

    Raises:
        InputError: as `load_train`, or the test clouds cannot be read.
    """
    train = _streamed(config, seed)
    splits = None if train is not None else load_splits(replace(config, test=None), seed=seed)
    test = None
    if config.test is not None and (splits is None or splits.validation is None):
        test = _read(config, config.test, config.test_clouds, 2 * seed + 1, train=False)
    if splits is not None:
        return splits.train, _thinned(measured(replace(splits, test=test)))
    assert train is not None
    if test is not None:
        return train, _thinned(Measured("test clouds", test))
    if isinstance(train, Programs) and config.validation > 0:
        other = Programs(min(len(train), MOST_MEASURED), points=config.points, seed=2 * seed + 1)
        return train, Measured("held-out clouds", other.in_memory())
    return train, None


def _thinned(found: Measured) -> Measured:
    """The same, with at most `MOST_MEASURED` clouds."""
    count = len(found.clouds)
    if count <= MOST_MEASURED:
        return found
    index = np.linspace(0, count - 1, MOST_MEASURED).astype(int)
    return found._replace(clouds=found.clouds.take(index))


def load_part(source: str, *, points: int, clouds: int, seed: int = 0, train: bool) -> Clouds:
    """All clouds of one source, with nothing held out.

    Args:
        source: as `data.train` takes it, without shards.
        points: of each cloud that are read.
        clouds: number of built-in shapes.
        seed: of built-in shapes.
        train: whether the training or the test part of published and built-in data is meant.

    Raises:
        InputError: a source that cannot be read, or clouds with too few points.
    """
    config = DataConfig(train=source, test=None, points=points)
    return _read(config, source, clouds, 2 * seed + (not train), train=train)
