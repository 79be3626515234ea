"""The published data sets by their names on the command line, and how their clouds are read.

Shape legend: n clouds, N points of each.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import numpy as np

from foundry3d.data.clouds import Clouds
from foundry3d.data.published.fewshot import MODELNET_FEWSHOT
from foundry3d.data.published.modelnet import MODELNET40_H5, MODELNET40_NORMAL
from foundry3d.data.published.objaverse import OBJAVERSE
from foundry3d.data.published.omniobject3d import OMNIOBJECT3D
from foundry3d.data.published.record import Published
from foundry3d.data.published.scanobjectnn import OBJ_BG, OBJ_ONLY, PB_T50_RS
from foundry3d.data.published.shapenet55 import SHAPENET
from foundry3d.data.published.shapenetpart import SHAPENETPART
from foundry3d.errors import InputError

DATASETS: Final[dict[str, Published]] = {
    "modelnet40": MODELNET40_H5,
    "modelnet40-normal": MODELNET40_NORMAL,
    "modelnet-fewshot": MODELNET_FEWSHOT,
    "scanobjectnn-bg": OBJ_BG,
    "scanobjectnn-only": OBJ_ONLY,
    "scanobjectnn-pb": PB_T50_RS,
    "shapenet55": SHAPENET,
    "shapenetpart": SHAPENETPART,
    "omniobject3d": OMNIOBJECT3D,
    "objaverse": OBJAVERSE,
}

_SOURCE = re.compile(r"([\w-]{2,}):(.+?)(?::([\w/-]+))?")  # a drive letter of Windows is no name


def is_published(source: str) -> bool:
    """Whether a source is `NAME:ROOT` or `NAME:ROOT:SPLIT`, and not a file or folder."""
    return _SOURCE.fullmatch(source) is not None and not Path(source).exists()


def find(name: str) -> Published:
    """The published data set of a name.

    Raises:
        InputError: an unknown name; the known ones are listed.
    """
    if name not in DATASETS:
        raise InputError(f"no data set {name!r}; known are {', '.join(DATASETS)}")
    return DATASETS[name]


def read_published(source: str, *, train: bool) -> Clouds:
    """The clouds that `NAME:ROOT` or `NAME:ROOT:SPLIT` names, e.g. `shapenet55:data:train_25`.

    ROOT is the data set's folder or its parent; without SPLIT, `train` picks the training or the
    test split.

    Raises:
        InputError: an unknown name or split, or files that cannot be used.
    """
    found = _SOURCE.fullmatch(source)
    if found is None:
        raise InputError(f"expected NAME:FOLDER or NAME:FOLDER:SPLIT, got {source!r}")
    data = find(found[1])
    split = found[3] or (data.train if train else data.test)
    return read_split(data, Path(found[2]), split)


def read_split(data: Published, root: Path, split: str) -> Clouds:
    """The clouds of one split, the points of each shuffled: the first ones are a uniform subset.

    Raises:
        InputError: an unknown split, or files that cannot be used.
    """
    if split not in data.splits:
        known = list(data.splits)
        more = f" and {len(known) - 6} more" if len(known) > 6 else ""
        raise InputError(f"{data.title} has no split {split!r}; {', '.join(known[:6])}{more}")
    clouds = data.read(root, split)
    for i in range(len(clouds)):  # in place: nobody else has these arrays, and they may be large
        order = np.random.default_rng([0, i]).permutation(clouds.points.shape[1])
        clouds.points[i] = clouds.points[i, order]
        if clouds.parts is not None:
            clouds.parts[i] = clouds.parts[i, order]
    return clouds
