"""Buildings, plants, vessels, tools, creatures and machine parts; z is up."""

from __future__ import annotations

import math

from foundry3d.data.programs.parts import (
    Draw,
    ball,
    blob,
    box,
    hoop,
    lathe,
    post,
    rod,
    spring,
    tube,
)
from foundry3d.data.programs.rows import (
    TURN,
    Row,
    four,
    line,
    mirrored,
    moved,
    pair,
    ring,
    scaled,
    turned,
)
from foundry3d.data.programs.running import Program


def building(d: Draw) -> Program:
    """Houses, towers and castles: blocks with roofs, windows, columns and chimneys."""
    wide, deep, tall = d(0.5, 1.4), d(0.5, 1.2), d(0.3, 2.0)
    rows = [box(0.0, 0.0, 0.0, wide, deep, tall)]
    style = d.random()
    if style < 0.45:
        ridge = d.pick(((1.0, 0.02), (0.02, 1.0), (0.02, 0.02), (0.4, 0.4)))
        rows.append(box(0.0, 0.0, tall, wide * 1.1, deep * 1.1, d(0.2, 0.7), top=ridge))
    elif style < 0.7:
        for level in range(d.whole(1, 4)):
            size = 0.8 ** (level + 1)
            rows.append(box(0.0, 0.0, tall + 0.3 * level, wide * size, deep * size, 0.3))
    else:
        rows[0] = post(0.0, 0.0, 0.0, wide / 2, tall, top=d(0.6, 1.0), corners=d.pick((0, 6, 8)))
        rows.append(
            post(
                0.0, 0.0, tall, wide * 0.6, d(0.2, 0.8), top=d(0.0, 0.5), corners=d.pick((0, 6, 8))
            )
        )
    if d.chance(0.5):
        across, up = d.whole(2, 4), d.whole(1, 4)
        x, z = wide / across, tall / up
        window = box(-wide / 2 + x / 2, -deep / 2, z * 0.3, x * 0.4, 0.04, z * 0.4)
        rows += line(line([window], across, (x, 0.0, 0.0)), up, (0.0, 0.0, z))
    if d.chance(0.3):
        rows += four([post(wide / 2, deep / 2, 0.0, 0.1, tall * d(0.8, 1.4), top=1.0)])
    if d.chance(0.3):
        rows.append(box(wide * 0.25, 0.0, tall, 0.1, 0.1, d(0.4, 0.8)))
    if d.chance(0.3):
        size = d(0.3, 0.7)
        rows.append(
            box(wide / 2 + size / 2, 0.0, 0.0, size, deep * d(0.4, 0.9), tall * d(0.3, 0.9))
        )
    return Program(rows)


def _leaf(d: Draw, length: float) -> Row:
    """A bent leaf from the origin outwards and up."""
    rise, droop = d(0.1, 1.2) * length, d(-0.5, 1.0) * length
    return tube(
        (0.0, 0.0, length * 0.2, rise, length * 0.7, rise, length, droop),
        length * 0.04, length * 0.01, flat=True, aspect=d(1.0, 4.0),
    )  # fmt: skip


def plant(d: Draw) -> Program:
    """A tree, palm, shrub or potted plant."""
    tall, stem = d(0.3, 1.6), d(0.02, 0.09)
    rows: list[Row] = []
    if d.chance(0.5):
        pot = d(0.15, 0.3)
        rows.append(post(0.0, 0.0, -pot, pot * d(0.5, 0.8), pot * 1.1, top=d(1.1, 1.6), omit=2))
    style = d.random()
    if style < 0.35:
        rows.append(post(0.0, 0.0, 0.0, stem, tall, top=0.6))
        for _ in range(d.whole(1, 5)):
            size = tall * d(0.2, 0.45)
            rows.append(
                ball(tall * d(-0.25, 0.25), tall * d(-0.25, 0.25), tall * d(0.8, 1.2), size,
                     bumps=d(0.02, 0.12), phase=d(0.0, 1.0), rate=d(4.0, 9.0))
            )  # fmt: skip
    elif style < 0.55:
        rows.append(post(0.0, 0.0, 0.0, stem, tall * 0.4))
        count = d.whole(1, 4)
        cone = post(
            0.0, 0.0, tall * 0.3, tall * 0.4, tall * 0.5, top=0.0, corners=d.pick((0, 6, 8))
        )
        for i in range(count):
            shrunk = scaled(cone, (1 - 0.2 * i, 1 - 0.2 * i, 1.0))
            rows.append(moved(shrunk, 0.0, 0.0, 0.28 * tall * i))
    elif style < 0.85:
        rows.append(post(0.0, 0.0, 0.0, stem * 0.6, tall * d(0.0, 1.0) + 0.01))
        height = rows[-1][17] * 2
        for _ in range(d.whole(1, 2)):
            leaves = ring([_leaf(d, d(0.3, 0.8))], d.whole(4, 9), lift=d(0.0, 0.05))
            rows += [moved(row, 0.0, 0.0, height * d(0.9, 1.0)) for row in leaves]
    else:
        rows.append(rod((0.0, 0.0, 0.0), (0.0, 0.0, tall), stem, top=0.5))
        for _ in range(d.whole(5, 10)):
            low, angle, reach = tall * d(0.3, 1.0), d(0.0, TURN), d(0.2, 0.6)
            tip = (reach * math.cos(angle), reach * math.sin(angle), low + d(0.1, 0.5))
            rows.append(rod((0.0, 0.0, low), tip, stem * 0.4, top=0.4))
            if d.chance(0.4):
                rows.append(ball(*tip, d(0.05, 0.15)))
    return Program(rows)


