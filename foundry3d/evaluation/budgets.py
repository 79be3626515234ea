"""Accuracy over budgets: one checkpoint at every token budget, ratio and number of supertokens.

The paper's Table 13 and figures 3 and 7 with our models. Students and teachers are probed at each
budget on frozen features; fine-tuned classifiers and segmenters are tested at each without further
training.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from foundry3d.baselines.wrapped import Wrapped
from foundry3d.checkpoints.folder import load
from foundry3d.checkpoints.origin import origin_of
from foundry3d.config import BudgetsConfig, DataConfig, read_for, require_data
from foundry3d.data.batches import in_order
from foundry3d.data.loading import Splits, load_splits
from foundry3d.data.parts import categories_of, part_splits, parts_of_category
from foundry3d.evaluation.metrics import miou_category, miou_instance, overall_accuracy, shape_iou
from foundry3d.evaluation.probe import probe_row
from foundry3d.evaluation.rows import short_name
from foundry3d.heads.classifier import Classifier, Headed
from foundry3d.heads.segmenter import Segmenter
from foundry3d.inference.allocator import retain_memory
from foundry3d.inference.cost import count
from foundry3d.models.backbone import Backbone
from foundry3d.models.budget import Budget
from foundry3d.models.student import Budgeted, Student
from foundry3d.report.figures import Level, Panel, curves_of, draw_lines
from foundry3d.report.rows import append, code_version, read_rows, table
from foundry3d.transforms import normalise

log = logging.getLogger("foundry3d")

COLUMNS = {
    "model": "model",
    "task": "task",
    "budget": "budget",
    "value": "value",
    "encoded": "encoded tokens",
    "gmacs": "GMACs",
    "score": "accuracy",
}
KEY = ("path", "budget", "value")
REFITTED = (
    "A linear probe is refitted at each budget, on the frozen model's features at that budget; "
    "fine-tuned models are tested at each budget without further training."
)
AXES = {
    "token_budget": "token budget",
    "paper_budget": "token budget, the paper's rule",
    "ratio": "ratio r",
    "supertokens": "supertokens",
}


def budgets_of(model: Student, config: BudgetsConfig) -> Iterator[tuple[str, float]]:
    """Kind and value of every budget of the configuration that the student supports."""
    if model.gate is not None:
        for budget in config.token_budgets:
            if model.config.supertokens <= budget <= model.shape.groups:
                yield "token_budget", budget
                if config.paper_rule:
                    yield "paper_budget", budget
        for ratio in config.ratios:
            yield "ratio", ratio
    for supertokens in config.supertokens:
        if supertokens <= model.config.supertokens:
            yield "supertokens", supertokens


def budget_of(model: Student, kind: str, value: float) -> Budget:
    """The budget of a row; with a gate, all tokens are merged into fewer supertokens."""
    if kind == "token_budget":
        return Budget(token_budget=int(value))
    if kind == "paper_budget":
        return Budget(token_budget=int(value), rule="paper")
    if kind == "ratio":
        return Budget(ratio=value)
    return Budget(supertokens=int(value), ratio=None if model.gate is None else 0.0)


def gmacs(model: Student, kind: str, value: float) -> float | None:
    """GMACs of one cloud at a budget with all supertokens used; None where the data decides."""
    if kind in ("ratio", "paper_budget"):
        return None
    if kind == "supertokens":
        return count(model, supertokens=int(value)).macs / 1e9
    c, s = model.shape.groups, model.config.supertokens
    merged = c - int(value) + s if value < c else 0
    return count(model, merged=merged, used=min(s, merged)).macs / 1e9


def whole_gmacs(model: Any) -> float | None:
    """GMACs of one cloud of a model without budgets; None for models of unknown kinds."""
    return round(count(model).macs / 1e9, 4) if isinstance(model, Backbone | Wrapped) else None


def encoded_tokens(model: Any, splits: Splits, points: int) -> float:
    """Mean number of tokens that enter the encoder, over the test clouds."""
    assert splits.test is not None
    with torch.inference_mode():
        used = [model(normalise(b)).tokens_used for b in in_order(splits.test, 64, points)]
    return round(float(torch.cat(used).float().mean()), 2)


def tested(model: Classifier, splits: Splits, points: int, budget: Budget | None) -> float:
    """Overall accuracy in percent of a classifier on the test clouds, at a budget."""
    assert splits.test is not None
    with torch.inference_mode():
        chosen = [
            model(normalise(b), budget=budget).argmax(dim=1)
            for b in in_order(splits.test, 64, points)
        ]
    return round(100 * overall_accuracy(splits.test.labels, torch.cat(chosen).numpy()), 2)


def tested_parts(
    model: Segmenter, splits: Splits, points: int, budget: Budget | None
) -> dict[str, float]:
    """Both mIoU of a segmenter in percent, over shapes and over categories, on the test clouds."""
    test = splits.test
    assert test is not None
    assert test.parts is not None
    categories = categories_of(test)
    batches = zip(in_order(test, 64, points), torch.from_numpy(categories).split(64), strict=True)
    with torch.inference_mode():
        answers = [model.predict(normalise(b), c, budget=budget) for b, c in batches]
        found = torch.cat(answers).numpy()
    labels = test.parts[:, :points].astype(np.int64)
    shapes = shape_iou(labels, found, categories, parts_of_category(splits.train, test))
    scores = {"miou_i": miou_instance(shapes), "miou_c": miou_category(shapes, categories)}
    return {name: round(100 * value, 2) for name, value in scores.items()}


def one_row(
    name: str, model: Any, splits: Splits, data: DataConfig, seed: int, asked: tuple[str, float]
) -> dict[str, Any]:
    """The result row of a model at a budget."""
    kind, value = asked
    inner = model.backbone if isinstance(model, Headed) else model
    budget, at = None, inner
    if isinstance(inner, Student):
        budget = budget_of(inner, kind, value)
        at = Budgeted(inner, budget)
    row: dict[str, Any] = {"model": name, "budget": kind, "value": value}
    exact = kind == "token_budget" and isinstance(inner, Student)
    row["encoded"] = value if exact else encoded_tokens(at, splits, data.points)
    row["gmacs"] = gmacs(inner, kind, value) if isinstance(inner, Student) else whole_gmacs(inner)
    if isinstance(model, Headed):
        assert splits.test is not None
        row |= {"data": splits.test.name, "points": data.points, "code": code_version()}
        row["protocol"] = "at this budget, weights selected at the default budget; "
        if isinstance(model, Classifier):
            score, what = tested(model, splits, data.points, budget), "overall accuracy"
            row["task"] = "fine-tuned"
        else:
            assert isinstance(model, Segmenter)
            row |= (parts := tested_parts(model, splits, data.points, budget))
            score, what = parts["miou_i"], "mIoU over shapes"
            row["task"] = "fine-tuned parts"
        return row | {"score": score, "protocol": row["protocol"] + what}
    found = probe_row(name, at, splits, data, seed=seed)
    return found | row | {"task": "linear probe", "score": found["svm"]}


def accuracy_over_budgets(config: BudgetsConfig) -> list[dict[str, Any]]:
    """Scores saved models at every budget they support; prints the table and draws the picture.

    A teacher has one row, with all c tokens. Rows that are already in `<out>/results.jsonl` are
    kept.

    Raises:
        InputError: models or data cannot be read, or there are no test clouds.
    """
    require_data(config.data, test=True)
    retain_memory()
    out = Path(config.out)
    loaded = [(name, load(name)) for name in config.models]
    shapes = (m.backbone.shape if isinstance(m, Headed) else m.shape for _, m in loaded)
    config = replace(config, data=read_for(config.data, *shapes))
    parted = any(isinstance(model, Segmenter) for _, model in loaded)
    splits = (part_splits if parted else load_splits)(config.data, seed=config.seed)
    known = {key(row): row for row in read_rows(out / "results.jsonl", keys=KEY)}
    rows: list[dict[str, Any]] = []
    whole: set[str] = set()
    for path, model in loaded:
        inner = model.backbone if isinstance(model, Headed) else model
        own = splits.reading(inner.shape.attributes)
        wanted: list[tuple[str, float]] = [("token_budget", inner.shape.groups)]
        if isinstance(inner, Student):
            wanted = list(budgets_of(inner, config))
        else:
            whole.add(path)
        for budget in wanted:
            point = key({"path": path, "budget": budget[0], "value": budget[1]})
            if point not in known:
                made = one_row(short_name(path), model, own, config.data, config.seed, budget)
                known[point] = made | origin_of(path)._asdict() | {"path": path}
                append(out / "results.jsonl", [known[point]])
            rows.append(known[point])
            log.info("%s, %s %g: %.1f", short_name(path), *budget, rows[-1]["score"])
    print(f"{table(rows, COLUMNS)}\n\n{REFITTED}")
    draw_budgets(out / "budgets.png", rows, whole)
    return rows


def draw_budgets(path: Path, rows: list[dict[str, Any]], whole: set[str]) -> None:
    """Accuracy over each kind of budget; models that have no budgets are horizontal lines.

    Args:
        path: of the picture.
        rows: of all models.
        whole: paths of the models that have no budgets.
    """
    still = [row for row in rows if row["path"] in whole]
    levels = {_curve_name(row): Level(row["score"]) for row in still}
    panels = []
    for kind, text in AXES.items():
        chosen = [row for row in rows if row["budget"] == kind and row not in still]
        if chosen:
            curves = curves_of((_curve_name(r), r["value"], r["score"]) for r in chosen)
            panels.append(Panel(text, text, curves, levels=levels))
    parted = any(row["task"] == "fine-tuned parts" for row in rows)
    y = "test mIoU over shapes (%)" if parted else "test accuracy (%)"
    title = "Accuracy over budgets" + " (probes refitted at each budget)" * any(
        row["task"] == "linear probe" for row in rows
    )
    if panels:
        draw_lines(path, panels, title=title, y=y)


def _curve_name(row: dict[str, Any]) -> str:
    return f"{row['model']}, {row['task']}"


def key(row: dict[str, Any]) -> tuple[str, str, float]:
    """What identifies a row: the model's path, the kind of budget and its value."""
    path, budget, value = (row[name] for name in KEY)
    return path, budget, float(value)
