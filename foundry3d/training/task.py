"""What the trainable tasks share: a schedule, batches made ready, and a step's own randomness.

Every random draw of a step comes from a generator seeded by (seed, step, process), so a run resumed
from the end of an epoch continues as if it had never stopped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import lightning as L
import torch
from torch import Tensor, nn

from foundry3d.config import AugmentConfig, BackboneConfig, BudgetDraws, DataConfig, TrainConfig
from foundry3d.data.ahead import pinned
from foundry3d.data.crop_samples import Needs
from foundry3d.errors import InputError
from foundry3d.geometry import Groups
from foundry3d.models.budget import Budget, draw_merged, draw_supertokens
from foundry3d.models.student import Student
from foundry3d.models.tokenizer import PointModel
from foundry3d.training.goals import Goal
from foundry3d.transforms import augment, subsample


def rate(progress: float, config: TrainConfig) -> float:
    """Learning rate after `progress` epochs: linear warm-up, then cosine to `final_lr`."""
    warm = min(config.warmup_epochs, config.epochs)
    if progress < warm:
        return config.start_lr + (config.lr - config.start_lr) * progress / warm
    left = (progress - warm) / max(config.epochs - warm, 1e-12)
    return config.final_lr + (config.lr - config.final_lr) * 0.5 * (1 + math.cos(math.pi * left))


class Ready(NamedTuple):
    """A batch of which everything is done that does not need the weights.

    Attributes:
        groups: of the augmented points, None where they cannot or need not be made yet.
        generator: the step's, as those draws left it.
        points: (B, N, 3) augmented.
        which: (B,) which clouds of the split these are; None where that does not matter.
        goal: what the student is to reproduce, where it came with the batch.
    """

    groups: Groups | None
    generator: torch.Generator
    points: Tensor
    which: Tensor | None = None
    goal: Goal | None = None


class Task(L.LightningModule):
    """What the trainable tasks share: optimiser, schedule, augmentation, per-step randomness.

    Tasks whose batches are made ready ahead define `ready`, and begin a step with `readied`.

    Args:
        train: optimiser and schedule.
        data: number of points and the up axis.
        augmentation: drawn per cloud.
    """

    def __init__(self, train: TrainConfig, data: DataConfig, augmentation: AugmentConfig) -> None:
        super().__init__()
        self.train_config, self.data_config, self.augmentation = train, data, augmentation

    def log(self, name: str, value: Any, *args: Any, **options: Any) -> None:
        """Logs the mean over all processes of a run; of an epoch, what the caller has reduced.

        The first process alone asks for averages of epochs, so these must not wait for others.
        """
        super().log(name, value, *args, **(options | {"sync_dist": not options.get("on_epoch")}))

    numbered = False
    """Whether batches in memory say which clouds they hold."""
    least_batch = 1
    """The smallest batch that can be trained on."""

    def step_generator(self, step: int | None = None) -> torch.Generator:
        """The generator of a step (None = this one) and process, on the model's device."""
        step = self.global_step if step is None else step
        seed = (self.train_config.seed * 1_000_003 + step) * 4099 + self.global_rank
        return torch.Generator(device=self.device).manual_seed(seed)

    def shared_generator(self) -> torch.Generator:
        """The generator, on the CPU, of what all processes draw alike in this step."""
        seed = (self.train_config.seed * 1_000_003 + self.global_step) * 4099 + 4098
        return torch.Generator().manual_seed(seed)

    def ready(self, batch: Any, generator: torch.Generator) -> Any:
        """What a step can have done for it: a `Ready` record; here the batch as it is."""
        return batch

    def readied(self, batch: Any) -> Any:
        """The batch made ready, unless that has been done ahead."""
        return batch if isinstance(batch, Ready) else self.ready(batch, self.step_generator())

    def begin(self) -> Callable[[int, Any], Any]:
        """What makes a batch of the coming epoch ready, in another thread.

        Ahead of a step on the CPU in float32 that is `ready`. An accelerator samples, augments and
        groups by itself with draws of its own generator, in float64 the trainer converts the
        points first: there a batch only becomes ready to be copied.
        """
        if self.device.type == "cpu" and self.train_config.precision != "64-true":
            first = self.global_step
            return lambda i, batch: self.ready(batch, self.step_generator(first + i))
        return lambda _, batch: pinned(batch) if self.device.type == "cuda" else batch

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Batches that are ready are where they belong."""
        if isinstance(batch, Ready):
            return batch
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def prepared(self, points: Tensor, generator: torch.Generator) -> Tensor:
        """Points (B, N, 3) taken from a batch and augmented."""
        points = subsample(
            points, self.data_config.points, how=self.data_config.subsample, generator=generator
        )
        return augment(
            points,
            self.augmentation,
            up=self.data_config.up,
            generator=generator,
            attributes=self.data_config.attributes,
        )

    def undecayed(self) -> Iterable[nn.Parameter]:
        """Parameters without weight decay."""
        return ()

    def configure_optimizers(self) -> Any:
        """AdamW on everything that may train, with a schedule by step."""
        config = self.train_config
        steps = max(1, int(self.trainer.estimated_stepping_batches) // config.epochs)
        apart = list(self.undecayed())
        known = {id(parameter) for parameter in apart}
        groups: list[dict[str, Any]] = [
            {"params": [p for p in self.parameters() if id(p) not in known]}
        ]
        if apart:
            groups.append({"params": apart, "weight_decay": 0.0})
        optimizer = torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: rate(step / steps, config) / config.lr
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def draw_budget(
    draws: BudgetDraws,
    model: PointModel,
    batch: int,
    generator: torch.Generator,
    *,
    shared: torch.Generator,
) -> Budget | None:
    """The budget of a step: numbers of merged tokens and of supertokens, where they are drawn.

    Args:
        draws: which are drawn.
        model: whose budget it is.
        batch: clouds of this process.
        generator: of the numbers of merged tokens, which differ from cloud to cloud.
        shared: of the number of supertokens, which is the same in all processes, so that none of
            them waits for others that have more to compute.

    Raises:
        InputError: draws for a model without supertokens.
    """
    if not (draws.random_ratio or draws.nested):
        return None
    if not isinstance(model, Student):
        raise InputError(
            f"budgets are drawn for students with supertokens, got a {type(model).__name__}"
        )
    merged = supertokens = None
    if draws.random_ratio:
        merged = draw_merged(
            batch, model.shape.groups, all_merged=draws.all_merged, generator=generator
        )
    if draws.nested:
        supertokens = draw_supertokens(
            model.config.supertokens, whole=draws.whole, generator=shared
        )
    return Budget(merged=merged, supertokens=supertokens)


def freeze(module: nn.Module, frozen: bool) -> None:
    """Frozen means: no gradients and evaluation mode. Works in place."""
    module.requires_grad_(not frozen)
    module.train(not frozen)


def needs_of(*shapes: BackboneConfig) -> Needs:
    """What models of these sizes need of a cloud or crop, the one that learns first."""
    least = max(max(shape.groups, shape.group_size) for shape in shapes)
    return Needs(points=least, tokens=shapes[0].groups)
