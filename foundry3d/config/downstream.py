"""What is measured with a pre-trained or distilled model: fine-tuning, few-shot, zero-shot."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from foundry3d.config.models import BackboneConfig, StudentConfig
from foundry3d.config.records import fraction, from_dict, positive, require
from foundry3d.config.reduction import FPSStudentConfig, KMeansStudentConfig, MergedConfig
from foundry3d.config.training import AugmentConfig, BudgetDraws, DataConfig, TrainConfig

InnerConfig = BackboneConfig | StudentConfig | MergedConfig | FPSStudentConfig | KMeansStudentConfig
INNER: dict[str, type[InnerConfig]] = {
    "backbone": BackboneConfig,
    "student": StudentConfig,
    "merged": MergedConfig,
    "fps_student": FPSStudentConfig,
    "kmeans_student": KMeansStudentConfig,
}


def kind_of(config: InnerConfig) -> str:
    """The kind in `INNER` of a model's sizes."""
    return next(kind for kind, record in INNER.items() if isinstance(config, record))


def shape_of(config: InnerConfig) -> BackboneConfig:
    """The transformer in a model's sizes."""
    return config if isinstance(config, BackboneConfig) else config.backbone


def encoded(config: InnerConfig) -> int | None:
    """Tokens that a model of these sizes encodes, or that leave its encoder.

    None for a student with a gate, which decides that for every cloud.
    """
    if isinstance(config, BackboneConfig):
        return config.groups
    return None if isinstance(config, StudentConfig) and config.gate else config.supertokens


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """The classification head on pooled features (field.md E2).

    Attributes:
        hidden: widths of the hidden layers, each a Linear without bias, BatchNorm, ReLU and
            dropout; none = one Linear.
        dropout: after every hidden layer, training only.
    """

    hidden: tuple[int, ...] = (256, 256)
    dropout: float = 0.5

    def __post_init__(self) -> None:
        require(
            all(width > 0 for width in self.hidden),
            f"hidden widths must be positive, got {self.hidden}",
        )
        fraction(self, "dropout")


@dataclass(frozen=True, kw_only=True)
class HeadedConfig:
    """A model under a head: what its checkpoint stores.

    Attributes:
        kind: of the model under the head, one of `INNER`.
        inner: its sizes; a plain dictionary is read as the record of that kind.
    """

    kind: str
    inner: InnerConfig

    def __post_init__(self) -> None:
        require(self.kind in INNER, f"kind is one of {', '.join(INNER)}; got {self.kind!r}")
        if isinstance(self.inner, dict):
            object.__setattr__(self, "inner", from_dict(INNER[self.kind], self.inner))
        require(
            isinstance(self.inner, INNER[self.kind]),
            f"a {self.kind} has a {INNER[self.kind].__name__}, got {type(self.inner).__name__}",
        )

    @property
    def shape(self) -> BackboneConfig:
        """Sizes of the transformer."""
        return shape_of(self.inner)


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig(HeadedConfig):
    """A model with a classification head.

    Attributes:
        head: sizes of the head.
        classes: names by label.
    """

    head: HeadConfig = field(default_factory=HeadConfig)
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        require(len(self.classes) > 1, f"expected at least two classes, got {self.classes}")


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """What every supervised fine-tuning run has.

    Attributes:
        model: a saved backbone or student (folder), or a checkpoint file of another project.
        out: run folder.
        protocol: name of a published protocol whose settings become the defaults.
        results: JSON-lines file the result row is added to; null = only shown.
        scratch: draw the weights anew: the control that saw no pre-training.
        groups: tokens of a cloud; null = as the model has.
        group_size: points of a token; null = as the model has.
        unfreeze_tokenizer: epoch from which the tokenizer trains; null = never.
        unfreeze_position: the same for the position MLP.
        unfreeze_encoder: the same for the encoder.
        dropout: in the encoder's blocks.
        attention_dropout: on its attention weights.
        drop_path: stochastic depth of its last block, rising linearly from 0.
        budgets: what is drawn in training to serve any budget from one checkpoint.
        eval_every: epochs between evaluations on held-out and test clouds; the last epoch is
            always evaluated.
        resume: continue the run in `out`.
    """

    model: str = "runs/teacher/model"
    out: str = "runs/finetune"
    protocol: str | None = None
    results: str | None = "results.jsonl"
    scratch: bool = False
    groups: int | None = None
    group_size: int | None = None
    unfreeze_tokenizer: int | None = 0
    unfreeze_position: int | None = 0
    unfreeze_encoder: int | None = 0
    dropout: float = 0.0
    attention_dropout: float = 0.0
    drop_path: float = 0.0
    budgets: BudgetDraws = field(default_factory=BudgetDraws)
    eval_every: int = 1
    resume: bool = False
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=lambda: AugmentConfig(rotate=False))
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(batch_size=32, warmup_epochs=10, clip=10.0)
    )

    def __post_init__(self) -> None:
        for name in ("unfreeze_tokenizer", "unfreeze_position", "unfreeze_encoder"):
            value = getattr(self, name)
            require(value is None or value >= 0, f"{name} must be >= 0 or null, got {value}")
        for name in ("groups", "group_size"):
            value = getattr(self, name)
            require(value is None or value > 0, f"{name} must be positive or null, got {value}")
        fraction(self, "dropout", "attention_dropout", "drop_path")
        positive(self, "eval_every")


@dataclass(frozen=True, kw_only=True)
class ClassifyConfig(FinetuneConfig):
    """`foundry3d classify`: fine-tuned classification; held-out clouds choose the epoch.

    Attributes:
        label_smoothing: of the cross entropy.
        votes: passes of the voted accuracy, each over points, scale and shift of its own; 0 = no
            voting.
        head: the classification head.
    """

    out: str = "runs/classify"
    label_smoothing: float = 0.2
    votes: int = 0
    head: HeadConfig = field(default_factory=HeadConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        fraction(self, "label_smoothing")
        require(self.votes >= 0, f"votes must not be negative, got {self.votes}")


@dataclass(frozen=True, kw_only=True)
class FewshotConfig(ClassifyConfig):
    """`foundry3d fewshot`: episodes of W classes with S training clouds each.

    Attributes:
        mode: probe, a linear SVM on frozen features (seconds), or finetune, as published (a
            training run a fold).
        way: W, classes of an episode.
        shot: S, training clouds of each class; 20 others of it are the queries.
        folds: episodes behind mean and deviation.
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
    """`foundry3d zeroshot`: classification with no trained parameter, training clouds as support.

    Attributes:
        models: saved models (folders), in the order of the table.
        texts: an .npz archive of text embeddings, `names` (C,) and `embeddings` (C, D), to
            compare pooled features of width D with; null = no such column.
        neighbors: k of the nearest neighbours.
        results: JSON-lines file the rows are added to; null = only shown.
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
