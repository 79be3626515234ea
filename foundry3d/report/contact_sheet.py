"""A contact sheet: small views of many clouds, the first of them in another colour.

Shapes: N points of a cloud, S x S pixels of a view.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

import numpy as np

from foundry3d.report.figures import new_figure
from foundry3d.report.scene_views import View, look

FIRST, OTHERS = (0.90, 0.42, 0.13), (0.25, 0.45, 0.70)
"""RGB of the first cloud and of the others, at half their height."""
SIDE = 240
"""S."""
COLUMNS = 4
LONGEST = 34
"""Characters of a line; longer ones lose their middle."""


def draw_sheet(
    stream: BinaryIO, clouds: Sequence[np.ndarray], names: Sequence[str], *, title: str
) -> None:
    """Writes a PNG with a view of every cloud, darker at the bottom.

    Args:
        stream: receives the PNG.
        clouds: (N, 3) each, z up.
        names: below each cloud; may have two lines.
        title: above all of them.
    """
    rows = -(-len(clouds) // COLUMNS)
    figure = new_figure((2.5 * COLUMNS, 2.8 * rows + 0.5), _short(title, 90))
    for i, (cloud, name) in enumerate(zip(clouds, names, strict=True)):
        axes = figure.add_subplot(rows, COLUMNS, i + 1)
        axes.imshow(_tile(look(cloud, width=SIDE, elevation=22), OTHERS if i else FIRST))
        text = "\n".join(_short(line, LONGEST) for line in name.split("\n"))
        axes.text(0.5, -0.02, text, transform=axes.transAxes, ha="center", va="top", fontsize=8)
        axes.set_axis_off()
    top = 1 - 0.45 / (2.8 * rows + 0.5)
    figure.subplots_adjust(
        left=0.01, right=0.99, bottom=0.35 / (2.8 * rows), top=top, wspace=0.08, hspace=0.14
    )
    figure.savefig(stream, format="png")


def _tile(view: View, colour: tuple[float, float, float]) -> np.ndarray:
    """RGB (S, S, 3) of a view in the middle of a white square."""
    height = view.points[:, 2] - view.points[:, 2].min()
    light = 0.55 + 0.75 * height / max(float(height.max()), 1e-12)
    colours = np.clip(np.array(colour) * light[:, None], 0, 1)
    image = np.ones((*view.pixels.shape, 3))
    seen = view.pixels >= 0
    image[seen] = colours[view.pixels[seen]] * view.shade[seen][:, None]
    tile = np.ones((SIDE, SIDE, 3))
    high, wide = min(SIDE, image.shape[0]), min(SIDE, image.shape[1])
    down, right = (SIDE - high) // 2, (SIDE - wide) // 2
    tile[down : down + high, right : right + wide] = image[:high, :wide]
    return tile


def _short(text: str, longest: int) -> str:
    plain = text.encode("utf-8", "replace").decode().replace("$", r"\$")
    half = (longest - 1) // 2
    return plain if len(plain) <= longest else f"{plain[:half]}…{plain[-half:]}"
