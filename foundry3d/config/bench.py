"""Options of `foundry3d bench`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, NamedTuple

from foundry3d.config.records import (
    WIDEST,
    all_positive,
    not_negative,
    positive,
    positive_or_null,
    require,
)

BENCHES = ("objects", "scene", "geometry", "train", "scaling", "all")
PRECISION_NAMES = ("fp32", "bf16")


class Sizes(NamedTuple):
    """Sizes of a measurement where none are given.

    Attributes:
        batch_size: B, clouds per call.
        points: N, points per cloud.
        scene_points: N of a scene, or the largest of a sweep.
        repeats: measured calls of every candidate.
    """

    batch_size: int
    points: int
    scene_points: int
    repeats: int


FULL = Sizes(64, 1024, 2**18, 7)
QUICK = Sizes(8, 1024, 2**15, 3)
LARGEST = 10**6
"""Points of the largest scene of `scaling`."""


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """`foundry3d bench`: speed and memory on this machine, compared with the best plain form.

    Attributes:
        what: objects, scene, geometry, train, scaling, or all of them.
        model: a saved backbone (folder) or a preset (vit_t, vit_s, vit_b; random weights), from
            which students are made.
        students: saved students (folders), measured besides those that `supertokens` makes.
        supertokens: s of the students that are made from the model.
        precisions: of the inference form: fp32, bf16 or both.
        batch_size: B, clouds per call; null = 64, or 8 with quick.
        points: N, points per cloud; null = 1024.
        scene_points: N of a scene, for scaling the largest; null = 2^18 (scaling 10^6), or 2^15
            with quick.
        points_per_token: N / c of a scene.
        repeats: measured calls of every candidate; null = 7, or 3 with quick.
        limit: seconds after which a candidate is not called again; its row gives the number of
            calls.
        paper: objects: also the other rows of Tables 6 and 14 (ToMe, ViT-T, gate, its budgets and
            ratios); scene: also those of Table 7.
        light: objects: also students with lighter tokenizers (untrained, only their time counts).
        memory: measure the peak memory of every candidate, each in a new process; null = yes, but
            not with quick.
        quick: smaller sizes and no memory, so that it takes about a minute.
        seed: of points and random weights.
        device: cpu or cuda.
        results: JSON-lines file that the rows are added to; null = only shown.
        out: folder for the pictures of scaling; null = none are drawn.
    """

    what: Literal["objects", "scene", "geometry", "train", "scaling", "all"] = "objects"
    model: str = "vit_s"
    students: tuple[str, ...] = ()
    supertokens: tuple[int, ...] = (16, 4, 1)
    precisions: tuple[Literal["fp32", "bf16"], ...] = ("fp32", "bf16")
    batch_size: int | None = None
    points: int | None = None
    scene_points: int | None = None
    points_per_token: int = 16
    repeats: int | None = None
    limit: float = 60.0
    paper: bool = False
    light: bool = True
    memory: bool | None = None
    quick: bool = False
    seed: int = 0
    device: str = "cpu"
    results: str | None = None
    out: str | None = None

    def __post_init__(self) -> None:
        require(self.what in BENCHES, f"bench takes one of {', '.join(BENCHES)}, got {self.what!r}")
        positive_or_null(self, *Sizes._fields)
        positive(self, "points_per_token", "limit")
        require(
            re.fullmatch(r"cpu|cuda(:\d{1,3})?", self.device) is not None,
            f"device is cpu or cuda, got {self.device!r}",
        )
        not_negative(self, "seed")
        all_positive(self, "supertokens", most=WIDEST)
        require(
            len(self.precisions) > 0 and set(self.precisions) <= set(PRECISION_NAMES),
            f"precisions are fp32 and bf16, at least one, got {self.precisions}",
        )

    @property
    def measures_memory(self) -> bool:
        """Whether memory is measured, in further processes."""
        return not self.quick if self.memory is None else self.memory

    @property
    def sizes(self) -> Sizes:
        """The sizes that were given; otherwise those of `FULL` or `QUICK`."""
        filled = QUICK if self.quick else FULL
        if self.what == "scaling" and not self.quick:
            filled = filled._replace(scene_points=LARGEST)
        given = {name: getattr(self, name) for name in Sizes._fields}
        return filled._replace(**{k: v for k, v in given.items() if v is not None})
