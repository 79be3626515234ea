"""A contact sheet: small views of many clouds, the first of them in another colour.

Shapes: N points of a cloud.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

import numpy as np

from foundry3d.report.scene_views import draw_views, look

FIRST, OTHERS = (0.90, 0.42, 0.13), (0.25, 0.45, 0.70)
"""RGB of the first cloud and of the others, at half their height."""
WIDTH = 240
"""Pixels of a view."""
LONGEST = 38
"""Characters of a name; longer ones lose their middle."""


def draw_sheet(
    stream: BinaryIO, clouds: Sequence[np.ndarray], names: Sequence[str], *, title: str
) -> None:
    """Writes a PNG with a view of every cloud, darker at the bottom.

    Args:
        stream: receives the PNG.
        clouds: (N, 3) each, z up.
        names: above each cloud.
        title: above all of them.
    """
    views = [look(cloud, width=WIDTH, elevation=22) for cloud in clouds]
    colours = []
    for i, view in enumerate(views):
        height = view.points[:, 2] - view.points[:, 2].min()
        light = 0.55 + 0.75 * height / max(float(height.max()), 1e-12)
        base = np.array(OTHERS if i else FIRST)
        colours.append(np.clip(base * light[:, None], 0, 1))
    draw_views(
        stream, views, colours, names=[_short(name) for name in names], title=_short(title, 90)
    )


def _short(name: str, longest: int = LONGEST) -> str:
    half = (longest - 1) // 2
    plain = name.encode("utf-8", "replace").decode().replace("$", r"\$")
    return plain if len(plain) <= longest else f"{plain[:half]}…{plain[-half:]}"
