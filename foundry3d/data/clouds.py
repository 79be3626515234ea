"""`Clouds`: labelled point clouds of equal size in memory, checked once when the record is made.

Shape legend: n clouds, N points each, P parts in all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from foundry3d.config.attributes import check_attributes, columns_of, width_of
from foundry3d.data.attributes import Absent, joined, lacking, report_lacking
from foundry3d.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Clouds:
    """Point clouds with optional class and part labels.

    Attributes:
        points: (n, N, 3) float32, or float16 as archives store them; finite. With attributes
            (n, N, 3 + m) float32: coordinates, then the channels of each attribute in order, NaN
            where a point has none.
        labels: (n,) int64 class of each cloud, -1 = none.
        class_names: names by label; may be empty when there are no classes.
        parts: (n, N) uint8 part of each point, or None.
        part_names: names by part label.
        name: how reports refer to this data.
        attributes: names of those that the points have, e.g. ("normal", "color").

    Raises:
        InputError: no clouds, wrong shapes, non-finite coordinates, or labels or parts that are not
            whole numbers or out of range.
    """

    points: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...] = ()
    parts: np.ndarray | None = None
    part_names: tuple[str, ...] = ()
    name: str = "clouds"
    attributes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_attributes(self.attributes)
        shape, width = self.points.shape, width_of(self.attributes)
        if self.points.ndim != 3 or shape[-1] != width or 0 in shape:
            raise InputError(
                f"{self.name}: expected points of shape (n, N, {width}) with n and N at least 1, "
                f"got {tuple(shape)}"
            )
        if np.ma.is_masked(self.points):
            raise InputError(f"{self.name}: expected points without a mask, got a masked array")
        if not np.isfinite(self.points[..., :3]).all():
            bad = int(np.argmin(np.isfinite(self.points[..., :3]).all(axis=(1, 2))))
            raise InputError(
                f"{self.name}: cloud {bad} has NaN or infinite coordinates; remove those points"
            )
        if self.labels.shape != shape[:1]:
            raise InputError(
                f"{self.name}: expected {shape[0]} labels, one per cloud, "
                f"got an array of shape {tuple(self.labels.shape)}"
            )
        self._check_range("labels", self.labels, -1, len(self.class_names))
        if self.parts is not None:
            if self.parts.shape != shape[:2]:
                raise InputError(
                    f"{self.name}: expected part labels of shape {shape[:2]}, one per point, "
                    f"got {tuple(self.parts.shape)}"
                )
            self._check_range("parts", self.parts, 0, len(self.part_names))

    def _check_range(self, what: str, values: np.ndarray, low: int, names: int) -> None:
        if values.dtype.kind not in "iu":
            raise InputError(f"{self.name}: {what} must be whole numbers, found {values.dtype}")
        smallest, largest = int(values.min()), int(values.max())
        if smallest < low or largest >= names:
            raise InputError(
                f"{self.name}: {what} must lie in {low}..{names - 1} ({names} names given), "
                f"found {smallest}..{largest}"
            )

    def __len__(self) -> int:
        return len(self.points)

    def take(self, index: np.ndarray) -> Clouds:
        """The clouds at `index` (any numpy index along the first axis), as a new record."""
        parts = None if self.parts is None else self.parts[index]
        return replace(self, points=self.points[index], labels=self.labels[index], parts=parts)


def with_only(clouds: Clouds, attributes: tuple[str, ...]) -> Clouds:
    """The clouds with exactly these attributes, in this order; NaN for those they lack."""
    if clouds.attributes == attributes:
        return clouds
    had = columns_of(clouds.attributes)
    found = {name: clouds.points[..., where] for name, where in had.items()}
    points = joined(clouds.points[..., :3], found, attributes)
    return replace(clouds, points=points, attributes=attributes)


def complete(clouds: Clouds, absent: Absent) -> Clouds:
    """The clouds that have all of their attributes; all clouds, if absent ones are filled.

    Args:
        clouds: with attributes that may be NaN for whole clouds.
        absent: what becomes of those; one sentence is logged about them.

    Raises:
        InputError: none would be left.
    """
    if not clouds.attributes:
        return clouds
    lacks = {i: names for i, cloud in enumerate(clouds.points)
             if (names := lacking(cloud, clouds.attributes))}  # fmt: skip
    if not lacks:
        return clouds
    if absent == "drop" and len(lacks) == len(clouds):
        raise InputError(
            f"{clouds.name}: none of its clouds has all of {', '.join(clouds.attributes)}, which "
            "the model reads; give them, or train with --backbone.attribute_dropout and "
            "--data.absent fill"
        )
    report_lacking(clouds.name, {f"cloud {i}": names for i, names in lacks.items()}, absent)
    kept = [i for i in range(len(clouds)) if i not in lacks]
    return clouds.take(np.array(kept)) if absent == "drop" else clouds
