"""Options of `foundry3d teacher-features`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from foundry3d.config.crops import crop_of
from foundry3d.config.data import MOST_POINTS
from foundry3d.config.reading import check_reading
from foundry3d.config.records import not_negative, positive, positive_or_null, require


@dataclass(frozen=True, kw_only=True)
class TeacherFeaturesConfig:
    """`foundry3d teacher-features`: a model's features, stored to distil students from.

    Attributes:
        model: a saved model (folder), or a checkpoint file of another project.
        data: a file or folder of clouds, an .npz archive of many, or `procedural`.
        out: folder to write, one file for each cloud; a folder that the same command left
            unfinished is continued.
        format: of the files, npz or parquet.
        per_point: one feature for every point, interpolated between tokens, in place of one for
            each token.
        half: features in float16; without, in float32.
        clouds: number of built-in shapes.
        points: a random subset of each cloud, with crop of each part; null = all points, of
            built-in shapes 1024.
        samples: points drawn from the surface of each mesh.
        columns: of text tables, as in `foundry3d embed`.
        invalid: as in `foundry3d embed`.
        seed: of built-in shapes, subsets and points drawn from meshes.
        up: the axis that points up in the files; null = as in the model's training.
        normalise: as in `foundry3d embed`.
        batch_size: clouds of equal size that go through the model together.
        points_per_token: treat every cloud as a scene with one token per this many points; null =
            the model's number of tokens.
        windows: encode a scene in windows of at most this many neighbouring tokens; null = as a
            whole.
        crop: store random parts of each cloud in its place, each a file: sphere:RADIUS,
            column:RADIUS or count:POINTS, as data.crop of training; null = whole clouds.
        crops: parts of each cloud.
    """

    model: str = ""
    data: str = ""
    out: str = "teacher-features"
    format: Literal["npz", "parquet"] = "npz"
    per_point: bool = False
    half: bool = False
    clouds: int = 4000
    points: int | None = None
    samples: int = 16384
    columns: str | None = None
    invalid: Literal["drop", "refuse"] | None = None
    seed: int = 0
    up: Literal["x", "y", "z"] | None = None
    normalise: bool | None = None
    batch_size: int = 16
    points_per_token: int | None = None
    windows: int | None = None
    crop: str | None = None
    crops: int = 512

    def __post_init__(self) -> None:
        require(bool(self.model), "name a saved model with --model")
        require(bool(self.data), "name the clouds with --data (a file, a folder, or procedural)")
        require(self.format in ("npz", "parquet"), f"format is npz or parquet, got {self.format!r}")
        positive(self, "clouds", "batch_size", "crops")
        positive(self, "samples", most=MOST_POINTS)
        positive_or_null(self, "points", "points_per_token", "windows")
        not_negative(self, "seed")
        check_reading(self.columns, self.invalid)
        require(
            self.windows is None or self.points_per_token is not None,
            "windows are of scenes; add --points_per_token, e.g. 16",
        )
        if self.crop is not None:
            crop_of(self.crop)
            require(
                self.points_per_token is None,
                "a crop is read as a training cloud is; leave points_per_token out",
            )
