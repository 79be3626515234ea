"""Random combinations of primitives without a plan, for shapes that nobody thought of."""

from __future__ import annotations

from foundry3d.data.programs.parts import (
    Draw,
    ball,
    blob,
    box,
    hoop,
    lathe,
    post,
    sheet,
    spring,
    tube,
)
from foundry3d.data.programs.rows import (
    SHARP,
    TURN,
    Row,
    cut_of,
    four,
    line,
    moved,
    pair,
    ring,
    row_of,
    turned,
)
from foundry3d.data.programs.running import Program


def primitive(d: Draw) -> Row:
    """One primitive of about unit size about the origin."""
    style, size = d.whole(0, 11), d(0.15, 0.7)
    wide, deep, tall = size * d(0.4, 1.0), size * d(0.4, 1.0), size * d(0.4, 1.6)
    if style < 3:
        return box(
            0.0, 0.0, -tall, 2 * wide, 2 * deep, 2 * tall,
            top=(1.0, 1.0) if d.chance(0.6) else (d(0.1, 1.4), d(0.1, 1.4)),
            omit=min(d.whole(1, 63), 62) if d.chance(0.15) else 0,  # a face is left
        )  # fmt: skip
    if style < 5:
        corners = d.pick((0, 0, 0, 3, 5, 6, 8))
        star = d(0.3, 0.8) if corners > 3 and d.chance(0.3) else 0.0
        hole = d(0.3, 0.95) if d.chance(0.2) else 0.0
        omit = d.pick((1, 2, 3)) if d.chance(0.15) else 0
        return post(
            0.0, 0.0, -tall, wide, 2 * tall, top=d.pick((1.0, 1.0, 0.0, d(0.2, 1.5))),
            corners=corners, star=star, hole=hole, omit=omit,
        )  # fmt: skip
    if style == 5:
        low = d(-0.6, 0.5) if d.chance(0.3) else -1.0
        return ball(0.0, 0.0, 0.0, wide, deep, tall, low=low)
    if style == 6:
        return ball(0.0, 0.0, 0.0, size, bumps=d(0.03, 0.15), phase=d(0.0, 1.0), rate=d(2.0, 7.0))
    if style == 7:
        return blob(0.0, 0.0, 0.0, wide, deep, tall, d(0.15, 1.8), d(0.15, 1.8))
    if style == 8:
        sweep = 1.0 if d.chance(0.6) else d(0.15, 0.8)
        return hoop(0.0, 0.0, 0.0, size, size * d(0.03, 0.4), sweep=sweep, tall=d(0.5, 3.0))
    if style == 9:
        return _profile(d, size)
    if style == 10:
        if d.chance(0.2):
            return spring(d(1.5, 6.0), wide, size * d(0.03, 0.12), 2 * tall, top=d(0.3, 1.2))
        points = [size * d(-1.2, 1.2) for _ in range(8)]
        flat = d.chance(0.4)
        return tube(
            points,
            size * d(0.02, 0.2),
            size * d(0.02, 0.2),
            flat=flat,
            aspect=d(0.3, 5.0) if flat else 1.0,
        )
    waves = [x for _ in range(3) for x in (d(-12, 12), d(-12, 12), d(0, 6), size * d(0.0, 0.1))]
    return sheet(0.0, 0.0, 0.0, 2 * size, 2 * size * d(0.4, 1.0), waves=waves, disc=d.chance(0.3))


def _profile(d: Draw, size: float) -> Row:
    profile = []
    for i in range(7):
        profile += [size * d(0.05, 1.0), size * (i / 3 - 1) * d(0.9, 1.1)]
    for end in (0, 12):
        if d.chance(0.6):
            profile[end] = 0.0
    row = lathe(profile)
    if d.chance(0.4):
        row[0] = SHARP
    return row


def posed(d: Draw, row: Row, spread: float) -> Row:
    """The row at a random place; turned by quarter turns, or any angle."""
    if d.chance(0.5):
        for axis in (0, 1):
            if d.chance(0.4):
                row = turned(row, axis, TURN / 4)
    elif d.chance(0.6):
        for axis in (0, 1, 2):
            row = turned(row, axis, d(0.0, TURN))
    if d.chance(0.15):
        row[3] = d(-1.0, 1.0)
        row[2] = 0.0
    if d.chance(0.12):
        row[4], row[2] = d(-0.5, 0.5), 0.0
    if d.chance(0.12):
        row[5], row[2] = d(-0.8, 0.8), 0.0
    return moved(row, d(-spread, spread), d(-spread, spread), d(-spread, spread))


def _copies(d: Draw, row: Row) -> list[Row]:
    """The row alone, mirrored, or in a linear or radial array."""
    style = d.random()
    if style < 0.45:
        return [row]
    if style < 0.65:
        return pair([row], d.whole(0, 1))
    if style < 0.75:
        return four([row])
    count = d.whole(2, 7)
    if style < 0.87:
        step = (d(-0.4, 0.4), d(-0.4, 0.4), d(-0.3, 0.3) if d.chance(0.5) else 0.0)
        return line([row], count, step)
    lift = d(-0.15, 0.2) if d.chance(0.3) else 0.0
    return ring([moved(row, d(0.2, 0.7), 0.0, 0.0)], count, lift=lift, axis=d.pick((2, 2, 0, 1)))


def wild(d: Draw) -> Program:
    """One to six primitives with copies, cut by up to three solids."""
    rows: list[Row] = []
    spread = d(0.1, 0.7)
    for i in range(d.pick((1, 1, 2, 2, 3, 3, 4, 5, 6))):
        row = posed(d, primitive(d), spread if i else 0.0)
        rows += _copies(d, row)
    cuts = []
    if d.chance(0.35):
        for _ in range(d.whole(1, 3)):
            cuts.append(_cut(d, rows))
    return Program(rows[:40], cuts)


def _cut(d: Draw, rows: list[Row]) -> Row:
    """A cut of all rows by a solid, whose own wall is sometimes drawn inside the first row."""
    at = d(-0.5, 0.5), d(-0.5, 0.5), d(-0.5, 0.5)
    size = d(0.15, 0.5)
    style = d.whole(0, 3)
    if style == 0:
        solid = ball(*at, size)
    elif style == 1:
        solid = post(at[0], at[1], -2.0, size * 0.7, 4.0, corners=d.pick((0, 4, 6)))
    elif style == 2:
        solid = box(at[0], at[1], at[2], size * 2, size * d(0.5, 3.0), size * d(0.5, 3.0))
    else:  # half of space
        solid = row_of(0, (2.0 + d(-0.2, 0.4), 0.0, 0.0), (4.0, 8.0, 8.0), (1.0, 1.0))
        solid = turned(solid, 2, d.pick((0.0, TURN / 4, d(0.0, TURN))))
    return cut_of(solid, 0, len(rows))
