"""Built-in shapes of everyday things with part labels: no download, made as fast as read.

Each category draws the proportions of n shapes at once and returns its parts as surface patches;
`generate` poses the shapes, samples them evenly over their area, and adds noise. Before posing z
points up, x to the right, and a shape is about one unit large.

Shape legend: n shapes of a category, m copies of a primitive, N points.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from foundry3d.data.clouds import Clouds
from foundry3d.data.primitives import (
    Number,
    Outline,
    Patches,
    X,
    Y,
    Z,
    ball,
    box,
    carry,
    either,
    join,
    lathe,
    move,
    ring,
    rod,
    rotation,
    sample,
    turn,
    where,
)
from foundry3d.errors import InputError

Parts = dict[str, Patches]

_BLOCK = 16  # clouds sampled together, so that the working arrays stay in the cache
SIDE = np.array([1.0, -1.0])  # two copies, left and right
CORNER_X, CORNER_Y = np.array([1.0, 1.0, -1.0, -1.0]), np.array([1.0, -1.0, 1.0, -1.0])


class Draw:
    """Random proportions of n shapes, each of shape (n, 1) so that copies broadcast beside them."""

    def __init__(self, n: int, rng: np.random.Generator) -> None:
        self.n, self.rng = n, rng

    def __call__(self, low: Number, high: Number) -> np.ndarray:
        """Numbers between `low` and `high`."""
        return self.rng.uniform(low, high, (self.n, 1))

    def whole(self, low: int, high: int) -> np.ndarray:
        """Whole numbers from `low` to `high`, both included."""
        return self.rng.integers(low, high + 1, (self.n, 1))

    def chance(self, share: float) -> np.ndarray:
        """True for about this share of the shapes."""
        return self.rng.random((self.n, 1)) < share


def _legs(x: Number, y: Number, height: Number, thick: Number, splay: Number = 0.0) -> Patches:
    foot = (CORNER_X * (x + splay), CORNER_Y * (y + splay), 0.0)
    return rod(foot, (CORNER_X * x, CORNER_Y * y, height), thick * 0.8, thick)


def _pedestal(height: Number, thick: Number, foot: Number) -> Patches:
    return lathe((0.0, 0.0, 0.0), [(0, 0), (foot, 0), (foot, 0.03), (thick, 0.06), (thick, height)])


def _disc(x: Number, y: Number, z: Number, radius: Number, thick: Number) -> Patches:
    return rod((x, y, z), (x, y, z + thick), radius)


def _chair(d: Draw) -> Parts:
    wide, deep, high, thick = d(0.4, 0.6), d(0.4, 0.6), d(0.35, 0.55), d(0.03, 0.09)
    tall, lean, leg = d(0.3, 0.7), d(0.0, 0.15), d(0.015, 0.035)
    rear, over = -deep / 2 + 0.02, high + thick
    solid = box(
        (0, rear, over + tall / 2), (wide, 0.04, tall), top=(d(0.7, 1), 1), slide=(0, -lean)
    )
    slats = box(
        (np.linspace(-0.45, 0.45, 5) * wide, rear, over + tall / 2),
        (0.03, 0.03, tall),
        slide=(0, -lean),
    )
    rail = box((0, rear - lean, over + tall), (wide, 0.04, 0.08))
    arm = box((SIDE * wide / 2, 0, over + 0.22), (0.05, deep, 0.03))
    post = rod(
        (SIDE * wide / 2, deep * 0.4, over), (SIDE * wide / 2, deep * 0.4, over + 0.2), 0.015
    )
    plain = _legs(wide / 2 - 0.03, deep / 2 - 0.03, high, leg, d(-0.02, 0.1))
    return {
        "seat": either(
            d.chance(0.7),
            box((0, 0, high + thick / 2), (wide, deep, thick)),
            _disc(0.0, 0.0, high, wide / 2, thick),
        ),
        "back": either(d.chance(0.6), solid, join(slats, rail)),
        "leg": either(d.chance(0.8), plain, _pedestal(high, 0.03, wide * 0.45)),
        "arm": where(d.chance(0.4), join(arm, post)),
    }


def _stool(d: Draw) -> Parts:
    radius, high, thick, leg = d(0.16, 0.3), d(0.35, 0.8), d(0.03, 0.1), d(0.015, 0.03)
    count, splay, step = d.whole(3, 5), d(0.0, 0.12), d(0.2, 0.5)
    angle = 2 * np.pi * np.arange(5) / count
    east, north, reach = np.cos(angle), np.sin(angle), radius * 0.8
    foot = (east * (reach + splay), north * (reach + splay), 0.0)
    legs = where(np.arange(5) < count, rod(foot, (east * reach, north * reach, high), leg))
    seat = either(
        d.chance(0.7),
        _disc(0.0, 0.0, high, radius, thick),
        box((0, 0, high + thick / 2), (radius * 1.8, radius * 1.8 * d(0.7, 1.2), thick)),
    )
    rung = ring((0, 0, high * step), reach + splay * (1 - step), 0.012)
    stand = _pedestal(high, leg * 1.4, radius * 0.9)
    return {
        "seat": seat,
        "leg": either(d.chance(0.75), legs, stand),
        "rung": where(d.chance(0.5), rung),
    }


def _bench(d: Draw) -> Parts:
    wide, deep, high, thick = d(0.9, 1.6), d(0.3, 0.45), d(0.35, 0.5), d(0.04, 0.08)
    tall, lean, planks = d(0.3, 0.5), d(0.02, 0.12), np.array([0.45, 0.95])
    back = box((0, -deep / 2 - lean * planks, high + tall * planks), (wide, 0.04, 0.12 + d(0, 0.1)))
    posts = rod(
        (SIDE * wide * 0.42, -deep / 2, high),
        (SIDE * wide * 0.42, -deep / 2 - lean, high + tall),
        0.02,
    )
    slabs = box((SIDE * wide * 0.4, 0, high / 2), (0.07, deep * 0.9, high))
    return {
        "seat": box((0, 0, high + thick / 2), (wide, deep, thick)),
        "back": where(d.chance(0.6), join(back, posts)),
        "leg": either(d.chance(0.6), _legs(wide * 0.43, deep * 0.4, high, d(0.02, 0.04)), slabs),
        "arm": where(d.chance(0.3), box((SIDE * wide / 2, 0, high + 0.22), (0.06, deep, 0.04))),
    }


def _table(d: Draw) -> Parts:
    wide, deep, high, thick = d(0.6, 1.5), d(0.5, 0.9), d(0.35, 0.8), d(0.03, 0.08)
    legs = _legs(wide / 2 - 0.06, deep / 2 - 0.06, high, d(0.02, 0.05), d(-0.03, 0.06))
    tray = box((0, 0, high * d(0.2, 0.4)), (wide * 0.85, deep * 0.85, 0.02))
    square, plain = d.chance(0.65), d.chance(0.8)
    board = box((0, 0, high + thick / 2), (wide, deep, thick))
    return {
        "top": either(square, board, _disc(0.0, 0.0, high, deep * 0.65, thick)),
        "leg": either(square & plain, legs, _pedestal(high, d(0.03, 0.06), deep * d(0.25, 0.45))),
        "tray": where(square & plain & d.chance(0.25), tray),
    }


def _desk(d: Draw) -> Parts:
    wide, deep, high, thick = d(0.9, 1.5), d(0.5, 0.75), d(0.6, 0.75), d(0.03, 0.06)
    panels = box((SIDE * (wide / 2 - 0.03), 0, high / 2), (0.04, deep * 0.95, high))
    modesty = box((0, deep * 0.4, high * 0.65), (wide * 0.9, 0.02, high * 0.5))
    tall, broad = high * d(0.3, 0.95), wide * d(0.22, 0.32)
    drawers = box(
        (SIDE * (wide / 2 - broad / 2 - 0.06), 0, high - tall / 2), (broad, deep * 0.8, tall)
    )
    shown = np.concatenate([np.ones((d.n, 1), bool), d.chance(0.4)], axis=1)
    return {
        "top": box((0, 0, high + thick / 2), (wide, deep, thick)),
        "leg": either(
            d.chance(0.5),
            join(panels, where(d.chance(0.6), modesty)),
            _legs(wide / 2 - 0.05, deep / 2 - 0.05, high, d(0.02, 0.035)),
        ),
        "drawer": where(shown, drawers),
    }


def _sofa(d: Draw) -> Parts:
    wide, deep, high, tall = d(0.8, 1.7), d(0.5, 0.7), d(0.18, 0.3), d(0.3, 0.5)
    arm, lift, lean = d(0.08, 0.18), d(0.04, 0.12), d(0.0, 0.1)
    cushions = box(
        (SIDE * wide * 0.245, 0.03, lift + high + 0.05),
        (wide * 0.47, deep * 0.9, 0.1),
        top=(0.94, 0.94),
    )
    arms = box((SIDE * (wide + arm) / 2, 0, lift + high * 0.9), (arm, deep, high * 1.8))
    rolls = rod(
        (SIDE * (wide + arm) / 2, -deep / 2, lift + high * 1.8),
        (SIDE * (wide + arm) / 2, deep / 2, lift + high * 1.8),
        arm * 0.6,
    )
    return {
        "seat": join(box((0, 0, lift + high / 2), (wide, deep, high)), cushions),
        "back": box(
            (0, -deep / 2, lift + (high + tall) / 2), (wide, 0.15, high + tall), slide=(0, -lean)
        ),
        "arm": join(arms, where(d.chance(0.5), rolls)),
        "leg": _legs(wide * 0.47, deep * 0.4, lift, 0.03),
    }


def _bed(d: Draw) -> Parts:
    wide, long, lift, thick = d(0.5, 1.1), d(1.2, 1.5), d(0.1, 0.3), d(0.1, 0.22)
    tall, base, rear = d(0.15, 0.5), d(0.05, 0.12), -long / 2
    top = lift + base + thick
    count = np.where(wide > 0.75, 2, 1)
    aside = (np.arange(2) - (count - 1) / 2) * wide / 2
    pillow = box((aside, rear + 0.18, top + 0.04), (wide * 0.42, 0.22, 0.08), top=(0.7, 0.6))
    foot = box((0, long / 2 + 0.02, lift + tall / 3), (wide, 0.04, lift + tall * 0.7))
    head = box((0, rear - 0.02, (top + tall) / 2), (wide, 0.05, top + tall), top=(d(0.6, 1), 1))
    legs = _legs(wide / 2 - 0.05, long / 2 - 0.05, lift, d(0.02, 0.04))
    return {
        "mattress": box(
            (0, 0, top - thick / 2), (wide * 0.96, long * 0.97, thick), top=(0.97, 0.97)
        ),
        "frame": join(box((0, 0, lift + base / 2), (wide, long, base)), legs),
        "headboard": join(head, where(d.chance(0.4), foot)),
        "pillow": where(np.arange(2) < count, pillow),
    }


def _shelf(d: Draw) -> Parts:
    wide, deep, high, thick = d(0.4, 1.0), d(0.2, 0.4), d(0.7, 1.6), d(0.02, 0.05)
    count, low, index = d.whole(2, 6), d(0.03, 0.15), np.arange(7)
    level = low + (high - low - thick) * index / count
    boards = where(index <= count, box((0, 0, level), (wide, deep, thick)))
    panels = box((SIDE * wide / 2, 0, high / 2), (thick, deep, high))
    return {
        "side": either(d.chance(0.65), panels, _legs(wide / 2, deep / 2, high, thick / 2 + 0.01)),
        "board": boards,
        "back": where(d.chance(0.45), box((0, -deep / 2, high / 2), (wide, 0.02, high))),
    }


def _lamp(d: Draw) -> Parts:
    high, foot, thick, lean = d(0.4, 1.5), d(0.12, 0.22), d(0.012, 0.03), d(-0.25, 0.25)
    wide, tall = d(0.14, 0.3), d(0.15, 0.35)
    narrow, knee = wide * d(0.3, 0.95), high * d(0.4, 0.7)
    bent = d.chance(0.4)
    end = np.where(bent, lean + 0.25 * np.sign(lean), 0.0)
    elbow = (np.where(bent, -lean, 0.0), 0, knee)
    pole = join(rod((0, 0, 0.02), elbow, thick), rod(elbow, (end, 0, high), thick))
    urn = ball((0, 0, high * 0.42), d(0.06, 0.14), high * 0.36)
    shade: Outline = [(wide, 0), (narrow, tall), (0, tall)]
    return {
        "base": either(
            d.chance(0.6),
            _disc(0.0, 0.0, 0.0, foot, d(0.02, 0.06)),
            ball((0, 0, 0), foot, 0.1, low=0),
        ),
        "pole": join(pole, where(~bent & d.chance(0.4), urn)),
        "shade": lathe((end, 0, high - tall * 0.6), shade),
    }


def _fan(d: Draw) -> Parts:
    high, size, foot = d(0.4, 1.1), d(0.22, 0.4), d(0.15, 0.25)
    count, reach, pitch = d.whole(3, 5), np.arange(5), d(0.2, 0.6)
    blade = box((0, 0, size * 0.55), (size * d(0.25, 0.45), 0.012, size * 0.8), top=(1.5, 1))
    blades = where(reach < count, turn(turn(blade, Z, pitch), Y, 2 * np.pi * reach / count))
    front = rod((0, -0.1, 0), (0, 0.12, 0), 0.06, 0.08)
    guard = ring((0, SIDE * 0.05, 0), size * np.array([1.05, 1.05]), 0.012, right=X, up=Z)
    hub = (0, 0.12, high)
    return {
        "base": either(
            d.chance(0.6),
            _disc(0.0, 0.0, 0.0, foot, 0.03),
            box((0, 0, 0.03), (foot * 2, foot * 1.5, 0.06)),
        ),
        "pole": join(rod((0, 0, 0.02), (0, 0, high), d(0.015, 0.03)), move(front, (0, 0, high))),
        "blade": move(blades, hub),
        "guard": where(d.chance(0.6), move(guard, hub)),
    }


def _mug(d: Draw) -> Parts:
    wide, tall, thick = d(0.28, 0.42), d(0.5, 1.0), d(0.02, 0.05)
    low, waist = wide * d(0.65, 1.05), wide * d(0.85, 1.1)
    inner: Outline = [(wide - thick, tall), (low - thick, thick), (0, thick)]
    body = lathe((0, 0, 0), [(0, 0), (low, 0), (waist, tall / 2), (wide, tall), *inner])
    size = tall * d(0.2, 0.34)
    handle = ring((0, 0, 0), size, d(0.025, 0.05), right=Z, up=X, start=-0.25, sweep=np.pi + 0.5)
    oval = np.eye(3) * np.concatenate([d(0.6, 1.2), np.ones((d.n, 2))], axis=1)[:, None]
    handle = carry(handle, oval)
    return {"body": body, "handle": move(handle, (waist * 0.97, 0, tall * d(0.42, 0.6)))}


def _bottle(d: Draw) -> Parts:
    wide, tall, slope, rise = d(0.13, 0.28), d(0.4, 0.8), d(0.05, 0.25), d(0.06, 0.3)
    neck, cap = wide * d(0.25, 0.5), d(0.03, 0.08)
    shoulder = tall + slope
    body: Outline = [
        (0, 0),
        (wide * 0.95, 0),
        (wide, 0.03),
        (wide * d(0.85, 1), tall / 2),
        (wide, tall),
    ]
    bend: Outline = [(neck + (wide - neck) * 0.75, tall + slope * 0.45), (neck, shoulder)]
    stopper: Outline = [(neck * 1.15, 0), (neck * 1.15, cap), (0, cap)]
    return {
        "body": lathe((0, 0, 0), [*body, *bend]),
        "neck": lathe((0, 0, shoulder), [(neck, 0), (neck * d(0.85, 1.05), rise)]),
        "cap": where(d.chance(0.75), lathe((0, 0, shoulder + rise - cap * 0.5), stopper)),
    }


def _vase(d: Draw) -> Parts:
    foot, belly, neck, lip = d(0.1, 0.2), d(0.2, 0.36), d(0.07, 0.2), d(0.12, 0.32)
    base, tall, rise = d(0.02, 0.12), d(0.4, 0.8), d(0.08, 0.3)
    level, top = d(0.35, 0.7), base + tall
    t = np.linspace(0, 1, 8)[None]
    below, above = np.minimum(t / level, 1), np.maximum((t - level) / (1 - level), 0)
    width = np.where(
        t < level,
        foot * 0.8 + (belly - foot * 0.8) * np.sin(below * np.pi / 2),
        neck + (belly - neck) * np.cos(above * np.pi / 2),
    )
    outline = [(width[:, i : i + 1], base + tall * t[:, i : i + 1]) for i in range(t.size)]
    handle = ring((0, 0, 0), tall * 0.2, 0.025, right=Z, up=X, sweep=np.pi)
    pair = turn(move(handle, (belly * 0.8, 0, base + tall * 0.7)), Z, np.array([0, np.pi]))
    return {
        "foot": lathe((0, 0, 0), [(0, 0), (foot, 0), (foot * 0.8, base)]),
        "body": lathe((0, 0, 0), outline),
        "neck": lathe((0, 0, top), [(neck, 0), (neck * 0.95, rise / 2), (lip, rise)]),
        "handle": where(d.chance(0.25), pair),
    }


def _teapot(d: Draw) -> Parts:
    wide, tall, tip = d(0.35, 0.5), d(0.26, 0.45), d(0.1, 0.3)
    spout = rod((wide * 0.8, 0, -0.05), (wide + d(0.2, 0.35), 0, tip), d(0.07, 0.11), d(0.03, 0.05))
    grip = d(0.15, 0.24)
    side = ring(
        (-wide, 0, 0.03), grip, 0.035, right=Z, up=(-1, 0, 0), start=-0.2, sweep=np.pi + 0.4
    )
    over = ring((0, 0, tall * 0.6), wide * 0.85, 0.03, right=X, up=Z, sweep=np.pi)
    knob = ball((0, 0, tall + 0.07), d(0.04, 0.07), segments=6)
    cover = ball((0, 0, tall * 0.85), wide * d(0.4, 0.55), tall * 0.3, low=0, segments=4)
    return {
        "body": ball((0, 0, 0), wide, tall, low=-60, high=75),
        "spout": spout,
        "handle": either(d.chance(0.7), side, over),
        "lid": join(cover, knob),
    }


def _airplane(d: Draw) -> Parts:
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


def _car(d: Draw) -> Parts:
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


def _rocket(d: Draw) -> Parts:
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


def _sailboat(d: Draw) -> Parts:
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


def _guitar(d: Draw) -> Parts:
    lower, thick, long = d(0.22, 0.32), d(0.05, 0.14), d(0.45, 0.75)
    upper, gap, thin = lower * d(0.65, 0.95), d(0.26, 0.36), d(0.025, 0.04)
    end = gap + upper + long
    body = join(_disc(0.0, 0.0, 0.0, lower, thick), _disc(0.0, gap, 0.0, upper, thick))
    neck = box((0, end - (long + 0.15) / 2, thick), (thin * 2, long + 0.15, thin))
    head = box((0, end + 0.08, thick), (d(0.08, 0.13), 0.18, thin * 0.8))
    parts = {"body": body, "neck": neck, "head": head}
    return {name: turn(patches, X, np.pi / 2) for name, patches in parts.items()}


def _hammer(d: Draw) -> Parts:
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


def _umbrella(d: Draw) -> Parts:
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


def _ladder(d: Draw) -> Parts:
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


def _dumbbell(d: Draw) -> Parts:
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


def _headphones(d: Draw) -> Parts:
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


def _tree(d: Draw) -> Parts:
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


def _house(d: Draw) -> Parts:
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


_SHAPES: dict[str, tuple[Callable[[Draw], Parts], tuple[str, ...]]] = {
    "chair": (_chair, ("seat", "back", "leg", "arm")),
    "stool": (_stool, ("seat", "leg", "rung")),
    "bench": (_bench, ("seat", "back", "leg", "arm")),
    "table": (_table, ("top", "leg", "tray")),
    "desk": (_desk, ("top", "leg", "drawer")),
    "sofa": (_sofa, ("seat", "back", "arm", "leg")),
    "bed": (_bed, ("mattress", "frame", "headboard", "pillow")),
    "shelf": (_shelf, ("side", "board", "back")),
    "lamp": (_lamp, ("base", "pole", "shade")),
    "fan": (_fan, ("base", "pole", "blade", "guard")),
    "mug": (_mug, ("body", "handle")),
    "bottle": (_bottle, ("body", "neck", "cap")),
    "vase": (_vase, ("foot", "body", "neck", "handle")),
    "teapot": (_teapot, ("body", "spout", "handle", "lid")),
    "airplane": (_airplane, ("body", "wing", "tail", "engine")),
    "car": (_car, ("body", "cabin", "wheel")),
    "rocket": (_rocket, ("body", "nose", "fin", "nozzle")),
    "sailboat": (_sailboat, ("hull", "mast", "sail")),
    "guitar": (_guitar, ("body", "neck", "head")),
    "hammer": (_hammer, ("handle", "head", "claw")),
    "umbrella": (_umbrella, ("canopy", "shaft", "handle")),
    "ladder": (_ladder, ("rail", "rung", "support")),
    "dumbbell": (_dumbbell, ("bar", "weight")),
    "headphones": (_headphones, ("band", "cup", "microphone")),
    "tree": (_tree, ("trunk", "crown")),
    "house": (_house, ("wall", "roof", "chimney", "porch")),
}

CATEGORIES: tuple[str, ...] = tuple(_SHAPES)
PART_NAMES: tuple[str, ...] = tuple(
    f"{category}/{part}" for category, (_, parts) in _SHAPES.items() for part in parts
)


def category_parts() -> dict[str, tuple[int, ...]]:
    """The ids, into `PART_NAMES`, of the parts that shapes of each category may have."""
    owners = [name.split("/")[0] for name in PART_NAMES]
    return {c: tuple(i for i, owner in enumerate(owners) if owner == c) for c in CATEGORIES}


def _posed(category: str, n: int, rng: np.random.Generator) -> tuple[Patches, np.ndarray]:
    """Patches of n stretched, tilted and turned shapes, and the part id (K,) of each patch."""
    build, names = _SHAPES[category]
    parts = build(Draw(n, rng))
    ids = category_parts()[category]
    part = np.repeat(np.array(ids, np.uint8), [parts[name].kind.size for name in names])
    pose = rng.uniform(0.75, 1.3, (n, 1, 3)) * np.eye(3)
    for axis in (X, Y):
        pose = rotation(axis, rng.normal(0.0, 0.1, n)) @ pose
    pose = rotation(Z, rng.uniform(0.0, 2 * np.pi, n)) @ pose
    return carry(join(*(parts[name] for name in names)), pose), part


def _finished(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Clouds (3, n, N) bent, made noisy, centred and scaled to the unit sphere."""
    n = points.shape[1]
    size = _centre(points)
    bend = rng.normal(0.0, 0.08, (2, n, 1)).astype(np.float32)
    points[:2] += bend / size * points[2] ** 2
    sigma = rng.uniform(0.005, 0.01, (n, 1)).astype(np.float32) * size
    points += sigma * _gaussian(points.shape, rng)
    points /= _centre(points)
    return points


