"""Random crops of large clouds: spheres, columns, or a number of nearest points.

Large clouds are searched through the buckets of their tree; the points are the same without it.

Shapes: N points, n points of a crop, L buckets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from foundry3d.config.crops import CropConfig
from foundry3d.errors import InputError
from foundry3d.geometry.backends import compiled_form

if TYPE_CHECKING:
    from foundry3d.geometry.tree import Tree

TREE_FROM = 2**17
"""Clouds of at least this many points get a tree."""
TRIES = 100
"""How often a crop that is too small is drawn again."""

Up = Literal["x", "y", "z"]


class Crop(NamedTuple):
    """A part of a cloud.

    Attributes:
        rows: (n,) int64, its points in ascending order.
        middle: (3,) float32, a point of the cloud.
        reach: the squared distance within which all of its points lie.
        axes: the coordinates that count for the distance.
    """

    rows: np.ndarray
    middle: np.ndarray
    reach: float
    axes: tuple[int, ...]

    def holds(self, places: np.ndarray) -> np.ndarray:
        """(c,) bool: which of the places (c, 3) lie within the crop."""
        return squared(places, self.middle, self.axes) <= self.reach


def squared(points: np.ndarray, middle: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """(N,) float32 squared distances of points (N, 3) from a point (3,) along some axes."""
    total = np.zeros(len(points), np.float32)
    for axis in axes:
        total += np.square(points[:, axis].astype(np.float32) - np.float32(middle[axis]))
    return total


def tree_for(points: np.ndarray) -> Tree | None:
    """A tree of points (N, 3) float32; None where the cloud is small, or numba is missing."""
    form = compiled_form() if len(points) >= TREE_FROM else None
    return None if form is None else form.build(np.ascontiguousarray(points))


def draw_crop(
    points: np.ndarray,
    crop: CropConfig,
    generator: np.random.Generator,
    *,
    at_least: int = 1,
    up: Up = "z",
    tree: Tree | None = None,
    places: np.ndarray | None = None,
    places_at_least: int = 1,
) -> Crop:
    """A crop around a point that is drawn from all points of a cloud.

    Args:
        points: (N, 3) float32.
        crop: what it takes.
        generator: of the draws.
        at_least: a crop of fewer points is drawn again, around another point.
        up: the axis along which a column extends.
        tree: of the points; None = all of them are looked at.
        places: (c, 3) centers of tokens; a crop that holds fewer than `places_at_least` of them is
            drawn again.
        places_at_least: 1 or more.

    Raises:
        InputError: none of `TRIES` crops held enough.
    """
    axes = tuple(a for a in range(3) if crop.kind != "column" or a != "xyz".index(up))
    most = 0
    for _ in range(TRIES):
        middle = points[int(generator.integers(len(points)))]
        found = take(points, middle, crop, axes, tree)
        held = places_at_least if places is None else int(found.holds(places).sum())
        if len(found.rows) >= at_least and held >= places_at_least:
            return found
        most = max(most, len(found.rows))
    tokens = "" if places is None else f" and {places_at_least} tokens"
    raise InputError(
        f"expected crops of at least {at_least} points{tokens}, got at most {most} points in "
        f"{TRIES} crops {crop.kind}:{crop.size:g}; take larger ones"
    )


def take(
    points: np.ndarray,
    middle: np.ndarray,
    crop: CropConfig,
    axes: tuple[int, ...] = (0, 1, 2),
    tree: Tree | None = None,
) -> Crop:
    """The crop of points (N, 3) around a point (3,); ties of `count` go to the lowest index."""
    if crop.kind != "count":
        reach = float(np.float32(crop.size) ** 2)
        return Crop(_within(points, middle, reach, axes, tree), middle, reach, axes)
    count = min(int(crop.size), len(points))
    index = np.arange(len(points))
    if tree is not None:
        index = _within(points, middle, _enough(tree, middle, count), axes, tree)
    distance = squared(points[index], middle, axes)
    reach = float(np.partition(distance, count - 1)[count - 1])
    nearer = distance < reach
    nearer[np.flatnonzero(distance == reach)[: count - int(nearer.sum())]] = True
    return Crop(index[nearer], middle, reach, axes)


def _within(
    points: np.ndarray, middle: np.ndarray, reach: float, axes: tuple[int, ...], tree: Tree | None
) -> np.ndarray:
    """Ascending indices of the points at most a squared distance away."""
    if tree is None:
        return np.flatnonzero(squared(points, middle, axes) <= reach)
    low, high = _boxes(tree)
    gap = np.maximum(np.maximum(low - middle, middle - high), 0)[:, axes]
    near = np.flatnonzero(np.square(gap).sum(axis=1) <= reach * (1 + 1e-5))
    spans = [tree.order[tree.edges[j] : tree.edges[j + 1]] for j in near]
    index = np.sort(np.concatenate([np.empty(0, np.int32), *spans])).astype(np.int64)
    return index[squared(points[index], middle, axes) <= reach]


def _enough(tree: Tree, middle: np.ndarray, count: int) -> float:
    """A squared distance from a point within which at least `count` points lie."""
    low, high = _boxes(tree)
    far = np.square(np.maximum(np.abs(low - middle), np.abs(high - middle))).sum(axis=1)
    order = np.argsort(far)
    filled = np.cumsum(np.diff(tree.edges)[order])
    return float(far[order[int(np.searchsorted(filled, count))]]) * (1 + 1e-5)


def _boxes(tree: Tree) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest coordinates (L, 3) of every bucket."""
    boxes = tree.boxes.transpose(0, 2, 1).reshape(-1, 6).astype(np.float64)
    return boxes[:, :3], boxes[:, 3:]
