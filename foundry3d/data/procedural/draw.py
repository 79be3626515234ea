"""Random proportions of shapes, and the copies that many of them have.

Shape legend: n shapes of a category.
"""

from __future__ import annotations

import numpy as np

from foundry3d.data.procedural.patches import Number, Patches

Parts = dict[str, Patches]

SIDE = np.array([1.0, -1.0])  # two copies, left and right
CORNER_X, CORNER_Y = np.array([1.0, 1.0, -1.0, -1.0]), np.array([1.0, -1.0, 1.0, -1.0])


class Draw:
    """Random proportions of n shapes, each of shape (n, 1), so that they broadcast over copies."""

    def __init__(self, n: int, rng: np.random.Generator) -> None:
        self.n, self.rng = n, rng

    def __call__(self, low: Number, high: Number) -> np.ndarray:
        """Numbers between `low` and `high`."""
        return self.rng.uniform(low, high, (self.n, 1))

    def whole(self, low: int, high: int) -> np.ndarray:
        """Whole numbers from `low` to `high`, both included."""
        return self.rng.integers(low, high + 1, (self.n, 1))

    def chance(self, share: float) -> np.ndarray:
        """(n, 1) bool, true with probability `share`."""
        return self.rng.random((self.n, 1)) < share
