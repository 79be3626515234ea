"""Built-in shapes of everyday objects with part labels: no download, generated in milliseconds.

In reading order: `patches` (what surfaces are made of), `primitives` (boxes, rods, lathes),
`draw` (random proportions), `furniture`, `vessels`, `vehicles`, `things` (one function per
category), `categories` (their table), `sampling` (points on patches), `generation` (clouds),
`colored` (clouds whose classes differ by shape and colour).
"""

from foundry3d.data.procedural.categories import CATEGORIES, PART_NAMES, category_parts
from foundry3d.data.procedural.colored import generate_colored
from foundry3d.data.procedural.generation import generate

__all__ = ["CATEGORIES", "PART_NAMES", "category_parts", "generate", "generate_colored"]
