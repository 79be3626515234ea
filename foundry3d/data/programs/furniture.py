"""Furniture: a main body on supports, with backs, sides, drawers and cushions.

z is up and furniture stands on z = 0; sizes are about metres.
"""

from __future__ import annotations

from foundry3d.data.programs.parts import Draw, ball, blob, box, hoop, lathe, post, rod, tube
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


def legs(d: Draw, wide: float, deep: float, tall: float) -> list[Row]:
    """What carries a body of this size whose bottom is at `tall`."""
    if tall < 0.01:
        return []
    thick, style = d(0.012, 0.05), d.random()
    x, y = wide / 2 - thick * d(1.0, 2.5), deep / 2 - thick * d(1.0, 2.5)
    if style < 0.3:
        return four([box(x, y, 0.0, thick * 2, thick * 2, tall)])
    if style < 0.5:
        splay = d(-0.02, 0.12)
        foot = (x + splay, y + splay, 0.0)
        return four([rod(foot, (x, y, tall), thick * d(0.5, 1.0), top=d(0.8, 1.8))])
    if style < 0.62:
        return pair([box(x, 0.0, 0.0, thick * 2, deep * d(0.7, 1.0), tall)])
    if style < 0.8:
        return pedestal(d, min(wide, deep) / 2, tall)
    if style < 0.9:  # sleds
        runners = pair([box(x, 0.0, 0.0, thick * 1.5, deep, thick)])
        return runners + four([box(x, y, thick, thick * 1.5, thick * 1.5, tall - thick)])
    rails = pair([rod((-x, y, tall * 0.25), (x, y, tall * 0.25), thick * 0.6)], 1)
    return four([post(x, y, 0.0, thick, tall, corners=d.pick((0, 4, 6)))]) + rails


def pedestal(d: Draw, reach: float, tall: float) -> list[Row]:
    """A column on a disc, a star of feet or a cone."""
    rows = [post(0.0, 0.0, 0.0, d(0.02, 0.07), tall)]
    style = d.random()
    if style < 0.4:
        rows.append(post(0.0, 0.0, 0.0, reach * d(0.5, 0.95), d(0.015, 0.05), top=d(0.6, 1.0)))
    elif style < 0.8:
        high, far = tall * d(0.05, 0.3), reach * d(0.7, 1.0)
        rows += ring([rod((0.0, 0.0, high), (far, 0.0, 0.02), 0.025)], d.whole(3, 6))
    else:
        rows.append(post(0.0, 0.0, 0.0, reach * d(0.4, 0.8), tall, top=d(0.1, 0.6)))
    return rows


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


def _back(d: Draw, wide: float, deep: float, high: float, tall: float) -> list[Row]:
    """The back of a seat: a plate, slats, rungs, a frame or a bent shell."""
    lean, thick, style = d(0.0, 0.35), d(0.02, 0.08), d.random()
    if style < 0.4:
        rows = [box(0.0, 0.0, 0.0, wide, thick, tall, top=(d(0.6, 1.1), 1.0))]
    elif style < 0.55:
        count = d.whole(3, 7)
        step = wide * 0.85 / (count - 1)
        slat = box(-wide * 0.425, 0.0, 0.0, step * d(0.15, 0.5), 0.02, tall)
        rows = [*line([slat], count, (step, 0.0, 0.0)), box(0.0, 0.0, tall, wide, 0.03, 0.06)]
    elif style < 0.7:
        count = d.whole(2, 4)
        rung = box(0.0, 0.0, tall * 0.25, wide, 0.02, tall * 0.12)
        rows = line([rung], count, (0.0, 0.0, tall * 0.8 / count))
        rows += pair([post(wide / 2, 0.0, 0.0, 0.018, tall)])
    elif style < 0.85:
        rows = [blob(0.0, 0.0, tall / 2, wide / 2, thick * 0.8, tall / 2, 0.4, 0.4)]
    else:
        arch = hoop(0.0, 0.0, 0.0, wide / 2, 0.02, sweep=TURN / 2)
        rows = [turned(arch, 0, TURN / 4)]
        rows = [moved(row, 0.0, 0.0, tall * 0.6) for row in rows]
        rows += pair([post(wide / 2, 0.0, 0.0, 0.02, tall * 0.6)])
        rows.append(post(0.0, 0.0, 0.0, 0.02, tall * 0.9))
    rows = [turned(row, 0, -lean) for row in rows]
    return [moved(row, 0.0, deep / 2 - thick / 2, high) for row in rows]


