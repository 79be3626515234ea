"""Data, augmentation, optimiser and machine of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from foundry3d.config.reading import check_reading
from foundry3d.config.records import fraction, positive, require

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "64-true")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where clouds come from and how they are held apart.

    Attributes:
        train: an .npz archive, a folder of files (`class/file`, or without classes), a folder of
            shards (`foundry3d data pack`; training only, nothing is held out), or `procedural`.
        test: the same, or null; classes of a folder are matched by name. Never used to select
            anything.
        train_clouds: procedural clouds for training.
        test_clouds: procedural clouds for testing.
        validation: share of the training clouds held out, stratified by class.
        points: points of a cloud that the model reads.
        subsample: how training takes them from larger clouds: random, fps (the paper, slower), or
            the first ones of each, always the same.
        up: the axis that points up.
        columns: of text tables in a folder, as in `foundry3d embed`.
        invalid: of files in a folder, as in `foundry3d embed`.
    """

    train: str = "procedural"
    test: str | None = "procedural"
    train_clouds: int = 4000
    test_clouds: int = 1000
    validation: float = 0.1
    points: int = 1024
    subsample: Literal["random", "fps", "first"] = "random"
    up: Literal["x", "y", "z"] = "z"
    columns: str | None = None
    invalid: Literal["drop", "refuse"] | None = None

    def __post_init__(self) -> None:
        positive(self, "train_clouds", "test_clouds", "points")
        fraction(self, "validation")
        check_reading(self.columns, self.invalid)
        require(self.up in ("x", "y", "z"), f"up is one of x, y, z; got {self.up!r}")


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Training augmentation, drawn per cloud (Table 15).

    Attributes:
        scale: range of a factor drawn for each axis.
        flip: mirror a random half of the clouds, across a vertical plane.
        rotate: rotate about the up axis by an angle in [-pi, pi].
        translate: shift along each axis by at most this.
        center: move the mean to the origin, then scale into the unit sphere.
    """

    scale: tuple[float, float] = (0.8, 1.2)
    flip: bool = False
    rotate: bool = True
    translate: float = 0.0
    center: bool = True

    def __post_init__(self) -> None:
        low, high = self.scale
        require(0 < low <= high, f"scale needs 0 < low <= high, got {low}, {high}")
        require(self.translate >= 0, f"translate must not be negative, got {self.translate}")

    @property
    def still(self) -> bool:
        """Whether every cloud comes out the same each time."""
        return self.scale == (1, 1) and not (self.flip or self.rotate or self.translate)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The optimiser, its schedule, and the machine (AdamW, warm-up, cosine).

    Attributes:
        epochs: passes over the training clouds.
        batch_size: clouds a step and process; an incomplete last batch is dropped.
        lr: peak learning rate.
        start_lr: rate at the first warm-up epoch.
        final_lr: rate at the last step.
        warmup_epochs: linear warm-up.
        weight_decay: AdamW decay on all parameters.
        clip: gradient norm limit; null = none.
        precision: Lightning's name of the arithmetic, e.g. 32-true, bf16-mixed, 16-mixed.
        accelerator: auto, cpu, gpu.
        devices: number of devices, or auto.
        nodes: number of machines.
        seed: of every random draw of the run.
        logger: a logger beside CSV and TensorBoard: none, wandb or mlflow.
        checkpoint_every: epochs between resumable checkpoints.
        ahead: batches made ready in the background while a step runs, with the same numbers;
            0 = none. On the CPU that is sampling, augmentation and grouping, on an accelerator
            reading and copying, because there the device does the rest faster.
    """

    epochs: int = 150
    batch_size: int = 512
    lr: float = 1e-3
    start_lr: float = 1e-6
    final_lr: float = 1e-6
    warmup_epochs: int = 15
    weight_decay: float = 0.05
    clip: float | None = None
    precision: str = "32-true"
    accelerator: str = "auto"
    devices: int | Literal["auto"] = "auto"
    nodes: int = 1
    seed: int = 0
    logger: Literal["none", "wandb", "mlflow"] = "none"
    checkpoint_every: int = 1
    ahead: int = 2

    def __post_init__(self) -> None:
        positive(self, "epochs", "batch_size", "lr", "nodes", "checkpoint_every")
        for name in ("warmup_epochs", "ahead"):
            value = getattr(self, name)
            require(value >= 0, f"{name} must be >= 0, got {value}")
        require(
            self.precision in PRECISIONS,
            f"precision is one of {', '.join(PRECISIONS)}; got {self.precision!r}",
        )
        require(
            self.clip is None or self.clip > 0, f"clip must be positive or null, got {self.clip}"
        )