def vessel(d: Draw) -> Program:
    """A vase, bottle, cup, bowl, pot or chess piece, with handles, a spout or a lid on some."""
    profile: list[float] = [0.0, 0.0]
    tall = d(0.4, 1.6)
    for i in range(1, 6):
        profile += [d(0.1, 0.5), tall * (0.0 if i == 1 else (i - 1) / 5 * d(0.9, 1.1))]
    profile += [d(0.05, 0.5) if d.chance(0.7) else 0.0, tall]
    if d.chance(0.3):  # a cup: an inner wall
        r, e = d(0.25, 0.5), d(0.6, 1.3)
        profile = [
            0.0,
            0.0,
            r * e,
            0.0,
            r,
            tall,
            r * 0.92,
            tall,
            r * 0.88 * e,
            0.06,
            0.0,
            0.06,
            0.0,
            0.06,
        ]
    rows = [lathe(profile, smooth=d.chance(0.6) and profile[3] == 0)]
    wide = max(profile[0::2])
    if d.chance(0.4):
        size = tall * d(0.15, 0.35)
        handle = turned(
            hoop(0.0, 0.0, 0.0, size, size * d(0.1, 0.25), start=-0.25, sweep=0.5),
            0,
            TURN / 4,
        )
        handle = moved(handle, wide * 0.9, 0.0, tall * d(0.4, 0.7))
        rows += pair([handle]) if d.chance(0.4) else [handle]
    if d.chance(0.15):
        rows.append(
            mirrored(
                tube(
                    (
                        wide * 0.8,
                        tall * 0.3,
                        wide * 1.4,
                        tall * 0.4,
                        wide * 1.3,
                        tall * 0.8,
                        wide * 1.7,
                        tall * 0.9,
                    ),
                    0.08,
                    0.04,
                ),
                0,
            )
        )
    if d.chance(0.2):
        rows.append(ball(0.0, 0.0, tall, profile[12] or 0.1, low=0.0))
    return Program(rows)


def tool(d: Draw) -> Program:
    """A handle with a head: hammers, swords, spoons, guns, guitars, keys, signs."""
    long, thick = d(0.6, 1.6), d(0.02, 0.07)
    rows = [post(0.0, 0.0, 0.0, thick, long, corners=d.pick((0, 0, 4, 6)), top=d(0.5, 1.3))]
    style = d.random()
    if style < 0.2:
        rows.append(
            box(0.0, 0.0, long, d(0.2, 0.5), d(0.05, 0.2), d(0.08, 0.25), top=(d(0.4, 1.0), 1.0))
        )
    elif style < 0.4:
        blade = d(0.5, 1.2)
        rows.append(box(0.0, 0.0, long, d(0.06, 0.2), 0.02, blade, top=(d(0.0, 0.8), 1.0)))
        rows.append(box(0.0, 0.0, long - 0.03, d(0.2, 0.5), 0.06, 0.05))
    elif style < 0.6:
        rows.append(ball(0.0, 0.0, long + 0.12, d(0.08, 0.2), 0.05, 0.16, high=d(0.2, 1.0)))
    elif style < 0.75:
        rows.append(blob(0.0, 0.0, -0.2, d(0.15, 0.4), 0.07, 0.35, 0.6, 0.8))
        rows.append(blob(0.0, 0.0, 0.15, d(0.1, 0.3), 0.07, 0.2, 0.6, 0.8))
    elif style < 0.9:
        rows.append(box(0.0, 0.0, long * 0.6, thick * 3, thick * 3, long * 0.5))
        rows.append(
            rod((0.0, 0.0, long * 0.5), (d(0.2, 0.4), 0.0, long * 0.4), thick * 1.4, corners=4)
        )
    else:
        rows.append(
            turned(
                post(0.0, 0.0, -0.02, d(0.2, 0.4), 0.04, corners=d.pick((0, 3, 4, 8))), 0, TURN / 4
            )
        )
        rows[-1] = moved(rows[-1], 0.0, 0.0, long)
    if d.chance(0.6):
        axis = d.whole(0, 1)
        rows = [turned(row, axis, TURN / 4) for row in rows]
    return Program(rows)


