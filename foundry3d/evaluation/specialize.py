"""Specialists: a student that imitates the outputs of a fine-tuned model, without labels.

The counterpart of Foundation Model Distillation in the paper's Table 2: same student, but it sees
what a classifier or segmenter answers instead of the features of every token. Labels serve the
scores alone, and a held-out share of them the choice of the epoch, as in fine-tuning.

Shapes: B clouds, N points, C classes or parts.
"""

from __future__ import annotations

import time
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from foundry3d.checkpoints.folder import load
from foundry3d.config import SpecialistConfig
from foundry3d.data.loading import Labelled, Splits
from foundry3d.data.parts import part_splits
from foundry3d.errors import InputError
from foundry3d.evaluation import classify, segment
from foundry3d.evaluation.classify import CLASSIFY_COLUMNS, ClassifyTask
from foundry3d.evaluation.finetune import FinetuneTask, deliver, fit_and_select, labelled_splits
from foundry3d.evaluation.segment import SegmentTask
from foundry3d.geometry import Groups
from foundry3d.heads.classifier import Classifier, Headed
from foundry3d.heads.segmenter import Segmenter
from foundry3d.models.backbone import require_teacher
from foundry3d.models.student import Student
from foundry3d.report.rows import table
from foundry3d.training.task import draw_budget, freeze


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of the teacher's from the student's distribution, a scalar.

    Mean over all but the last axis of logits (..., C), both divided by the temperature, times its
    square, which keeps the size of the gradient (Hinton et al. 2015).
    """
    found = (student.float() / temperature).log_softmax(dim=-1)
    goal = (teacher.float() / temperature).log_softmax(dim=-1)
    each = F.kl_div(found, goal, reduction="none", log_target=True).sum(dim=-1)
    return each.mean() * temperature**2


def answers(
    model: Headed,
    points: Tensor,
    groups: Groups,
    labels: Tensor,
    *,
    generator: torch.Generator | None = None,
    **budget: Any,
) -> Tensor:
    """Logits of points that are grouped already: what the model's `forward` does after grouping.

    Args:
        model: a `Classifier`, (B, C), or a `Segmenter`, (B, N, C).
        points: (B, N, 3).
        groups: of the points.
        labels: (B,) int64 category of each cloud, which a segmenter reads as input.
        generator: of the draws in training mode.
        budget: of the model under the head.
    """
    if isinstance(model, Classifier):
        tokens = model.backbone.encode(groups, generator=generator, **budget)
        return model.head(tokens.pooled(), generator=generator)
    assert isinstance(model, Segmenter)
    states = model.backbone.block_features(groups, model.blocks, generator=generator, **budget)
    normed = torch.stack([F.layer_norm(state, state.shape[-1:]) for state in states])
    categories = labels if model.head.categories > 1 else labels * 0
    return model.head(points, groups.centers, normed.mean(dim=0), categories, generator)


class Imitation(FinetuneTask):
    """The divergence from a fine-tuned teacher that reads the same groups; beside a task's scores.

    Args:
        config: of the run.
        model: from `specialist_of`, trained in place.
        splits: as for fine-tuning.
        teacher: frozen, not saved with the run's checkpoints.
    """

    def __init__(
        self, config: SpecialistConfig, model: Headed, splits: Splits, teacher: Headed
    ) -> None:
        super().__init__(config, model, splits)
        self.temperature = config.temperature
        freeze(teacher, True)
        self._teacher = [teacher]  # in a list: neither a submodule, nor optimised, nor saved

    def on_fit_start(self) -> None:
        """Brings the teacher to the student's device."""
        self._teacher[0].to(self.device)

    def loss(self, batch: Labelled, generator: torch.Generator) -> Tensor:
        """The divergence of a batch."""
        points, core = self.prepared(batch.points, generator), self.core()
        groups = core.group(points, generator=generator)
        budget = draw_budget(self.config.budgets, core, len(points), generator)
        with torch.no_grad():
            goal = answers(self._teacher[0], points, groups, batch.labels)
        found = answers(self.model, points, groups, batch.labels, generator=generator, **budget)
        return divergence(found, goal, self.temperature)


