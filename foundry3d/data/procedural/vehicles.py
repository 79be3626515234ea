"""Things to travel in: one function per category, giving its parts.

Before posing z points up, x to the right, and a shape is about one unit large.
"""

from __future__ import annotations

import numpy as np

from foundry3d.data.procedural.draw import CORNER_X, CORNER_Y, SIDE, Draw, Parts
from foundry3d.data.procedural.patches import X, Y, Z, either, join, move, turn, where
from foundry3d.data.procedural.primitives import ball, box, lathe, rod


def airplane(d: Draw) -> Parts:
    """Swept wings, a low or high tail; no engine, two or four."""
    thick, span, chord, sweep = d(0.06, 0.12), d(0.5, 0.95), d(0.15, 0.32), d(-0.05, 0.4)
    front, height, tail = d(-0.1, 0.15), d(-0.8, 0.8) * thick, d(0.18, 0.35)
    hull = [(0, 0), (0.6, 0.08), (1, 0.25), (1, 1.2), (0.25, 1.8), (0, 1.8)]
    body = turn(lathe((0, 0, 0), [(thick * r, z - 0.9) for r, z in hull]), Y, -np.pi / 2)
    wing = box((0, 0, span / 2), (chord, 0.02, span), top=(d(0.3, 0.9), 0.6), slide=(sweep, 0))
    wings = move(turn(wing, X, SIDE * (np.pi / 2 - d(-0.02, 0.12))), (front, 0, height))
    fin = box((0, 0, tail / 2), (0.2, 0.015, tail), top=(0.5, 1), slide=(0.12, 0))
    level = np.where(d.chance(0.25), tail, 0.0)
    flat = move(turn(fin, X, SIDE * np.pi / 2), (0.75 + level * 0.3, 0, level))
    pods = np.array([0.35, -0.35, 0.65, -0.65])
    place = (front - chord * 0.45 + sweep * abs(pods), span * pods, height - 0.05)
    pod = rod((0, 0, 0), (chord * 0.6, 0, 0), d(0.03, 0.05))
    engines = where(np.arange(4) < 2 * d.whole(0, 2), move(pod, place))
    return {
        "body": body,
        "wing": wings,
        "tail": join(move(fin, (0.75, 0, 0)), flat),
        "engine": engines,
    }


def car(d: Draw) -> Parts:
    """A cabin of any length and height on a body with four wheels."""
    long, wide, high, wheel = d(1.1, 1.6), d(0.5, 0.7), d(0.18, 0.32), d(0.11, 0.19)
    roof, share, place = d(0.16, 0.45), d(0.4, 0.85), d(-0.08, 0.08)
    floor = wheel * 0.9
    lower = box((0, 0, floor + high / 2), (long, wide, high), top=(d(0.88, 1), 0.95))
    taper = (d(0.55, 0.98), d(0.75, 0.95))
    cabin = box(
        (place * long, 0, floor + high + roof / 2), (long * share, wide * 0.94, roof), top=taper
    )
    axle, track = CORNER_X * long * d(0.28, 0.36), CORNER_Y * wide / 2
    wheels = rod((axle, track * 0.8, wheel), (axle, track * 1.08, wheel), wheel)
    return {"body": lower, "cabin": cabin, "wheel": wheels}


def rocket(d: Draw) -> Parts:
    """A round or pointed nose, three to five fins, a nozzle on most."""
    wide, tall, tip = d(0.1, 0.2), d(0.6, 1.2), d(0.15, 0.5)
    count, reach, height = d.whole(3, 5), d(0.1, 0.25), d(0.15, 0.4)
    fin = box((wide + reach / 2, 0, 0), (reach, 0.015, height), top=(d(0.05, 0.6), 1))
    fin = move(fin, (0, 0, height / 2 - d(0, 0.1)))
    angle = 2 * np.pi * np.arange(5) / count
    dome = ball((0, 0, tall), wide, tip, low=0)
    cone = lathe((0, 0, tall), [(wide, 0), (0, tip)])
    bell = lathe((0, 0, 0), [(wide * 0.4, 0), (wide * d(0.6, 0.95), -d(0.06, 0.15))])
    return {
        "body": lathe((0, 0, 0), [(0, 0), (wide * d(0.85, 1.1), 0), (wide, tall)]),
        "nose": either(d.chance(0.5), dome, cone),
        "fin": where(np.arange(5) < count, turn(fin, Z, angle)),
        "nozzle": where(d.chance(0.7), bell),
    }


def sailboat(d: Draw) -> Parts:
    """A bow, a mast, a mainsail turned to the wind, a jib on some."""
    long, wide, high, mast = d(0.6, 1.0), d(0.25, 0.42), d(0.14, 0.28), d(0.8, 1.3)
    deck = wide * 1.3
    mid = box((-long * 0.2, 0, 0), (long * 0.6, wide, high), top=(1.1, 1.3))
    bow = box(
        (0, 0, long * 0.25), (high, deck * 0.95, long * 0.5), top=(0.5, 0.05), slide=(-high / 4, 0)
    )
    bow = move(turn(bow, Y, np.pi / 2), (long * 0.12, 0, 0))
    boom, foot = d(0.35, 0.6), high * 0.5 + 0.08
    sail = box(
        (-boom / 2, 0, foot + mast * 0.42),
        (boom, 0.012, mast * 0.84),
        top=(0.05, 1),
        slide=(boom / 2, 0),
    )
    jib = box(
        (boom * 0.4, 0, foot + mast * 0.3),
        (boom * 0.6, 0.012, mast * 0.6),
        top=(0.05, 1),
        slide=(-boom * 0.3, 0),
    )
    sails = turn(join(sail, where(d.chance(0.6), jib)), Z, d(-0.4, 0.4))
    pole = rod((0, 0, 0), (0, 0, mast + foot), 0.018)
    return {"hull": join(mid, bow), "mast": pole, "sail": sails}
