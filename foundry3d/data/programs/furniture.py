"""Furniture without seats: tables, cases, appliances and fittings.

z is up and furniture stands on z = 0; sizes are about metres.
"""

from __future__ import annotations

from foundry3d.data.programs.parts import Draw, ball, box, post, tube
from foundry3d.data.programs.rows import (
    TURN,
    Row,
    cut_of,
    four,
    line,
    mirrored,
    moved,
    pair,
    ring,
    turned,
)
from foundry3d.data.programs.running import Program
from foundry3d.data.programs.supports import legs


def table(d: Draw) -> Program:
    """A rectangular, round or polygonal top; a shelf under some."""
    wide, deep, tall, thick = d(0.5, 1.8), d(0.4, 1.0), d(0.25, 0.9), d(0.02, 0.09)
    style = d.random()
    if style < 0.6:
        rows = [box(0.0, 0.0, tall, wide, deep, thick)]
    elif style < 0.9:
        wide = deep
        corners = d.pick((0, 0, 0, 6, 8))
        rows = [post(0.0, 0.0, tall, deep / 2, thick, corners=corners)]
        wide = deep = deep * 0.75
    else:
        rows = [post(0.0, 0.0, tall, wide / 2, thick, deep=deep / 2)]
        wide, deep = wide * 0.7, deep * 0.7
    rows += legs(d, wide, deep, tall)
    if d.chance(0.2):
        rows.append(box(0.0, 0.0, tall * d(0.15, 0.5), wide * 0.85, deep * 0.85, 0.025))
    if d.chance(0.2):
        rows.append(box(0.0, 0.0, tall * 0.88, wide * 0.9, deep * 0.9, tall * 0.12, omit=3))
    return Program(rows)


def desk(d: Draw) -> Program:
    """A top on drawers, panels or legs; a back panel or a rack on some."""
    wide, deep, tall, thick = d(0.9, 1.9), d(0.5, 0.9), d(0.6, 0.8), d(0.02, 0.07)
    rows = [box(0.0, 0.0, tall, wide, deep, thick)]
    broad, high = wide * d(0.2, 0.35), tall * d(0.4, 1.0)
    stack = box((wide - broad) / 2, 0.0, tall - high, broad, deep * d(0.8, 1.0), high)
    style = d.random()
    if style < 0.4:
        rows += pair([stack])
    elif style < 0.7:
        rows += [stack, box(-wide / 2 + 0.03, 0.0, 0.0, 0.04, deep, tall)]
    else:
        rows += legs(d, wide, deep, tall)
    if d.chance(0.5):
        rows.append(box(0.0, deep * 0.45, tall * d(0.1, 0.6), wide * 0.95, 0.02, tall * 0.4))
    if d.chance(0.3):
        lift = d(0.2, 0.6)
        rows += pair([box(wide * 0.46, deep * 0.35, tall, 0.04, deep * 0.3, lift)])
        rows.append(box(0.0, deep * 0.35, tall + lift, wide * 0.96, deep * 0.3, 0.03))
    if d.chance(0.25):  # an angled wing
        reach = d(0.5, 1.0)
        rows += [
            box(wide / 2 - deep / 4, -deep / 2 - reach / 2, tall, deep / 2, reach, thick),
            box(wide / 2 - deep / 4, -deep / 2 - reach, 0.0, deep / 2, 0.04, tall),
        ]
    return Program(rows)


def cabinet(d: Draw) -> Program:
    """A dresser, wardrobe or night stand: a body, fronts with knobs, feet, open compartments."""
    wide, deep, tall, lift = (
        d(0.35, 1.6),
        d(0.3, 0.6),
        d(0.4, 1.9),
        d.pick((0.0, 0.0, d(0.05, 0.2))),
    )
    rows = [box(0.0, 0.0, lift, wide, deep, tall)]
    cuts: list[Row] = []
    if d.chance(0.4):
        rows.append(box(0.0, 0.0, lift + tall, wide * 1.06, deep * 1.06, 0.035))
    across, up = d.whole(1, 3), d.whole(1, 6)
    sx, sz = wide / across, tall / up
    x, z = -wide / 2 + sx / 2, lift + sz * 0.06
    front = box(x, -deep / 2 - 0.012, z, sx * 0.9, 0.025, sz * 0.88)
    knob = ball(x + d(-0.3, 0.3) * sx, -deep / 2 - 0.045, z + sz * 0.44, 0.02)
    style = d.random()
    if style < 0.65:
        unit = [front, knob] if across * up <= 8 else [front]
        rows += line(line(unit, across, (sx, 0.0, 0.0)), up, (0.0, 0.0, sz))
    elif style < 0.9:  # an open compartment
        high = tall * d(0.2, 0.7)
        hollow = box(0.0, -deep * 0.3, lift + tall * d(0.05, 0.25), wide * 0.86, deep, high)
        cuts = [cut_of(hollow, 0, 1)]
        inner = hollow[:]
        inner[2] = 0.0
        rows.append(inner)
        cuts.append(cut_of(rows[0], len(rows) - 1, len(rows), outside=True))
    if lift:
        rows += legs(d, wide, deep, lift)
    if d.chance(0.15):
        frame = box(0.0, deep * 0.4, lift + tall, wide * d(0.4, 0.9), 0.04, d(0.4, 0.8))
        rows.append(frame)
    return Program(rows, cuts)


