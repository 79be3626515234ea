"""Vehicles: bodies with wheels, wings or masts; z is up."""

from __future__ import annotations

from foundry3d.data.programs.parts import Draw, blob, box, hoop, post, rod, sheet
from foundry3d.data.programs.rows import TURN, Row, line, moved, pair, ring, scaled, turned
from foundry3d.data.programs.running import Program


def _wheels(d: Draw, half: float, reach: float, radius: float) -> list[Row]:
    """Wheels on both sides (x = +-half), two to four axles from -reach to reach along y."""
    wheel = turned(post(0.0, 0.0, -radius * 0.25, radius, radius * 0.5), 1, TURN / 4)
    if d.chance(0.25):
        wheel = turned(hoop(0.0, 0.0, 0.0, radius * 0.8, radius * 0.22), 1, TURN / 4)
    count = d.pick((2, 2, 2, 3, 4))
    axle = line([moved(wheel, half, -reach, radius)], count, (0.0, 2 * reach / (count - 1), 0.0))
    return pair(axle)


def car(d: Draw) -> Program:
    """A car, bus or truck: body, cabin or load, wheels, mirrors."""
    wide, long, radius = d(0.7, 1.0), d(1.6, 3.2), d(0.13, 0.26)
    low, high = radius * d(0.6, 1.1), d(0.25, 0.6)
    rows: list[Row] = []
    style = d.random()
    if style < 0.5:
        rows.append(box(0.0, 0.0, low, wide, long, high, top=(0.95, d(0.85, 1.0))))
        cabin = d(0.35, 0.65)
        rows.append(
            box(0.0, long * d(-0.1, 0.12), low + high, wide * 0.92, long * cabin, d(0.25, 0.5),
                top=(0.8, d(0.5, 0.9)))
        )  # fmt: skip
    elif style < 0.65:
        rows.append(blob(0.0, 0.0, low + high * 0.6, wide / 2, long / 2, high, 0.6, 0.5))
        rows.append(blob(0.0, 0.0, low + high, wide * 0.42, long * 0.28, high, 0.9, 0.8))
    elif style < 0.85:
        tall = d(0.6, 1.2)
        nose = long * d(0.2, 0.35)
        rows.append(box(0.0, (nose - long) / 2, low, wide, nose, tall * d(0.6, 1.0)))
        rows.append(box(0.0, nose / 2, low, wide, long - nose - 0.06, d(0.1, 1.0) * tall))
        rows.append(box(0.0, 0.0, low, wide * 0.6, long, 0.1))
    else:
        rows.append(box(0.0, 0.0, low, wide, long * 1.2, d(0.6, 1.0)))
        rows += line(
            [box(0.0, -long * 0.5, low + 0.5, wide * 1.02, long * 0.1, 0.2)],
            6,
            (0.0, long * 0.18, 0.0),
        )
    rows += _wheels(d, wide * d(0.42, 0.52), long * d(0.28, 0.4), radius)
    if d.chance(0.2):
        rows += pair([box(wide * 0.55, -long * 0.2, low + high, 0.1, 0.05, 0.08)])
    if d.chance(0.15):
        rows.append(rod((0.0, 0.0, low + high), (0.0, -long * 0.6, low + high * 1.5), 0.05))
    return Program(rows)


def cycle(d: Draw) -> Program:
    """A bicycle, motorcycle or cart: rings for wheels, rods for the frame."""
    base, radius, wire = d(0.7, 1.3), d(0.22, 0.38), d(0.012, 0.05)
    wheel = turned(hoop(0.0, 0.0, 0.0, radius, wire), 0, TURN / 4)
    rows = [moved(wheel, -base / 2, 0.0, radius), moved(wheel, base / 2, 0.0, radius)]
    seat, bar = (-base * 0.2, 0.0, radius * d(2.0, 3.0)), (base * 0.35, 0.0, radius * d(2.0, 3.0))
    hub, back, front = (0.0, 0.0, radius), (-base / 2, 0.0, radius), (base / 2, 0.0, radius)
    for start, end in (
        (seat, hub),
        (hub, bar),
        (seat, bar),
        (back, hub),
        (back, seat),
        (front, bar),
    ):
        rows.append(rod(start, end, wire * 0.8))
    rows.append(rod((bar[0], -0.25, bar[2]), (bar[0], 0.25, bar[2]), wire * 0.7))
    rows.append(blob(seat[0], 0.0, seat[2], 0.13, 0.06, 0.03, 0.6, 0.6))
    if d.chance(0.4):
        rows.append(blob(0.0, 0.0, radius * 1.5, base * 0.3, 0.1, radius * 0.6, 0.7, 0.7))
    if d.chance(0.4):
        spoke = rod((0.0, 0.0, 0.0), (0.0, 0.0, radius), wire * 0.3)
        spokes = ring([spoke], d.whole(4, 7), axis=1)
        rows += [moved(row, x, 0.0, radius) for x in (-base / 2, base / 2) for row in spokes]
    return Program(rows)


