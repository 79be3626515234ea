"""Options of the commands that fine-tune or measure a pre-trained or distilled model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from foundry3d.config.data import AugmentConfig, DataConfig
from foundry3d.config.freezing import PARTS, Epoch, Frozen, Limits, limits_of
from foundry3d.config.heads import HeadConfig, PartHeadConfig
from foundry3d.config.models import SupertokenOptions
from foundry3d.config.pretraining import TEACHER_RUN
from foundry3d.config.records import (
    MOST,
    WIDEST,
    all_positive,
    fraction,
    not_negative,
    positive,
    positive_or_null,
    require,
)
from foundry3d.config.training import BudgetDraws, TrainConfig

CLASSIFY_RUN = "runs/classify"


@dataclass(frozen=True, kw_only=True)
class HeadedRunConfig:
    """What every run that trains a model under a head has.

    Attributes:
        out: run folder; the model is saved as `<out>/model`.
        results: JSON-lines file that the result row is added to; null = only shown.
        frozen: encoder, all (tokenizer, position MLP and BatchNorm statistics too) or none: short
            for the three options that follow; null = as they say.
        unfreeze_tokenizer: epoch from which the tokenizer trains; null = never; auto = as `frozen`
            says, 0 without it.
        unfreeze_position: the same for the position MLP.
        unfreeze_encoder: the same for the encoder.
        budgets: what is drawn in training so that one checkpoint serves every budget.
        eval_every: epochs between evaluations on held-out and test clouds; the last epoch is
            always evaluated.
        resume: continue the run in `out`.
    """

    usual: ClassVar[Frozen] = "none"
    """What is frozen where no option says it."""

    out: str
    results: str | None = "results.jsonl"
    frozen: Frozen | None = None
    unfreeze_tokenizer: Epoch = "auto"
    unfreeze_position: Epoch = "auto"
    unfreeze_encoder: Epoch = "auto"
    budgets: BudgetDraws = field(default_factory=BudgetDraws)
    eval_every: int = 1
    resume: bool = False
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=lambda: AugmentConfig(rotate=False))
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(batch_size=32, warmup_epochs=10, clip=10.0)
    )

    def __post_init__(self) -> None:
        positive(self, "eval_every")
        usual = limits_of(self.frozen or self.usual)
        for name, epoch in self._epochs().items():
            require(
                epoch == "auto" or epoch is None or 0 <= epoch <= MOST,
                f"unfreeze_{name} must lie in 0..{MOST}, or be null or auto, got {epoch}",
            )
            meant = "null" if usual[name] is None else usual[name]
            require(
                self.frozen is None or epoch in ("auto", usual[name]),
                f"frozen {self.frozen} means unfreeze_{name} {meant}, got {epoch}; leave frozen "
                f"out or make unfreeze_{name} auto",
            )

    def _epochs(self) -> dict[str, Epoch]:
        epochs = self.unfreeze_tokenizer, self.unfreeze_position, self.unfreeze_encoder
        return dict(zip(PARTS, epochs, strict=True))

    @property
    def limits(self) -> Limits:
        """The epoch from which tokenizer, position and encoder train; None = never."""
        usual = limits_of(self.frozen or self.usual)
        return {n: usual[n] if epoch == "auto" else epoch for n, epoch in self._epochs().items()}


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(HeadedRunConfig):
    """What every supervised fine-tuning run has.

    Attributes:
        model: a saved backbone or student (folder), or a checkpoint file of another project.
        protocol: name of a published protocol, whose settings become the defaults.
        scratch: start from new random weights: the control without pre-training.
        groups: tokens per cloud; null = as the model has.
        group_size: points per token; null = as the model has.
        dropout: in the encoder's blocks.
        attention_dropout: on its attention weights.
        drop_path: stochastic depth of its last block, rising linearly from 0.
    """

    model: str = TEACHER_RUN
    out: str = "runs/finetune"
    protocol: str | None = None
    scratch: bool = False
    groups: int | None = None
    group_size: int | None = None
    dropout: float = 0.0
    attention_dropout: float = 0.0
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        positive_or_null(self, "groups", "group_size", most=WIDEST)
        fraction(self, "dropout", "attention_dropout", "drop_path")


@dataclass(frozen=True, kw_only=True)
class ClassifyConfig(FinetuneConfig):
    """`foundry3d classify`: fine-tuned classification; held-out clouds choose the epoch.

    Attributes:
        label_smoothing: of the cross entropy.
        votes: passes averaged for the voted accuracy, each with newly drawn points, scale and
            shift; 0 = no voting.
        head: the classification head.
    """

    out: str = CLASSIFY_RUN
    label_smoothing: float = 0.2
    votes: int = 0
    head: HeadConfig = field(default_factory=HeadConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        fraction(self, "label_smoothing")
        not_negative(self, "votes")


@dataclass(frozen=True, kw_only=True)
class FewshotConfig(ClassifyConfig):
    """`foundry3d fewshot`: classification in episodes of W classes with S training clouds each.

    Attributes:
        mode: probe, a linear SVM on frozen features (seconds), or finetune, as published (one
            training run per fold).
        way: W, classes per episode.
        shot: S, training clouds per class; 20 others of the class are the queries.
        folds: episodes that mean and deviation are taken over.
        published: a folder that holds `ModelNetFewshot`, the published folds; null = episodes
            drawn from data.train. data.test and data.validation are not used.
    """

    out: str = "runs/fewshot"
    mode: Literal["probe", "finetune"] = "probe"
    way: int = 5
    shot: int = 10
    folds: int = 10
    published: str | None = None
    eval_every: int = 10
    train: TrainConfig = field(default_factory=lambda: TrainConfig(batch_size=32, warmup_epochs=10))

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "way", "shot", "folds")
        require(self.way > 1, f"way must be at least 2, got {self.way}")
        require(self.votes == 0, f"few-shot folds are not voted, votes must be 0, got {self.votes}")


@dataclass(frozen=True, kw_only=True)
class ZeroshotConfig:
    """`foundry3d zeroshot`: classification by the training clouds, without trained parameters.

    Attributes:
        models: saved models (folders), in the order of the table.
        texts: an .npz archive of text embeddings, `names` (C,) and `embeddings` (C, D), that
            pooled features of width D are compared with; null = no such column.
        neighbors: k of the nearest neighbours.
        results: JSON-lines file that the rows are added to; null = only shown.
        data: labelled clouds with a test part.
        seed: of built-in clouds.
    """

    models: tuple[str, ...] = ()
    texts: str | None = None
    neighbors: int = 20
    results: str | None = "results.jsonl"
    data: DataConfig = field(default_factory=lambda: DataConfig(validation=0.0))
    seed: int = 0

    def __post_init__(self) -> None:
        require(len(self.models) > 0, "name at least one saved model with --models")
        positive(self, "neighbors")
        not_negative(self, "seed")


@dataclass(frozen=True, kw_only=True)
class SegmentConfig(FinetuneConfig):
    """`foundry3d segment`: part segmentation; held-out clouds choose the epoch.

    Defaults are those of Point-JEPA on ShapeNetPart (`docs/method.md`, "Part segmentation"). Points
    are always drawn at random, in training with their parts.

    Attributes:
        head: the part head.
        without: parts left out of the second mean of data-set IoU, such as a background.
    """

    out: str = "runs/segment"
    drop_path: float = 0.1
    without: tuple[str, ...] = ()
    head: PartHeadConfig = field(default_factory=PartHeadConfig)
    augment: AugmentConfig = field(
        default_factory=lambda: AugmentConfig(scale=(0.8, 1.25), rotate=False)
    )
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            epochs=300, batch_size=16, lr=2e-4, warmup_epochs=10, clip=10.0
        )
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.data.subsample == "random",
            f"part segmentation draws points at random, got data.subsample {self.data.subsample}",
        )


@dataclass(frozen=True, kw_only=True)
class SpecialistConfig(HeadedRunConfig):
    """`foundry3d specialize`: a student of a fine-tuned model's outputs, without labels.

    The paper's Table 2 and appendix B.2: Kullback-Leibler divergence alone; tokenizer, position
    and encoder frozen (auto means never here), supertokens and head trained. The paper names no
    other setting.

    Attributes:
        teacher: a saved classifier or segmenter (folder), from which the student takes its sizes.
        student: supertokens and gate; with budgets.random_ratio the gate learns which tokens to
            merge.
        temperature: divides the logits of both before the divergence, which is multiplied by its
            square.
        without: parts left out of the second mean of data-set IoU (segmenters).
    """

    usual: ClassVar[Frozen] = "all"

    teacher: str = CLASSIFY_RUN
    out: str = "runs/specialist"
    student: SupertokenOptions = field(default_factory=SupertokenOptions)
    temperature: float = 1.0
    without: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "temperature")
        require(
            self.student.gate or not self.budgets.random_ratio,
            "budgets.random_ratio needs the gate; add --student.gate",
        )


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """`foundry3d probe`: linear SVM and k-NN on frozen features; the untrained network is a row.

    Attributes:
        models: saved models (folders), in the order of the table.
        random_tokens: for every teacher, also rows in which it encodes only this many random
            tokens.
        examples: also the accuracy of a classifier from this many training clouds per class
            (nearest class mean, ten draws); null = without.
        results: JSON-lines file that the rows are added to; null = only shown.
        data: labelled clouds with a test part.
        seed: of the untrained weights, the held-out clouds and the examples.
    """

    models: tuple[str, ...] = ()
    random_tokens: tuple[int, ...] = ()
    examples: int | None = None
    results: str | None = "results.jsonl"
    data: DataConfig = field(default_factory=DataConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        require(len(self.models) > 0, "name at least one saved model with --models")
        all_positive(self, "random_tokens", most=WIDEST)
        positive_or_null(self, "examples")
        not_negative(self, "seed")
