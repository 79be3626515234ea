"""Options of `teach`, `predict` and `similar`: labels and search for a user's own files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from foundry3d.config.embed import EmbedConfig
from foundry3d.config.records import not_negative, positive, require

SHIPPED = "mini"
"""The model that comes with the package."""
TAUGHT = "my-model"
"""Where `teach` writes and `predict` reads, unless told otherwise."""


@dataclass(frozen=True, kw_only=True)
class FilesConfig:
    """What every command that labels or compares files has.

    Attributes:
        files: point-cloud and mesh files, folders of them, or globs.
        model: a saved model (folder), a shipped one (name), or a checkpoint file of another
            project.
        points: a random subset of each larger cloud; null = as many as in the model's training.
        samples: points drawn from the surface of each mesh.
        columns: of text tables, as in `foundry3d embed`.
        invalid: points with NaN or infinite coordinates, as in `foundry3d embed`.
        up: the axis that points up in the files; null = the same as in the model's training.
        normalise: centre each cloud and scale it into the unit sphere; null = as in the model's
            training, and yes where that is not recorded.
        batch_size: clouds of equal size that go through the model together.
        seed: of everything that is drawn.
    """

    files: tuple[str, ...] = ()
    model: str = SHIPPED
    points: int | None = EmbedConfig.points
    samples: int = EmbedConfig.samples
    columns: str | None = EmbedConfig.columns
    invalid: Literal["drop", "refuse"] | None = EmbedConfig.invalid
    up: Literal["x", "y", "z"] | None = EmbedConfig.up
    normalise: bool | None = EmbedConfig.normalise
    batch_size: int = EmbedConfig.batch_size
    seed: int = EmbedConfig.seed

    def __post_init__(self) -> None:
        require(bool(self.model), "name a saved model with --model")
        if self.files:
            self.reading()

    def reading(self, *, files: tuple[str, ...] | None = None) -> EmbedConfig:
        """How these files, or others, become clouds: the same as for `foundry3d embed`."""
        return EmbedConfig(
            files=self.files if files is None else files,
            model=self.model,
            points=self.points,
            samples=self.samples,
            columns=self.columns,
            invalid=self.invalid,
            up=self.up,
            normalise=self.normalise,
            batch_size=self.batch_size,
            seed=self.seed,
        )


def _check_table(out: str | None) -> None:
    require(
        out is None or Path(out).suffix.lower() in (".csv", ".jsonl"),
        f"out names a table, .csv or .jsonl, got {out!r}",
    )


@dataclass(frozen=True, kw_only=True)
class TeachConfig(FilesConfig):
    """`foundry3d teach`: a classifier from a few labelled files.

    Attributes:
        files: folders of examples, `EXAMPLES/class/file`; one file per class is enough.
        out: model folder to write; an earlier one is replaced when the new one is complete.
        copies: augmented copies of each example: stretched, with other points, and turned if asked.
        turn: whether copies are turned about the up axis, which helps where files face different
            ways; null = leave-one-out finds out, and no where there is nothing to leave out.
    """

    out: str = TAUGHT
    copies: int = 4
    turn: bool | None = None

    def __post_init__(self) -> None:
        require(
            len(self.files) > 0,
            "name a folder of examples, EXAMPLES/class/file: foundry3d teach EXAMPLES",
        )
        super().__post_init__()
        not_negative(self, "copies", most=1000)


@dataclass(frozen=True, kw_only=True)
class PredictConfig(FilesConfig):
    """`foundry3d predict`: the class of each cloud, or the part of each of its points.

    Attributes:
        model: a classifier, from `teach` or `classify`, or a segmenter, from `segment`.
        out: table to write, .csv or .jsonl; null = only shown.
        open_set: say "unknown" where a cloud is further from every class than the examples were;
            models from `teach` only.
        labelled: segmenters: folder to write a file of labelled points for each cloud.
        format: of these files: ply (one colour per part) or las (the part as classification);
            null = las for las and laz files, and ply for all others.
        category: segmenters of several categories: that of the clouds.
        points_per_token: segmenters: treat every cloud as a scene and go through it in windows,
            with one token per this many points; null = each cloud is one object.
    """

    model: str = TAUGHT
    out: str | None = None
    open_set: bool = False
    labelled: str | None = None
    format: Literal["ply", "las"] | None = None
    category: str | None = None
    points_per_token: int | None = None

    def __post_init__(self) -> None:
        require(
            len(self.files) > 0, "name files to label: foundry3d predict FILES --model my-model"
        )
        super().__post_init__()
        _check_table(self.out)
        require(self.format in (None, "ply", "las"), f"format is ply or las, got {self.format!r}")
        require(
            self.format is None or self.labelled is not None,
            "format is for labelled points; add --labelled FOLDER",
        )

    def reading(self, *, files: tuple[str, ...] | None = None) -> EmbedConfig:
        """As in `FilesConfig`; a scene is read with all of its points."""
        plain = super().reading(files=files)
        return replace(plain, points_per_token=self.points_per_token)


@dataclass(frozen=True, kw_only=True)
class SimilarConfig(FilesConfig):
    """`foundry3d similar`: the shapes that are most like a query.

    Attributes:
        files: the query, a single file, and then the files, folders or globs to search.
        nearest: how many shapes are shown.
        out: table to write, .csv or .jsonl; null = only shown.
        picture: a .png file to draw: the query and the nearest shapes.
    """

    nearest: int = 8
    out: str | None = None
    picture: str | None = None

    def __post_init__(self) -> None:
        require(
            len(self.files) > 1,
            "name a query and the files to search: foundry3d similar QUERY FILES",
        )
        super().__post_init__()
        positive(self, "nearest", most=1000)
        _check_table(self.out)
