"""A program becomes a cloud of exactly N points."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

import numpy as np

from foundry3d.data.programs.drawing import CELL, aim, cells_of, keep, measure, scatter
from foundry3d.data.programs.kernels import notice_once, relaxed
from foundry3d.data.programs.placing import POSE, WARP, place_cells, pose_points, warp_points
from foundry3d.data.programs.rows import SOLID, WIDTH, Row
from foundry3d.data.programs.sensing import (
    FRAME,
    SENSE,
    choose,
    depth_image,
    disturb,
    frame_of,
    holes_of,
    normalise,
    pick,
    pooled,
    project,
)
from foundry3d.data.programs.solids import backs_of

Array = np.ndarray
_ROUNDS = 7
_MOST_CELLS = 2048
_LEAST = 16


@dataclass(slots=True)
class Program:
    """What a cloud is made from; see `rows`, `placing` and `sensing` for the numbers."""

    rows: list[Row] = field(default_factory=list)
    cuts: list[Row] = field(default_factory=list)
    warp: list[float] = field(default_factory=lambda: [0.0] * WARP)
    pose: list[float] = field(default_factory=lambda: [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0])
    sense: list[float] = field(default_factory=lambda: [0.0] * SENSE)


@relaxed
def _moved(
    t: Array, cells: Array, ends: Array, space: Array, warp: Array, pose: Array, cuts: Array,
    backs: Array, cutting: bool,
) -> int:  # fmt: skip
    """Places the points of `space` in its last three rows; returns how many are left."""
    place_cells(t, cells, ends, space)
    x, y, z = space[2], space[3], space[4]
    kept = x.shape[0]
    if cutting:
        kept = keep(t, cuts, backs, cells, ends, x, y, z)
        x, y, z = x[:kept], y[:kept], z[:kept]
    warp_points(warp, x, y, z)
    pose_points(pose, x, y, z)
    return kept


@relaxed
def _draw(
    t: Array, cuts: Array, warp: Array, pose: Array, sense: Array, state: Array, out: Array
) -> bool:
    """Fills `out` (N, 3); False where too little of the surface is left."""
    wanted, kept = out.shape[0], 0
    pool, frame = np.empty((3, 4 * wanted + 2048)), np.zeros(FRAME)
    cells, backs, viewed = np.empty((_MOST_CELLS, CELL)), backs_of(t, cuts), sense[0] > 0
    cells = cells[: cells_of(t, warp[0] != 0, cells)]
    depth, holes = np.empty((0, 0), np.float32), np.empty((int(sense[13]), 3))
    size = max(3 * wanted, 2048) if viewed else wanted + wanted // 8 + _LEAST
    for turn in range(_ROUNDS):
        space, ends = aim(cells) if turn == 0 else scatter(cells, size, state)
        found = _moved(t, cells, ends, space, warp, pose, cuts, backs, turn > 0)
        x, y, z = space[2, :found], space[3, :found], space[4, :found]
        if turn == 0:
            measure(t, cells, x, y, z)
            continue
        if found < _LEAST:
            continue
        image = np.empty((3, found if viewed else 0))
        fresh = frame[3] == 0
        if fresh:
            frame_of(x, y, z, sense, frame)
            holes_of(x, y, z, holes, state)
        if viewed:
            project(frame, sense[4], x, y, z, image)
            depth = depth_image(image, sense[4]) if fresh else depth
        if viewed or holes.shape[0] > 0:
            found = pick(x, y, z, image, depth, holes, sense[14] * frame[3], sense, state)
        kept = pooled(x, y, z, found, pool, kept)
        if kept >= wanted:
            break
        size = min(int((wanted - kept) * size / max(found, _LEAST) * 1.2) + 32, 4 * wanted + 64)
    if kept >= wanted:
        chosen = np.empty((3, wanted))
        choose(pool, kept, chosen, state)
        disturb(chosen, sense, frame, state)
        normalise(chosen, out)
    return kept >= wanted


def run(program: Program, points: int, seed: int) -> np.ndarray:
    """The points (N, 3) float32 of a program, its mean at the origin, the farthest at norm 1.

    Where a sensor or the cuts leave next to nothing, they are left out.

    Args:
        program: with at least one row of positive area.
        points: N.
        seed: of where the points lie, below 2**64.
    """
    flat = array("d")
    for row in program.rows:
        flat.extend(row)
    for row in program.cuts:
        flat.extend(row)
    for entries in (program.warp, program.pose, program.sense):
        flat.extend(entries)
    out = np.empty((points, 3), np.float32)
    numbers, state = np.frombuffer(flat, np.float64), np.array([seed], np.uint64)
    cut, end = len(program.rows) * WIDTH, len(flat) - WARP - POSE - SENSE
    t, cuts = numbers[:cut].reshape(-1, WIDTH), numbers[cut:end].reshape(-1, WIDTH)
    warp, pose, sense = numbers[end : end + WARP], numbers[end + WARP : -SENSE], numbers[-SENSE:]
    notice_once()
    if not _draw(t, cuts, warp, pose, sense, state, out):
        sense[:] = 0.0
        if not _draw(t, cuts, warp, pose, sense, state, out):
            t[:, SOLID] = 0.0
            _draw(t, cuts[:0], warp, pose, sense, state, out)
    return out
