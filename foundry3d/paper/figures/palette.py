"""Colours that stay apart for readers with and without colour-blindness.

Shapes: n colours, m candidates; RGB in [0, 1].
"""

from __future__ import annotations

import functools

import numpy as np

TO_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
TO_OKLAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
"""Linear RGB to cone responses, and their cube roots to OKLab (Ottosson 2020)."""
DEFICIENCIES = {
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
}
"""What readers without red or green cones see, in linear RGB (Machado et al. 2009, severity 1)."""

OKABE_ITO = np.array(
    [
        [0, 114, 178],
        [230, 159, 0],
        [0, 158, 115],
        [204, 121, 167],
        [0, 0, 0],
        [213, 94, 0],
        [86, 180, 233],
    ]
)
"""Colours that are named for readers with and without colour-blindness (2008), without yellow."""


def oklab(colours: np.ndarray, deficiency: str | None = None) -> np.ndarray:
    """OKLab coordinates (n, 3) of sRGB colours (n, 3), as seen with a deficiency of colour vision.

    Equal distances look about equally different.
    """
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    if deficiency is not None:
        linear = np.clip(linear @ DEFICIENCIES[deficiency].T, 0, 1)
    return np.cbrt(linear @ TO_LMS.T) @ TO_OKLAB.T


def distances(colours: np.ndarray, others: np.ndarray, deficiency: str | None = None) -> np.ndarray:
    """How different colours (n, 3) look from others (m, 3), (n, m), with a deficiency."""
    first, second = oklab(colours, deficiency), oklab(others, deficiency)
    return np.linalg.norm(first[:, None] - second[None], axis=-1)


def contrast(colours: np.ndarray, others: np.ndarray) -> np.ndarray:
    """How different colours (n, 3) are from others (m, 3), (n, m), for all readers together.

    The least of half the distance with full colour vision and those with a deficiency.
    """
    seen = [distances(colours, others, sight) for sight in DEFICIENCIES]
    return np.min([distances(colours, others) / 2, *seen], axis=0)


@functools.cache
def distinct_colours(count: int) -> np.ndarray:
    """RGB (count, 3) of colours that are as different as possible, for a white background.

    The first are those of Okabe and Ito; each further one is the candidate with the largest
    contrast to all before it. Fewer colours are always the first of more.
    """
    steps = np.linspace(0, 1, 13)
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    lightness = oklab(grid)[:, 0]
    grid = grid[(lightness > 0.35) & (lightness < 0.86)]
    chosen = OKABE_ITO / 255
    nearest = contrast(grid, chosen).min(axis=1)
    while len(chosen) < count:
        chosen = np.concatenate([chosen, grid[[int(nearest.argmax())]]])
        nearest = np.minimum(nearest, contrast(grid, chosen[-1:])[:, 0])
    return chosen[:count]
