"""How a run trains: optimiser, schedule and machine; budgets drawn for each step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from foundry3d.config.records import (
    DEEPEST,
    WIDEST,
    fraction,
    not_negative,
    positive,
    positive_or_null,
    require,
)

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "64-true")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Optimiser and schedule (AdamW, warm-up, cosine), and the machine.

    Attributes:
        epochs: passes over the training clouds.
        batch_size: clouds per step in each process; an incomplete last batch is dropped.
        lr: peak learning rate.
        start_lr: learning rate in the first warm-up epoch.
        final_lr: learning rate at the last step.
        warmup_epochs: epochs in which the learning rate rises linearly.
        weight_decay: AdamW decay on all parameters.
        clip: largest gradient norm; null = no limit.
        precision: of the arithmetic, by Lightning's name: 32-true, bf16-mixed, 16-mixed, 64-true.
        accelerator: auto, cpu or gpu.
        devices: number of devices, or auto.
        nodes: number of machines.
        strategy: of several processes, by Lightning's name: ddp, in which each holds the whole
            model, or auto, which is ddp for more than one process.
        seed: of every random draw of the run.
        logger: where metrics go besides CSV and TensorBoard: none, wandb or mlflow.
        checkpoint_every: epochs between resumable checkpoints.
        ahead: batches prepared in the background while a step runs; the numbers are the same.
            0 = none. On the CPU they are sampled, augmented and grouped, for an accelerator only
            read and copied, because the device does the rest faster.
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
    strategy: str = "auto"
    seed: int = 0
    logger: Literal["none", "wandb", "mlflow"] = "none"
    checkpoint_every: int = 1
    ahead: int = 2

    def __post_init__(self) -> None:
        positive(self, "epochs", "batch_size", "lr", "checkpoint_every")
        positive(self, "nodes", most=WIDEST)
        not_negative(self, "warmup_epochs", "seed", "start_lr", "final_lr", "weight_decay")
        not_negative(self, "ahead", most=DEEPEST)
        require(
            self.devices in ("auto", -1)
            or (isinstance(self.devices, int) and 0 < self.devices <= WIDEST),
            f"devices is a positive number, -1 for all, or auto; got {self.devices}",
        )
        require(
            self.precision in PRECISIONS,
            f"precision is one of {', '.join(PRECISIONS)}; got {self.precision!r}",
        )
        require(self.strategy in ("auto", "ddp"), _no_strategy(self.strategy))
        positive_or_null(self, "clip")


def _no_strategy(name: str) -> str:
    """Why a strategy is refused."""
    if name != "fsdp":
        return f"strategy is one of auto, ddp; got {name!r}"
    return (
        "fsdp is not offered: it divides weights and optimiser, of which the largest backbone here "
        "has less than 2 GB; its activations, which are larger, it does not; use ddp"
    )


@dataclass(frozen=True, kw_only=True)
class BudgetDraws:
    """Budgets drawn while a student trains, so that one checkpoint serves all of them.

    Attributes:
        random_ratio: each cloud of a step merges a random number of its tokens; needs a gate.
        all_merged: with random_ratio: share of the clouds that merge all of their tokens.
        nested: a step uses the first s' of the s supertokens, with s' drawn among s and the powers
            of two below it, so that fewer can be used at inference.
        whole: with nested: probability of s' = s.
    """

    random_ratio: bool = False
    all_merged: float = 0.25
    nested: bool = False
    whole: float = 0.5

    def __post_init__(self) -> None:
        fraction(self, "all_merged", "whole")
