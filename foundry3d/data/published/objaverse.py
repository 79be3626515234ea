"""Objaverse as PointLLM offers it: 8,192 coloured points of each of 660,000 objects, no classes.

`val_object_ids_3000.txt` names the objects that are held out. As PointLLM's own loader does, each
cloud is centred and scaled into the unit sphere, and then held as float16. The whole training split
takes 33 GB of memory.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from foundry3d.data.clouds import Clouds
from foundry3d.data.files import read_points
from foundry3d.data.published.record import ASK, Published, Split, below, lines, stack, unit_sphere
from foundry3d.errors import InputError

_HELD_OUT = "val_object_ids_3000.txt"
_ENDING = "_8192.npy"


def files_of(root: Path, split: str) -> list[Path]:
    """The files of a split, sorted by name, without hidden ones (`._ID` of macOS)."""
    folder = below(root, "objaverse_data", "8192_npy")
    places = [root, root / "anno_data", folder]
    found = next((path / _HELD_OUT for path in places if (path / _HELD_OUT).is_file()), None)
    if found is None:
        raise InputError(f"{root}: no {_HELD_OUT}, without which nothing would be held out; {ASK}")
    held = set(lines(found))
    files = sorted(
        path
        for path in folder.glob(f"*{_ENDING}")
        if not path.name.startswith(".")
        and (path.name.removesuffix(_ENDING) in held) == (split == "test")
    )
    if not files:
        raise InputError(f"{folder}: no {split} object ID{_ENDING}; {ASK}")
    return files


def _labels(root: Path, split: str) -> np.ndarray:
    return np.full(len(files_of(root, split)), -1)


def _read(root: Path, split: str) -> Clouds:
    files = files_of(root, split)
    points = stack(files, lambda file: unit_sphere(read_points(file).points), dtype=np.float16)
    return Clouds(points=points, labels=np.full(len(files), -1), name=f"objaverse {split}")


OBJAVERSE = Published(
    title="Objaverse (PointLLM)",
    layout=f"objaverse_data/ID{_ENDING} and {_HELD_OUT}",
    owner="huggingface.co/datasets/RunsenXu/PointLLM",
    splits={"train": Split(clouds=661575), "test": Split(clouds=3000)},
    labels=_labels,
    read=_read,
)
