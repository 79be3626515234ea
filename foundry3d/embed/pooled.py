"""Pooled features of the clouds in files, of augmented copies, and of random shapes.

Unlike `foundry3d embed`, a cloud that is larger than those of the model's training is cut to a
random subset of their size, so that its neighbourhoods are as large as the model knows them.

Shapes: n clouds, N points of a cloud, d width; pooled features are (n, 2d).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from foundry3d.config import AugmentConfig, EmbedConfig
from foundry3d.data.files import Points
from foundry3d.data.programs import Programs
from foundry3d.embed.clouds import (
    AnyModel,
    Policy,
    PreparedCloud,
    fewest,
    finite,
    in_batches,
    prepare,
    stored_facts,
)
from foundry3d.embed.reading import Reading, policy_of
from foundry3d.errors import InputError
from foundry3d.transforms import Axis, augment

POINTS = 1024
"""Points of a cloud, where neither the command nor the model says how many."""
REFERENCE = 512
"""Random shapes that features are whitened with."""
KEPT = 0.875
"""Share of the points that a copy keeps of a cloud that has no others."""


def reading_of(config: EmbedConfig, model: AnyModel) -> Reading:
    """Reads the files of a command, and cuts larger clouds to the size of the training clouds.

    Raises:
        InputError: fewer points are asked for than the model needs.
    """
    least = fewest(model)
    if config.points is not None and config.points < least:
        raise InputError(f"points must be at least {least} for this model, got {config.points}")
    policy = policy_of(config)
    reading = Reading(config, policy, least, model.shape)
    points = config.points or max(least, reading.trained or POINTS)
    reading.policy = replace(policy, points=points)
    return reading


def distinct_files(reading: Reading) -> list[Path]:
    """The files that the command names, each of them once."""
    found: dict[str, Path] = {}
    for path in reading.files():
        found.setdefault(os.path.realpath(path), path)
    return list(found.values())


def up_of(config: EmbedConfig) -> Axis:
    """The axis that points up in prepared clouds; z where the model does not record it."""
    up = stored_facts(config.model).get("up")
    return up if up in ("x", "y", "z") else "z"


def pooled(
    model: AnyModel, clouds: Iterable[PreparedCloud], batch: int, reading: Reading | None = None
) -> Iterator[tuple[PreparedCloud, np.ndarray]]:
    """Each cloud with its pooled features (2d,) float32, in order.

    Args:
        model: in evaluation mode.
        clouds: prepared for it.
        batch: how many clouds of equal size go through the model at once.
        reading: records clouds without finite features, which are left out; None = they raise.

    Raises:
        InputError: features that are not finite, without a reading.
    """
    for cloud, tokens in in_batches(model, clouds, batch):
        try:
            yield cloud, finite(cloud, tokens).pooled()[0].numpy()
        except InputError as error:
            if reading is None:
                raise
            reading.fail(cloud.source, error)


def copies_of(
    cloud: Points, reading: Reading, count: int, *, turn: bool, generator: torch.Generator
) -> Iterator[PreparedCloud]:
    """Augmented copies of a cloud: with other points, stretched, and turned if asked.

    Args:
        cloud: as it was read.
        reading: how clouds are prepared.
        count: number of copies.
        turn: about the up axis by any angle.
        generator: source of all draws.
    """
    policy, size = reading.policy, len(cloud.points)
    assert policy.points is not None
    points = min(policy.points, max(reading.least, int(KEPT * size)))
    for _ in range(count):
        seed = int(torch.randint(2**31 - 1, (), generator=generator))
        drawn = replace(policy, points=points, seed=seed)
        copy = prepare(cloud, drawn, reading.least, reading.shape)
        changed = augment(
            copy.points[None],
            AugmentConfig(rotate=turn, normalise=policy.normalise),
            up=up_of(reading.config),
            generator=generator,
            attributes=reading.attributes,
        )
        yield replace(copy, points=changed[0])


def reference(model: AnyModel, policy: Policy, *, up: Axis, batch: int) -> np.ndarray:
    """Pooled features (n, 2d) of random shapes: what features are like where nothing is known.

    They give a scale that does not depend on labels, and not on how few files there are.

    Args:
        model: in evaluation mode.
        policy: how clouds are prepared; the number of points is set.
        up: of prepared clouds; that of the random shapes is z.
        batch: clouds at a time.
    """
    assert policy.points is not None
    own = Policy(normalise=policy.normalise, turn="xyz".index(up) - 2)
    shapes = Programs(REFERENCE, points=policy.points, seed=1)
    drawn = (Points(points=shapes[i], source="a random shape") for i in range(REFERENCE))
    clouds = (prepare(one, own, 1) for one in drawn)
    return np.stack([features for _, features in pooled(model, clouds, batch)])
