"""Fine-tuned part segmentation: mIoU selected on held-out clouds, with its protocol.

Shapes: n clouds, B of a batch, N points, P parts, K categories.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from foundry3d.config import SegmentConfig, read_for
from foundry3d.config.protocols import deviations
from foundry3d.data.batches import Labelled
from foundry3d.data.loading import Splits
from foundry3d.data.parts import categories_of, part_splits, parts_of_category
from foundry3d.errors import InputError
from foundry3d.evaluation.finetune import FinetuneTask, Outcome, still_points
from foundry3d.evaluation.finetune_run import deliver, fit_and_select, run_columns, start_model
from foundry3d.evaluation.metrics import (
    class_iou,
    confusion,
    mean_class_iou,
    miou_category,
    miou_instance,
    overall_accuracy,
    shape_iou,
)
from foundry3d.heads.segmenter import Segmenter
from foundry3d.models.budget import Budget
from foundry3d.report.rows import table
from foundry3d.training.task import draw_budget
from foundry3d.transforms import subsample

BATCH = 32
SCORES = {
    "miou_c": "mIoU_C",
    "miou_i": "mIoU_I",
    "iou": "part IoU",
    "iou_without": "part IoU without",
    "accuracy": "points",
}


def drawn(
    points: Tensor, parts: Tensor, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """`count` random points of each cloud (B, N, 3), with their parts (B, N)."""
    both = torch.cat([points, parts[..., None].to(points.dtype)], dim=-1)
    both = subsample(both, count, how="random", generator=generator)
    return both[..., :-1], both[..., -1].long()


class SegmentTask(FinetuneTask):
    """Cross entropy of the part of every point, on random points of augmented clouds.

    Args:
        config: of the run.
        model: trained in place.
        splits: with test; `validation` None = the last epoch is the selected one.

    Raises:
        InputError: `without` names a part that the data does not have.
    """

    config: SegmentConfig
    model: Segmenter

    def __init__(self, config: SegmentConfig, model: Segmenter, splits: Splits) -> None:
        super().__init__(config, model, splits)
        names = model.config.parts
        unknown = [name for name in config.without if name not in names]
        if unknown:
            raise InputError(f"no part {', '.join(unknown)} to leave out; known are {names}")
        self.without = [names.index(name) for name in config.without]
        named = {"train": splits.train, "validation": splits.validation, "test": splits.test}
        self.clouds = {name: clouds for name, clouds in named.items() if clouds is not None}
        self.owned = parts_of_category(*self.clouds.values())
        self.still = {
            name: still_points(clouds, config.data, center=config.augment.normalise)
            for name, clouds in self.clouds.items()
            if name != "train"
        }

    def loss(self, batch: Labelled, generator: torch.Generator) -> Tensor:
        """The cross entropy over all points and parts of a batch."""
        assert batch.parts is not None
        points, parts = drawn(batch.points, batch.parts, self.data_config.points, generator)
        points = self.prepared(points, generator)
        categories = self.model.categories_of(batch.labels)
        draws, shared = self.config.budgets, self.shared_generator()
        budget = draw_budget(draws, self.core(), len(points), generator, shared=shared)
        logits = self.model(points, categories, budget=budget, generator=generator)
        return F.cross_entropy(logits.float().flatten(0, 1), parts.flatten())

    def predictions(
        self, split: str, *, budget: Budget | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """True and predicted parts (n, N) of the points that evaluation reads."""
        clouds, points = self.clouds[split], self.still[split]
        categories = torch.from_numpy(categories_of(clouds))
        device, dtype = self.model.allowed.device, self.dtype
        found = [
            self.model.predict(batch.to(device, dtype), category.to(device), budget=budget).cpu()
            for batch, category in zip(points.split(BATCH), categories.split(BATCH), strict=True)
        ]
        assert clouds.parts is not None
        return clouds.parts[:, : points.shape[1]].astype(np.int64), torch.cat(found).numpy()

    def scores(self, split: str, *, budget: Budget | None = None) -> dict[str, float]:
        """Both mIoU, data-set IoU with and without the parts left out, and accuracy, in percent."""
        labels, found = self.predictions(split, budget=budget)
        categories = categories_of(self.clouds[split])
        shapes = shape_iou(labels, found, categories, self.owned)
        matrix = confusion(labels, found, len(self.model.config.parts))
        scores = {
            "miou_c": miou_category(shapes, categories),
            "miou_i": miou_instance(shapes),
            "iou": mean_class_iou(matrix),
            "accuracy": overall_accuracy(labels, found),
        }
        if self.without:
            scores["iou_without"] = mean_class_iou(matrix, without=self.without)
        return {name: 100 * value for name, value in scores.items()}

    def rank(self, scores: dict[str, float]) -> tuple[float, ...]:
        """mIoU_C, as Point-JEPA selects; data-set IoU where all clouds are of one category."""
        return (scores["miou_c" if len(self.owned) > 1 else "iou"],)


def result_row(name: str, task: SegmentTask, outcome: Outcome) -> dict[str, Any]:
    """The scores of a run from the model `name`, with everything that led to them."""
    names, head = task.model.config.parts, task.model.head
    row = run_columns(name, task, outcome)
    row["head_params_m"] = round(sum(p.numel() for p in head.parameters()) / 1e6, 3)
    for suffix, found in zip(("", "_last", "_best_on_test"), outcome, strict=True):
        row |= {key + suffix: round(value, 2) for key, value in found.test.items()}
    with torch.inference_mode():
        values = class_iou(confusion(*task.predictions("test"), len(names)))
    each = zip(names, values, strict=True)
    return row | {
        "task": "part segmentation",
        "validation": outcome.selected.validation,
        "scores": "only parts of the cloud's category; miou_c, miou_i: a part absent from truth "
        "and prediction counts 1; iou: mean over parts of the IoU over all points",
        "without": list(task.config.without),
        "part_iou": {name: round(100 * v, 2) for name, v in each if not np.isnan(v)},
    }


def show(row: dict[str, Any]) -> str:
    """The scores of a result row as a table, those of the selected epoch first."""
    kinds = {"": "validation-selected", "_last": "last", "_best_on_test": "best on test"}
    lines = [
        {"epoch": text} | {key: row.get(key + suffix) for key in SCORES}
        for suffix, text in kinds.items()
    ]
    shown = {key: heading for key, heading in SCORES.items() if key in row}
    if row["without"]:
        shown["iou_without"] += " " + ", ".join(row["without"])
    return table(lines, {"epoch": row["model"]} | shown)


def segment(config: SegmentConfig) -> dict[str, Any]:
    """Fine-tunes a segmenter, saves it as `<out>/model`, prints and appends its result row.

    The saved weights are those of the epoch that the held-out clouds select.

    Raises:
        InputError: the model or data cannot be read or do not fit the settings, the protocol is
            unknown, or the run folder holds another run.
    """
    began = time.monotonic()
    changed = deviations(config.protocol, config, "segment")
    inner = start_model(config)
    config = replace(config, data=read_for(config.data, inner.shape))
    splits = part_splits(config.data, seed=config.train.seed)
    known = [splits.train] if splits.validation is None else [splits.train, splits.validation]
    model = Segmenter.from_model(
        inner,
        parts=splits.train.part_names,
        categories=splits.train.class_names or ("all",),
        owned=[parts.tolist() for parts in parts_of_category(*known)],
        head=config.head,
        generator=torch.Generator().manual_seed(config.train.seed),
    )
    task = SegmentTask(config, model, splits)
    row = result_row(config.model, task, fit_and_select(task))
    row |= {"protocol": config.protocol, "deviations": changed}
    return deliver(task, row, made_by="segment", shown=show(row), began=began)
