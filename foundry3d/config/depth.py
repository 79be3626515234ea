"""Options of `foundry3d depth`."""

from __future__ import annotations

from dataclasses import dataclass, field

from foundry3d.config.data import DataConfig
from foundry3d.config.pretraining import TEACHER_RUN
from foundry3d.config.records import not_negative, positive, require


@dataclass(frozen=True, kw_only=True)
class DepthConfig:
    """`foundry3d depth`: how well a teacher's final features are predicted from each block.

    Attributes:
        teacher: a saved teacher: its folder, or the run folder that holds it.
        out: folder for `results.jsonl` and `depth.png`.
        clouds: training clouds that the predictors are fitted on, at most.
        hidden: units of the hidden layer of the MLP, per feature of the teacher.
        data: training clouds; the share held out of them (`validation`) is predicted.
        seed: of the held-out clouds, the chosen training clouds and the hidden layer.
    """

    teacher: str = TEACHER_RUN
    out: str = "runs/depth"
    clouds: int = 512
    hidden: int = 4
    data: DataConfig = field(default_factory=DataConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        positive(self, "clouds")
        positive(self, "hidden", most=64)
        not_negative(self, "seed")
        require(self.data.validation > 0, "depth predicts held-out clouds; set data.validation")
