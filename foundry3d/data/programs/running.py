"""A program becomes a cloud of exactly N points."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from foundry3d.data.programs.drawing import CELL, aim, cells_of, keep, measure, scatter
from foundry3d.data.programs.kernels import notice_once
from foundry3d.data.programs.placing import POSE, WARP, place_cells, pose_points, warp_points
from foundry3d.data.programs.rows import BALL, SOLID, WIDTH, Row, row_of
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
_ROUNDS = 6
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


class _Surface(NamedTuple):
    """The numbers of a program as arrays, and what is worked out from them once."""

    t: Array
    cuts: Array
    warp: Array
    pose: Array
    cells: Array
    backs: Array


def _placed(surface: _Surface, ends: Array, space: Array, *, cutting: bool) -> tuple[Array, int]:
    """Places points: the last rows of `space` (3, m), and how many of them the cuts leave."""
    t, cuts, warp, pose, cells, backs = surface
    place_cells(t, cells, ends, space)
    points, left = space[2:], space.shape[1]
    if cutting:
        left = keep(t, cuts, backs, cells, ends, points)
    warp_points(warp, points, left)
    pose_points(pose, points, left)
    return points, left


def _measured(t: Array, cuts: Array, warp: Array, pose: Array) -> _Surface:
    """The surface of a program in cells whose area is known."""
    cells = np.empty((_MOST_CELLS, CELL))
    cells = cells[: cells_of(t, warp[0] != 0, cells)]
    surface = _Surface(t, cuts, warp, pose, cells, backs_of(t, cuts))
    space, ends = aim(cells)
    measure(t, cells, _placed(surface, ends, space, cutting=False)[0])
    return surface


def _draw(surface: _Surface, sense: Array, state: Array, out: Array) -> bool:
    """Fills `out` (N, 3); False where too little of the surface is left."""
    if not len(surface.cells):
        return False
    wanted, kept, viewed = len(out), 0, sense[0] > 0
    pool, frame = np.empty((3, 4 * wanted + 2048)), np.zeros(FRAME)
    image, depth = np.empty((3, 0)), np.empty((0, 0), np.float32)
    holes = np.empty((int(sense[13]), 3))
    size = max(3 * wanted, 2048) if viewed else wanted + wanted // 8 + _LEAST
    for _ in range(_ROUNDS):
        space, ends = scatter(surface.cells, size, state)
        points, found = _placed(surface, ends, space, cutting=True)
        if found < _LEAST:
            continue
        fresh = frame[3] == 0
        if fresh:
            frame_of(points, found, sense, frame)
            holes_of(points, found, holes, state)
        if viewed:
            image = np.empty((3, found))
            project(frame, sense[4], points, image)
            depth = depth_image(image, sense[4]) if fresh else depth
        if viewed or len(holes) > 0:
            reach = sense[14] * frame[3]
            found = pick(points, found, image, depth, holes, reach, sense, state)
        kept = pooled(points, found, pool, kept)
        if kept >= wanted:
            chosen = np.empty((3, wanted))
            choose(pool, kept, chosen, state)
            disturb(chosen, sense, frame, state)
            normalise(chosen, out)
            return True
        size = min(int((wanted - kept) * size * 1.2 / max(found, _LEAST)) + 32, 4 * wanted + 64)
    return False


def run(program: Program, points: int, seed: int) -> np.ndarray:
    """The points (N, 3) float32 of a program, its mean at the origin, the farthest at norm 1.

    Where a sensor or the cuts leave next to nothing, they are left out. A program without any
    surface becomes a ball.

    Args:
        program: to run.
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
    surface = _measured(t, cuts, warp, pose)
    if not _draw(surface, sense, state, out):
        sense[:] = 0.0
        if not _draw(surface, sense, state, out):
            t[:, SOLID] = 0.0
            if not _draw(_measured(t, cuts[:0], warp, pose), sense, state, out):
                ball = row_of(BALL, (0, 0, 0), (1, 1, 1), (-1, 1, 0, 1))
                return run(Program([ball]), points, seed)
    return out
