"""Options of `foundry3d search`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

from foundry3d.config.data import AugmentConfig, DataConfig
from foundry3d.config.pretraining import TEACHER_RUN
from foundry3d.config.records import all_positive, not_negative, require
from foundry3d.config.training import TrainConfig

Unit = Literal["ms", "gmacs", "mb"]
UNITS = get_args(Unit)


class Limit(NamedTuple):
    """The most that a student may cost.

    Attributes:
        value: in the unit.
        unit: ms, milliseconds for one cloud with the compiled form on this machine; gmacs, 10^9
            multiply-accumulates for one cloud; mb, 10^6 bytes of weights in float16.
    """

    value: float
    unit: Unit

    def __str__(self) -> str:
        return f"{self.value:g}{self.unit}"


def limit_of(text: str) -> Limit:
    """The limit that `5ms`, `30gmacs` or `2mb` names.

    Raises:
        InputError: something else, or not above 0.
    """
    found = re.fullmatch(r"\s*([0-9.eE+-]+)\s*([a-z]+)\s*", text.lower())
    says = f"limit is a number and a unit, such as 5ms, 0.3gmacs or 2mb; got {text!r}"
    require(found is not None, says)
    assert found is not None
    unit = next((unit for unit in UNITS if unit == found[2]), None)
    try:
        value = float(found[1])
    except ValueError:
        value = math.nan
    require(unit is not None and 0 < value < math.inf, says)
    assert unit is not None
    return Limit(value, unit)


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """`foundry3d search`: the student that reproduces a teacher best within a limit of cost.

    The same command in several processes, or on several machines that share the folder, works on
    the same search; after an interruption it goes on.

    Attributes:
        limit: the most that the student may cost for one cloud: 5ms, 0.3gmacs or 2mb; has no
            default.
        teacher: a saved teacher: its folder, or the run folder that holds it.
        out: folder of the search; the chosen student is saved as `<out>/model`.
        trials: candidates to draw and distil for a short time, besides the rivals that are always
            tried: the teacher's first blocks alone, and the paper's students.
        rungs: epochs of the short distillations of a candidate, each from the start; after each
            one only the better third of the drawn candidates goes on.
        seed: of the candidates that are drawn.
        data: candidates are compared on its held-out clouds (`data.validation`), never on test.
        augment: of all distillations.
        train: of the full distillation; short ones have the epochs of their rung.
    """

    limit: str = ""
    teacher: str = TEACHER_RUN
    out: str = "runs/search"
    trials: int = 24
    rungs: tuple[int, ...] = (1, 3, 9)
    seed: int = 0
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=lambda: AugmentConfig(flip=True))
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        if self.limit:
            limit_of(self.limit)
        not_negative(self, "trials", "seed")
        all_positive(self, "rungs")
        require(
            len(self.rungs) > 0 and list(self.rungs) == sorted(set(self.rungs)),
            f"rungs are rising numbers of epochs, at least one, got {self.rungs}",
        )
        require(
            self.data.validation > 0,
            "candidates are compared on held-out clouds; set data.validation above 0",
        )
