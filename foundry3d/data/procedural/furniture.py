"""Furniture to sit at, lie on and fill: one function per category, giving its parts.

Before posing z points up, x to the right, and a shape is about one unit large.
"""

from __future__ import annotations

import numpy as np

from foundry3d.data.procedural.draw import CORNER_X, CORNER_Y, SIDE, Draw, Parts
from foundry3d.data.procedural.patches import Number, Patches, either, join, where
from foundry3d.data.procedural.primitives import box, cylinder, lathe, ring, rod


def _legs(x: Number, y: Number, height: Number, thick: Number, splay: Number = 0.0) -> Patches:
    foot = (CORNER_X * (x + splay), CORNER_Y * (y + splay), 0.0)
    return rod(foot, (CORNER_X * x, CORNER_Y * y, height), thick * 0.8, thick)


def _pedestal(height: Number, thick: Number, foot: Number) -> Patches:
    return lathe((0, 0, 0), [(0, 0), (foot, 0), (foot, 0.03), (thick, 0.06), (thick, height)])


def chair(d: Draw) -> Parts:
    """Four legs or a pedestal, a solid or slatted back, arms on some."""
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
    post = cylinder((SIDE * wide / 2, deep * 0.4, over), 0.015, 0.2)
    plain = _legs(wide / 2 - 0.03, deep / 2 - 0.03, high, leg, d(-0.02, 0.1))
    return {
        "seat": either(
            d.chance(0.7),
            box((0, 0, high + thick / 2), (wide, deep, thick)),
            cylinder((0, 0, high), wide / 2, thick),
        ),
        "back": either(d.chance(0.6), solid, join(slats, rail)),
        "leg": either(d.chance(0.8), plain, _pedestal(high, 0.03, wide * 0.45)),
        "arm": where(d.chance(0.4), join(arm, post)),
    }


def stool(d: Draw) -> Parts:
    """A round or square seat on three to five legs or a pedestal, a rung on some."""
    radius, high, thick, leg = d(0.16, 0.3), d(0.35, 0.8), d(0.03, 0.1), d(0.015, 0.03)
    count, splay, step = d.whole(3, 5), d(0.0, 0.12), d(0.2, 0.5)
    angle = 2 * np.pi * np.arange(5) / count
    east, north, reach = np.cos(angle), np.sin(angle), radius * 0.8
    foot = (east * (reach + splay), north * (reach + splay), 0.0)
    legs = where(np.arange(5) < count, rod(foot, (east * reach, north * reach, high), leg))
    seat = either(
        d.chance(0.7),
        cylinder((0, 0, high), radius, thick),
        box((0, 0, high + thick / 2), (radius * 1.8, radius * 1.8 * d(0.7, 1.2), thick)),
    )
    rung = ring((0, 0, high * step), reach + splay * (1 - step), 0.012)
    stand = _pedestal(high, leg * 1.4, radius * 0.9)
    return {
        "seat": seat,
        "leg": either(d.chance(0.75), legs, stand),
        "rung": where(d.chance(0.5), rung),
    }


def bench(d: Draw) -> Parts:
    """A long seat on legs or slabs, a back of two planks and arms on some."""
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


def table(d: Draw) -> Parts:
    """Square on legs, or round or square on a pedestal; a tray under some."""
    wide, deep, high, thick = d(0.6, 1.5), d(0.5, 0.9), d(0.35, 0.8), d(0.03, 0.08)
    legs = _legs(wide / 2 - 0.06, deep / 2 - 0.06, high, d(0.02, 0.05), d(-0.03, 0.06))
    tray = box((0, 0, high * d(0.2, 0.4)), (wide * 0.85, deep * 0.85, 0.02))
    square, plain = d.chance(0.65), d.chance(0.8)
    board = box((0, 0, high + thick / 2), (wide, deep, thick))
    return {
        "top": either(square, board, cylinder((0, 0, high), deep * 0.65, thick)),
        "leg": either(square & plain, legs, _pedestal(high, d(0.03, 0.06), deep * d(0.25, 0.45))),
        "tray": where(square & plain & d.chance(0.25), tray),
    }


def desk(d: Draw) -> Parts:
    """A top on panels or legs, with one or two stacks of drawers."""
    wide, deep, high, thick = d(0.9, 1.5), d(0.5, 0.75), d(0.6, 0.75), d(0.03, 0.06)
    panels = box((SIDE * (wide / 2 - 0.03), 0, high / 2), (0.04, deep * 0.95, high))
    modesty = box((0, deep * 0.4, high * 0.65), (wide * 0.9, 0.02, high * 0.5))
    tall, broad = high * d(0.3, 0.95), wide * d(0.22, 0.32)
    drawers = box(
        (SIDE * (wide / 2 - broad / 2 - 0.06), 0, high - tall / 2), (broad, deep * 0.8, tall)
    )
    count = 1 + d.chance(0.4)
    return {
        "top": box((0, 0, high + thick / 2), (wide, deep, thick)),
        "leg": either(
            d.chance(0.5),
            join(panels, where(d.chance(0.6), modesty)),
            _legs(wide / 2 - 0.05, deep / 2 - 0.05, high, d(0.02, 0.035)),
        ),
        "drawer": where(np.arange(2) < count, drawers),
    }


def sofa(d: Draw) -> Parts:
    """Cushions on a block, thick arms, rolled on some."""
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


def bed(d: Draw) -> Parts:
    """One pillow, two on wide beds; a footboard on some."""
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


def shelf(d: Draw) -> Parts:
    """Three to seven boards between panels or rods, a back on some."""
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
