"""Accuracy over budgets: one checkpoint at every token budget, ratio and number of supertokens.

The paper's Table 13 and figures 3 and 7 with our models. Students and teachers are probed at each
budget on frozen features; fine-tuned classifiers and segmenters are tested at each without further
training.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from foundry3d.checkpoints.folder import load
from foundry3d.config import BudgetsConfig, DataConfig
from foundry3d.data.loading import Splits, in_order, load_splits
from foundry3d.data.parts import categories_of, part_splits, parts_of_category
from foundry3d.errors import InputError
from foundry3d.evaluation.metrics import miou_category, miou_instance, overall_accuracy, shape_iou
from foundry3d.evaluation.probe import probe_row
from foundry3d.evaluation.rows import short_name
from foundry3d.heads.classifier import Classifier, Headed
from foundry3d.heads.segmenter import Segmenter
from foundry3d.inference.cost import count
from foundry3d.models.budget import Budget
from foundry3d.models.student import Budgeted, Student
from foundry3d.report.figures import curves_of, draw_lines
from foundry3d.report.rows import append, code_version, read_rows, table
from foundry3d.training.engine import retain_memory
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
    row["gmacs"] = gmacs(inner, kind, value) if isinstance(inner, Student) else None
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
    retain_memory()
    out = Path(config.out)
    loaded = [(name, load(name)) for name in config.models]
    parted = any(isinstance(model, Segmenter) for _, model in loaded)
    splits = (part_splits if parted else load_splits)(config.data, seed=config.seed)
    if splits.test is None:
        raise InputError("budgets are compared on test clouds; name them with --data.test")
    known = {key(row): row for row in read_rows(out / "results.jsonl", keys=KEY)}
    rows: list[dict[str, Any]] = []
    for path, model in loaded:
        inner = model.backbone if isinstance(model, Headed) else model
        wanted: list[tuple[str, float]] = [("token_budget", inner.shape.groups)]
        if isinstance(inner, Student):
            wanted = list(budgets_of(inner, config))
        for budget in wanted:
            point = key({"path": path, "budget": budget[0], "value": budget[1]})
            if point not in known:
                made = one_row(short_name(path), model, splits, config.data, config.seed, budget)
                known[point] = made | {"path": path}
                append(out / "results.jsonl", [known[point]])
            rows.append(known[point])
            log.info("%s, %s %g: %.1f", short_name(path), *budget, rows[-1]["score"])
    print(table(rows, COLUMNS))
    panels = []
    for kind, text in AXES.items():
        chosen = [row for row in rows if row["budget"] == kind]
        names = [f"{row['model']}, {row['task']}" for row in chosen]
        curves = curves_of((n, r["value"], r["score"]) for n, r in zip(names, chosen, strict=True))
        panels.append((text, text, curves))
    draw_lines(
        out / "budgets.png",
        [panel for panel in panels if panel[2]],
        title="Accuracy over budgets",
        y="test accuracy (%)",
    )
    return rows


def key(row: dict[str, Any]) -> tuple[str, str, float]:
    """What identifies a row: the model's path, the kind of budget and its value."""
    path, budget, value = (row[name] for name in KEY)
    return path, budget, float(value)
