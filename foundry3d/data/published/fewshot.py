"""Few-shot episodes: the published ModelNet40 folds, and seeded ones from any labelled clouds.

An episode of W ways and S shots has W classes, with S training clouds and up to 20 test clouds of
each. The published folds were drawn without a seed; those drawn here can be repeated.

Shape legend: n clouds, W ways, S shots, Q queries (test clouds of a class).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from foundry3d.data.clouds import Clouds
from foundry3d.data.published.names import MODELNET40
from foundry3d.data.published.pickles import numbers, read_pickle, stacked, whole
from foundry3d.data.published.record import Published, Split, below, require_held
from foundry3d.errors import InputError

QUERIES = 20
"""Test clouds of each class in the published folds."""

_PROTOCOLS = tuple((way, shot) for way in (5, 10) for shot in (10, 20))


@dataclass(frozen=True, kw_only=True)
class Episode:
    """The clouds of an episode.

    Attributes:
        classes: (W,) labels of its classes in the data, sorted; the new label is the position.
        train: (W * S,) indices, class after class.
        test: at most W * Q indices, class after class, none of them in `train`.
        lacking: number of test clouds missing from W * Q, because classes are too small.
    """

    classes: np.ndarray
    train: np.ndarray
    test: np.ndarray
    lacking: int

    def split(self, clouds: Clouds) -> tuple[Clouds, Clouds]:
        """Training and test clouds of the episode, with labels 0 to W - 1."""
        names = tuple(clouds.class_names[label] for label in self.classes)
        train, test = (
            replace(
                clouds.take(index),
                labels=np.searchsorted(self.classes, clouds.labels[index]),
                class_names=names,
            )
            for index in (self.train, self.test)
        )
        return train, test


def episode(
    labels: np.ndarray, way: int, shot: int, queries: int, generator: np.random.Generator
) -> Episode:
    """Draws an episode; a pure function of its arguments.

    Args:
        labels: (n,) class of each cloud, -1 = none.
        way: W, classes drawn among those with more than S clouds.
        shot: S, training clouds of each.
        queries: Q, test clouds of each; a class with fewer than S + Q gives all it has left.
        generator: of the draws.

    Raises:
        InputError: fewer than W classes with more than S clouds, or a number below 1.
    """
    if min(way, shot, queries) < 1:
        raise InputError(f"way, shot and queries must be positive, got {way}, {shot} and {queries}")
    kinds, counts = np.unique(labels[labels >= 0], return_counts=True)
    enough = kinds[counts > shot]
    if len(enough) < way:
        raise InputError(
            f"{way} classes with more than {shot} clouds are needed, the data has {len(enough)}; "
            "lower way or shot"
        )
    classes = np.sort(generator.choice(enough, way, replace=False))
    drawn = [generator.permutation(np.flatnonzero(labels == label)) for label in classes]
    test = np.concatenate([members[shot : shot + queries] for members in drawn])
    return Episode(
        classes=classes,
        train=np.concatenate([members[:shot] for members in drawn]),
        test=test,
        lacking=way * queries - len(test),
    )


def fold(clouds: Clouds, *, way: int, shot: int, fold: int, seed: int = 0) -> Episode:
    """Fold number `fold` of a protocol: an episode with `QUERIES` test clouds per class.

    The same four numbers give the same episode; changing any of them gives an independent one.
    """
    if min(fold, seed) < 0:
        raise InputError(f"fold and seed must not be negative, got {fold} and {seed}")
    generator = np.random.default_rng([seed, way, shot, fold])
    return episode(clouds.labels, way, shot, QUERIES, generator)


def _samples(root: Path, split: str) -> tuple[Path, list[tuple[Any, Any, Any]]]:
    """The samples (points, label, class in ModelNet40) of `5way_10shot/FOLD/train` or the like."""
    protocol, number, part = split.split("/")
    path = below(root, "ModelNetFewshot") / protocol / f"{number}.pkl"
    found = read_pickle(path)
    samples = found.get(part) if isinstance(found, dict) else None
    triples = isinstance(samples, list) and all(
        isinstance(sample, tuple | list) and len(sample) == 3 for sample in samples
    )
    if not (samples and triples):
        raise InputError(
            f"{path}: expected '{part}' as a list of (points, label, class); download it again"
        )
    return path, [(sample[0], sample[1], sample[2]) for sample in samples]


def _labels(root: Path, split: str) -> np.ndarray:
    path, samples = _samples(root, split)
    return np.array([whole(label, path) for _, label, _ in samples])


def _names(path: Path, samples: list[tuple[Any, Any, Any]]) -> tuple[str, ...]:
    """Names of the labels 0 to W - 1, which the samples pair with classes of ModelNet40."""
    pairs = {(whole(x, path), whole(y, path)) for _, x, y in samples}
    known = dict(pairs)
    if sorted(known) != list(range(len(pairs))) or not set(known.values()) <= set(range(40)):
        raise InputError(
            f"{path}: expected labels from 0 on, each of one class of ModelNet40; download it again"
        )
    return tuple(MODELNET40[known[label]] for label in range(len(known)))


def _read(root: Path, split: str) -> Clouds:
    path, samples = _samples(root, split)
    points = [points for points, _, _ in samples]
    require_held((numbers(cloud, path) for cloud in points), path)
    return Clouds(
        points=stacked(points, path, np.float32),
        labels=_labels(root, split),
        class_names=_names(path, samples),
        name=f"modelnet-fewshot {split}",
    )


MODELNET_FEWSHOT = Published(
    title="ModelNet40 few-shot folds",
    layout="ModelNetFewshot/{5way_10shot,5way_20shot,10way_10shot,10way_20shot}/{0..9}.pkl",
    owner="github.com/Julie-tang00/Point-BERT (DATASET.md)",
    splits={
        f"{way}way_{shot}shot/{number}/{part}": Split(clouds=way * each, classes=way)
        for way, shot in _PROTOCOLS
        for number in range(10)
        for part, each in (("train", shot), ("test", QUERIES))
    },
    labels=_labels,
    read=_read,
    class_names=(),
    train="5way_10shot/0/train",
    test="5way_10shot/0/test",
)
