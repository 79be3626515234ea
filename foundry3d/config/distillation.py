"""Options of `foundry3d distill`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from foundry3d.config.data import AugmentConfig, DataConfig
from foundry3d.config.freezing import PUBLISHED, Epoch, Frozen, Limits, limits_of, words_of
from foundry3d.config.models import BackboneConfig, StudentOptions
from foundry3d.config.pretraining import TEACHER_RUN
from foundry3d.config.records import DEEPEST, MOST, fraction, not_negative, require
from foundry3d.config.training import BudgetDraws, TrainConfig


@dataclass(frozen=True, kw_only=True)
class TokenLossConfig:
    """How the tokens of the student's tokenizer learn from the teacher's (smooth L1).

    Of use where the student has a lighter tokenizer than the teacher.

    Attributes:
        epochs: first epochs, in which only the tokenizer trains, by this loss alone. No encoder
            runs in them.
        weight: of this loss in the epochs that follow, added to that of the features; 0 = features
            alone.
    """

    epochs: int = 0
    weight: float = 0.0

    def __post_init__(self) -> None:
        not_negative(self, "epochs", "weight")

    @property
    def used(self) -> bool:
        """Whether the student's tokens are compared with the teacher's in any epoch."""
        return self.epochs > 0 or self.weight > 0


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """`foundry3d distill`: a student from a frozen teacher, without labels (FMD).

    Attributes:
        teacher: a saved teacher: its folder, or the run folder that holds it; empty = runs/teacher.
            With teacher_features: the model that the student starts from; empty = none, the student
            is new and has the sizes of `backbone`.
        teacher_features: a folder of clouds with features that any model computed, read in place
            of a teacher and of data.train (`docs/teachers.md`); null = the teacher runs.
        backbone: sizes of a new student of stored features, which `student` changes.
        out: run folder; the student is saved as `<out>/model`.
        student: what the student is.
        frozen: what stays as it came from the teacher: encoder (its blocks and final norm), all
            (tokenizer, position MLP and BatchNorm statistics too) or none.
        unfreeze_epoch: epoch from which that trains as well; null = never; auto = 50 for encoder,
            never for all.
        starts: where farthest point sampling starts: at a random point of each cloud, or always
            at the first.
        teacher_cache: MB of memory, in each process, that the teacher's features of all training
            clouds may take, on the device where the student trains. They are computed once where
            nothing about a cloud is drawn: augment.scale 1 1 without flip, rotate and translate,
            starts first, no random subsample. 0 = never. With teacher_features: MB of clouds that
            stay in memory; the others are read again in every epoch.
        loss: smooth_l1 (beta 1) or mse.
        token_loss: how a lighter tokenizer learns the teacher's tokens.
        loss_blocks: teacher blocks, counted from 0, whose features are goals too, for those of the
            student's block at the same relative depth (truncated: the same block).
        block_weights: of each of these losses, added to that of the final features; one number
            stands for all.
        relation_weight: of the loss between the similarities of every two tokens of a cloud.
        whiten: features are compared in units of their standard deviation over training clouds,
            each less its mean. The student returns plain features all the same.
        ema: decay of a moving average of the student's weights, which is saved in place of the
            last ones; 0 = none.
        dropped_points: share of the points read by the teacher that the student does not
            read, drawn for each cloud.
        gate_lambda: weight of the regulariser that pulls the gate towards merging (equation 6).
        gate_decay: weight decay on the gate too.
        budgets: what is drawn in training so that one checkpoint serves every budget.
        resume: continue the run in `out`.
    """

    teacher: str = ""
    teacher_features: str | None = None
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    out: str = "runs/student"
    student: StudentOptions = field(default_factory=StudentOptions)
    frozen: Frozen = "encoder"
    unfreeze_epoch: Epoch = "auto"
    starts: Literal["random", "first"] = "random"
    teacher_cache: int = 2048
    loss: Literal["smooth_l1", "mse"] = "smooth_l1"
    token_loss: TokenLossConfig = field(default_factory=TokenLossConfig)
    loss_blocks: tuple[int, ...] = ()
    block_weights: tuple[float, ...] = (1.0,)
    relation_weight: float = 0.0
    whiten: bool = False
    ema: float = 0.0
    dropped_points: float = 0.0
    gate_lambda: float = 0.0
    gate_decay: bool = False
    budgets: BudgetDraws = field(default_factory=BudgetDraws)
    resume: bool = False
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=lambda: AugmentConfig(flip=True))
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        student, kind = self.student, self.student.kind
        not_negative(self, "teacher_cache", "gate_lambda", "relation_weight")
        fraction(self, "ema", "dropped_points")
        self._check_frozen()
        self._check_blocks()
        self._check_stored()
        require(
            kind != "fps-student" or not self.dropped_points,
            "dropped_points needs a student that reads groups around the teacher's "
            "centers, got kind fps-student",
        )
        require(
            kind == "supertokens" or not self.budgets.nested,
            f"budgets.nested needs a student of kind supertokens, got kind {kind}",
        )
        require(
            kind in ("supertokens", "truncated") or not self.token_loss.used,
            f"token_loss needs a student of kind supertokens or truncated, got kind {kind}",
        )
        require(
            student.gate or not (self.budgets.random_ratio or self.gate_lambda or self.gate_decay),
            "budgets.random_ratio, gate_lambda and gate_decay need the gate; add --student.gate",
        )
        require(
            self.token_loss.epochs < self.train.epochs,
            f"token_loss.epochs must be fewer than the {self.train.epochs} train.epochs, "
            f"got {self.token_loss.epochs}",
        )

    def _check_frozen(self) -> None:
        epoch = self.unfreeze_epoch
        require(
            self.frozen != "none" or epoch == "auto",
            f"frozen none contradicts unfreeze_epoch {epoch}; leave one of them out",
        )
        require(
            epoch == "auto" or epoch is None or 0 < epoch <= MOST,
            f"unfreeze_epoch must lie in 1..{MOST}, or be null or auto, got {epoch}; one that "
            "trains whole from the start takes --frozen none instead",
        )

    def _check_stored(self) -> None:
        require(
            self.teacher_features is not None or self.backbone == BackboneConfig(),
            "backbone has the sizes of a student of stored features; the student of a teacher "
            "that runs takes --student.dim, --student.depth and so on",
        )
        if self.teacher_features is None:
            return
        kind = self.student.kind
        require(
            kind in ("supertokens", "truncated"),
            f"teacher_features needs a student of kind supertokens or truncated, got kind {kind}",
        )
        require(
            not (self.token_loss.used or self.loss_blocks),
            "token_loss and loss_blocks compare with tokens and blocks of a teacher that runs; "
            "leave them out with teacher_features",
        )
        require(
            not self.data.train,
            f"teacher_features holds the training clouds; leave --data.train {self.data.train} out",
        )

    def _check_blocks(self) -> None:
        blocks, weights, kind = self.loss_blocks, self.block_weights, self.student.kind
        require(
            all(0 <= block < DEEPEST for block in blocks) and len(set(blocks)) == len(blocks),
            f"loss_blocks are different blocks of the teacher, counted from 0, got {list(blocks)}",
        )
        require(
            len(weights) in (1, len(blocks)) and all(0 <= weight <= MOST for weight in weights),
            f"block_weights are one number in 0..{MOST} for all loss_blocks or one for each, got "
            f"{list(weights)} for {len(blocks)} blocks",
        )
        require(
            kind in ("supertokens", "truncated") or not blocks,
            f"loss_blocks needs a student of kind supertokens or truncated, got kind {kind}",
        )

    @property
    def teacher_path(self) -> str:
        """The saved teacher that runs: `teacher`, or where pre-training leaves one."""
        return self.teacher or TEACHER_RUN

    @property
    def block_losses(self) -> dict[int, float]:
        """The weight of the loss of each of `loss_blocks`."""
        weights = self.block_weights
        if len(weights) == 1:
            weights *= len(self.loss_blocks)
        return dict(zip(self.loss_blocks, weights, strict=True))

    @property
    def extras(self) -> dict[str, Any]:
        """What this run has beyond the plain loss of the last weights, for provenance."""
        names: tuple[str, ...] = ("relation_weight", "whiten", "ema", "dropped_points")
        if self.loss_blocks:
            names += ("loss_blocks", "block_weights")
        return {name: value for name in names if (value := getattr(self, name))}

    @property
    def limits(self) -> Limits:
        """The epoch from which each part that came from the teacher trains; None = never."""
        epoch = self.unfreeze_epoch
        if epoch == "auto":
            epoch = PUBLISHED if self.frozen == "encoder" else None
        return limits_of(self.frozen, epoch)

    @property
    def frozen_words(self) -> str:
        """What a run freezes, e.g. `encoder until epoch 50`."""
        return words_of(self.limits, self.train.epochs)