class ClassSpecialist(Imitation, ClassifyTask):
    """Specialist-CLS of Table 2: class probabilities, scored as `ClassifyTask`."""


class PartSpecialist(Imitation, SegmentTask):
    """Specialist-SEG of Table 2: part probabilities of every point, scored as `SegmentTask`."""


def specialist_of(
    teacher: Classifier | Segmenter, config: SpecialistConfig
) -> Classifier | Segmenter:
    """A student of what is under the teacher's head, under a copy of that head.

    Returns:
        A model of the teacher's class, in evaluation mode; the teacher is not changed.

    Raises:
        InputError: there is no backbone under the head, or sizes that `StudentConfig` refuses.
    """
    generator = torch.Generator().manual_seed(config.train.seed)
    backbone = require_teacher(teacher.backbone)
    student = Student.from_teacher(backbone, config.student, generator=generator)
    made: Classifier | Segmenter
    if isinstance(teacher, Classifier):
        made = Classifier.from_model(student, teacher.config.classes, head=teacher.config.head)
    else:
        sizes = teacher.config
        made = Segmenter.from_model(
            student,
            parts=sizes.parts,
            categories=sizes.categories,
            owned=sizes.owned,
            head=sizes.head,
        )
    made.head.load_state_dict(teacher.head.state_dict())
    return made


def _check_names(what: str, ours: tuple[str, ...], source: str, theirs: tuple[str, ...]) -> None:
    if ours != theirs:
        raise InputError(
            f"{source}: its {what} {', '.join(theirs[:5])} are not the teacher's, "
            f"{', '.join(ours[:5])}, in the same order; take the data of its fine-tuning"
        )


def _class_row(config: Any, teacher: Classifier) -> tuple[ClassSpecialist, dict[str, Any]]:
    splits = labelled_splits(config.data, seed=config.train.seed)
    train = splits.train
    _check_names("classes", teacher.config.classes, train.name, train.class_names)
    task = ClassSpecialist(config, specialist_of(teacher, config), splits, teacher)
    row = classify.result_row(config, task.model, splits, fit_and_select(task))
    return task, {"model": config.teacher} | row


def _part_row(config: Any, teacher: Segmenter) -> tuple[PartSpecialist, dict[str, Any]]:
    if config.data.subsample != "random":
        raise InputError("part segmentation draws points at random; leave data.subsample out")
    splits = part_splits(config.data, seed=config.train.seed)
    train, sizes = splits.train, teacher.config
    _check_names("parts", sizes.parts, train.name, train.part_names)
    _check_names("categories", sizes.categories, train.name, train.class_names or ("all",))
    task = PartSpecialist(config, specialist_of(teacher, config), splits, teacher)
    row = segment.result_row(config, task.model, task, fit_and_select(task))
    return task, {"model": config.teacher} | row


def specialize(config: SpecialistConfig) -> dict[str, Any]:
    """Distils a specialist, saves it as `<out>/model`, prints and appends its result row.

    The weights saved are those of the epoch that the held-out clouds select.

    Args:
        config: of the run.

    Returns:
        The result row, as of `foundry3d classify` or `segment`.

    Raises:
        InputError: a model that is no fine-tuned backbone, other classes or parts than its own,
            or data, sizes or a run folder that cannot be used.
    """
    began = time.monotonic()
    teacher = load(config.teacher)
    task: Imitation
    if isinstance(teacher, Classifier):
        task, row = _class_row(config, teacher)
        shown = table([row], CLASSIFY_COLUMNS)
    elif isinstance(teacher, Segmenter):
        task, row = _part_row(config, teacher)
        shown = segment.show(row)
    else:
        raise InputError(
            f"{config.teacher}: a specialist imitates a fine-tuned classifier or segmenter, got a "
            f"{type(teacher).__name__}; fine-tune one with classify or segment"
        )
    row["task"] += ", specialist of its teacher's outputs"
    row["seconds"] = round(time.monotonic() - began, 1)
    deliver(task, row, made_by="specialize", shown=shown)
    return row
