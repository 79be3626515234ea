"""What is asked of budgets: accuracy over them, and the sweep over the gate's regulariser."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from foundry3d.config.distillation import DistillConfig
from foundry3d.config.records import require
from foundry3d.config.training import DataConfig

EXPONENTS = (*range(-15, 2), -11.75, -11.5, -11.25, -10.75, -10.5, -10.25)
LAMBDAS = (0.0, *sorted([*(10.0**i for i in EXPONENTS), 2.0]))
"""The values of Table 15, and 2."""


@dataclass(frozen=True, kw_only=True)
class BudgetsConfig:
    """`foundry3d budgets`: accuracy of students over token budgets, ratios and supertokens.

    Fine-tuned classifiers and segmenters are tested at every budget; of other models the features
    are probed.

    Attributes:
        models: saved students, teachers and classifiers (folders), a line of the picture each.
        token_budgets: b, for models with a gate.
        ratios: r, likewise.
        supertokens: s', those that a model has.
        out: folder of `results.jsonl` and `budgets.png`.
        data: labelled clouds with a test part.
        seed: of the held-out clouds.
    """

    models: tuple[str, ...] = ()
    token_budgets: tuple[int, ...] = (16, 24, 32, 48, 64)
    ratios: tuple[float, ...] = ()
    supertokens: tuple[int, ...] = (1, 2, 4, 8, 16)
    out: str = "runs/budgets"
    data: DataConfig = field(default_factory=DataConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        require(len(self.models) > 0, "name at least one saved model with --models")
        for name in ("token_budgets", "supertokens"):
            require(
                all(n > 0 for n in getattr(self, name)),
                f"{name} must be positive, got {getattr(self, name)}",
            )
        require(
            all(0 <= r <= 1 for r in self.ratios), f"ratios must lie in [0, 1], got {self.ratios}"
        )


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """`foundry3d sweep gate`: a gated student for every lambda, probed; what is there is kept.

    Attributes:
        out: folder of the runs, `results.jsonl`, and the pictures.
        lambdas: weights of the gate's regulariser.
        frozen: whether the encoder is frozen all the way: both, for the paper's Table 12.
        decay: weight decay on the gate.
        distill: everything else of a run; its data also serves the probe.
    """

    out: str = "runs/sweep"
    lambdas: tuple[float, ...] = LAMBDAS
    frozen: tuple[bool, ...] = (True, False)
    decay: tuple[bool, ...] = (False,)
    distill: DistillConfig = field(
        default_factory=lambda: DistillConfig(gate=True, gate_through=False)
    )

    def __post_init__(self) -> None:
        require(
            len(self.lambdas) > 0 and all(0 <= x < math.inf for x in self.lambdas),
            f"lambdas are finite and not negative, at least one, got {self.lambdas}",
        )
        require(self.distill.gate, "a sweep of the gate needs distill.gate")
        require(bool(self.frozen and self.decay), "frozen and decay need at least one value each")
