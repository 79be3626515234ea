"""Options of the small commands: `demo`, `convert`, `view` and `doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from foundry3d.config.records import WIDEST, not_negative, positive_or_null, require


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """`foundry3d demo`: all of Foundation Model Distillation on built-in shapes.

    Attributes:
        out: run folder.
        seed: of data, weights and training.
    """

    out: str = "runs/demo"
    seed: int = 0

    def __post_init__(self) -> None:
        not_negative(self, "seed")


@dataclass(frozen=True, kw_only=True)
class ConvertConfig:
    """`foundry3d convert`: any checkpoint as a folder of this package, with a model card.

    Attributes:
        model: a Point-JEPA, point2vec, Point-MAE or Point-BERT file, or a checkpoint folder.
        out: the folder to write.
        num_heads: attention heads, where the file does not store them.
        num_groups: tokens per cloud, likewise.
        group_size: points per token, likewise.
        weights: online, or ema: the exponential moving average, where the file holds one.
        license: of the weights, for the card.
    """

    model: str = ""
    out: str = "model"
    num_heads: int | None = None
    num_groups: int | None = None
    group_size: int | None = None
    weights: Literal["online", "ema"] = "online"
    license: str = "other"

    def __post_init__(self) -> None:
        require(bool(self.model), "name the checkpoint to convert: foundry3d convert PATH")
        positive_or_null(self, "num_heads", "num_groups", "group_size", most=WIDEST)


@dataclass(frozen=True, kw_only=True)
class ViewConfig:
    """`foundry3d view`: exported models and clouds in the browser.

    Attributes:
        files: exported .onnx files, several of one checkpoint for a slider over their budgets, and
            files of point clouds and meshes.
        page: folder of the built page; null = where `make web` builds it.
        port: on 127.0.0.1; 0 = any free one.
        no_browser: only print the address.
    """

    files: tuple[str, ...] = ()
    page: str | None = None
    port: int = 0
    no_browser: bool = False

    def __post_init__(self) -> None:
        require(
            any(name.lower().endswith(".onnx") for name in self.files),
            "name an exported model: foundry3d view MODEL.onnx [FILES]",
        )
        not_negative(self, "port", most=65535)


@dataclass(frozen=True, kw_only=True)
class DoctorConfig:
    """`foundry3d doctor`: what was found on this machine, and what was picked."""
