"""Pre-training of a backbone (masked reconstruction, Point-JEPA) or a student (Point-JEPA)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from foundry3d.checkpoints.folder import load
from foundry3d.config import PretrainConfig, StudentConfig, read_for
from foundry3d.data.scenes import load_unlabelled
from foundry3d.errors import InputError
from foundry3d.models.backbone import Backbone, require_teacher
from foundry3d.models.extend import with_attributes
from foundry3d.models.student import Student
from foundry3d.training.engine import fit, keep
from foundry3d.training.jepa import Jepa
from foundry3d.training.mae import MaskedReconstruction
from foundry3d.training.task import Ready, Task, needs_of


class PretrainTask(Task):
    """One step of either objective.

    Args:
        config: of the run.
        backbone: trained in place; a student only for Point-JEPA.
    """

    def __init__(self, config: PretrainConfig, backbone: Backbone | Student) -> None:
        super().__init__(config.train, config.data, config.augment)
        generator = torch.Generator().manual_seed(config.train.seed + 1)
        self.backbone = backbone
        self.objective: Jepa | MaskedReconstruction = (
            Jepa(backbone, config.jepa, generator=generator)
            if config.objective == "jepa"
            else MaskedReconstruction(require_teacher(backbone), config.masked, generator=generator)
        )

    def ready(self, batch: Tensor, generator: torch.Generator) -> Ready:
        """A batch of points (B, N, 3), augmented and grouped."""
        points = self.prepared(batch, generator)
        return Ready(self.backbone.group(points, generator=generator), generator, points)

    def training_step(self, batch: Tensor | Ready, index: int) -> Tensor:
        """The loss of a batch of points (B, N, 3)."""
        groups, generator, *_ = self.readied(batch)
        if isinstance(self.objective, MaskedReconstruction):
            loss = self.objective(groups, generator=generator)
        else:
            loss, monitors = self.objective(groups, generator=generator)
            self.log_dict(monitors)
        self.log("loss", loss)
        return loss

    def on_train_batch_end(self, *_: object) -> None:
        """Updates the target encoder of Point-JEPA; the first two updates copy the weights."""
        if isinstance(self.objective, Jepa):
            total = int(self.trainer.estimated_stepping_batches)
            step = self.global_step
            decay = self.objective.update_target(step / max(total, 1), copy_weights=step <= 2)
            self.log("ema_decay", decay)


def start(config: PretrainConfig) -> Backbone | Student:
    """The untrained or saved model that a run starts from, extended to the attributes of the run.

    Raises:
        InputError: unusable sizes, or sizes that differ from those of the saved model.
    """
    generator = torch.Generator().manual_seed(config.train.seed)
    if config.supertokens is not None:
        sizes = StudentConfig(backbone=config.backbone, supertokens=config.supertokens)
        return Student(sizes, generator=generator)
    if config.init is None:
        return Backbone(config.backbone, generator=generator)
    backbone = require_teacher(load(config.init))
    wanted = config.backbone.attributes, config.backbone.attribute_dropout
    if (backbone.config.attributes, backbone.config.attribute_dropout) != wanted:
        backbone = with_attributes(backbone, wanted[0], attribute_dropout=wanted[1])
    if backbone.config != config.backbone:
        raise InputError(
            f"{config.init} has other sizes than this run's backbone settings; copy the "
            "'config' of its config.json into 'backbone'"
        )
    return backbone


def pretrain(config: PretrainConfig) -> Backbone | Student:
    """Pre-trains a model and saves it as `<out>/model`.

    Returns:
        The backbone, or with `supertokens` the student, in evaluation mode.

    Raises:
        InputError: unusable data, sizes or run folder.
    """
    config = replace(config, data=read_for(config.data, config.backbone))
    backbone = start(config)
    needs = needs_of(backbone.shape)
    train = load_unlabelled(config.data, seed=config.train.seed, needs=needs)
    task = PretrainTask(config, backbone)
    metrics = fit(task, train, config)
    backbone = task.backbone.cpu().eval()
    origin = {"made_by": f"pretrain ({config.objective})", "init": config.init}
    keep(backbone, task, train, config.out, origin | {"metrics": metrics})
    return backbone