def chair(d: Draw) -> Program:
    """A seat with a back, on any support; arms on some."""
    wide, deep, high, tall = d(0.38, 0.65), d(0.38, 0.6), d(0.3, 0.55), d(0.25, 0.75)
    thick, style = d(0.03, 0.14), d.random()
    if style < 0.65:
        rows = [box(0.0, 0.0, high, wide, deep, thick)]
    elif style < 0.85:
        rows = [blob(0.0, 0.0, high + thick / 2, wide / 2, deep / 2, thick * 0.7, 0.5, 0.5)]
    else:
        rows = [post(0.0, 0.0, high, wide / 2, thick)]
    rows += legs(d, wide, deep, high)
    rows += _back(d, wide, deep, high + thick * 0.5, tall)
    if d.chance(0.4):
        lift, arm = d(0.15, 0.3), d(0.02, 0.06)
        rows += pair([box(wide / 2, 0.0, high + lift, arm, deep * 0.9, arm)])
        if d.chance(0.7):
            rows += pair([box(wide / 2, -deep * 0.35, high, arm, arm, lift)])
        else:
            rows += pair([box(wide / 2, 0.0, high, arm, deep * 0.9, lift)])
    return Program(rows)


def stool(d: Draw) -> Program:
    """A seat without a back, or a bench."""
    wide, deep, high, thick = d(0.25, 0.5), d(0.25, 0.45), d(0.3, 0.85), d(0.03, 0.12)
    if d.chance(0.3):
        wide = d(0.9, 1.8)
    if d.chance(0.5) and wide < 0.6:
        rows = [post(0.0, 0.0, high, wide / 2, thick, top=d(0.85, 1.1))]
        splay, low = d(0.5, 1.2) * wide / 2, high * d(0.2, 0.6)
        leg = rod((splay, 0.0, 0.0), (wide * 0.3, 0.0, high), 0.018)
        rows += ring([leg], d.whole(3, 5))
        if d.chance(0.5):
            rows.append(hoop(0.0, 0.0, low, splay + (wide * 0.3 - splay) * low / high, 0.012))
        return Program(rows)
    return Program([box(0.0, 0.0, high, wide, deep, thick), *legs(d, wide, deep, high)])


def sofa(d: Draw) -> Program:
    """A base, cushions, a back and arms, on low feet; an L on some."""
    seats = d.whole(1, 4)
    wide, deep, high = 0.35 + 0.55 * seats * d(0.8, 1.1), d(0.6, 1.0), d(0.3, 0.45)
    lift, tall, arm = d(0.0, 0.14), d(0.25, 0.55), d(0.08, 0.25)
    rows = [box(0.0, 0.0, lift, wide, deep, high - lift)]
    back = box(
        0.0, deep / 2 - 0.1, high, wide, 0.2, tall, top=(1.0, d(0.5, 1.0)), slide=(0.0, d(0, 0.3))
    )
    rows.append(back)
    style, rise = d.random(), tall * d(0.2, 0.7)
    if style < 0.5:
        rows += pair([box((wide - arm) / 2, 0.0, high, arm, deep, rise)])
    elif style < 0.8:
        at = (wide - arm) / 2, high + rise * 0.5
        roll = rod((at[0], -deep / 2, at[1]), (at[0], deep / 2, at[1]), arm * 0.6)
        rows += pair([roll, box(at[0], 0.0, high, arm * 0.8, deep, rise * 0.5)])
    if d.chance(0.6):
        step = (wide - 2 * arm) / seats
        x = -(wide - 2 * arm) / 2 + step / 2
        puff = d(0.04, 0.09)
        seat = blob(x, -0.08, high + puff / 2, step * 0.48, deep * 0.4, puff, 0.4, 0.3)
        rows += line([seat], seats, (step, 0.0, 0.0))
    if d.chance(0.2):
        reach = d(0.4, 0.9)
        rows.append(box(wide / 2 - 0.3, -deep / 2 - reach / 2, lift, 0.6, reach, high - lift))
    if lift > 0.04:
        rows += four([post(wide * 0.44, deep * 0.4, 0.0, 0.03, lift)])
    return Program(rows)


