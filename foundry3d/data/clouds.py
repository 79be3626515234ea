"""`Clouds`: labelled point clouds of equal size in memory, checked once when the record is made.

Shape legend: n clouds, N points each, P parts in all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from foundry3d.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Clouds:
    """Point clouds with optional class and part labels.

    Attributes:
        points: (n, N, 3) float32, or float16 as archives store them; finite.
        labels: (n,) int64 class of each cloud, -1 = none.
        class_names: names by label; may be empty when there are no classes.
        parts: (n, N) uint8 part of each point, or None.
        part_names: names by part label.
        name: how reports refer to this data.

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

    def __post_init__(self) -> None:
        shape = self.points.shape
        if self.points.ndim != 3 or shape[-1] != 3 or 0 in shape:
            raise InputError(
                f"{self.name}: expected points of shape (n, N, 3) with n and N at least 1, "
                f"got {tuple(shape)}"
            )
        if np.ma.is_masked(self.points):
            raise InputError(f"{self.name}: expected points without a mask, got a masked array")
        if not np.isfinite(self.points).all():
            bad = int(np.argmin(np.isfinite(self.points).all(axis=(1, 2))))
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
