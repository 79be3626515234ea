"""Options of `foundry3d figures`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from foundry3d.config.data import MOST_POINTS
from foundry3d.config.records import MOST, not_negative, positive, require

FIGURES = (
    "tsne", "pca", "assignment", "supertokens3d", "projections", "curves", "health",
)  # fmt: skip
MOST_OBJECTS = 100
"""The largest number of objects, and of examples of each, in one picture."""


@dataclass(frozen=True, kw_only=True)
class FiguresConfig:
    """`foundry3d figures`: the paper's qualitative figures, of any saved models and data.

    Attributes:
        models: saved models, as NAME=FOLDER or a folder; NAME is what the pictures call it.
        data: the clouds: an .npz archive, a folder of files, a published data set as
            `NAME:FOLDER`, or `procedural` (built-in shapes).
        which: figures to draw: tsne, pca, assignment, supertokens3d, projections, curves, health.
        out: folder for the pictures (PNG and SVG) and `captions.md`.
        split: of a published data set or the built-in shapes, the part to draw.
        points: points per cloud that the models read.
        clouds: how many clouds tsne and health read, drawn at random if there are more; also how
            many built-in shapes are made.
        classes: classes of the objects in pca, assignment, supertokens3d and projections; none
            named = `objects` classes, evenly spaced in the list of classes.
        objects: how many classes that is; of clouds without labels, how many clouds.
        examples: clouds of each class in supertokens3d.
        basis: principal directions of the colours in pca: shared by all models and objects, the
            same for all models of an object (object), or separate for each (own).
        up: the axis of the data that points up in the pictures.
        perplexity: of t-SNE.
        seed: of the choice of clouds, the built-in shapes and t-SNE.
    """

    models: tuple[str, ...] = ()
    data: str = ""
    which: tuple[str, ...] = FIGURES
    out: str = "runs/figures"
    split: Literal["test", "train"] = "test"
    points: int = 1024
    clouds: int = 1000
    classes: tuple[str, ...] = ()
    objects: int = 6
    examples: int = 3
    basis: Literal["shared", "object", "own"] = "shared"
    up: Literal["x", "y", "z"] = "z"
    perplexity: float = 30.0
    seed: int = 0

    def __post_init__(self) -> None:
        require(
            len(self.models) > 0,
            "name at least one saved model: foundry3d figures NAME=FOLDER ... --data D",
        )
        unknown = [name for name in self.which if name not in FIGURES]
        require(
            len(self.which) > 0 and not unknown,
            f"which takes one or more of {', '.join(FIGURES)}; got "
            f"{', '.join(unknown) or 'nothing'}",
        )
        require(
            bool(self.data) or set(self.which) == {"curves"},
            "name the clouds to draw with --data: an archive, a folder, NAME:FOLDER or procedural",
        )
        positive(self, "points", most=MOST_POINTS)
        positive(self, "clouds", "perplexity")
        positive(self, "objects", "examples", most=MOST_OBJECTS)
        not_negative(self, "seed")
        require(
            self.data != "procedural" or self.clouds * self.points <= MOST,
            f"built-in shapes have at most {MOST} points in all, got {self.clouds} clouds of "
            f"{self.points}",
        )
        for name, known in {
            "split": ("test", "train"),
            "basis": ("shared", "object", "own"),
            "up": ("x", "y", "z"),
        }.items():
            value = getattr(self, name)
            require(value in known, f"{name} is one of {', '.join(known)}; got {value!r}")
