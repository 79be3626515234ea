"""Part segmentation: the head, what its checkpoint stores, and the command."""

from __future__ import annotations

from dataclasses import dataclass, field

from foundry3d.config.downstream import FinetuneConfig, HeadedConfig
from foundry3d.config.records import fraction, positive, require
from foundry3d.config.training import AugmentConfig, TrainConfig


@dataclass(frozen=True, kw_only=True)
class PartHeadConfig:
    """What turns token features into a part for every point (field.md E3; widths of ViT-S).

    Attributes:
        blocks: encoder blocks whose features are averaged, counted from 0; null = the ends of
            three equal stretches of the encoder: 3, 7, 11 of 12.
        upsampling: widths of the layers behind the interpolation to the points.
        hidden: hidden widths of the head, behind up-sampled and global features.
        dropout: after the first hidden layer, training only.
        label_dim: width of the category's embedding; not used where there is one category.
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
                len(widths) > 0 and min(widths) > 0,
                f"{name} are one or more positive widths, got {widths}",
            )
        require(
            self.blocks is None or (len(self.blocks) > 0 and min(self.blocks) >= 0),
            f"blocks are block numbers from 0, or null, got {self.blocks}",
        )
        positive(self, "label_dim")
        fraction(self, "dropout")


@dataclass(frozen=True, kw_only=True)
class SegmenterConfig(HeadedConfig):
    """A model with a part head.

    Attributes:
        head: sizes of the head.
        categories: names of the categories; one where the data has no classes.
        parts: names of the parts of all categories.
        owned: the part numbers of each category; one that owns none may have any.
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
        blocks, depth = self.head.blocks, self.shape.depth
        require(
            blocks is None or max(blocks) < depth,
            f"blocks must lie in 0..{depth - 1} (the encoder), got {blocks}",
        )


@dataclass(frozen=True, kw_only=True)
class SegmentConfig(FinetuneConfig):
    """`foundry3d segment`: part segmentation; held-out clouds choose the epoch.

    Defaults are those of Point-JEPA on ShapeNetPart (field.md E3). Points are always drawn at
    random, in training with their parts.

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