def bed(d: Draw) -> Program:
    """A mattress on a frame; headboard, footboard, pillows, posts, a second storey on some."""
    wide, long, lift, thick = d(0.8, 2.0), d(1.8, 2.2), d(0.0, 0.4), d(0.12, 0.35)
    rows = [box(0.0, 0.0, lift, wide, long, thick)]
    style = d.random()
    if style < 0.4:
        rows.append(blob(0.0, 0.0, lift + thick, wide * 0.5, long * 0.5, d(0.05, 0.15), 0.3, 0.2))
    head, foot = d(0.1, 0.8), d(0.0, 0.4)
    rows.append(box(0.0, long / 2, 0.0, wide * d(1.0, 1.3), d(0.03, 0.12), lift + thick + head))
    if d.chance(0.45):
        rows.append(box(0.0, -long / 2, 0.0, wide * 1.02, d(0.03, 0.1), lift + thick + foot))
    if d.chance(0.6):
        count = 1 if wide < 1.2 else 2
        pillow = blob(0.0, long / 2 - 0.3, lift + thick + 0.06, 0.3, 0.2, 0.09, 0.6, 0.5)
        at = wide * 0.24 * (count - 1)
        rows += pair([moved(pillow, at, 0.0, 0.0)]) if count == 2 else [pillow]
    rows += legs(d, wide, long, lift) if d.chance(0.7) else []
    if d.chance(0.15):
        tall = d(1.2, 2.0)
        rows += four([post(wide * 0.49, long * 0.49, 0.0, 0.04, tall)])
        rows.append(box(0.0, 0.0, tall, wide, long, 0.2 if d.chance(0.5) else 0.03))
    if d.chance(0.3):
        rows += pair([box(wide / 2 + 0.35, long / 2 - 0.25, 0.0, 0.45, 0.4, d(0.4, 0.6))])
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


def toilet(d: Draw) -> Program:
    """A bowl on a foot with a seat, a lid and a cistern."""
    wide, long, high = d(0.17, 0.23), d(0.22, 0.32), d(0.34, 0.46)
    r = d(0.45, 0.8)
    profile = (
        0.0, 0.0, r, 0.0, r * 0.9, 0.3, d(0.7, 0.95), 0.7, 1.0, 1.0, 0.75, 1.0, d(0.1, 0.5), 0.6,
    )  # fmt: skip
    bowl = lathe(profile, smooth=d.chance(0.5))
    for k in range(6, 10):
        bowl[k] *= wide
        bowl[k + 4] *= long
        bowl[k + 8] *= high
    rows = [bowl, post(0.0, 0.0, high, wide, 0.03, deep=long, hole=d(0.0, 0.75))]
    if d.chance(0.6):
        lid = post(0.0, 0.0, 0.0, wide, 0.03, deep=long)
        lid = moved(turned(moved(lid, 0.0, -long, 0.0), 0, -TURN * d(0.2, 0.28)), 0.0, long, high)
        rows.append(lid)
    tall, broad = d(0.25, 0.5), wide * d(1.6, 2.4)
    tank = box(0.0, long + 0.07, high * d(0.6, 1.0), broad, d(0.14, 0.22), tall, top=(1.1, 1.0))
    rows.append(tank)
    if d.chance(0.5):
        rows.append(box(0.0, long * 0.7, 0.0, wide * 1.1, long * 0.8, high))
    return Program(rows)


def tub(d: Draw) -> Program:
    """A bathtub or basin: a hollow box, superquadric or bowl; feet and a tap on some."""
    wide, long, high = d(0.55, 0.9), d(1.2, 1.9), d(0.35, 0.65)
    if d.chance(0.25):
        wide, long, high = d(0.4, 0.7), d(0.35, 0.6), d(0.12, 0.25)
    lift, taper = d.pick((0.0, 0.0, d(0.05, 0.8))), d(0.6, 0.95)
    style = d.random()
    if style < 0.5:
        rows = [box(0.0, 0.0, lift, wide, long, high)]
    else:
        rows = [blob(0.0, 0.0, lift + high, wide / 2, long / 2, high, d(0.3, 0.9), d(0.3, 1.0))]
        half = box(0.0, 0.0, lift + high, 2 * wide, 2 * long, 2 * high)
    inner = blob(0.0, 0.0, lift + high, wide * 0.44, long * 0.46, high * taper, 0.4, d(0.3, 0.8))
    cuts = [cut_of(inner, 0, 1)]
    inner = inner[:]
    inner[2] = 0.0
    rows.append(inner)
    top = box(0.0, 0.0, lift + high, 2 * wide, 2 * long, 2 * high)
    cuts.append(cut_of(top, 1, 2))
    if style >= 0.5:
        cuts.append(cut_of(half, 0, 1))
        rows.append(post(0.0, 0.0, lift + high - 0.02, wide * 0.5, 0.02, deep=long * 0.5, hole=0.9))
    if lift:
        rows += legs(d, wide * 0.8, long * 0.8, lift)
    if d.chance(0.4):
        tap = tube((0.0, 0.0, 0.0, 0.25, 0.15, 0.25, 0.15, 0.1), 0.015, 0.015)
        rows.append(moved(turned(tap, 2, -TURN / 4), 0.0, long / 2 - 0.06, lift + high))
    return Program(rows, cuts)


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
