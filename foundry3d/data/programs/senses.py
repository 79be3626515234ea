"""Random poses, warps, grounds and sensors of a program."""

from __future__ import annotations

import math

from foundry3d.data.programs.parts import Draw, box
from foundry3d.data.programs.rows import BALL, BOX, ROUND, SUPER, TURN, Row
from foundry3d.data.programs.running import Program

_EXTENT = {
    BOX: (0.5, 0.5, 0.5),
    ROUND: (1.0, 1.0, 0.5),
    BALL: (1.0, 1.0, 1.0),
    SUPER: (1.0, 1.0, 1.0),
}


def bounds(rows: list[Row]) -> tuple[list[float], list[float]]:
    """About the lowest and highest coordinates of rows without a warp."""
    low, high = [math.inf] * 3, [-math.inf] * 3
    for row in rows:
        a, b, c = _EXTENT.get(int(row[0]), (0.7, 0.7, 0.7))
        for d in range(3):
            k = 6 + 4 * d
            reach = abs(row[k]) * a + abs(row[k + 1]) * b + abs(row[k + 2]) * c
            low[d], high[d] = min(low[d], row[k + 3] - reach), max(high[d], row[k + 3] + reach)
    return low, high


def warp(d: Draw, program: Program, strength: float) -> None:
    """Deforms a program."""
    low, high = bounds(program.rows)
    tall = max(high[2] - low[2], 0.05)
    size = max(tall, high[0] - low[0], high[1] - low[1])
    entries = [1.0, (low[2] + high[2]) / 2, tall, *[0.0] * 9]
    style = d.random()
    if style < 0.3:
        entries[3] = d(-0.9, 0.9) * strength
    elif style < 0.5:
        entries[4] = d(-0.3, 0.3) * strength
    elif style < 0.75:
        entries[5], entries[6] = d(-0.25, 0.25) * strength * tall / size, d(0.0, 1.0)
    else:
        rate = 1 / size
        entries[7] = d(0.01, 0.06) * strength * size
        entries[8:12] = d(0.3, 1.5) * rate, d(0.3, 1.5) * rate, d(0.3, 1.5) * rate, d(0.0, 1.0)
    program.warp = entries


def ground(d: Draw, program: Program) -> None:
    """Stands a program on a floor, or before a wall, of about half its area."""
    low, high = bounds(program.rows)
    wide, deep, tall = (max(b - a, 0.05) for a, b in zip(low, high, strict=True))
    x, y = (low[0] + high[0]) / 2, (low[1] + high[1]) / 2
    more = d(1.1, 1.8)
    floor = box(x, y, low[2] - 0.002, wide * more, deep * more, 0.002, omit=61)
    floor[1] = d(0.3, 0.8)
    program.rows.append(floor)
    if d.chance(0.25):
        wall = box(x, high[1] + deep * 0.1, low[2], wide * more, 0.002, tall * more, omit=47)
        wall[1] = d(0.3, 0.8)
        program.rows.append(wall)


def sensor(d: Draw, program: Program) -> None:
    """A camera or scanner: one side, occlusion, falling density, holes, noise."""
    sense = program.sense
    azimuth, rise = d(0.0, TURN), math.asin(d(-0.1, 0.85))
    sense[0] = 1.0
    sense[1] = math.cos(azimuth) * math.cos(rise)
    sense[2] = math.sin(azimuth) * math.cos(rise)
    sense[3] = math.sin(rise)
    if d.chance(0.7):
        sense[4] = d(2.0, 5.0)
        if d.chance(0.6):
            sense[12] = d(1.0, 3.0)
    if d.chance(0.3):
        sense[5] = float(d.whole(1, 2))
        for k in (6, 9):
            angle, reach = d(0.0, TURN), d(0.2, 1.0)
            sense[k : k + 3] = reach * math.cos(angle), reach * math.sin(angle), d(0.15, 0.45)
    if d.chance(0.08):
        sense[19] = d(0.06, 0.15)
    sense[16] = 1.0 if d.chance(0.3) else 0.0


def sensed(d: Draw, program: Program) -> None:
    """What happens to a program between its shape and its points."""
    real = d.chance(0.35)
    if real and d.chance(0.35):
        ground(d, program)
    if real and d.chance(0.75):
        sensor(d, program)
    sense = program.sense
    if d.chance(0.4 if real else 0.05):
        sense[13], sense[14] = float(d.whole(1, 4)), d(0.1, 0.35)
    if d.chance(0.8 if real else 0.45):
        sense[15] = d(0.002, 0.02) if d.chance(0.85) else d(0.02, 0.04)
    if real and d.chance(0.15):
        sense[17] = d(0.002, 0.03)
    if d.chance(0.15):
        sense[18] = d(0.05, 0.1)


def pose(d: Draw, program: Program, upright: bool) -> None:
    """Stretches a program, then turns it about z, slightly off it, or anyhow."""
    turn = d(0.0, TURN) if d.chance(0.4) else d.whole(0, 3) * TURN / 4
    tilt = roll = 0.0
    if not upright:
        tilt, roll = d(0.0, TURN), d(0.0, TURN)
    elif d.chance(0.3):
        tilt, roll = d(-0.15, 0.15), d(-0.15, 0.15)
    a, b, c = d(0.8, 1.25), d(0.8, 1.25), d(0.8, 1.25)
    cos, sin, u, v = math.cos(turn), math.sin(turn), math.cos(tilt), math.sin(tilt)
    s, t = math.cos(roll), math.sin(roll)
    program.pose = [
        a * (cos * s - sin * v * t), -b * sin * u, c * (cos * t + sin * v * s),
        a * (sin * s + cos * v * t), b * cos * u, c * (sin * t - cos * v * s),
        -a * u * t, b * v, c * u * s,
    ]  # fmt: skip
