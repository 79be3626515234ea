"""A program becomes a cloud of exactly N points."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from foundry3d.data.programs.drawing import backs_of, cells_of, scatter
from foundry3d.data.programs.placing import WARP
from foundry3d.data.programs.rows import SOLID, Row, packed
from foundry3d.data.programs.sensing import (
    SENSE,
    choose,
    depth_image,
    disturb,
    frame_of,
    holes_of,
    normalise,
    pick,
)
from foundry3d.geometry.jit import unchecked

_ROUNDS = 6
_MOST_CELLS = 2048


@dataclass(slots=True)
class Program:
    """What a cloud is made from; see `rows`, `placing` and `sensing` for the numbers."""

    rows: list[Row] = field(default_factory=list)
    cuts: list[Row] = field(default_factory=list)
    warp: list[float] = field(default_factory=lambda: [0.0] * WARP)
    sense: list[float] = field(default_factory=lambda: [0.0] * SENSE)


@unchecked
def _draw(
    t: np.ndarray,
    cuts: np.ndarray,
    warp: np.ndarray,
    sense: np.ndarray,
    state: np.ndarray,
    out: np.ndarray,
) -> bool:
    """Fills `out` (N, 3); False where too little of the surface is left."""
    count = out.shape[0]
    backs, cells = backs_of(t, cuts), np.empty((_MOST_CELLS, 7))
    n = cells_of(t, warp, cells)
    viewed = sense[0] > 0
    wanted = max(3 * count, 2048) if viewed else count + count // 8 + 16
    points = np.empty((max(6 * count, 8192), 3), np.float32)
    which = np.empty(points.shape[0], np.int32)
    depth, holes = np.empty((0, 0), np.float32), np.empty((0, 3))
    frame = np.zeros(13)
    filled = kept = 0
    for _ in range(_ROUNDS):
        before = filled
        filled = scatter(t, cuts, warp, backs, cells, n, wanted, state, points, filled)
        if filled < 16:
            continue
        if frame[3] == 0:
            before, frame = 0, frame_of(points, filled, sense)
            if viewed:
                depth = depth_image(points, filled, frame, sense[4])
            holes = holes_of(points, filled, sense, state)
        kept = pick(points, before, filled, which, kept, sense, frame, depth, holes, state)
        if kept >= count:
            choose(points, which, kept, out, state)
            disturb(out, sense, frame, state)
            normalise(out)
            return True
        wanted = min(int((count - kept) * filled / max(kept, 16) * 1.2) + 32, 4 * count)
    return False


def run(program: Program, points: int, seed: int) -> np.ndarray:
    """The points (N, 3) float32 of a program, its mean at the origin, the farthest at norm 1.

    Where a sensor or the cuts leave next to nothing, they are left out.

    Args:
        program: with at least one row of positive area.
        points: N.
        seed: of where the points lie, below 2**64.
    """
    out = np.empty((points, 3), np.float32)
    rows, cuts = packed(program.rows), packed(program.cuts)
    warp, sense = np.array(program.warp), np.array(program.sense)
    state = np.array([seed], np.uint64)
    if _draw(rows, cuts, warp, sense, state, out):
        return out
    if not _draw(rows, cuts, warp, np.zeros(SENSE), state, out):
        rows = rows.copy()
        rows[:, SOLID] = 0
        _draw(rows, cuts[:0], warp, np.zeros(SENSE), state, out)
    return out
