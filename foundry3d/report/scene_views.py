"""Views of large clouds: from above one corner, nearest points in front, edges shaded.

Points are rasterised into pixels instead of drawn as markers, so that large clouds stay legible.

Shapes: N points, M visible points, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from foundry3d.extras import explained

MOST_DRAWN = 2_000_000
"""Points that are rasterised, at most; larger clouds are subsampled evenly."""


@dataclass(frozen=True, kw_only=True)
class View:
    """The visible part of a cloud.

    Attributes:
        points: (M, 3) the visible points.
        pixels: (H, W) int64, which of them each pixel shows, -1 = none.
        shade: (H, W) in [0, 1], darker next to something nearer.
    """

    points: np.ndarray
    pixels: np.ndarray
    shade: np.ndarray


def look(
    points: np.ndarray, *, width: int = 1100, azimuth: float = -60.0, elevation: float = 50.0
) -> View:
    """A cloud seen from above one corner, in orthographic projection.

    Args:
        points: (N, 3), z up.
        width: the larger of W and H; the other follows from the cloud.
        azimuth: of the viewer around the z axis, in degrees.
        elevation: of the viewer above the ground, in degrees; 90 = from above.
    """
    points = points[:: -(-len(points) // MOST_DRAWN)]
    a, e = np.deg2rad(azimuth), np.deg2rad(elevation)
    toward = np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])
    right = np.array([-np.sin(a), np.cos(a), 0.0])
    seen = (points - points.mean(axis=0)) @ np.stack([right, np.cross(toward, right), toward]).T
    low, high = np.percentile(seen[:, :2], [0.2, 99.8], axis=0)  # ignores stray points
    margin = 0.05 * (high - low)
    low = np.maximum(low - margin, seen[:, :2].min(axis=0))
    high = np.minimum(high + margin, seen[:, :2].max(axis=0))
    span = np.maximum(high - low, 1e-9 * max(np.ptp(seen), 1e-30))
    scale = (width - 1) / max(span)
    columns, rows = (np.floor(span * scale).astype(int) + 1).tolist()
    at = np.floor((seen[:, :2] - low) * scale).astype(int)
    near = seen[:, 2] * scale  # in pixels
    reach = int(np.clip(np.ceil(1.3 * np.sqrt(columns * rows / len(points))), 1, 9))
    order = np.argsort(near)
    offsets = np.arange(reach) - (reach - 1) // 2
    x = at[order, 0, None, None] + offsets[:, None]
    y = rows - 1 - at[order, 1, None, None] - offsets
    inside = (x >= 0) & (x < columns) & (y >= 0) & (y < rows)
    shown = np.full((rows, columns), -1, np.int64)
    found = np.broadcast_to(order[:, None, None], inside.shape)[inside]
    shown.reshape(-1)[(y * columns + x)[inside]] = found  # the nearest is written last
    depth = np.where(shown >= 0, near[shown], -np.inf)
    known, pixels = np.unique(shown, return_inverse=True)
    first = int(known[0] == -1)
    return View(
        points=points[known[first:]],
        pixels=pixels.reshape(shown.shape) - first,
        shade=_edges(depth),
    )


def _edges(depth: np.ndarray, strength: float = 0.012) -> np.ndarray:
    """Shade (H, W), darker next to nearer pixels (eye-dome lighting); depth -inf = empty."""
    behind = np.zeros_like(depth)
    padded = np.pad(depth, 2, constant_values=-np.inf)
    height, width = depth.shape
    with np.errstate(invalid="ignore"):
        for dy, dx in ((0, 2), (2, 0), (4, 2), (2, 4), (1, 1), (1, 3), (3, 1), (3, 3)):
            nearby = padded[dy : dy + height, dx : dx + width] - depth
            behind += np.clip(np.nan_to_num(nearby, nan=0.0, posinf=0.0), 0, 30)
    return np.exp(-strength * behind)


def draw_views(
    stream: BinaryIO,
    views: Sequence[View],
    colours: Sequence[np.ndarray],
    *,
    names: Sequence[str],
    title: str,
) -> None:
    """Writes a PNG of several clouds.

    Args:
        stream: receives the PNG.
        views: of each cloud.
        colours: RGB (M, 3) in [0, 1] of the visible points of each cloud.
        names: above each cloud.
        title: above all clouds.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    with explained():
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

    count = len(views)
    columns = 1 if count == 1 else 2 if count <= 4 else 3
    rows = -(-count // columns)
    shapes = [view.pixels.shape[0] / view.pixels.shape[1] for view in views]
    heights = [max(shapes[i : i + columns]) * 11 / columns + 0.3 for i in range(0, count, columns)]
    figure = Figure(figsize=(11, sum(heights) + 0.5), dpi=100, layout="constrained")
    grid = figure.add_gridspec(rows, columns, height_ratios=heights)
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=12)
    for i, (view, colour, name) in enumerate(zip(views, colours, names, strict=True)):
        axes = figure.add_subplot(grid[i // columns, i % columns])
        image = np.ones((*view.pixels.shape, 3))
        seen = view.pixels >= 0
        image[seen] = colour[view.pixels[seen]] * view.shade[seen][:, None]
        axes.imshow(image, interpolation="antialiased")
        axes.set_title(name, fontsize=10)
        axes.set_axis_off()
    figure.savefig(stream, format="png")
