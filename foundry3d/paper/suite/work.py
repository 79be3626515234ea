"""The work of a cell: fine-tuning, a change at test time, a probe, episodes, or a loss."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any, TypeVar

import torch

from foundry3d.checkpoints.folder import load, load_backbone, read_config
from foundry3d.config import (
    ClassifyConfig,
    DataConfig,
    FinetuneConfig,
    SegmentConfig,
    SpecialistConfig,
    SuiteConfig,
    SupertokenOptions,
    from_dict,
    to_dict,
)
from foundry3d.config.protocols import find, over
from foundry3d.data.clouds import Clouds
from foundry3d.data.labelled import labelled_splits
from foundry3d.data.loading import load_splits
from foundry3d.data.parts import part_splits
from foundry3d.data.published.sources import is_published
from foundry3d.errors import InputError
from foundry3d.evaluation.budgets import encoded_tokens
from foundry3d.evaluation.classify import ClassifyTask, classify
from foundry3d.evaluation.fewshot import fewshot
from foundry3d.evaluation.probe import probe_row
from foundry3d.evaluation.rows import model_columns
from foundry3d.evaluation.segment import SegmentTask, segment
from foundry3d.evaluation.specialize import specialize
from foundry3d.models.backbone import require_teacher
from foundry3d.models.student import Budgeted
from foundry3d.paper.suite.cells import Cell, cell_folder, episode_name
from foundry3d.paper.suite.models import budget_at_test, model_path, reduced_at_test
from foundry3d.paper.suite.records import EPISODES, MODELS
from foundry3d.report.rows import code_version
from foundry3d.training.goals import held_out_losses

PUBLISHED = {
    "mn40": "modelnet40@point-jepa",
    "oo3d": "modelnet40@point-jepa",
    "sonn-obj-bg": "scanobjectnn-obj-bg@point-jepa",
    "sonn-obj-only": "scanobjectnn-obj-only@point-jepa",
    "sonn-pb": "scanobjectnn-pb@point-jepa",
    "sn55": "modelnet40@point-jepa",
    "snp": "shapenetpart@point-jepa",
}
"""Protocols of the paper's columns; OmniObject3D (Appendix E) and ShapeNet55 use ModelNet40's."""

EPOCHS = 150
"""Of published classification runs (Appendix D.2), which override the protocol."""

Run = TypeVar("Run", bound=FinetuneConfig)


def run_cell(config: SuiteConfig, cell: Cell) -> dict[str, Any]:
    """Runs a cell, or continues an interrupted run; returns its row, with the name of the cell.

    Raises:
        InputError: models or data cannot be read, or do not fit the settings.
    """
    began = time.monotonic()
    match cell.task:
        case "loss":
            row = loss_row(config, cell)
        case "probe":
            row = probed(config, cell)
        case "classify" | "segment":
            row = tested(config, cell) if cell.at_test else finetuned(config, cell)
        case _:
            row = episodes(config, cell)
    return {"cell": cell.name, "seconds": round(time.monotonic() - began, 1)} | row


def with_source(config: SuiteConfig, data: DataConfig, column: str) -> DataConfig:
    """Data settings with the sources of a column.

    Raises:
        InputError: training and test clouds are the same archive or folder.
    """
    train, test = config.sources[column]
    if train == test and train != "procedural" and not is_published(train):
        raise InputError(f"{column}: name training and test clouds, --data {column}=TRAIN,TEST")
    return replace(data, train=train, test=test)


def run_settings(config: SuiteConfig, cell: Cell, base: Run) -> Run:
    """The settings of a run with the model, folder, data and seed of a cell."""
    return replace(
        base,
        model=str(model_path(config, cell.model)),
        out=str(cell_folder(config, cell)),
        results=None,
        resume=True,
        data=with_source(config, base.data, cell.column),
        train=replace(base.train, seed=cell.seed),
    )


def settings_of(config: SuiteConfig, cell: Cell) -> ClassifyConfig | SegmentConfig:
    """The fine-tuning run of a cell: the suite's recipe or the published protocol."""
    base: ClassifyConfig | SegmentConfig
    base = config.segment if cell.task == "segment" else config.classify
    protocol = PUBLISHED.get(cell.column)
    if config.as_published and protocol and find_task(protocol) == cell.task:
        changes = find(protocol, cell.task).settings
        if cell.task == "classify":
            changes = over(changes, train={"epochs": EPOCHS})
        values = over(to_dict(base), **changes) | {"protocol": protocol}
        base = from_dict(type(base), values)
    epochs = base.train.epochs
    unfreeze = {"start": 0, "late": round(2 * epochs / 3), "never": None}[cell.unfreeze]
    return replace(run_settings(config, cell, base), unfreeze_encoder=unfreeze)


