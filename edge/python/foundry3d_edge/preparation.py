"""Clouds of any size and scale, prepared as a model expects them.

Shapes: N points of a cloud, n of them read.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from foundry3d_edge.errors import InputError
from foundry3d_edge.metadata import Preparation

FARTHEST = 5e18
"""Squared distances of coordinates up to this size are finite in float32."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A cloud as a model reads it, and how to get back to its own coordinates.

    Attributes:
        points: (n, 3) float32.
        index: (n,) int64, which points of the cloud these are; None = all of them.
        shift: (3,) float64.
        scale: original = points * scale + shift, with the axes rolled back by `turn`.
        turn: how many places the axes were rolled.
    """

    points: np.ndarray
    index: np.ndarray | None = None
    shift: np.ndarray | None = None
    scale: float = 1.0
    turn: int = 0

    def original(self, centers: np.ndarray) -> np.ndarray:
        """Centers (c, 3) in the coordinates of the cloud, float64; as they are if unprepared."""
        if self.shift is None:
            return centers
        return np.roll(centers.astype(np.float64) * self.scale + self.shift, -self.turn, axis=1)


def check(cloud: object, least: int, source: str) -> np.ndarray:
    """The points (N, 3) of a cloud, if a model can read them.

    Args:
        cloud: an array, or what numpy makes one of.
        least: the fewest points.
        source: name of the cloud in messages.

    Raises:
        InputError: not (N, 3) finite real numbers, fewer than `least` points, or all points equal.
    """
    if np.ma.is_masked(cloud):
        raise InputError(f"{source}: expected points without a mask, got masked ones; remove them")
    try:
        points = np.asarray(cloud)
    except (ValueError, TypeError, RuntimeError):
        points = np.asarray(None)
    if points.ndim != 2 or points.shape[1] != 3 or points.dtype.kind not in "fiu":
        got = f"{points.dtype} of shape {points.shape}" if points.ndim else type(cloud).__name__
        raise InputError(f"{source}: expected real numbers of shape (N, 3), got {got}")
    if not np.isfinite(points).all():
        raise InputError(
            f"{source}: expected finite coordinates, got NaN or infinite ones; remove those points"
        )
    if len(points) < least:
        raise InputError(
            f"{source}: expected at least {least} points, the larger of the model's number of "
            f"groups and its group size, got {len(points)}; use a denser cloud"
        )
    if (points == points[0]).all():
        raise InputError(f"{source}: expected points that differ, got {len(points)} equal ones")
    return points


def as_they_are(points: np.ndarray, source: str) -> Prepared:
    """Checked points (N, 3) in float32.

    Raises:
        InputError: coordinates whose squared distances float32 cannot hold.
    """
    if np.abs(points.astype(np.float64)).max() > FARTHEST:
        raise InputError(
            f"{source}: expected coordinates within {FARTHEST:g}, got larger ones; scale the cloud"
        )
    return Prepared(points=np.ascontiguousarray(points, np.float32))


def prepare(
    points: np.ndarray, how: Preparation, *, up: str | None, seed: int, source: str
) -> Prepared:
    """Checked points (N, 3) as a model expects them.

    Args:
        points: of any real type.
        how: from the record of the exported file.
        up: the axis that points up in this cloud; None = the model's.
        seed: of the random subset.
        source: name of the cloud in messages.

    Raises:
        InputError: an unknown axis, a model that does not record its own, or a cloud whose size
            overflows.
    """
    turn, index = _turn(how.up, up), None
    if how.points is not None and len(points) > how.points:
        index = np.random.default_rng(seed).permutation(len(points))[: how.points]
        points = points[index]
    exact = np.roll(points.astype(np.float64), turn, axis=1)
    shift, scale = np.zeros(3), 1.0
    if how.normalise:
        shift = exact.mean(axis=0)
        exact -= shift
        scale = float(np.sqrt((exact * exact).sum(axis=1)).max())
        if not 0 < scale < np.inf:
            raise InputError(
                f"{source}: expected a finite size above 0, got a radius of {scale}; use other "
                "points or units"
            )
        exact /= scale
    plain = as_they_are(exact, source)
    return Prepared(points=plain.points, index=index, shift=shift, scale=scale, turn=turn)


def _turn(model: str | None, cloud: str | None) -> int:
    """How many places the axes of a cloud are rolled, from its up axis to the model's."""
    if cloud is None:
        return 0
    if cloud not in ("x", "y", "z"):
        raise InputError(f"up must be x, y or z, got {cloud!r}")
    if model not in ("x", "y", "z"):
        raise InputError("this model does not record which axis points up; leave up out")
    return "xyz".index(model) - "xyz".index(cloud)
