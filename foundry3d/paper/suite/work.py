"""The work of a cell: fine-tuning, a change at test time, a probe, episodes, or a loss."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any, TypeVar

import torch

from foundry3d.checkpoints.folder import load, load_backbone, read_config
from foundry3d.checkpoints.origin import origin_of
from foundry3d.config import (
    ClassifyConfig,
    DataConfig,
    FewshotConfig,
    FinetuneConfig,
    SegmentConfig,
    SpecialistConfig,
    SuiteConfig,
    SupertokenOptions,
    from_dict,
    protocols,
    to_dict,
)
from foundry3d.data.clouds import Clouds
from foundry3d.data.labelled import labelled_splits
from foundry3d.data.loading import load_splits, measured
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

COMMANDS: dict[str, protocols.TaskName] = {
    "classify": "classify",
    "segment": "segment",
    "probe": "probe",
}
"""The command whose protocols a task has; all others are episodes."""

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


def require_protocol(config: SuiteConfig, cell: Cell) -> tuple[str, protocols.TaskName]:
    """The published protocol of a cell, and the command that it is for.

    Raises:
        InputError: none was published for the column and task, or the folder of the published
            episodes is not named.
    """
    task = COMMANDS.get(cell.task, "fewshot")
    known = protocols.COLUMNS[task]
    if cell.column not in known:
        raise InputError(
            f"--as_published: {task} has no published protocol for the column {cell.column}, only "
            f"for {', '.join(known)}; leave the column or --as_published out"
        )
    if task == "fewshot" and config.fewshot.published is None:
        raise InputError(
            "--as_published reads the published episodes; name the folder that holds "
            "ModelNetFewshot with --fewshot.published"
        )
    return known[cell.column], task


def published_settings(config: SuiteConfig, cell: Cell, base: Run) -> Run:
    """The settings of a task; with `as_published` the cell's published protocol laid over them.

    Raises:
        InputError: as `require_protocol`.
    """
    if not config.as_published:
        return base
    name, task = require_protocol(config, cell)
    changes = protocols.find(name, task).settings
    if task == "classify":
        changes = protocols.over(changes, train={"epochs": EPOCHS})
    return from_dict(type(base), protocols.over(to_dict(base), **changes) | {"protocol": name})


def settings_of(config: SuiteConfig, cell: Cell) -> ClassifyConfig | SegmentConfig:
    """The fine-tuning run of a cell: the suite's recipe or the published protocol."""
    base: ClassifyConfig | SegmentConfig
    base = config.segment if cell.task == "segment" else config.classify
    base = published_settings(config, cell, base)
    epochs = base.train.epochs
    unfreeze = {"start": 0, "late": round(2 * epochs / 3), "never": None}[cell.unfreeze]
    whole = MODELS[cell.model].frozen == "all"
    return replace(
        run_settings(config, cell, base),
        frozen=None,
        unfreeze_tokenizer=unfreeze if whole else base.limits["tokenizer"],
        unfreeze_position=unfreeze if whole else base.limits["position"],
        unfreeze_encoder=unfreeze,
    )


def episode_settings(config: SuiteConfig, cell: Cell) -> FewshotConfig:
    """The few-shot run of a cell: the suite's recipe or the published protocol."""
    way, shot = next(e for e in EPISODES if episode_name(*e) == cell.task)
    settings = run_settings(config, cell, published_settings(config, cell, config.fewshot))
    return replace(settings, way=way, shot=shot)


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
    fields = ("task", "selection", "data", "sizes", "protocol", "deviations", "frozen")
    known = read_config(folder)["provenance"]
    row = model_columns(str(folder), model.backbone, origin_of(folder)) | {"at_test": cell.at_test}
    if budget is not None:
        at = Budgeted(model.backbone, budget)
        row["encoded"] = encoded_tokens(at, task.splits, data.points)
    row |= {key: round(value, 2) for key, value in scores.items()}
    row |= {key: known[key] for key in fields if key in known}
    return row | {"points": data.points, "seed": cell.seed, "code": code_version()}


def probed(config: SuiteConfig, cell: Cell) -> dict[str, Any]:
    """A linear probe of the cell's frozen model."""
    settings = published_settings(config, cell, config.classify)
    data = with_source(config, settings.data, cell.column)
    path = model_path(config, cell.model)
    model: Any = load_backbone(path)
    if cell.at_test:
        model = reduced_at_test(model, cell.at_test, points=data.points, seed=cell.seed)
    splits = load_splits(data, seed=cell.seed)
    row = probe_row(str(path), model, splits, data, seed=cell.seed, origin=origin_of(path))
    if config.as_published:
        row["protocol"] = f"{settings.protocol}; {row['protocol']}"
    return row


def episodes(config: SuiteConfig, cell: Cell) -> dict[str, Any]:
    """Few-shot folds of the cell's model."""
    return fewshot(episode_settings(config, cell))


def loss_clouds(config: SuiteConfig, column: str) -> tuple[str, Clouds]:
    """The name of a split and its clouds: test of a column, or for `loss` held out of distillation.

    Where none are held out, those of its test, or else of its training. A column may name one
    source alone, which is read whole.
    """
    data, seed = config.distill.data, config.distill.train.seed
    if column == "loss":
        return measured(load_splits(data, seed=seed))
    train, test = config.sources[column]
    single = train == test and train != "procedural" and not is_published(train)
    data = replace(data, train=train, test=None if single else test, validation=0.0)
    return measured(load_splits(data, seed=seed))


def loss_row(config: SuiteConfig, cell: Cell) -> dict[str, Any]:
    """The distillation loss, and the fusion ratio of a gate, on the clouds of `loss_clouds`."""
    teacher = require_teacher(load(model_path(config, "teacher")))
    path = model_path(config, cell.model)
    student: Any = load_backbone(path)
    settings, (part, clouds) = config.distill, loss_clouds(config, cell.column)
    found = held_out_losses(teacher, student, clouds, settings.data.points)
    row = model_columns(str(path), student, origin_of(path))
    row |= {"loss": round(found["loss"], 5), "task": "distillation loss, Smooth L1", "split": part}
    row |= {name: round(found[name], 5) for name in ("unexplained", "cosine", "cka")}
    row["fidelity_on"] = f"{len(clouds)} {part} of {clouds.name}"
    row["teacher_sizes"] = to_dict(teacher.config)
    if "probability" in found:
        row["fusion_ratio"] = round(found["fusion_ratio"], 5)
    row |= {"data": clouds.name, "sizes": [len(clouds)], "seed": settings.train.seed}
    return row | {"points": settings.data.points, "code": code_version()}