def plane(d: Draw) -> Program:
    """An aircraft, rocket or fish: a body with wings or fins, a tail, engines, a rotor."""
    long, wide = d(1.4, 2.4), d(0.08, 0.25)
    body = blob(0.0, 0.0, 0.0, wide, long / 2, wide * d(0.8, 1.3), d(0.7, 1.2), d(0.8, 1.4))
    if d.chance(0.4):
        body = turned(post(0.0, 0.0, -long / 2, wide, long, top=d(0.2, 1.0)), 0, TURN / 4)
    rows = [body]
    span, chord, sweep = d(0.4, 1.2), d(0.15, 0.6), d(-0.2, 0.7)
    wing = box(0.0, 0.0, 0.0, chord, 0.02, span, top=(d(0.2, 0.9), 0.7), slide=(sweep / chord, 0.0))
    wing = moved(
        turned(turned(wing, 0, TURN / 4 - d(-0.2, 0.2)), 2, TURN / 4), 0.0, d(-0.2, 0.3), 0.0
    )
    rows += pair([wing])
    if d.chance(0.2):
        rows += pair([moved(wing, 0.0, 0.0, d(0.2, 0.4))])
    tail = scaled(wing, (d(0.25, 0.5), 0.4, 1.0))
    if d.chance(0.8):
        rows += pair([moved(tail, 0.0, long * 0.42, 0.0)])
    fin = box(
        0.0, long * 0.43, 0.0, 0.02, chord * 0.6, d(0.2, 0.4), top=(0.7, 0.5), slide=(0.0, 0.3)
    )
    rows.append(fin)
    if d.chance(0.5):
        engine = turned(post(0.0, 0.0, -0.14, 0.06, 0.28, top=0.8), 0, TURN / 4)
        rows += pair([moved(engine, span * d(0.25, 0.6), 0.0, -0.08)])
    if d.chance(0.2):
        blade = box(0.45, 0.0, wide * 1.6, 0.9, 0.05, 0.015)
        rows += [*ring([blade], d.whole(2, 4)), post(0.0, 0.0, 0.0, 0.03, wide * 1.6)]
    if d.chance(0.2):
        rows = [turned(row, 0, TURN / 4) for row in rows]
    return Program(rows)


def ship(d: Draw) -> Program:
    """A hull with a deck, cabins, masts and sails."""
    long, wide, high = d(1.2, 2.6), d(0.3, 0.6), d(0.15, 0.4)
    hull = box(
        0.0, 0.0, 0.0, wide * 0.5, long * 0.8, high, top=(2.0, d(1.1, 1.4)), omit=d.pick((0, 0, 2))
    )
    bow = post(0.0, long * 0.42, 0.0, wide * 0.3, high, top=1.7, corners=3, phase=0.25)
    rows = [hull, bow]
    for level in range(d.whole(1, 3)):
        size = 1 - 0.25 * level
        rows.append(
            box(0.0, -long * 0.15, high + 0.12 * level, wide * 0.7 * size, long * 0.35 * size, 0.12)
        )
    if d.chance(0.6):
        masts = d.whole(1, 3)
        tall = d(0.6, 1.4)
        rows += line([post(0.0, -long * 0.3, high, 0.015, tall)], masts, (0.0, long * 0.3, 0.0))
        if d.chance(0.7):
            sail = turned(
                sheet(0.0, 0.0, 0.0, wide * 1.2, tall * 0.6, waves=(2.0, 2.0, 1.5, 0.08)),
                0,
                TURN / 4,
            )
            rows += line(
                [moved(sail, 0.0, -long * 0.28, high + tall * 0.6)], masts, (0.0, long * 0.3, 0.0)
            )
    elif d.chance(0.6):
        rows += line(
            [post(0.0, -long * 0.2, high, 0.06, d(0.3, 0.5))], d.whole(1, 3), (0.0, 0.18, 0.0)
        )
    return Program(rows)
