"""Specialists: a student that imitates the outputs of a fine-tuned model, without labels.

The counterpart of Foundation Model Distillation in the paper's Table 2: same student, but it sees
what a classifier or segmenter answers instead of the features of every token. Labels serve the
scores alone, and a held-out share of them the choice of the epoch, as in fine-tuning.

Shapes: B clouds, N points, C classes or parts.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from foundry3d.backbone import Student, require_teacher
from foundry3d.checkpoint import load, save
from foundry3d.config import SpecialistConfig
from foundry3d.data.loading import Labelled, Splits
from foundry3d.data.parts import part_splits
from foundry3d.errors import InputError
from foundry3d.geometry import Groups
from foundry3d.heads import Classifier
from foundry3d.results import append, table
from foundry3d.segmenter import Segmenter
from foundry3d.tasks import classify, segment
from foundry3d.tasks.classify import ClassifyTask
from foundry3d.tasks.engine import draw_budget, freeze
from foundry3d.tasks.finetune import FinetuneTask, fit_and_select, labelled_splits
from foundry3d.tasks.segment import SegmentTask


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of the teacher's from the student's distribution, a scalar.

    Mean over all but the last axis of logits (..., C), both divided by the temperature, times its
    square, which keeps the size of the gradient (Hinton et al. 2015).
    """
    found = (student.float() / temperature).log_softmax(dim=-1)
    goal = (teacher.float() / temperature).log_softmax(dim=-1)
    each = F.kl_div(found, goal, reduction="none", log_target=True).sum(dim=-1)
    return each.mean() * temperature**2


def specialist_of(teacher: Classifier | Segmenter, config: SpecialistConfig) -> Any:
    """A student of what is under the teacher's head, under a copy of that head.

    Returns:
        A model of the teacher's class, in evaluation mode; the teacher is not changed.

    Raises:
        InputError: there is no backbone under the head, or sizes that `StudentConfig` refuses.
    """
    generator = torch.Generator().manual_seed(config.train.seed)
    student = Student.from_teacher(
        require_teacher(teacher.backbone),
        supertokens=config.supertokens,
        generator=generator,
        assignment_heads=config.assignment_heads,
        gate=config.gate,
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
