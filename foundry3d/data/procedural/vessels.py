"""Things to drink and pour from: one function per category, giving its parts.

Before posing z points up, x to the right, and a shape is about one unit large.
"""

from __future__ import annotations

import numpy as np

from foundry3d.data.procedural.draw import Draw, Parts
from foundry3d.data.procedural.patches import X, Z, carry, either, join, move, turn, where
from foundry3d.data.procedural.primitives import Outline, ball, lathe, ring, rod


def mug(d: Draw) -> Parts:
    """A hollow body, and a handle as an oval arc."""
    wide, tall, thick = d(0.28, 0.42), d(0.5, 1.0), d(0.02, 0.05)
    low, waist = wide * d(0.65, 1.05), wide * d(0.85, 1.1)
    inner: Outline = [(wide - thick, tall), (low - thick, thick), (0, thick)]
    body = lathe((0, 0, 0), [(0, 0), (low, 0), (waist, tall / 2), (wide, tall), *inner])
    size = tall * d(0.2, 0.34)
    handle = ring((0, 0, 0), size, d(0.025, 0.05), right=Z, up=X, start=-0.25, sweep=np.pi + 0.5)
    oval = np.where(np.arange(3) < 1, d(0.6, 1.2), 1.0)
    handle = carry(handle, oval[:, None, None] * np.eye(3))
    return {"body": body, "handle": move(handle, (waist * 0.97, 0, tall * d(0.42, 0.6)))}


def bottle(d: Draw) -> Parts:
    """Sloping shoulders, a cap on most."""
    wide, tall, slope, rise = d(0.13, 0.28), d(0.4, 0.8), d(0.05, 0.25), d(0.06, 0.3)
    neck, cap = wide * d(0.25, 0.5), d(0.03, 0.08)
    shoulder = tall + slope
    foot: Outline = [(0, 0), (wide * 0.95, 0), (wide, 0.03)]
    body: Outline = [(wide * d(0.85, 1), tall / 2), (wide, tall)]
    bend: Outline = [(neck + (wide - neck) * 0.75, tall + slope * 0.45), (neck, shoulder)]
    stopper: Outline = [(neck * 1.15, 0), (neck * 1.15, cap), (0, cap)]
    return {
        "body": lathe((0, 0, 0), [*foot, *body, *bend]),
        "neck": lathe((0, 0, shoulder), [(neck, 0), (neck * d(0.85, 1.05), rise)]),
        "cap": where(d.chance(0.75), lathe((0, 0, shoulder + rise - cap * 0.5), stopper)),
    }


def vase(d: Draw) -> Parts:
    """A belly between foot and lip, two handles on some."""
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


def teapot(d: Draw) -> Parts:
    """A spout, a lid, and a handle at the side or overhead."""
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
