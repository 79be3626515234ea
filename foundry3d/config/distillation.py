"""Options of `foundry3d distill`: the run, the student's tokenizer, budgets drawn in training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from foundry3d.config.models import check_widths
from foundry3d.config.records import fraction, positive, require
from foundry3d.config.training import AugmentConfig, DataConfig, TrainConfig


@dataclass(frozen=True, kw_only=True)
class LightTokenizerConfig:
    """The student's tokenizer, where it is not a copy of the teacher's.

    Attributes:
        point_widths: its hidden widths, see `BackboneConfig`; other ones than the teacher's start
            from scratch. null = the teacher's.
        group_size: points of a token that the student reads, the nearest of those that the
            teacher reads; null = as many.
        epochs: first epochs in which nothing but the tokenizer trains, its tokens against the
            teacher's (smooth L1). No encoder runs in them.
        weight: of that token loss beside the one of the features afterwards; 0 = features alone.
    """

    point_widths: tuple[int, ...] | None = None
    group_size: int | None = None
    epochs: int = 0
    weight: float = 0.0

    def __post_init__(self) -> None:
        if self.point_widths is not None:
            check_widths(self.point_widths)
        require(
            self.group_size is None or self.group_size > 0,
            f"group_size must be positive or null, got {self.group_size}",
        )
        require(self.epochs >= 0, f"epochs must be >= 0, got {self.epochs}")
        require(0 <= self.weight < float("inf"), f"weight must not be negative, got {self.weight}")

    @property
    def matches_tokens(self) -> bool:
        """Whether the student's tokens are compared with the teacher's at any time."""
        return self.epochs > 0 or self.weight > 0


@dataclass(frozen=True, kw_only=True)
class BudgetDraws:
    """Budgets drawn while a student trains, so that one checkpoint serves all of them.

    Attributes:
        random_ratio: every cloud of a step merges a number of its tokens drawn at random; needs a
            gate.
        all_merged: with random_ratio: share of the clouds that merge all of their tokens.
        nested: a step uses the first s' of the s supertokens, s' drawn among s and the powers of
            two below it, so that s can be lowered at inference.
        whole: with nested: probability of s' = s.
    """

    random_ratio: bool = False
    all_merged: float = 0.25
    nested: bool = False
    whole: float = 0.5

    def __post_init__(self) -> None:
        fraction(self, "all_merged", "whole")


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """`foundry3d distill`: a student from a frozen teacher, without labels (FMD).

    Attributes:
        teacher: a saved teacher (folder).
        out: run folder.
        student: supertokens (the paper's), or a baseline that reaches as many tokens: a token
            reducer inside the encoder (tome, pitome, patchmerger, kmeans, fps, random), or the
            second, coarser tokenizer of FPS-Student (fps-student).
        supertokens: s.
        student_dim: encoder width of the student; null = the teacher's. Other widths start from
            scratch and are never frozen (ViT-T students).
        student_depth: encoder blocks; null = the teacher's.
        student_heads: attention heads; null = the teacher's head width is kept.
        student_tokenizer: a lighter tokenizer than the teacher's, and how it learns.
        unfreeze_epoch: epoch from which the encoder trains; null = frozen all the way.
        starts: where farthest point sampling starts: at a random point of each cloud, or always
            at the first.
        teacher_cache: MB of memory, of each process and where its student trains, that the
            teacher's features of all training clouds may take. They are computed once where
            nothing about a cloud is drawn: augment.scale 1 1 without flip, rotate and translate,
            starts first, no random subsample. 0 = never.
        loss: smooth_l1 (beta 1) or mse.
        soft_assignment, dso_bias, cau_norm, supertoken_positions, assignment_heads, temperature:
            as in `StudentConfig`.
        gate: the student gets a gate, so that a token budget can be set at inference.
        gate_lambda: weight of the regulariser that pulls towards merging (equation 6).
        gate_decay: weight decay on the gate too.
        gate_through: the distillation loss reaches the gate; without, only the regulariser does.
        budgets: what is drawn in training to serve any budget from one checkpoint.
        resume: continue the run in `out`.
    """

    teacher: str = "runs/teacher"
    out: str = "runs/student"
    student: Literal[
        "supertokens", "tome", "pitome", "patchmerger", "kmeans", "fps", "random", "fps-student"
    ] = "supertokens"
    supertokens: int = 16
    student_dim: int | None = None
    student_depth: int | None = None
    student_heads: int | None = None
    student_tokenizer: LightTokenizerConfig = field(default_factory=LightTokenizerConfig)
    unfreeze_epoch: int | None = 50
    starts: Literal["random", "first"] = "random"
    teacher_cache: int = 2048
    loss: Literal["smooth_l1", "mse"] = "smooth_l1"
    soft_assignment: bool = False
    dso_bias: bool = False
    cau_norm: bool = False
    supertoken_positions: bool = False
    assignment_heads: int = 1
    temperature: float = 1.0
    gate: bool = False
    gate_lambda: float = 0.0
    gate_decay: bool = False
    gate_through: bool = True
    budgets: BudgetDraws = field(default_factory=BudgetDraws)
    resume: bool = False
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=lambda: AugmentConfig(flip=True))
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        positive(self, "supertokens", "temperature")
        require(self.teacher_cache >= 0, f"teacher_cache must be >= 0 MB, got {self.teacher_cache}")
        require(
            0 <= self.gate_lambda < float("inf"),
            f"gate_lambda must not be negative, got {self.gate_lambda}",
        )
        require(
            self.student == "supertokens" or not (self.gate or self.budgets.nested),
            f"gate and budgets.nested are for students of supertokens, got student {self.student}",
        )
        require(
            self.gate or not (self.budgets.random_ratio or self.gate_lambda or self.gate_decay),
            "budgets.random_ratio, gate_lambda and gate_decay need the gate; add --gate",
        )
        require(
            self.student == "supertokens" or self.student_tokenizer == LightTokenizerConfig(),
            f"student_tokenizer is for students of supertokens, got student {self.student}",
        )
        require(
            self.student_tokenizer.epochs < self.train.epochs,
            f"student_tokenizer.epochs must be fewer than the {self.train.epochs} train.epochs, "
            f"got {self.student_tokenizer.epochs}",
        )
        for name in ("student_dim", "student_depth", "student_heads"):
            value = getattr(self, name)
            require(value is None or value > 0, f"{name} must be positive or null, got {value}")
        require(
            self.unfreeze_epoch is None or self.unfreeze_epoch >= 0,
            f"unfreeze_epoch must be >= 0 or null, got {self.unfreeze_epoch}",
        )
