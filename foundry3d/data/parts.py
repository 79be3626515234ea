"""Clouds with labelled parts: splits that fit together, and the parts that each category owns.

Shapes: n clouds.
"""

from __future__ import annotations

import numpy as np

from foundry3d.config import DataConfig
from foundry3d.data.clouds import Clouds
from foundry3d.data.labelled import load_tested, require_names
from foundry3d.data.loading import Splits
from foundry3d.errors import InputError


def categories_of(clouds: Clouds) -> np.ndarray:
    """Category (n,) int64 of each cloud; 0 where the data has fewer than two categories."""
    if len(clouds.class_names) < 2:
        return np.zeros(len(clouds), np.int64)
    return clouds.labels.astype(np.int64)


def parts_of_category(*splits: Clouds) -> list[np.ndarray]:
    """The part numbers, sorted, that occur in the clouds of each category.

    Args:
        splits: clouds with parts, all with the same categories.
    """
    owned: list[set[int]] = [set() for _ in range(max(1, len(splits[0].class_names)))]
    for clouds in splits:
        assert clouds.parts is not None
        for category in np.unique(found := categories_of(clouds)):
            owned[category] |= set(np.unique(clouds.parts[found == category]).tolist())
    return [np.array(sorted(parts), np.int64) for parts in owned]


def part_splits(data: DataConfig, *, seed: int) -> Splits:
    """Splits with test clouds, in which every point has a part and categories and parts agree.

    Raises:
        InputError: data that cannot be read, no test clouds, clouds without parts or categories,
            or test clouds with other categories or parts than the training clouds.
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
    require_names(test.name, "parts", test.part_names, train.part_names, train.name)
    require_names(test.name, "classes", test.class_names, train.class_names, train.name)
    return splits
