"""Sizes of fine-tuned models: the inner model and its classification or part head."""

from __future__ import annotations

from dataclasses import dataclass, field

from foundry3d.config.baselines import FPSStudentConfig, KMeansStudentConfig, MergedConfig
from foundry3d.config.models import BackboneConfig, StudentConfig, TruncatedConfig
from foundry3d.config.records import (
    DEEPEST,
    WIDEST,
    all_positive,
    fraction,
    from_dict,
    positive,
    require,
)

InnerConfig = (
    BackboneConfig
    | StudentConfig
    | TruncatedConfig
    | MergedConfig
    | FPSStudentConfig
    | KMeansStudentConfig
)
INNER: dict[str, type[InnerConfig]] = {
    "backbone": BackboneConfig,
    "student": StudentConfig,
    "truncated": TruncatedConfig,
    "merged": MergedConfig,
    "fps_student": FPSStudentConfig,
    "kmeans_student": KMeansStudentConfig,
}


def kind_of(config: InnerConfig) -> str:
    """The name in `INNER` of the record's type."""
    return next(kind for kind, record in INNER.items() if isinstance(config, record))


def shape_of(config: InnerConfig) -> BackboneConfig:
    """Sizes of the transformer in a model."""
    return config if isinstance(config, BackboneConfig) else config.backbone


def encoded(config: InnerConfig) -> int | None:
    """Number of tokens that a model of these sizes encodes, or that leave its encoder.

    None for a student with a gate, where the number differs between clouds.
    """
    if isinstance(config, BackboneConfig):
        return config.groups
    if isinstance(config, TruncatedConfig):
        return config.backbone.groups
    return None if isinstance(config, StudentConfig) and config.gate else config.supertokens


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """The classification head on pooled features (`docs/method.md`, "Classification").

    Attributes:
        hidden: widths of the hidden layers, each a Linear without bias, BatchNorm, ReLU and
            dropout; none given = a single Linear.
        dropout: after every hidden layer, in training.
    """

    hidden: tuple[int, ...] = (256, 256)
    dropout: float = 0.5

    def __post_init__(self) -> None:
        all_positive(self, "hidden", most=WIDEST)
        fraction(self, "dropout")


@dataclass(frozen=True, kw_only=True)
class HeadedConfig:
    """A model with a head, as its checkpoint stores it.

    Attributes:
        kind: of the inner model, one of `INNER`.
        inner: sizes of the inner model; a dictionary is read as the record of that kind.
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
class PartHeadConfig:
    """The head that predicts a part for every point (`docs/method.md`, "Part segmentation").

    Attributes:
        blocks: encoder blocks whose features are averaged, counted from 0; null = the last block
            of each third of the encoder: 3, 7, 11 of 12.
        upsampling: widths of the layers after the interpolation to the points.
        hidden: hidden widths of the head, which reads upsampled and global features.
        dropout: after the first hidden layer, in training.
        label_dim: width of the category embedding; unused where there is only one category.
    """

    blocks: tuple[int, ...] | None = None
    upsampling: tuple[int, ...] = (384, 384)
    hidden: tuple[int, ...] = (512, 256)
    dropout: float = 0.5
    label_dim: int = 64

    def __post_init__(self) -> None:
        for name in ("upsampling", "hidden"):
            widths = getattr(self, name)
            require(
                len(widths) > 0 and 0 < min(widths) <= max(widths) <= WIDEST,
                f"{name} are one or more widths in 1..{WIDEST}, got {widths}",
            )
        require(
            self.blocks is None
            or (len(self.blocks) > 0 and 0 <= min(self.blocks) <= max(self.blocks) < DEEPEST),
            f"blocks are block numbers in 0..{DEEPEST - 1}, or null, got {self.blocks}",
        )
        positive(self, "label_dim", most=WIDEST)
        fraction(self, "dropout")


@dataclass(frozen=True, kw_only=True)
class SegmenterConfig(HeadedConfig):
    """A model with a part head.

    Attributes:
        head: sizes of the head.
        categories: names of the categories; a single one where the data has no classes.
        parts: names of the parts of all categories.
        owned: the part numbers of each category; a category with none listed may have any part.
    """

    head: PartHeadConfig = field(default_factory=PartHeadConfig)
    categories: tuple[str, ...]
    parts: tuple[str, ...]
    owned: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "owned", tuple(tuple(part) for part in self.owned))
        require(
            len(self.owned) == len(self.categories) > 0,
            f"expected the parts of each of {len(self.categories)} categories, at least one, got "
            f"{len(self.owned)}",
        )
        numbers = [number for part in self.owned for number in part]
        require(
            len(self.parts) > 1 and all(0 <= n < len(self.parts) for n in numbers),
            f"expected at least two parts and numbers below {len(self.parts)}, got {self.owned}",
        )
        blocks, depth = self.head.blocks, max(1, self.shape.depth)
        require(
            blocks is None or max(blocks) < depth,
            f"blocks must lie in 0..{depth - 1} (the encoder), got {blocks}",
        )
