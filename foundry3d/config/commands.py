"""Options of the small commands: `demo`, `models`, `convert`, `view` and `doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from foundry3d.config.records import WIDEST, not_negative, positive, positive_or_null, require


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """`foundry3d demo`: students of a shipped teacher, and what they are worth.

    Attributes:
        out: run folder.
        teacher: a saved teacher, or the name of a shipped one.
        data: the clouds that students are distilled on, as `data.train` takes them.
        clouds: number of built-in shapes for that.
        epochs: passes over them, for each student.
        probe_clouds: built-in shapes of other seeds, this many to fit probes on and as many to
            test them.
        examples: labelled clouds per class from which a classifier is taught.
        points: per cloud.
        seed: of data, weights and training.
    """

    out: str = "runs/demo"
    teacher: str = "mini-teacher"
    data: str = "procedural"
    clouds: int = 1024
    epochs: int = 12
    probe_clouds: int = 1024
    examples: int = 5
    points: int = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        positive(self, "clouds", "epochs", "probe_clouds", "examples", "points")
        not_negative(self, "seed")
        require(bool(self.teacher), "name a teacher, e.g. --teacher mini-teacher")


@dataclass(frozen=True, kw_only=True)
class ModelsConfig:
    """`foundry3d models`: the models that ship with the package.

    Attributes:
        models: names of shipped models, or folders of saved ones; none = all that ship.
        no_speed: leave out the measurement of clouds per second.
        json: print JSON instead of tables.
    """

    models: tuple[str, ...] = ()
    no_speed: bool = False
    json: bool = False


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
