"""Clouds that runs read and how they are augmented; options of the commands `data ...`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from foundry3d.config.attributes import check_attributes
from foundry3d.config.crops import crop_of
from foundry3d.config.models import BackboneConfig
from foundry3d.config.reading import check_normals, check_reading
from foundry3d.config.records import DEEPEST, MOST, fraction, not_negative, positive, require

SOURCES = (
    "an .npz archive, a folder, NAME:FOLDER, procedural for the built-in shapes, colored for "
    "built-in shapes in two colors, or programs:COUNT for random ones without labels"
)
BUILT_IN = ("procedural", "colored")
MOST_POINTS = 2**26
"""The largest number of points that are drawn from a shape or read of a cloud in training."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The clouds of a run: training, held out of training, and test.

    Neither source has a default. A record without them can be made, because a suite names the
    clouds of its runs; `require_data` refuses it where a run begins.

    Attributes:
        train: an .npz archive, a folder of files (`class/file`, or without classes), a folder of
            shards (`foundry3d data pack`; training only, nothing is held out), a published data
            set as `NAME:FOLDER`, `procedural` (built-in shapes), `colored` (built-in shapes in
            two colors, for models that read color), or `programs:COUNT` (random shapes without
            labels, made while training reads them).
        test: the same, or null for none; classes of a folder are matched by name. Nothing is ever
            selected on it.
        train_clouds: number of built-in shapes for training.
        test_clouds: number of built-in shapes for testing.
        validation: share of the training clouds held out, stratified by class.
        points: points per cloud that the model reads.
        subsample: how training takes them from larger clouds: random, fps (the paper, slower), or
            first, which are always the same.
        up: the axis that points up.
        columns: of text tables in a folder, as in `foundry3d embed`.
        invalid: of files in a folder, as in `foundry3d embed`.
        crop: pre-training and distillation read random parts of large clouds, which may differ in
            size: sphere:RADIUS, column:RADIUS (of any height), in the units of the files, or
            count:POINTS (the nearest ones); null = whole clouds.
        crops: with crop: how many are drawn from each cloud in an epoch.
        attributes: that the clouds are read with, e.g. normal,color; left empty = those that the
            model reads (`docs/attributes.md`).
        absent: clouds that lack one of the attributes are left out (drop), or read without it
            (fill); null = fill where the model has attribute_dropout, else drop.
        normals: estimate = normals are estimated for files in a folder that have none.
        workers: processes that draw the shapes of `programs` while training reads them, for a
            device that trains faster than one core draws; 0 = the training process draws them.
            The shapes and their order are the same.
    """

    train: str = ""
    test: str | None = None
    train_clouds: int = 4000
    test_clouds: int = 1000
    validation: float = 0.1
    points: int = 1024
    subsample: Literal["random", "fps", "first"] = "random"
    up: Literal["x", "y", "z"] = "z"
    columns: str | None = None
    invalid: Literal["drop", "refuse"] | None = None
    crop: str | None = None
    crops: int = 16
    attributes: tuple[str, ...] = ()
    absent: Literal["drop", "fill"] | None = None
    normals: Literal["estimate"] | None = None
    workers: int = 0

    def __post_init__(self) -> None:
        positive(self, "train_clouds", "test_clouds", "crops")
        not_negative(self, "workers", most=DEEPEST)
        positive(self, "points", most=MOST_POINTS)
        built_in = (self.train, self.train_clouds), (self.test, self.test_clouds)
        clouds = sum(count for source, count in built_in if source in BUILT_IN)
        require(
            clouds * self.points <= MOST,
            f"built-in shapes have at most {MOST} points in all, got {clouds} clouds of "
            f"{self.points}",
        )
        fraction(self, "validation")
        check_reading(self.columns, self.invalid)
        require(self.up in ("x", "y", "z"), f"up is one of x, y, z; got {self.up!r}")
        if self.crop is not None:
            crop_of(self.crop)
            require(
                self.subsample != "first",
                "the first points of a crop lie together; use data.subsample random or fps",
            )
            require(
                not self.attributes,
                "crops hold coordinates alone; leave data.crop or data.attributes out",
            )
        check_attributes(self.attributes)
        check_normals(self.normals)
        require(
            self.absent in (None, "drop", "fill"),
            f"absent is one of drop, fill; got {self.absent!r}",
        )


def read_for(data: DataConfig, *models: BackboneConfig) -> DataConfig:
    """The data with the attributes that all of these models read, as far as it names none.

    Args:
        data: of a run.
        models: sizes of the models that read it.

    Raises:
        InputError: the data names attributes, and a model reads another one.
    """
    wanted = tuple(dict.fromkeys(name for shape in models for name in shape.attributes))
    missing = [name for name in wanted if name not in data.attributes]
    require(
        not data.attributes or not missing,
        f"the model reads {', '.join(missing)}, which data.attributes "
        f"{list(data.attributes)} leaves out; leave data.attributes out, or name all",
    )
    if not wanted:
        return replace(data, attributes=()) if data.attributes else data
    fill = all(shape.attribute_dropout for shape in models if shape.attributes)
    absent = data.absent or ("fill" if fill else "drop")
    return replace(data, attributes=wanted, absent=absent)


def require_data(data: DataConfig, *, test: bool = False, option: str = "data") -> None:
    """Refuses a run whose clouds were not named.

    Args:
        data: of the run.
        test: whether the run needs test clouds too.
        option: what the data is called on the command line.

    Raises:
        InputError: there are no training clouds, or no test clouds where they are needed.
    """
    require(bool(data.train), f"name the training clouds with --{option}.train ({SOURCES})")
    require(bool(data.test) or not test, f"name the test clouds with --{option}.test ({SOURCES})")


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Training augmentation, drawn for each cloud (Table 15).

    Attributes:
        scale: range of the factor that is drawn for each axis.
        flip: mirror a random half of the clouds across a vertical plane.
        rotate: rotate about the up axis by a random angle.
        translate: largest shift along each axis.
        normalise: centre each cloud and scale it into the unit sphere.
    """

    scale: tuple[float, float] = (0.8, 1.2)
    flip: bool = False
    rotate: bool = True
    translate: float = 0.0
    normalise: bool = True

    def __post_init__(self) -> None:
        low, high = self.scale
        require(
            0 < low <= high <= MOST, f"scale needs 0 < low <= high <= {MOST}, got {low}, {high}"
        )
        not_negative(self, "translate")

    @property
    def still(self) -> bool:
        """Whether nothing is drawn, so that a cloud is the same in every epoch."""
        return self.scale == (1, 1) and not (self.flip or self.rotate or self.translate)


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
        dataset: its name and the folder that holds it, e.g. `modelnet40 data`.
    """

    dataset: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _name_and_folder(self.dataset, "check")


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """`foundry3d data prepare`: a published data set as one safe archive for each split.

    Attributes:
        dataset: its name and the folder that holds it, e.g. `shapenetpart data`.
        out: folder for the archives `NAME-SPLIT.npz`; none is ever overwritten.
        splits: which splits; none named = all that are there.
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
        source: an .npz archive, a folder of point-cloud files, or `procedural`; has no default.
        out: folder for the shards and their index; empty, missing, or left by a run that was
            stopped, which then continues.
        shard_clouds: clouds per shard.
        clouds: number of built-in shapes, where `source` is `procedural`.
        samples: points drawn from each mesh or built-in shape; files of points keep all of theirs.
        columns: of text tables, as in `foundry3d embed`.
        invalid: as in `foundry3d embed`.
        seed: of built-in shapes, points drawn from meshes, and the order of the clouds.
    """

    source: str = ""
    out: str = "shards"
    shard_clouds: int = 1000
    clouds: int = 4000
    samples: int = 8192
    columns: str | None = None
    invalid: Literal["drop", "refuse"] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        require(
            bool(self.source),
            "name what to pack: foundry3d data pack SOURCE (an .npz archive, a folder, or "
            "procedural for the built-in shapes)",
        )
        positive(self, "shard_clouds", "clouds")
        positive(self, "samples", most=MOST_POINTS)
        check_reading(self.columns, self.invalid)
        not_negative(self, "seed")
