"""Seats and beds: a body on supports, with backs, arms and cushions.

z is up and furniture stands on z = 0; sizes are about metres.
"""

from __future__ import annotations

from foundry3d.data.programs.parts import Draw, blob, box, hoop, post, rod
from foundry3d.data.programs.rows import TURN, Row, four, line, moved, pair, ring, turned
from foundry3d.data.programs.running import Program
from foundry3d.data.programs.supports import legs


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
        arch = hoop(0.0, 0.0, 0.0, wide / 2, 0.02, sweep=0.5)
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
