"""Labelled clouds for part segmentation: splits that fit, and the parts each category owns.

Shapes: n clouds.
"""

from __future__ import annotations

import numpy as np

from foundry3d.config import DataConfig
from foundry3d.data.clouds import Clouds
from foundry3d.data.loading import Splits, load_tested
from foundry3d.errors import InputError


def categories_of(clouds: Clouds) -> np.ndarray:
    """Category (n,) int64 of each cloud; 0 where the data tells no two categories apart."""
    if len(clouds.class_names) < 2:
        return np.zeros(len(clouds), np.int64)
    return clouds.labels.astype(np.int64)


def parts_of_category(*splits: Clouds) -> list[np.ndarray]:
    """The parts (sorted numbers) that points of each category have anywhere in these clouds.

    Args:
        splits: clouds with parts, of the same categories; nothing for a category without clouds.
    """
    owned: list[set[int]] = [set() for _ in range(max(1, len(splits[0].class_names)))]
    for clouds in splits:
        assert clouds.parts is not None
        for category in np.unique(found := categories_of(clouds)):
            owned[category] |= set(np.unique(clouds.parts[found == category]).tolist())
    return [np.array(sorted(parts), np.int64) for parts in owned]


def part_splits(data: DataConfig, *, seed: int) -> Splits:
    """Splits with a test part, parts everywhere, and the same categories and parts in all.

    Raises:
        InputError: they are not.
    """
    splits, train, test = load_tested(data, seed=seed)
    for clouds in (train, test):
        if clouds.parts is None:
            raise InputError(
                f"{clouds.name}: part segmentation needs a part for every point; an archive "
                "stores them as 'parts' and 'part_names'"
            )
        if categories_of(clouds).min() < 0:
            raise InputError(f"{clouds.name}: expected a category for every cloud, found -1")
    for what in ("part_names", "class_names"):
        ours, theirs = getattr(train, what), getattr(test, what)
        if ours != theirs:
            raise InputError(
                f"{test.name}: its {what} {', '.join(theirs[:5])} are not those of {train.name}, "
                f"{', '.join(ours[:5])}, in the same order"
            )
    return splits
