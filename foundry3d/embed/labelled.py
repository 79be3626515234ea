"""Files of labelled points: PLY with a colour for each label, LAS with classifications.

Shapes: N points, P labels.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from foundry3d.errors import InputError
from foundry3d.writing import replacing

GOLDEN = (math.sqrt(5) - 1) / 2
MOST_LAS = 256
"""Labels that the classification field of a LAS file can hold."""
LONGEST_LAS = 15
"""Characters of the name of a classification."""


def palette(count: int) -> np.ndarray:
    """Distinct colours (P, 3) uint8: hues by the golden ratio, in two brightnesses."""
    rows = [
        colorsys.hsv_to_rgb((0.58 + i * GOLDEN) % 1, 0.75 if i % 2 else 0.6, 0.95 - 0.3 * (i % 2))
        for i in range(count)
    ]
    return (255 * np.array(rows)).round().astype(np.uint8)


def write_ply(
    path: str | Path, points: np.ndarray, labels: np.ndarray, names: Sequence[str]
) -> None:
    """Writes points with `red`, `green`, `blue` and `label`; comments name the labels.

    Args:
        path: of the file, which appears when it is complete.
        points: (N, 3) float64; stored as doubles only where floats would move them visibly.
        labels: (N,) integers below P.
        names: of the P labels.
    """
    size = float(np.ptp(points, axis=0).max())
    rounded = np.abs(points.astype(np.float32) - points).max()
    number, name = ("<f4", "float") if rounded <= 1e-6 * size else ("<f8", "double")
    kinds = [(axis, number) for axis in "xyz"]
    kinds += [(colour, "u1") for colour in ("red", "green", "blue")]
    rows = np.empty(len(points), np.dtype([*kinds, ("label", "<i4")]))
    for i, axis in enumerate("xyz"):
        rows[axis] = points[:, i]
    for i, colour in enumerate(("red", "green", "blue")):
        rows[colour] = palette(len(names))[labels, i]
    rows["label"] = labels
    lines = ["ply", "format binary_little_endian 1.0"]
    lines += [f"comment label {i} {' '.join(text.split())}" for i, text in enumerate(names)]
    lines += [f"element vertex {len(points)}", *(f"property {name} {axis}" for axis in "xyz")]
    lines += [f"property uchar {colour}" for colour in ("red", "green", "blue")]
    lines += ["property int label", "end_header", ""]
    header = "\n".join(lines).encode("ascii", "replace")
    with replacing(path) as partial, open(partial, "wb") as stream:
        stream.write(header)
        stream.write(rows.tobytes())


def write_las(
    path: str | Path, points: np.ndarray, labels: np.ndarray, names: Sequence[str]
) -> None:
    """Writes points with their labels as `classification`, and the names of the labels.

    Args:
        path: of the file, which appears when it is complete.
        points: (N, 3) float64, stored to a tenth of a millimetre, or finer where they are small.
        labels: (N,) integers below P.
        names: of the P labels.

    Raises:
        InputError: more labels than LAS has classifications.
    """
    import laspy

    if len(names) > MOST_LAS:
        raise InputError(
            f"las holds at most {MOST_LAS} classifications, got {len(names)}; use --format ply"
        )
    header = laspy.LasHeader(version="1.4", point_format=6)
    low = points.min(axis=0)
    fits = float(np.ptp(points, axis=0).max()) / 2**30
    step = 10.0 ** math.ceil(math.log10(fits)) if fits > 0 else 1e-4
    header.scales, header.offsets = np.full(3, max(step, min(1e-4, 1e3 * step))), np.floor(low)
    lookup = laspy.vlrs.known.ClassificationLookupVlr()
    for i, text in enumerate(names):
        lookup[i] = text.encode("ascii", "replace").decode()[:LONGEST_LAS]
    header.vlrs.append(lookup)
    data = laspy.LasData(header)
    data.x, data.y, data.z = points.T
    data.classification = labels.astype(np.uint8)
    with replacing(path) as partial, open(partial, "wb") as stream:
        data.write(stream)


WRITE = {"ply": write_ply, "las": write_las}
