"""Options of `foundry3d pretrain`: the run and its two objectives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from foundry3d.config.data import AugmentConfig, DataConfig
from foundry3d.config.models import BackboneConfig
from foundry3d.config.records import (
    DEEPEST,
    WIDEST,
    fraction,
    positive,
    positive_or_null,
    require,
)
from foundry3d.config.training import TrainConfig

TEACHER_RUN = "runs/teacher"
"""The default folder that `pretrain` writes and `distill` reads a teacher from."""


@dataclass(frozen=True, kw_only=True)
class MaskedConfig:
    """Masked reconstruction (Point-MAE).

    Attributes:
        mask_ratio: share of the groups that the encoder does not see.
        decoder_depth: number of decoder blocks.
        decoder_heads: attention heads of the decoder.
    """

    mask_ratio: float = 0.6
    decoder_depth: int = 4
    decoder_heads: int = 6

    def __post_init__(self) -> None:
        require(0 < self.mask_ratio < 1, f"mask_ratio must lie in (0, 1), got {self.mask_ratio}")
        positive(self, "decoder_depth", "decoder_heads", most=DEEPEST)


@dataclass(frozen=True, kw_only=True)
class JepaConfig:
    """Point-JEPA: context, targets, predictor and EMA (`docs/method.md`, "Point-JEPA").

    Attributes:
        target_blocks: target blocks per cloud.
        target_ratio: share of the tokens in a target block, drawn for each cloud from this range.
        context_ratio: share of the tokens outside all targets that the context takes, likewise.
        predictor_dim: width of the predictor.
        predictor_depth: number of its blocks.
        predictor_heads: its attention heads.
        predictor_dropout: its dropout.
        predictor_attention_dropout: its attention dropout.
        predictor_drop_path: its stochastic depth, the same in every block.
        ema_start: decay of the target encoder's moving average at the first step.
        ema_end: decay at the last step, reached linearly.
        beta: of the smooth L1 loss.
    """

    target_blocks: int = 4
    target_ratio: tuple[float, float] = (0.15, 0.2)
    context_ratio: tuple[float, float] = (0.4, 0.75)
    predictor_dim: int = 192
    predictor_depth: int = 6
    predictor_heads: int = 6
    predictor_dropout: float = 0.1
    predictor_attention_dropout: float = 0.05
    predictor_drop_path: float = 0.25
    ema_start: float = 0.9995
    ema_end: float = 0.99999
    beta: float = 2.0

    def __post_init__(self) -> None:
        positive(self, "target_blocks", "predictor_depth", "predictor_heads", most=DEEPEST)
        positive(self, "predictor_dim", most=WIDEST)
        positive(self, "beta")
        require(
            self.predictor_dim % self.predictor_heads == 0,
            f"predictor_heads must divide predictor_dim, got {self.predictor_heads} and "
            f"{self.predictor_dim}",
        )
        for name in ("target_ratio", "context_ratio"):
            low, high = getattr(self, name)
            require(0 < low <= high <= 1, f"{name} needs 0 < low <= high <= 1, got {low}, {high}")
        require(
            0 < self.ema_start <= self.ema_end <= 1,
            f"EMA decays need 0 < ema_start <= ema_end <= 1, got {self.ema_start}, {self.ema_end}",
        )
        fraction(self, "predictor_dropout", "predictor_attention_dropout", "predictor_drop_path")


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """`foundry3d pretrain`: a teacher by masked reconstruction or Point-JEPA.

    Attributes:
        out: run folder, never overwritten; the model is saved as `<out>/model`.
        objective: masked (masked reconstruction, for small budgets) or jepa (the paper's).
        init: a saved backbone to start from, e.g. for jepa one that masked reconstruction trained.
        supertokens: s; pre-trains a student, whose encoders see supertokens (jepa only; in the
            paper's Table 9 this fails). null = a backbone that sees all of its tokens.
        resume: continue the run in `out`.
    """

    out: str = TEACHER_RUN
    objective: Literal["masked", "jepa"] = "masked"
    init: str | None = None
    supertokens: int | None = None
    resume: bool = False
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    masked: MaskedConfig = field(default_factory=MaskedConfig)
    jepa: JepaConfig = field(default_factory=JepaConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        require(
            self.supertokens is None or (self.objective == "jepa" and self.init is None),
            "pre-training with supertokens is for --objective jepa, from scratch; leave init null",
        )
        positive_or_null(self, "supertokens", most=WIDEST)
        positive(self.backbone, "depth", most=DEEPEST)