def _gaussian(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Normal numbers after Box and Muller: a third of the time that the generator's own take."""
    size = math.prod(shape)
    u, v = rng.random((2, (size + 1) // 2), dtype=np.float32)
    reach, angle = np.sqrt(-2 * np.log1p(-u)), 2 * np.pi * v
    return np.concatenate([reach * np.cos(angle), reach * np.sin(angle)])[:size].reshape(shape)


def _centre(points: np.ndarray) -> np.ndarray:
    """Moves clouds (3, n, N) to mean zero, in place; returns their radii (n, 1)."""
    points -= points.mean(axis=2, keepdims=True)
    square = np.einsum("dnp,dnp->np", points, points)
    return np.sqrt(np.maximum(square.max(axis=1, keepdims=True), 1e-12))


def generate(count: int, *, points: int = 2048, seed: int = 0) -> Clouds:
    """Random labelled shapes, the same for the same arguments.

    Every cloud is turned by any angle about z, slightly tilted, stretched, bent and noisy, centred
    on its mean and scaled so that its farthest point has norm 1. Its points are uniform over the
    surface, up to the stretching and bending of round parts, and in random order, so that its
    first points are a smaller sample of it.

    Args:
        count: number of clouds, at least 1; categories are as even as can be, in random order.
        points: points of each cloud, at least 1.
        seed: what all randomness is drawn from, at least 0.

    Returns:
        Clouds with points (count, points, 3) float32, labels into `CATEGORIES`, and parts
        (count, points) into `PART_NAMES`.

    Raises:
        InputError: count or points below 1, or seed below 0.
    """
    for what, value, least in (("count", count, 1), ("points", points, 1), ("seed", seed, 0)):
        if value < least:
            raise InputError(f"procedural shapes: {what} must be at least {least}, got {value}")
    rng = np.random.default_rng(seed)
    classes = len(CATEGORIES)
    labels = rng.permutation(rng.permutation(classes)[np.arange(count) % classes])
    coordinates = np.empty((count, points, 3), np.float32)
    parts = np.empty((count, points), np.uint8)
    for label, category in enumerate(CATEGORIES):
        rows = np.flatnonzero(labels == label)
        if rows.size:
            patches, part = _posed(category, rows.size, rng)
            for low in range(0, rows.size, _BLOCK):
                block = rows[low : low + _BLOCK]
                surface, owner = sample(patches.rows(slice(low, low + _BLOCK)), points, rng)
                coordinates[block] = np.stack(list(_finished(surface, rng)), axis=-1)
                parts[block] = part[owner]
    return Clouds(
        points=coordinates,
        labels=labels,
        class_names=CATEGORIES,
        parts=parts,
        part_names=PART_NAMES,
        name=f"procedural (seed {seed})",
    )
