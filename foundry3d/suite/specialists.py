"""Specialists (Table 2): a student that learns a task's outputs from a fine-tuned teacher alone.

The student's tokenizer, position and encoder are the fine-tuned teacher's and stay frozen; its
head starts as the teacher's. The loss is the KL divergence of the outputs; no label is read but
those of the held-out clouds, which choose the epoch.

Shapes: B clouds, N points, C classes or parts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from foundry3d.backbone import Student, require_teacher
from foundry3d.checkpoint import load, save
from foundry3d.config import ClassifyConfig, SegmentConfig
from foundry3d.data.loading import Labelled, Splits
from foundry3d.data.parts import part_splits
from foundry3d.heads import Classifier
from foundry3d.segmenter import Segmenter
from foundry3d.tasks import classify, segment
from foundry3d.tasks.classify import ClassifyTask
from foundry3d.tasks.engine import freeze
from foundry3d.tasks.finetune import fit_and_select, labelled_splits
from foundry3d.tasks.segment import SegmentTask, drawn


def divergence(logits: Tensor, goal: Tensor) -> Tensor:
    """Mean KL divergence of softmax(logits) from softmax(goal), both (..., C)."""
    ours, theirs = (each.float().flatten(0, -2).log_softmax(dim=-1) for each in (logits, goal))
    return F.kl_div(ours, theirs, log_target=True, reduction="batchmean")


class MimicClasses(ClassifyTask):
    """A specialist of classification.

    Args:
        config: of the run.
        model: the specialist, trained in place.
        splits: as `ClassifyTask`.
        teacher: the fine-tuned classifier, frozen, not saved with the run.
    """

    def __init__(
        self, config: ClassifyConfig, model: Classifier, splits: Splits, teacher: Classifier
    ) -> None:
        super().__init__(config, model, splits)
        freeze(teacher, True)
        self._teacher = [teacher]

    def on_fit_start(self) -> None:
        """Brings the teacher to the specialist's device."""
        self._teacher[0].to(self.device)

    def loss(self, batch: Labelled, generator: torch.Generator) -> Tensor:
        """The divergence of a batch of points (B, N, 3)."""
        points = self.prepared(batch.points, generator)
        with torch.no_grad():
            goal = self._teacher[0](points)
        return divergence(self.model(points, generator=generator), goal)


class MimicParts(SegmentTask):
    """A specialist of part segmentation; arguments as `MimicClasses`."""

    def __init__(
        self, config: SegmentConfig, model: Segmenter, splits: Splits, teacher: Segmenter
    ) -> None:
        super().__init__(config, model, splits)
        freeze(teacher, True)
        self._teacher = [teacher]

    def on_fit_start(self) -> None:
        """Brings the teacher to the specialist's device."""
        self._teacher[0].to(self.device)

    def loss(self, batch: Labelled, generator: torch.Generator) -> Tensor:
        """The divergence of a batch, mean over all points."""
        assert batch.parts is not None
        points, _ = drawn(batch.points, batch.parts, self.data_config.points, generator)
        points = self.prepared(points, generator)
        categories = batch.labels if self.model.head.categories > 1 else batch.labels * 0
        with torch.no_grad():
            goal = self._teacher[0](points, categories)
        return divergence(self.model(points, categories, generator=generator), goal)


def student_under(
    teacher: Classifier | Segmenter, *, supertokens: int, seed: int
) -> Classifier | Segmenter:
    """A student of the backbone of a fine-tuned teacher, under a copy of its head.

    Raises:
        InputError: a fine-tuned student instead of a teacher, or sizes that do not fit.
    """
    student = Student.from_teacher(
        require_teacher(teacher.backbone),
        supertokens=supertokens,
        generator=torch.Generator().manual_seed(seed),
    )
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


def specialise(config: ClassifyConfig | SegmentConfig, *, supertokens: int) -> dict[str, Any]:
    """Distils a specialist of a fine-tuned teacher and saves it as `<out>/model`.

    Args:
        config: of the run; `model` is the fine-tuned teacher (folder).
        supertokens: s.

    Returns:
        The result row.

    Raises:
        InputError: a teacher, data or a run folder that cannot be used.
    """
    teacher, seed = load(config.model), config.train.seed
    model = student_under(teacher, supertokens=supertokens, seed=seed)
    if isinstance(config, SegmentConfig):
        parts = MimicParts(config, model, part_splits(config.data, seed=seed), teacher)  # type: ignore[arg-type]
        row = segment.result_row(config, parts.model, parts, fit_and_select(parts))
    else:
        splits = labelled_splits(config.data, seed=seed)
        task = MimicClasses(config, model, splits, teacher)  # type: ignore[arg-type]
        row = classify.result_row(config, task.model, splits, fit_and_select(task))
    row["task"] += ", specialist: KL divergence from the fine-tuned teacher's outputs"
    save(model, Path(config.out) / "model", provenance={"made_by": "specialise"} | row)
    return row
