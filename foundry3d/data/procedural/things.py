"""Other things, from lamps to houses: one function per category, giving its parts.

Before posing z points up, x to the right, and a shape is about one unit large.
"""

from __future__ import annotations

import numpy as np

from foundry3d.data.procedural.draw import SIDE, Draw, Parts
from foundry3d.data.procedural.patches import X, Y, Z, either, join, move, turn, where
from foundry3d.data.procedural.primitives import ball, box, cylinder, lathe, ring, rod


def lamp(d: Draw) -> Parts:
    """A straight or bent pole, an urn on some straight ones, and a shade."""
    high, foot, thick, lean = d(0.4, 1.5), d(0.12, 0.22), d(0.012, 0.03), d(-0.25, 0.25)
    wide, tall = d(0.14, 0.3), d(0.15, 0.35)
    narrow, knee = wide * d(0.3, 0.95), high * d(0.4, 0.7)
    bent = d.chance(0.4)
    end = np.where(bent, lean + 0.25 * np.sign(lean), 0.0)
    elbow = (np.where(bent, -lean, 0.0), 0, knee)
    pole = join(rod((0, 0, 0.02), elbow, thick), rod(elbow, (end, 0, high), thick))
    urn = ball((0, 0, high * 0.42), d(0.06, 0.14), high * 0.36)
    return {
        "base": either(
            d.chance(0.6),
            cylinder((0, 0, 0), foot, d(0.02, 0.06)),
            ball((0, 0, 0), foot, 0.1, low=0),
        ),
        "pole": join(pole, where(~bent & d.chance(0.4), urn)),
        "shade": lathe((end, 0, high - tall * 0.6), [(wide, 0), (narrow, tall), (0, tall)]),
    }


def fan(d: Draw) -> Parts:
    """Three to five pitched blades, a guard on some."""
    high, size, foot = d(0.4, 1.1), d(0.22, 0.4), d(0.15, 0.25)
    count, reach, pitch = d.whole(3, 5), np.arange(5), d(0.2, 0.6)
    blade = box((0, 0, size * 0.55), (size * d(0.25, 0.45), 0.012, size * 0.8), top=(1.5, 1))
    blades = where(reach < count, turn(turn(blade, Z, pitch), Y, 2 * np.pi * reach / count))
    front = rod((0, -0.1, 0), (0, 0.12, 0), 0.06, 0.08)
    guard = ring((0, SIDE * 0.05, 0), size * 1.05, 0.012, right=X, up=Z)
    hub = (0, 0.12, high)
    return {
        "base": either(
            d.chance(0.6),
            cylinder((0, 0, 0), foot, 0.03),
            box((0, 0, 0.03), (foot * 2, foot * 1.5, 0.06)),
        ),
        "pole": join(rod((0, 0, 0.02), (0, 0, high), d(0.015, 0.03)), move(front, (0, 0, high))),
        "blade": move(blades, hub),
        "guard": where(d.chance(0.6), move(guard, hub)),
    }


def guitar(d: Draw) -> Parts:
    """Two discs, a neck and a head."""
    lower, thick, long = d(0.22, 0.32), d(0.05, 0.14), d(0.45, 0.75)
    upper, gap, thin = lower * d(0.65, 0.95), d(0.26, 0.36), d(0.025, 0.04)
    end = gap + upper + long
    body = join(cylinder((0, 0, 0), lower, thick), cylinder((0, gap, 0), upper, thick))
    neck = box((0, end - (long + 0.15) / 2, thick), (thin * 2, long + 0.15, thin))
    head = box((0, end + 0.08, thick), (d(0.08, 0.13), 0.18, thin * 0.8))
    parts = {"body": body, "neck": neck, "head": head}
    return {name: turn(patches, X, np.pi / 2) for name, patches in parts.items()}


def hammer(d: Draw) -> Parts:
    """A square or round head, a claw on some."""
    long, thick, size, face = d(0.7, 1.2), d(0.025, 0.045), d(0.25, 0.45), d(0.05, 0.1)
    square = box((0, 0, long), (size, face * 2, face * 2))
    barrel = rod((-size / 2, 0, long), (size / 2, 0, long), face)
    claw = box(
        (0, 0, d(0.1, 0.16)), (face * 1.2, face * 1.6, 0.25), top=(0.2, 1.2), slide=(-d(0, 0.12), 0)
    )
    claw = move(turn(claw, Y, -np.pi / 2), (-size / 2, 0, long))
    handle = rod((0, 0, 0), (0, 0, long), thick * d(0.9, 1.4), thick)
    return {
        "handle": handle,
        "head": either(d.chance(0.5), square, barrel),
        "claw": where(d.chance(0.6), claw),
    }


def umbrella(d: Draw) -> Parts:
    """A domed or pointed canopy, a hooked or straight handle."""
    wide, tall, long, hook = d(0.4, 0.65), d(0.12, 0.4), d(0.7, 1.0), d(0.06, 0.11)
    dome = ball((0, 0, long - tall), wide, tall, low=5)
    cone = lathe((0, 0, long - tall), [(wide, 0), (0, tall)])
    curve = ring(
        (hook, 0, 0), hook, 0.018, right=(-1, 0, 0), up=(0, 0, -1), sweep=np.pi * d(0.8, 1.2)
    )
    grip = rod((0, 0, -0.05), (0, 0, 0.15), 0.03)
    return {
        "canopy": either(d.chance(0.7), dome, cone),
        "shaft": rod((0, 0, 0), (0, 0, long + 0.06), d(0.01, 0.02)),
        "handle": either(d.chance(0.7), curve, grip),
    }


