"""ShapeNetPart: 16 categories whose points have one of 50 part labels.

Files have different numbers of points. A cloud here has 2,048: a random subset, or all points of a
smaller file and random ones of them twice. (The usual loaders draw 2,048 with replacement every
time, for testing as well.)

Shape legend: n clouds, N points of each.
"""

from __future__ import annotations

import json
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

import numpy as np

from foundry3d.data.clouds import Clouds
from foundry3d.data.formats.raw import columns
from foundry3d.data.published.record import (
    Published,
    Split,
    below,
    lines,
    need,
    number,
    present,
    stack,
)
from foundry3d.errors import InputError

POINTS = 2048

_COUNTS: Final = {
    "Airplane": 4, "Bag": 2, "Cap": 2, "Car": 4, "Chair": 4, "Earphone": 3, "Guitar": 3, "Knife": 2,
    "Lamp": 4, "Laptop": 2, "Motorbike": 6, "Mug": 2, "Pistol": 3, "Rocket": 3, "Skateboard": 3,
    "Table": 3,
}  # fmt: skip
_ENDS = accumulate(_COUNTS.values())
PARTS: Final[dict[str, tuple[int, ...]]] = {
    name: tuple(range(end - count, end))
    for (name, count), end in zip(_COUNTS.items(), _ENDS, strict=True)
}
"""Parts of each category, in the order of the category labels."""

CATEGORIES: Final = tuple(PARTS)
PART_NAMES: Final = tuple(
    f"{category} {part - parts[0]}" for category, parts in PARTS.items() for part in parts
)


def _categories(folder: Path) -> dict[str, int]:
    """Labels by WordNet offset, as `synsetoffset2category.txt` pairs names and offsets."""
    path = folder / "synsetoffset2category.txt"
    pairs = [line.split() for line in lines(path)]
    if any(len(pair) != 2 for pair in pairs):
        raise InputError(f"{path}: expected a name and an offset per line; download it again")
    return {offset: number(CATEGORIES, name, path) for name, offset in pairs}


def _names(path: Path) -> list[str]:
    """Entries `shape_data/OFFSET/ID` of a list in JSON."""
    try:
        found: Any = json.loads(need(path).read_text("utf-8"))
    except (ValueError, RecursionError):
        found = None
    if not (found and isinstance(found, list)) or not all(
        isinstance(n, str) and "/" in n for n in found
    ):
        raise InputError(f"{path}: expected a JSON list of shape_data/OFFSET/ID; download it again")
    return found


def _listed(root: Path, split: str) -> tuple[list[Path], np.ndarray]:
    """Files and categories (n,) of a split; a shape that is listed twice counts once."""
    folder = below(root, "shapenetcore_partanno_segmentation_benchmark_v0_normal")
    labels = _categories(folder)
    parts = ("train", "val") if split == "trainval" else (split,)
    found: dict[tuple[str, str], None] = {}
    for part in parts:
        path = folder / "train_test_split" / f"shuffled_{part}_file_list.json"
        for name in _names(path):
            offset, shape = name.split("/")[-2:]
            number(tuple(labels), offset, path)
            found[offset, shape] = None
    files = [folder / offset / f"{shape}.txt" for offset, shape in found]
    return files, np.array([labels[offset] for offset, _ in found])


def _labels(root: Path, split: str) -> np.ndarray:
    return present(*_listed(root, split))


def _load(path: Path) -> np.ndarray:
    """`POINTS` rows x, y, z, part of a file x, y, z, nx, ny, nz, part: (N, 4)."""
    need(path)
    try:
        with open(path, "rb") as file:
            rows = columns(file, None, (0, 1, 2, 6))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    generator = np.random.default_rng(len(rows))
    missing = POINTS - len(rows)
    again = generator.integers(len(rows), size=max(missing, 0))
    return rows[np.concatenate([generator.permutation(len(rows)), again])[:POINTS]]


def _read(root: Path, split: str) -> Clouds:
    files, labels = _listed(root, split)
    rows = stack(files, _load)
    parts = rows[..., 3]
    allowed = [(PARTS[name][0], PARTS[name][-1]) for name in CATEGORIES]
    low, high = np.array(allowed)[labels].T
    bad = (parts.min(1) < low) | (parts.max(1) > high) | (parts % 1 != 0).any(1)
    if bad.any():
        first = int(np.argmax(bad))
        raise InputError(
            f"{files[first]}: expected parts {low[first]}..{high[first]} of a "
            f"{CATEGORIES[labels[first]]}, found others; download it again"
        )
    return Clouds(
        points=np.ascontiguousarray(rows[..., :3]),
        labels=labels,
        class_names=CATEGORIES,
        parts=parts.astype(np.uint8),
        part_names=PART_NAMES,
        name=f"shapenetpart {split}",
    )


_TEST = (341, 14, 11, 158, 704, 14, 159, 80, 286, 83, 51, 38, 44, 12, 31, 848)

SHAPENETPART = Published(
    title="ShapeNetPart",
    layout="shapenetcore_partanno_segmentation_benchmark_v0_normal/{synsetoffset2category.txt, "
    "OFFSET/ID.txt, train_test_split/shuffled_{train,val,test}_file_list.json}",
    owner="shapenet.org",
    splits={
        "trainval": Split(clouds=13998, classes=16),
        "train": Split(classes=16),
        "val": Split(classes=16),
        "test": Split(clouds=2874, classes=16, per_class=_TEST),
    },
    labels=_labels,
    read=_read,
    class_names=CATEGORIES,
    train="trainval",
)
