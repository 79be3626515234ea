"""Random parts of large clouds that training reads in place of whole clouds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from foundry3d.config.records import MOST, require

CropKind = Literal["sphere", "column", "count"]
FORMS = "sphere:RADIUS, column:RADIUS or count:POINTS"


@dataclass(frozen=True, kw_only=True)
class CropConfig:
    """What a crop around a random point of a cloud takes.

    Attributes:
        kind: sphere, all points within a radius; column, the same without regard to height; count,
            the nearest points.
        size: the radius in the units of the cloud, or the number of points.
    """

    kind: CropKind
    size: float

    def __post_init__(self) -> None:
        require(self.kind in get_args(CropKind), f"a crop is {FORMS}, got {self.kind!r}")
        require(
            0 < self.size <= MOST and (self.kind != "count" or self.size == int(self.size)),
            f"a crop needs a positive radius or number of points, got {self.size}",
        )


def crop_of(text: str) -> CropConfig:
    """The crop that an option describes, e.g. `sphere:2.0`, `column:3.0` or `count:8192`.

    Raises:
        InputError: another form.
    """
    kind, _, number = text.partition(":")
    try:
        size = float(number)
    except ValueError:
        size = math.nan
    require(kind in get_args(CropKind) and not math.isnan(size), f"crop is {FORMS}, got {text!r}")
    return CropConfig(kind=kind, size=size)  # type: ignore[arg-type]