def shelf(d: Draw) -> Program:
    """Boards between sides or posts, a back on some, things on the boards."""
    wide, deep, tall, thick = d(0.4, 1.5), d(0.2, 0.45), d(0.6, 2.0), d(0.015, 0.045)
    count = d.whole(2, 6)
    step = (tall - thick) / (count - 1)
    rows = line([box(0.0, 0.0, 0.0, wide, deep, thick)], count, (0.0, 0.0, step))
    if d.chance(0.7):
        rows += pair([box(wide / 2, 0.0, 0.0, thick, deep, tall)])
    else:
        rows += four([post(wide / 2, deep / 2, 0.0, thick * 0.8, tall)])
    if d.chance(0.5):
        rows.append(box(0.0, deep / 2, 0.0, wide, 0.015, tall))
    if d.chance(0.3):
        rows.append(box(0.0, 0.0, 0.0, thick, deep, tall))
    for _ in range(d.whole(0, 3)):
        high = thick + step * d.whole(0, count - 2)
        x, size = wide * d(-0.35, 0.35), step * d(0.3, 0.8)
        if d.chance(0.6):
            books = box(x, 0.0, high, 0.04, deep * 0.7, size)
            rows += line([books], d.whole(1, 4), (0.045, 0.0, 0.0))
        else:
            rows.append(post(x, 0.0, high, deep * 0.3, size, top=d(0.4, 1.0)))
    return Program(rows)


def monitor(d: Draw) -> Program:
    """A screen, flat or deep, on a stand; a keyboard or speakers on some."""
    wide, thick = d(0.35, 1.2), d(0.02, 0.1)
    high, lift = wide * d(0.5, 0.85), d(0.03, 0.25)
    rows = [box(0.0, 0.0, lift, wide, thick, high)]
    if d.chance(0.35):
        rows.append(
            turned(
                box(0.0, 0.0, 0.0, wide * 0.9, high * 0.9, d(0.1, 0.4), top=(0.5, 0.6)),
                0,
                -TURN / 4,
            )
        )
        rows[-1] = moved(rows[-1], 0.0, thick / 2, lift + high / 2)
    neck = d(0.015, 0.06)
    rows.append(box(0.0, thick * 0.6, 0.0, neck * 2, neck, lift + high * d(0.1, 0.5)))
    foot = wide * d(0.2, 0.6)
    if d.chance(0.5):
        rows.append(box(0.0, thick, 0.0, foot, foot * d(0.4, 0.8), 0.02, top=(d(0.6, 1), 0.9)))
    else:
        rows.append(post(0.0, thick, 0.0, foot / 2, 0.025, deep=foot * d(0.25, 0.5)))
    if d.chance(0.15):
        rows.append(box(0.0, -0.3, 0.0, 0.42, 0.14, 0.02))
    if d.chance(0.1):
        rows += pair([box(wide * 0.65, 0.0, 0.0, wide * 0.12, 0.1, high * 0.8)])
    return Program([turned(row, 0, d(-0.02, 0.02)) for row in rows])


def lamp(d: Draw) -> Program:
    """A foot, a stem, straight or bent, and a shade."""
    tall, foot, shade = d(0.3, 1.8), d(0.08, 0.2), d(0.08, 0.3)
    rows = [post(0.0, 0.0, 0.0, foot, d(0.01, 0.05), top=d(0.5, 1.0))]
    deep, top, x = shade * d(0.7, 1.6), d(0.3, 1.0), 0.0
    stem = d(0.008, 0.03)
    if d.chance(0.5):
        rows.append(post(0.0, 0.0, 0.0, stem, tall))
    else:
        x = tall * d(0.2, 0.6)
        rows.append(tube((0.0, 0.0, 0.0, tall, x * 0.4, tall * 1.3, x, tall), stem, stem))
    style = d.random()
    if style < 0.6:
        rows.append(post(x, 0.0, tall - deep / 2, shade, deep, top=top, omit=3))
    elif style < 0.8:
        rows.append(ball(x, 0.0, tall, shade))
    else:
        rows.append(ball(x, 0.0, tall - shade * 0.3, shade, low=0.0))
    if d.chance(0.15):
        arms = [turned(moved(row, 0.12, 0.0, 0.0), 1, 0.0) for row in rows[1:]]
        rows = rows[:1] + ring(arms, d.whole(2, 5))
    return Program(rows)


def door(d: Draw) -> Program:
    """A panel or window with a frame, bars and a handle."""
    wide, tall, thick = d(0.6, 1.6), d(0.8, 2.1), d(0.02, 0.08)
    edge = d(0.04, 0.1)
    rows = pair([box(wide / 2, 0.0, 0.0, edge, thick * 2, tall)])
    rows.append(box(0.0, 0.0, tall, wide + edge, thick * 2, edge))
    if d.chance(0.7):
        rows.append(box(0.0, 0.0, 0.0, wide, thick, tall))
    else:
        count = d.whole(2, 5)
        bar = box(-wide / 2, 0.0, 0.0, edge / 2, thick, tall)
        rows += line([bar], count, (wide / count, 0.0, 0.0))
        rows += line([box(0.0, 0.0, 0.0, wide, thick, edge / 2)], count, (0.0, 0.0, tall / count))
    if d.chance(0.6):
        rows.append(ball(wide * 0.4, -thick - 0.03, tall * 0.48, 0.035))
    half = mirrored(rows[0], 0)
    return Program([*rows, half])
