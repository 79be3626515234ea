"""Toilets, bathtubs and basins: hollow bodies on feet."""

from __future__ import annotations

from foundry3d.data.programs.parts import Draw, blob, box, lathe, post, tube
from foundry3d.data.programs.rows import TURN, cut_of, moved, turned
from foundry3d.data.programs.running import Program
from foundry3d.data.programs.supports import legs


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