def find_task(protocol: str) -> str:
    """The command that a protocol of `PUBLISHED` is for."""
    return "segment" if protocol.startswith("shapenetpart") else "classify"


def finetuned(config: SuiteConfig, cell: Cell) -> dict[str, Any]:
    """Fine-tunes the cell's model; a specialist is distilled from the fine-tuned teacher."""
    settings = settings_of(config, cell)
    if (before := cell.needs()) is not None:
        own = SpecialistConfig(
            teacher=str(cell_folder(config, before) / "model"),
            out=settings.out,
            results=None,
            resume=True,
            student=SupertokenOptions(supertokens=MODELS[cell.model].tokens),
            eval_every=settings.eval_every,
            data=settings.data,
            augment=settings.augment,
            train=settings.train,
        )
        return specialize(own)
    return segment(settings) if isinstance(settings, SegmentConfig) else classify(settings)


def tested(config: SuiteConfig, cell: Cell) -> dict[str, Any]:
    """Scores a fine-tuned model that encodes fewer tokens at test time, without training."""
    before = cell.needs()
    assert before is not None
    settings, folder = settings_of(config, before), cell_folder(config, before) / "model"
    model: Any = load(folder)
    data, budget = settings.data, budget_at_test(cell.at_test)
    if budget is None:
        model.backbone = reduced_at_test(
            model.backbone, cell.at_test, points=data.points, seed=cell.seed
        )
    task: ClassifyTask | SegmentTask
    if isinstance(settings, SegmentConfig):
        task = SegmentTask(settings, model, part_splits(data, seed=cell.seed))
    else:
        task = ClassifyTask(settings, model, labelled_splits(data, seed=cell.seed))
    task.eval()
    with torch.inference_mode():
        scores = task.scores("test", budget=budget)
    fields = ("task", "selection", "data", "sizes", "protocol", "deviations")
    known = read_config(folder)["provenance"]
    row = model_columns(str(folder), model.backbone) | {"at_test": cell.at_test}
    if budget is not None:
        at = Budgeted(model.backbone, budget)
        row["encoded"] = encoded_tokens(at, task.splits, data.points)
    row |= {key: round(value, 2) for key, value in scores.items()}
    row |= {key: known[key] for key in fields if key in known}
    return row | {"points": data.points, "seed": cell.seed, "code": code_version()}


def probed(config: SuiteConfig, cell: Cell) -> dict[str, Any]:
    """A linear probe of the cell's frozen model."""
    data = with_source(config, config.classify.data, cell.column)
    path = model_path(config, cell.model)
    model: Any = load_backbone(path)
    if cell.at_test:
        model = reduced_at_test(model, cell.at_test, points=data.points, seed=cell.seed)
    splits = load_splits(data, seed=cell.seed)
    return probe_row(str(path), model, splits, data, seed=cell.seed)


def episodes(config: SuiteConfig, cell: Cell) -> dict[str, Any]:
    """Few-shot folds of the cell's model."""
    way, shot = next(e for e in EPISODES if episode_name(*e) == cell.task)
    settings = run_settings(config, cell, config.fewshot)
    return fewshot(replace(settings, way=way, shot=shot))


def loss_clouds(config: SuiteConfig, column: str) -> Clouds:
    """The test clouds of a column; for `loss` the clouds held out of distillation.

    Where none are held out, those of its test, or else of its training. A column may name one
    source alone, which is read whole.
    """
    data, seed = config.distill.data, config.distill.train.seed
    if column == "loss":
        splits = load_splits(data, seed=seed)
        return splits.validation or splits.test or splits.train
    train, test = config.sources[column]
    single = train == test and train != "procedural" and not is_published(train)
    data = replace(data, train=train, test=None if single else test, validation=0.0)
    splits = load_splits(data, seed=seed)
    return splits.test or splits.train


def loss_row(config: SuiteConfig, cell: Cell) -> dict[str, Any]:
    """The distillation loss, and the fusion ratio of a gate, on the clouds of `loss_clouds`."""
    teacher = require_teacher(load(model_path(config, "teacher")))
    path = model_path(config, cell.model)
    student: Any = load_backbone(path)
    settings, clouds = config.distill, loss_clouds(config, cell.column)
    found = held_out_losses(teacher, student, clouds, settings.data.points)
    row = model_columns(str(path), student)
    row |= {"loss": round(found["loss"], 5), "task": "distillation loss, Smooth L1"}
    if "probability" in found:
        row["fusion_ratio"] = round(found["fusion_ratio"], 5)
    row |= {"data": clouds.name, "sizes": [len(clouds)], "seed": settings.train.seed}
    return row | {"points": settings.data.points, "code": code_version()}
