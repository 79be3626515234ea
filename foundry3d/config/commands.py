"""One record for each command of the command line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from foundry3d.config.records import positive, require


@dataclass(frozen=True, kw_only=True)
class CostConfig:
    """`foundry3d cost`: MACs, FLOPs and parameters, counted on the real modules.

    Attributes:
        paper: our count beside every row of the paper's cost tables.
        formula: the closed forms of Table 1 and Appendix C beside the counts, one cloud.
        merged: with formula: tokens of a cloud that the gated student merges; null = half.
        model: a saved model (folder) or a preset (vit_t, vit_s, vit_b) to account for.
        supertokens: with a preset: its students of these many supertokens too.
        clouds: clouds a forward pass.
        json: also write the rows to this file.
    """

    paper: bool = False
    formula: bool = False
    merged: int | None = None
    model: str = "vit_s"
    supertokens: tuple[int, ...] = (16, 8, 4, 2, 1)
    clouds: int = 64
    json: str | None = None

    def __post_init__(self) -> None:
        positive(self, "clouds")
        require(not (self.paper and self.formula), "choose one of --paper and --formula")
        require(
            self.merged is None or (self.formula and self.merged >= 0),
            f"merged goes with --formula and must not be negative, got {self.merged}",
        )


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """`foundry3d demo`: the whole of Foundation Model Distillation on built-in shapes.

    Attributes:
        out: run folder.
        seed: of data, weights and training.
    """

    out: str = "runs/demo"
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class ConvertConfig:
    """`foundry3d convert`: any checkpoint as a folder of our own, with a model card.

    Attributes:
        path: a Point-JEPA, point2vec, Point-MAE or Point-BERT file, or a checkpoint folder.
        out: the folder to write.
        num_heads: attention heads, where the file does not store them.
        num_groups: tokens of a cloud, likewise.
        group_size: points of a token, likewise.
        weights: online, or the exponential moving average where the file holds one.
        license: of the weights, for the card.
    """

    path: str = ""
    out: str = "model"
    num_heads: int | None = None
    num_groups: int | None = None
    group_size: int | None = None
    weights: Literal["online", "ema"] = "online"
    license: str = "other"

    def __post_init__(self) -> None:
        require(bool(self.path), "name the checkpoint to convert: foundry3d convert PATH")


@dataclass(frozen=True, kw_only=True)
class DoctorConfig:
    """`foundry3d doctor`: what was found on this machine, and what was picked."""