def creature(d: Draw) -> Program:
    """A body with a head and pairs of limbs, a tail, ears or wings: animals, people, insects."""
    long, girth, upright = d(0.4, 0.9), d(0.1, 0.28), d.chance(0.4)
    body = ball(0.0, 0.0, 0.0, girth, long / 2, girth * d(0.8, 1.2))
    head = d(0.07, 0.2)
    rows = [
        body,
        ball(0.0, -long / 2 - head * 0.4, girth * d(0.3, 1.0), head, head * d(0.9, 1.5), head),
    ]
    rows.append(rod((0.0, -long * 0.35, 0.0), (0.0, -long / 2, rows[1][17]), head * 0.6))
    leg, thick = d(0.2, 0.7), d(0.02, 0.08)
    for i in range(d.pick((2, 2, 2, 3))):
        y = long * (0.32 - 0.64 * i / 2) if i < 2 else 0.0
        knee = (girth * d(0.8, 1.6), y + d(-0.1, 0.1), -leg / 2)
        foot = (girth * d(0.8, 2.0), y + d(-0.15, 0.1), -leg)
        rows += pair([rod((girth * 0.6, y, 0.0), knee, thick), rod(knee, foot, thick, top=0.8)])
    if d.chance(0.6):
        y = long * 0.45
        rows.append(
            turned(
                tube(
                    (y, 0.0, y + 0.2, 0.1, y + 0.3, d(-0.3, 0.4), y + 0.4, d(-0.3, 0.5)),
                    thick,
                    thick * 0.4,
                ),
                2,
                TURN / 4,
            )
        )
    if d.chance(0.3):
        rows += pair(
            [
                ball(
                    head * 0.6,
                    -long / 2 - head * 0.4,
                    rows[1][17] + head,
                    head * 0.3,
                    0.02,
                    head * 0.6,
                )
            ]
        )
    if d.chance(0.2):
        rows += pair(
            [
                turned(
                    box(0.0, 0.0, girth * 0.8, 0.4, 0.02, d(0.3, 0.9), top=(0.4, 1.0)),
                    1,
                    d(0.6, 1.4),
                )
            ]
        )
    if upright:
        rows = [turned(row, 0, -TURN / 4) for row in rows]
    return Program(rows)


def machine(d: Draw) -> Program:
    """A mechanical part: plates, shafts, gears, springs, pipes and bolts about an axis."""
    rows: list[Row] = []
    z = 0.0
    for _ in range(d.whole(1, 4)):
        high, radius = d(0.05, 0.5), d(0.1, 0.6)
        style = d.random()
        if style < 0.3:
            rows.append(post(0.0, 0.0, z, radius, high, corners=d.whole(6, 14), star=d(0.6, 0.9)))
        elif style < 0.7:
            rows.append(
                post(
                    0.0,
                    0.0,
                    z,
                    radius,
                    high,
                    hole=d.pick((0.0, d(0.2, 0.8))),
                    corners=d.pick((0, 0, 6)),
                )
            )
        else:
            rows.append(box(0.0, 0.0, z, radius * 2, radius * d(0.5, 2.0), high))
            bolt = post(radius * 0.8, radius * 0.4, z + high, 0.04, 0.06, corners=6)
            rows += four([bolt])
        z += high
    if d.chance(0.25):
        rows.append(moved(spring(d(3.0, 7.0), d(0.1, 0.3), 0.03, 0.7), 0.0, 0.0, z + 0.35))
    if d.chance(0.3):
        rows += ring([rod((0.0, 0.0, z / 2), (d(0.5, 0.9), 0.0, z / 2), 0.06)], d.whole(2, 6))
    if d.chance(0.5):
        rows = [turned(row, 0, TURN / 4) for row in rows]
    return Program(rows)
