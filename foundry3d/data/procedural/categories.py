"""The table of categories and their parts: its order gives labels and part ids."""

from __future__ import annotations

from collections.abc import Callable

from foundry3d.data.procedural import furniture, things, vehicles, vessels
from foundry3d.data.procedural.draw import Draw, Parts

SHAPES: dict[str, tuple[Callable[[Draw], Parts], tuple[str, ...]]] = {
    "chair": (furniture.chair, ("seat", "back", "leg", "arm")),
    "stool": (furniture.stool, ("seat", "leg", "rung")),
    "bench": (furniture.bench, ("seat", "back", "leg", "arm")),
    "table": (furniture.table, ("top", "leg", "tray")),
    "desk": (furniture.desk, ("top", "leg", "drawer")),
    "sofa": (furniture.sofa, ("seat", "back", "arm", "leg")),
    "bed": (furniture.bed, ("mattress", "frame", "headboard", "pillow")),
    "shelf": (furniture.shelf, ("side", "board", "back")),
    "lamp": (things.lamp, ("base", "pole", "shade")),
    "fan": (things.fan, ("base", "pole", "blade", "guard")),
    "mug": (vessels.mug, ("body", "handle")),
    "bottle": (vessels.bottle, ("body", "neck", "cap")),
    "vase": (vessels.vase, ("foot", "body", "neck", "handle")),
    "teapot": (vessels.teapot, ("body", "spout", "handle", "lid")),
    "airplane": (vehicles.airplane, ("body", "wing", "tail", "engine")),
    "car": (vehicles.car, ("body", "cabin", "wheel")),
    "rocket": (vehicles.rocket, ("body", "nose", "fin", "nozzle")),
    "sailboat": (vehicles.sailboat, ("hull", "mast", "sail")),
    "guitar": (things.guitar, ("body", "neck", "head")),
    "hammer": (things.hammer, ("handle", "head", "claw")),
    "umbrella": (things.umbrella, ("canopy", "shaft", "handle")),
    "ladder": (things.ladder, ("rail", "rung", "support")),
    "dumbbell": (things.dumbbell, ("bar", "weight")),
    "headphones": (things.headphones, ("band", "cup", "microphone")),
    "tree": (things.tree, ("trunk", "crown")),
    "house": (things.house, ("wall", "roof", "chimney", "porch")),
}

CATEGORIES: tuple[str, ...] = tuple(SHAPES)
PART_NAMES: tuple[str, ...] = tuple(
    f"{category}/{part}" for category, (_, parts) in SHAPES.items() for part in parts
)


def category_parts() -> dict[str, tuple[int, ...]]:
    """The ids, into `PART_NAMES`, of the parts that shapes of each category may have."""
    owners = [name.split("/")[0] for name in PART_NAMES]
    return {c: tuple(i for i, owner in enumerate(owners) if owner == c) for c in CATEGORIES}
