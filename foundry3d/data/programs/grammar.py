"""Which program an index stands for."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable
from itertools import accumulate

from foundry3d.data.programs import basins, furniture, seats, things, vehicles
from foundry3d.data.programs.parts import Draw
from foundry3d.data.programs.running import Program
from foundry3d.data.programs.senses import pose, sensed, warp
from foundry3d.data.programs.wild import wild

Family = Callable[[Draw], Program]

FAMILIES: dict[Family, float] = {
    furniture.table: 5, furniture.desk: 5, seats.chair: 8, seats.stool: 3, seats.sofa: 6,
    seats.bed: 6, furniture.cabinet: 6, furniture.shelf: 3, furniture.monitor: 5,
    basins.toilet: 4, basins.tub: 3, furniture.lamp: 3, furniture.door: 1,
    vehicles.car: 3, vehicles.cycle: 1.5, vehicles.plane: 4, vehicles.ship: 2, things.building: 4,
    things.plant: 4, things.vessel: 4, things.tool: 3, things.creature: 4, things.machine: 3,
    wild: 22,
}  # fmt: skip
"""How often each family is drawn, in arbitrary units."""

_FAMILIES = tuple(FAMILIES)
_SUMS = tuple(accumulate(FAMILIES.values()))


def written(d: Draw) -> Program:
    """A random program with a pose, a warp on some, and a sensor."""
    family = _FAMILIES[bisect(_SUMS, d.random() * _SUMS[-1])]
    program = family(d)
    free = family is wild
    if d.chance(0.35 if free else 0.1):
        warp(d, program, 1.0 if free else 0.5)
    pose(d, program, upright=not free or d.chance(0.4))
    sensed(d, program)
    return program
