"""Options of `foundry3d budgets`."""

from __future__ import annotations

from dataclasses import dataclass, field

from foundry3d.config.data import DataConfig
from foundry3d.config.records import all_positive, not_negative, require


@dataclass(frozen=True, kw_only=True)
class BudgetsConfig:
    """`foundry3d budgets`: accuracy of students over token budgets, ratios and supertokens.

    Fine-tuned classifiers and segmenters are tested at every budget; of other models the features
    are probed.

    Attributes:
        models: saved students, teachers, classifiers and segmenters (folders); each is a line of
            the picture.
        token_budgets: b, for models with a gate.
        paper_rule: test every token budget also by the rule of the paper's Listing 1.
        ratios: r, for models with a gate.
        supertokens: s'; a model skips numbers above its own.
        out: folder for `results.jsonl` and `budgets.png`.
        data: labelled clouds with a test part.
        seed: of the held-out clouds.
    """

    models: tuple[str, ...] = ()
    token_budgets: tuple[int, ...] = (16, 24, 32, 48, 64)
    paper_rule: bool = False
    ratios: tuple[float, ...] = ()
    supertokens: tuple[int, ...] = (1, 2, 4, 8, 16)
    out: str = "runs/budgets"
    data: DataConfig = field(default_factory=DataConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        require(len(self.models) > 0, "name at least one saved model with --models")
        all_positive(self, "token_budgets", "supertokens")
        not_negative(self, "seed")
        require(
            all(0 <= r <= 1 for r in self.ratios), f"ratios must lie in [0, 1], got {self.ratios}"
        )
