"""Fine-tuned classification: one score selected on held-out clouds, with its protocol.

Shapes: n clouds, B of a batch, N points, C classes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from foundry3d.config import AugmentConfig, ClassifyConfig, DataConfig, read_for
from foundry3d.config.protocols import deviations
from foundry3d.data.batches import Labelled, in_order
from foundry3d.data.clouds import Clouds
from foundry3d.data.labelled import labelled_splits
from foundry3d.data.loading import Splits
from foundry3d.evaluation.finetune import FinetuneTask, Outcome, still_points
from foundry3d.evaluation.finetune_run import deliver, fit_and_select, run_columns, start_model
from foundry3d.evaluation.metrics import mean_class_accuracy, overall_accuracy
from foundry3d.geometry import gather
from foundry3d.heads.classifier import Classifier
from foundry3d.models.budget import Budget
from foundry3d.report.rows import table
from foundry3d.training.task import draw_budget
from foundry3d.transforms import augment, subsample

BATCH = 64
CLASSIFY_COLUMNS = {
    "model": "model",
    "tokens": "tokens",
    "encoded": "encoded",
    "params_m": "params (M)",
    "oa": "OA, validation-selected",
    "macc": "mean class",
    "oa_last": "OA, last",
    "oa_best_on_test": "OA, best on test",
    "oa_voted": "OA, voted",
}
Logits = Callable[[Tensor], Tensor]


class ClassifyTask(FinetuneTask):
    """Cross entropy with label smoothing on augmented clouds.

    Args:
        config: of the run.
        model: trained in place.
        splits: with test; `validation` None = the last epoch is the selected one.
    """

    config: ClassifyConfig
    model: Classifier

    def __init__(self, config: ClassifyConfig, model: Classifier, splits: Splits) -> None:
        super().__init__(config, model, splits)
        center = config.augment.normalise
        self.still = {
            name: (still_points(clouds, config.data, center=center), clouds.labels)
            for name, clouds in (("validation", splits.validation), ("test", splits.test))
            if clouds is not None
        }

    def loss(self, batch: Labelled, generator: torch.Generator) -> Tensor:
        """The cross entropy of a batch of points (B, N, 3)."""
        points = self.prepared(batch.points, generator)
        draws, shared = self.config.budgets, self.shared_generator()
        budget = draw_budget(draws, self.core(), len(points), generator, shared=shared)
        logits = self.model(points, budget=budget, generator=generator)
        return F.cross_entropy(
            logits.float(), batch.labels, label_smoothing=self.config.label_smoothing
        )

    def scores(self, split: str, *, budget: Budget | None = None) -> dict[str, float]:
        """Overall and mean class accuracy in percent, and the plain cross entropy."""
        points, labels = self.still[split]
        batches = (batch.to(self.device, self.dtype) for batch in points.split(BATCH))
        logits = torch.cat([self.model(batch, budget=budget).float() for batch in batches])
        loss = F.cross_entropy(logits.cpu(), torch.from_numpy(labels))
        return accuracies(logits, labels) | {"loss": float(loss)}

    def rank(self, scores: dict[str, float]) -> tuple[float, ...]:
        """Overall accuracy, then the lower cross entropy."""
        return scores["oa"], -scores["loss"]


def accuracies(logits: Tensor, labels: np.ndarray) -> dict[str, float]:
    """Overall (`oa`) and mean class accuracy (`macc`) in percent of logits (n, C)."""
    chosen = logits.argmax(dim=1).cpu().numpy()
    return {
        "oa": 100 * overall_accuracy(labels, chosen),
        "macc": 100 * mean_class_accuracy(labels, chosen, logits.shape[1]),
    }


def votes(
    model: Logits,
    clouds: Clouds,
    data: DataConfig,
    augmentation: AugmentConfig,
    *,
    count: int,
    seed: int,
) -> Tensor:
    """Mean soft-max (n, C) over passes, each with new points, order, scale and shift.

    The number of passes is fixed and all are averaged; no repetition is picked. The order of the
    points determines where farthest point sampling starts.

    Args:
        model: points (B, N, 3) to logits (B, C), in evaluation mode, on the CPU.
        clouds: n clouds.
        data: how many points are drawn, and how.
        augmentation: its scale and shift are drawn, never a rotation or a flip.
        count: number of passes.
        seed: of the draws; every pass and batch has its own generator.
    """
    change = replace(augmentation, rotate=False, flip=False)
    total = torch.zeros(())
    with torch.inference_mode():
        for vote in range(count):
            found = []
            for i, batch in enumerate(in_order(clouds, BATCH, clouds.points.shape[1])):
                mix = np.random.SeedSequence([seed, vote, i]).generate_state(1)
                generator = torch.Generator().manual_seed(int(mix[0]))
                order = torch.rand(batch.shape[:2], generator=generator).argsort(dim=1)
                points = subsample(
                    gather(batch, order), data.points, how=data.subsample, generator=generator
                )
                points = augment(
                    points, change, up=data.up, generator=generator, attributes=data.attributes
                )
                found.append(model(points).float().softmax(dim=1))
            total = total + torch.cat(found)
    return total / count


def result_row(name: str, task: ClassifyTask, outcome: Outcome) -> dict[str, Any]:
    """The scores of a run from the model `name`, with everything that led to them."""
    selected, last, best = outcome
    held = selected.validation
    return run_columns(name, task, outcome) | {
        "task": "fine-tuned classification",
        **{key: round(selected.test[key], 2) for key in ("oa", "macc")},
        "oa_last": round(last.test["oa"], 2),
        "macc_last": round(last.test["macc"], 2),
        "oa_best_on_test": round(best.test["oa"], 2),
        "macc_best_on_test": round(best.test["macc"], 2),
        "oa_voted": None,
        "oa_validation": None if held is None else round(held["oa"], 2),
    }


def classify(config: ClassifyConfig) -> dict[str, Any]:
    """Fine-tunes a classifier, saves it as `<out>/model`, prints and appends its result row.

    The saved weights are those of the epoch that the held-out clouds select.

    Raises:
        InputError: the model or data cannot be read or do not fit the settings, or the run folder
            holds another run.
    """
    began = time.monotonic()
    changed = deviations(config.protocol, config, "classify")
    inner = start_model(config)
    config = replace(config, data=read_for(config.data, inner.shape))
    splits = labelled_splits(config.data, seed=config.train.seed)
    generator = torch.Generator().manual_seed(config.train.seed)
    model = Classifier.from_model(
        inner, splits.train.class_names, head=config.head, generator=generator
    )
    task = ClassifyTask(config, model, splits)
    outcome = fit_and_select(task)
    row = result_row(config.model, task, outcome)
    row |= {"protocol": config.protocol, "deviations": changed}
    if config.votes:
        assert splits.test is not None
        shares = votes(
            model, splits.test, config.data, config.augment, count=config.votes,
            seed=config.train.seed,
        )  # fmt: skip
        row["oa_voted"] = round(accuracies(shares, splits.test.labels)["oa"], 2)
    shown = table([row], CLASSIFY_COLUMNS)
    return deliver(task, row, made_by="classify", shown=shown, began=began)
