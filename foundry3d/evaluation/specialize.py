"""Specialists: a student that imitates the outputs of a fine-tuned model, without labels.

The counterpart of Foundation Model Distillation in the paper's Table 2: the same student, but it
learns from the outputs of a classifier or segmenter instead of the features of every token. Labels
are used only for scores, and those of held-out clouds to select the epoch, as in fine-tuning.

Shapes: B clouds, N points, C classes or parts.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from foundry3d.checkpoints.folder import load
from foundry3d.checkpoints.origin import after
from foundry3d.config import SpecialistConfig, read_for, require_data
from foundry3d.data.batches import Labelled
from foundry3d.data.labelled import labelled_splits, require_names
from foundry3d.data.loading import Splits
from foundry3d.data.parts import part_splits
from foundry3d.errors import InputError
from foundry3d.evaluation import classify, segment
from foundry3d.evaluation.classify import CLASSIFY_COLUMNS, ClassifyTask
from foundry3d.evaluation.finetune import FinetuneTask
from foundry3d.evaluation.finetune_run import deliver, fit_and_select
from foundry3d.evaluation.segment import SegmentTask
from foundry3d.heads.classifier import Classifier, Headed
from foundry3d.heads.segmenter import Segmenter
from foundry3d.models.attributes import select_groups
from foundry3d.models.backbone import require_teacher
from foundry3d.models.student import Student
from foundry3d.report.rows import table
from foundry3d.training.task import draw_budget, freeze


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence KL(teacher || student) of logits (..., C), a scalar.

    The logits are divided by the temperature; the mean over all but the last axis is multiplied by
    its square, which keeps the size of the gradients (Hinton et al. 2015).
    """
    found = (student.float() / temperature).log_softmax(dim=-1)
    goal = (teacher.float() / temperature).log_softmax(dim=-1)
    each = F.kl_div(found, goal, reduction="none", log_target=True).sum(dim=-1)
    return each.mean() * temperature**2


class Imitation(FinetuneTask):
    """The divergence from a fine-tuned teacher that reads the same groups; a task adds the scores.

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
        """Moves the teacher to the student's device."""
        self._teacher[0].to(self.device)

    def loss(self, batch: Labelled, generator: torch.Generator) -> Tensor:
        """The divergence of a batch."""
        points, core = self.prepared(batch.points, generator), self.core()
        its = self._teacher[0].backbone.shape
        groups = core.group(points, generator=generator, like=its)
        draws, shared = self.config.budgets, self.shared_generator()
        budget = draw_budget(draws, core, len(points), generator, shared=shared)
        with torch.no_grad():
            goal = self._teacher[0].answers(points, groups, batch.labels)
        own = select_groups(groups, its.attributes, core.shape.attributes)
        found = self.model.answers(points, own, batch.labels, budget=budget, generator=generator)
        return divergence(found, goal, self.temperature)


class ClassSpecialist(Imitation, ClassifyTask):
    """Specialist-CLS of Table 2: class probabilities, scored as `ClassifyTask`."""


class PartSpecialist(Imitation, SegmentTask):
    """Specialist-SEG of Table 2: part probabilities of every point, scored as `SegmentTask`."""


def specialist_of(
    teacher: Classifier | Segmenter, config: SpecialistConfig
) -> Classifier | Segmenter:
    """A student of the model under the teacher's head, with a copy of that head.

    Returns:
        A model of the teacher's class, in evaluation mode; the teacher is not changed.

    Raises:
        InputError: the model under the head is not a backbone, or the sizes do not fit it.
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


TEACHER = "the fine-tuned teacher"


def _class_row(config: Any, teacher: Classifier) -> tuple[ClassSpecialist, dict[str, Any]]:
    splits = labelled_splits(config.data, seed=config.train.seed)
    train = splits.train
    require_names(train.name, "classes", train.class_names, teacher.config.classes, TEACHER)
    task = ClassSpecialist(config, specialist_of(teacher, config), splits, teacher)
    return task, classify.result_row(config.teacher, task, fit_and_select(task))


def _part_row(config: Any, teacher: Segmenter) -> tuple[PartSpecialist, dict[str, Any]]:
    if config.data.subsample != "random":
        raise InputError("part segmentation draws points at random; leave data.subsample out")
    splits = part_splits(config.data, seed=config.train.seed)
    train, sizes = splits.train, teacher.config
    require_names(train.name, "parts", train.part_names, sizes.parts, TEACHER)
    categories = train.class_names or ("all",)
    require_names(train.name, "categories", categories, sizes.categories, TEACHER)
    task = PartSpecialist(config, specialist_of(teacher, config), splits, teacher)
    return task, segment.result_row(config.teacher, task, fit_and_select(task))


def specialize(config: SpecialistConfig) -> dict[str, Any]:
    """Distils a specialist, saves it as `<out>/model`, prints and appends its result row.

    The saved weights are those of the epoch that the held-out clouds select.

    Returns:
        The result row, as that of `foundry3d classify` or `segment`.

    Raises:
        InputError: the model is not a fine-tuned backbone, the data cannot be read or has other
            classes or parts, or the run folder holds another run.
    """
    began = time.monotonic()
    require_data(config.data, test=True)
    teacher = load(config.teacher)
    if isinstance(teacher, Headed):
        config = replace(config, data=read_for(config.data, teacher.backbone.shape))
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
    row["distilled_on"] = after(row["distilled_on"], task.splits.train.name)
    return deliver(task, row, made_by="specialize", shown=shown, began=began)
