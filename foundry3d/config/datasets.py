"""Options of the commands for published data sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from foundry3d.config.reading import check_reading
from foundry3d.config.records import positive, require


def _name_and_folder(dataset: tuple[str, ...], command: str) -> None:
    require(
        len(dataset) == 2,
        f"name the data set and its folder: foundry3d data {command} NAME FOLDER; "
        f"got {' '.join(dataset) or 'nothing'}",
    )


@dataclass(frozen=True, kw_only=True)
class CheckConfig:
    """`foundry3d data check`: a copy of a published data set against its published figures.

    Attributes:
        dataset: its name and the folder it lies in, e.g. `modelnet40 data`.
    """

    dataset: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _name_and_folder(self.dataset, "check")


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """`foundry3d data prepare`: a published data set as one safe archive for each split.

    Attributes:
        dataset: its name and the folder it lies in, e.g. `shapenetpart data`.
        out: folder of the archives `NAME-SPLIT.npz`; none is ever overwritten.
        splits: which of them; none named = all that are there.
    """

    dataset: tuple[str, ...] = ()
    out: str = "prepared"
    splits: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _name_and_folder(self.dataset, "prepare")


@dataclass(frozen=True, kw_only=True)
class PackConfig:
    """`foundry3d data pack`: a large collection as tar shards that training streams.

    Attributes:
        source: an .npz archive, a folder of point-cloud files, or `procedural`.
        out: folder of the shards and their index; must not hold anything yet.
        shard_clouds: clouds of a shard.
        clouds: built-in shapes to pack.
        points: of a built-in shape, or drawn from a mesh; files of points keep all of theirs.
        columns: of text tables, as in `foundry3d embed`.
        invalid: as in `foundry3d embed`.
        seed: of built-in shapes, points drawn from meshes, and the order.
    """

    source: str = "procedural"
    out: str = "shards"
    shard_clouds: int = 1000
    clouds: int = 4000
    points: int = 8192
    columns: str | None = None
    invalid: Literal["drop", "refuse"] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        positive(self, "shard_clouds", "clouds", "points")
        check_reading(self.columns, self.invalid)
        require(self.seed >= 0, f"seed must not be negative, got {self.seed}")