def ladder(d: Draw) -> Parts:
    """Four to nine rungs, and legs that hold up some."""
    wide, high, thick, taper = d(0.3, 0.5), d(0.9, 1.6), d(0.015, 0.035), d(0.6, 1.0)
    count, index, lean = d.whole(4, 9), np.arange(9), d(0.1, 0.3)
    level = (index + 0.5) / count
    half, back = wide / 2 * (1 - (1 - taper) * level), -lean * level
    rungs = rod((-half, back, high * level), (half, back, high * level), thick * d(0.6, 0.9))
    top = (SIDE * wide / 2 * taper, -lean, high)
    rails = rod((SIDE * wide / 2, 0, 0), top, thick)
    return {
        "rail": rails,
        "rung": where(index < count, rungs),
        "support": where(d.chance(0.5), rod((SIDE * wide / 2, -2 * lean - 0.1, 0), top, thick)),
    }


def dumbbell(d: Draw) -> Parts:
    """One to three plates, or a ball, at each end."""
    half, grip, wide, thick = d(0.3, 0.6), d(0.025, 0.05), d(0.12, 0.3), d(0.04, 0.12)
    count, index, shrink = d.whole(1, 3), np.arange(3), d(0.0, 0.25)
    radius, inner = wide * (1 - shrink * index), half + index * thick * 1.1
    discs = rod((inner, 0, 0), (inner + thick, 0, 0), radius)
    plates = turn(where(index < count, discs), Z, np.array([0, np.pi]))
    balls = ball((SIDE * (half + wide * 0.5), 0, 0), wide * 0.8)
    reach = half + np.where(d.chance(0.5), 3.5 * thick, 0.0)
    return {
        "bar": rod((-reach, 0, 0), (reach, 0, 0), grip),
        "weight": either(d.chance(0.7), plates, balls),
    }


def headphones(d: Draw) -> Parts:
    """A band over two cups, a microphone on some."""
    size, tube, cup, thick = d(0.38, 0.5), d(0.02, 0.05), d(0.14, 0.24), d(0.06, 0.14)
    drop = d(0.0, 0.15)
    band = ring((0, 0, drop), size, tube, right=X, up=Z, sweep=np.pi)
    stems = rod((SIDE * size, 0, drop), (SIDE * size, 0, -cup * 0.3), tube)
    cups = rod(
        (SIDE * (size - thick), 0, -cup * 0.5),
        (SIDE * (size + thick * 0.3), 0, -cup * 0.5),
        cup,
        cup * d(0.7, 1),
    )
    boom = rod((size, 0, -cup), (size * 0.5, 0.4, -cup - 0.12), 0.015)
    tip = ball((size * 0.5, 0.4, -cup - 0.12), 0.035, segments=4)
    return {
        "band": join(band, stems),
        "cup": cups,
        "microphone": where(d.chance(0.3), join(boom, tip)),
    }


def tree(d: Draw) -> Parts:
    """A crown of one to three cones or balls."""
    high, thick, wide, tall = d(0.25, 0.7), d(0.03, 0.09), d(0.25, 0.45), d(0.5, 0.9)
    index, tiers = np.arange(3), d.whole(1, 3)
    rise = tall / tiers
    cones = where(
        index < tiers,
        rod(
            (0, 0, high + rise * index * 0.9),
            (0, 0, high + rise * (index * 0.9 + 1.15)),
            wide * (1 - 0.22 * index),
            0.01,
        ),
    )
    clumps = ball(
        (d(-0.2, 0.2) * index, d(-0.2, 0.2) * index, high + tall * (0.35 + 0.15 * index)),
        wide * (1 - 0.2 * index),
        wide * d(0.7, 1.2) * (1 - 0.2 * index),
    )
    return {
        "trunk": rod((0, 0, 0), (0, 0, high + 0.1), thick * d(1, 1.6), thick),
        "crown": either(d.chance(0.5), cones, where(index < tiers, clumps)),
    }


def house(d: Draw) -> Parts:
    """A gabled or hipped roof, a chimney on most, a porch on some."""
    wide, deep, high, pitch = d(0.6, 1.1), d(0.5, 0.8), d(0.3, 0.7), d(0.2, 0.5)
    eaves = d(1.02, 1.2)
    ridge = np.where(d.chance(0.6), 1.0, d(0.0, 0.6))
    roof = box((0, 0, high + pitch / 2), (wide * eaves, deep * eaves, pitch), top=(ridge, 0.0))
    place = (wide * d(-0.35, 0.35), deep * 0.2, high + pitch * 0.6)
    porch = box((0, deep / 2 + 0.08, high * 0.3), (wide * 0.3, 0.16, high * 0.6))
    return {
        "wall": box((0, 0, high / 2), (wide, deep, high)),
        "roof": roof,
        "chimney": where(d.chance(0.7), box(place, (0.1, 0.1, pitch * d(0.7, 1.2)))),
        "porch": where(d.chance(0.4), porch),
    }
