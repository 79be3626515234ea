"""A fine-tuning run: the model it starts from, training, the result row, what is saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from foundry3d.checkpoints.folder import load_backbone, save
from foundry3d.checkpoints.origin import Origin, origin_of
from foundry3d.config import FinetuneConfig, HeadedRunConfig, to_dict
from foundry3d.data.batches import LabelledBatches
from foundry3d.evaluation.finetune import FinetuneTask, Outcome, frozen_words
from foundry3d.evaluation.rows import data_columns, model_columns
from foundry3d.heads.classifier import Inner, reshaped
from foundry3d.inference.allocator import retain_memory
from foundry3d.report.rows import append
from foundry3d.training.engine import check_batch, make_trainer, run_trainer, seconds
from foundry3d.training.run_folder import opened, run_name


def fit_and_select(task: FinetuneTask) -> Outcome:
    """Trains a task; afterwards its model has the selected weights and is in evaluation mode.

    Raises:
        InputError: the run folder holds another run, the data is smaller than a batch, or the
            machine lacks a device or logger that was asked for.
    """
    config, train = task.config, task.splits.train
    retain_memory()
    check_batch(task)
    few = len(train) < 20 * config.train.batch_size
    trainer = make_trainer(Path(config.out), config.train, few_batches=few)
    task.train()
    batches = LabelledBatches(
        train,
        config.train.batch_size,
        seed=config.train.seed,
        rank=trainer.global_rank,
        world=trainer.world_size,
    )
    with opened(Path(config.out), config) as last:
        run_trainer(trainer, task, batches, last)
    if task.best is not None:
        task.model.load_state_dict(task.best)
    task.model.cpu().eval().requires_grad_(True)
    return task.outcome()


def start_model(config: FinetuneConfig) -> Inner:
    """The model that a run starts from, with the groups and dropout of the run.

    Raises:
        InputError: the checkpoint cannot be loaded, or the sizes do not fit it.
    """
    fresh = torch.Generator().manual_seed(config.train.seed) if config.scratch else None
    return reshaped(
        load_backbone(config.model),
        generator=fresh,
        groups=config.groups,
        group_size=config.group_size,
        dropout=config.dropout,
        attention_dropout=config.attention_dropout,
        drop_path=config.drop_path,
    )


def start_origin(name: str, config: HeadedRunConfig) -> Origin:
    """What the model that a run starts from was made of; nothing where the run starts anew."""
    scratch = isinstance(config, FinetuneConfig) and config.scratch
    return Origin() if scratch else origin_of(name)


def run_columns(name: str, task: FinetuneTask, outcome: Outcome) -> dict[str, Any]:
    """The columns that all fine-tuning runs share; `name` is that of the model they start from."""
    config, splits, inner = task.config, task.splits, task.model.backbone
    return model_columns(name, inner, start_origin(name, config)) | {
        "frozen": frozen_words(config, inner),
        "selected_epoch": outcome.selected.epoch,
        "best_on_test_epoch": outcome.best_on_test.epoch,
        "selection": "held-out clouds" if splits.validation else "last epoch, nothing held out",
        **data_columns(splits, points=config.data.points, seed=config.train.seed),
        "settings": to_dict(config),
    }


def deliver(
    task: FinetuneTask, row: dict[str, Any], *, made_by: str, shown: str, began: float
) -> dict[str, Any]:
    """Saves the model as `<out>/model`, appends the row and prints `shown`, on the first process.

    Returns:
        The row, with the seconds since `began`, those of earlier processes of the run included.
    """
    row = row | {"seconds": seconds(task, began)}
    if not task.trainer.is_global_zero:
        return row
    config = task.config
    save(task.model, Path(config.out) / "model", provenance={"made_by": made_by} | row)
    if config.results is not None:
        append(config.results, [row | {"run": run_name(Path(config.out))}])
    print(shown)
    return row
