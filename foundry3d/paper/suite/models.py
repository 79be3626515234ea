"""The models of a table's rows: given, or distilled from the teacher where they are missing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from foundry3d.baselines import KMeansStudent, LargerGroups, Merged, RandomSampling
from foundry3d.baselines.wrapped import Wrapped
from foundry3d.checkpoints.folder import load, model_folder, read_config, save
from foundry3d.checkpoints.origin import with_origin
from foundry3d.config import DistillConfig, PretrainConfig, ReductionConfig, SuiteConfig
from foundry3d.config.freezing import Epoch
from foundry3d.data.batches import in_order
from foundry3d.data.loading import load_splits
from foundry3d.errors import InputError
from foundry3d.models.backbone import Backbone, require_teacher
from foundry3d.models.budget import Budget
from foundry3d.paper.suite.records import MODELS, Model
from foundry3d.report.rows import code_version
from foundry3d.training.distill import distill, student_of
from foundry3d.training.pretrain import pretrain
from foundry3d.transforms import normalise


def model_path(config: SuiteConfig, name: str) -> Path:
    """The folder of a model of `MODELS`, whether or not it exists."""
    if name in config.given:
        return Path(config.given[name])
    if name == "teacher" and config.teacher != "pretrain":
        return Path(config.teacher)
    return Path(config.out) / "models" / name / "model"


def is_made(config: SuiteConfig, name: str) -> bool:
    """Whether a model exists, or is one that a suite does not make."""
    if name == "teacher" and config.teacher != "pretrain":
        return True
    made = (model_path(config, name) / "config.json").is_file()
    return made or name in config.given or MODELS[name].how == "specialist"


def make_model(config: SuiteConfig, name: str) -> None:
    """Makes a missing model, or continues an interrupted run.

    Raises:
        InputError: the teacher or data cannot be read, or the sizes do not fit the teacher.
    """
    model, folder = MODELS[name], Path(config.out) / "models" / name
    if model.how == "teacher":
        pretrain(replace(config.pretrain, out=str(folder), resume=True))
        return
    teacher = require_teacher(load(model_path(config, "teacher")))
    settings = distill_settings(config, model, teacher, folder)
    match model.how:
        case "pretrained":
            pretrain(supertoken_settings(config, model, teacher, folder))
        case "fps" if model.frozen == "all":
            keep_fps(settings, teacher)
        case "student" | "reducer" | "fps":
            distill(settings, teacher=teacher)
        case "kmeans":
            fit_kmeans(settings, teacher)


def supertoken_settings(
    config: SuiteConfig, model: Model, teacher: Backbone, folder: Path
) -> PretrainConfig:
    """Point-JEPA with supertokens (Table 9): the suite's pre-training with the teacher's sizes."""
    return replace(
        config.pretrain,
        objective="jepa",
        init=None,
        supertokens=model.tokens,
        backbone=teacher.config,
        out=str(folder),
        resume=True,
    )


def is_reconstructing(config: SuiteConfig) -> bool:
    """Whether the teacher records that it was pre-trained by reconstruction, not Point-JEPA."""
    folder = model_folder(model_path(config, "teacher"))
    if not (folder / "config.json").is_file():
        return False
    return read_config(folder)["provenance"].get("made_by") == "pretrain (masked)"


def distill_settings(
    config: SuiteConfig, model: Model, teacher: Backbone, folder: Path
) -> DistillConfig:
    """The distillation of a model: the suite's recipe with the changes of the row."""
    base, sizes = config.distill, teacher.config
    kind = {"reducer": model.method, "fps": "fps-student"}.get(model.how, "supertokens")
    changes: dict[str, Any] = {"kind": kind, "supertokens": model.tokens} | model.student
    if model.narrow:
        changes |= {"dim": sizes.dim // 2, "heads": max(1, sizes.heads // 2)}
    return replace(
        base,
        teacher=str(model_path(config, "teacher")),
        out=str(folder),
        student=replace(base.student, **changes),
        frozen=model.frozen or base.frozen,
        unfreeze_epoch=_unfreeze_epoch(model, base),
        loss=model.loss or base.loss,
        gate_lambda=base.gate_lambda if model.gate_lambda is None else model.gate_lambda,
        gate_decay=model.gate_decay or base.gate_decay,
        resume=True,
    )


def _unfreeze_epoch(model: Model, base: DistillConfig) -> Epoch:
    if model.frozen is None:
        return base.unfreeze_epoch
    return "auto" if model.frozen == "none" else None


def keep_fps(config: DistillConfig, teacher: Backbone) -> None:
    """Saves the FPS-Student with its teacher's weights: where all are frozen, nothing can train."""
    facts = {"made_by": "fps-student", "teacher": config.teacher, "code": code_version()}
    facts["distill_frozen"] = config.frozen_words
    student = student_of(teacher, config)
    save(student, Path(config.out) / "model", provenance=with_origin(facts))


def fit_kmeans(config: DistillConfig, teacher: Backbone) -> None:
    """Fits prototypes on the training clouds and saves the KMeans-Student as `<out>/model`."""
    train = load_splits(replace(config.data, test=None), seed=config.train.seed).train
    batches = map(normalise, in_order(train, config.train.batch_size, config.data.points))
    student = KMeansStudent.from_teacher(
        teacher, batches, supertokens=config.student.supertokens, seed=config.train.seed
    )
    facts: dict[str, Any] = {"made_by": "k-means", "teacher": config.teacher, "data": train.name}
    facts |= {"distill_frozen": "all", "clouds": len(train), "seed": config.train.seed}
    facts["code"] = code_version()
    save(student, Path(config.out) / "model", provenance=with_origin(facts))


def budget_at_test(what: str) -> Budget | None:
    """The budget that `budget-32` and `ratio-0.3` name; None for other changes at test time."""
    method, _, value = what.rpartition("-")
    match method:
        case "budget":
            return Budget(token_budget=int(value))
        case "ratio":
            return Budget(ratio=float(value))
    return None


def reduced_at_test(backbone: object, what: str, *, points: int, seed: int) -> Wrapped:
    """A teacher that reads fewer tokens at test time, weights shared.

    Args:
        backbone: the teacher.
        what: `random-N`, `larger-N` or `tome-N`, where N tokens are left.
        points: of the clouds that it will read.
        seed: of the random choice.

    Raises:
        InputError: the model is not a backbone, the method is unknown, or N exceeds its tokens.
    """
    teacher = require_teacher(backbone)
    method, _, count = what.rpartition("-")
    left = int(count)
    match method:
        case "random":
            return RandomSampling(teacher, left, seed=seed)
        case "larger":
            return LargerGroups(teacher, left, points=points)
        case "tome":
            return Merged.around(teacher, ReductionConfig(reach=left))
    raise InputError(f"expected random, larger or tome and a number of tokens, got {what!r}")
