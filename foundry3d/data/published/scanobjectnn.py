"""ScanObjectNN: real scans of 15 classes, in the three variants that papers report.

The paper's appendix counts 2,304 training objects in the first two; the files hold 2,309.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from foundry3d.data.clouds import Clouds
from foundry3d.data.published.hdf5 import labelled, labels_of
from foundry3d.data.published.names import SCANOBJECTNN
from foundry3d.data.published.record import Published, Split, below


def _file(variant: str, root: Path, split: str) -> Path:
    part = "training" if split == "train" else "test"
    return below(root, "ScanObjectNN", "h5_files") / variant.format(split=part)


def _labels(variant: str, root: Path, split: str) -> np.ndarray:
    return labels_of([_file(variant, root, split)])


def _read(variant: str, name: str, root: Path, split: str) -> Clouds:
    points, labels = labelled([_file(variant, root, split)])
    return Clouds(points=points, labels=labels, class_names=SCANOBJECTNN, name=f"{name} {split}")


def _published(title: str, name: str, variant: str, train: int, test: int) -> Published:
    return Published(
        title=f"ScanObjectNN {title}",
        layout="ScanObjectNN/" + variant.format(split="{training,test}"),
        owner="hkust-vgd.github.io/scanobjectnn",
        splits={"train": Split(clouds=train, classes=15), "test": Split(clouds=test, classes=15)},
        labels=partial(_labels, variant),
        read=partial(_read, variant, f"scanobjectnn-{name}"),
        class_names=SCANOBJECTNN,
    )


_SMALL, _LARGE = "{split}_objectdataset.h5", "{split}_objectdataset_augmentedrot_scale75.h5"
OBJ_BG = _published("OBJ-BG", "bg", f"main_split/{_SMALL}", 2309, 581)
OBJ_ONLY = _published("OBJ-ONLY", "only", f"main_split_nobg/{_SMALL}", 2309, 581)
PB_T50_RS = _published("PB-T50-RS", "pb", f"main_split/{_LARGE}", 11416, 2882)
