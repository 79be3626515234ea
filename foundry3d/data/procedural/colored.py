"""Shapes whose classes differ by shape and colour: half of what tells them apart is colour alone.

Shape legend: n clouds, N points.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from foundry3d.data.clouds import Clouds
from foundry3d.data.procedural.generation import generate

CATEGORIES = ("chair", "lamp", "airplane", "mug")
COLORS = {"red": (0.75, 0.2, 0.2), "blue": (0.2, 0.25, 0.75)}


def generate_colored(count: int, *, points: int = 2048, seed: int = 0) -> Clouds:
    """Random labelled shapes of four categories in two colours, eight classes such as `red chair`.

    Coordinates say nothing about the colour, so a model of coordinates alone is right for half of
    the clouds at best. Each cloud is brighter or darker than its class, and each point differs from
    its cloud.

    Args:
        count: number of clouds, at least 1.
        points: points per cloud, at least 1.
        seed: of all random draws, at least 0.

    Returns:
        Clouds with points (count, points, 6), coordinates and `color`, without parts.

    Raises:
        InputError: count or points below 1, or seed below 0.
    """
    shapes = generate(count, points=points, seed=seed, categories=CATEGORIES)
    rng = np.random.default_rng([seed, 1])
    shade = np.empty(count, np.int64)
    for label in range(len(CATEGORIES)):  # as evenly as possible within each category
        rows = np.flatnonzero(shapes.labels == label)
        shade[rows] = rng.permutation(np.arange(len(rows)) % len(COLORS))
    color = np.array(list(COLORS.values()), np.float32)[shade][:, None]
    light = rng.uniform(0.6, 1.2, (count, 1, 1))
    noise = rng.normal(0.0, 0.05, (count, points, 3))
    color = np.clip(color * light + noise, 0, 1).astype(np.float32)
    return replace(
        shapes,
        points=np.concatenate([shapes.points, color], axis=-1),
        labels=shapes.labels * len(COLORS) + shade,
        class_names=tuple(f"{name} {shape}" for shape in CATEGORIES for name in COLORS),
        parts=None,
        part_names=(),
        name=f"colored (seed {seed})",
        attributes=("color",),
    )
