"""Few-shot classification over folds: a linear SVM on frozen features, or fine-tuning.

`finetune` is the published protocol (`docs/method.md`, "Published protocols"), except that nothing
is selected on the queries: an episode has no clouds to hold out, so the last epoch counts, and the
best epoch on the queries has a separate column. `probe` standardises pooled features on the fold's
training clouds and fits a linear SVM with C = 1.

Every fold is written to `<out>/folds.jsonl` as soon as it is done, so a resumed run continues with
the next one.

Shapes: n clouds, d width; pooled features are (n, 2d).
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from foundry3d.config import FewshotConfig, read_for, require_data, to_dict
from foundry3d.config.protocols import deviations
from foundry3d.data.clouds import Clouds
from foundry3d.data.labelled import require_labelled
from foundry3d.data.loading import Splits, load_splits
from foundry3d.data.published.fewshot import MODELNET_FEWSHOT, fold
from foundry3d.evaluation.classify import ClassifyTask
from foundry3d.evaluation.finetune import frozen_words
from foundry3d.evaluation.finetune_run import fit_and_select, start_model, start_origin
from foundry3d.evaluation.metrics import mean_std, overall_accuracy
from foundry3d.evaluation.probe import extract
from foundry3d.evaluation.rows import model_columns
from foundry3d.extras import explained
from foundry3d.heads.classifier import Classifier
from foundry3d.report.rows import append, code_version, read_rows, table
from foundry3d.training.run_folder import opened, run_name

with explained():
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

log = logging.getLogger("foundry3d")

FEWSHOT_COLUMNS = {
    "model": "model",
    "encoded": "encoded",
    "mode": "mode",
    "way": "way",
    "shot": "shot",
    "oa": "OA, nothing selected",
    "oa_std": "std",
    "oa_best_on_test": "OA, best on test",
    "folds": "folds",
}


class Folds:
    """The episodes of a run: training clouds and queries of each, drawn when they are asked for.

    Args:
        config: of the run.
    """

    def __init__(self, config: FewshotConfig) -> None:
        self.config = config

    @cached_property
    def clouds(self) -> Clouds:
        """All clouds that episodes are drawn from.

        Raises:
            InputError: data that cannot be read.
        """
        data = replace(self.config.data, test=None, validation=0.0)
        require_labelled(data)
        return load_splits(data, seed=self.config.train.seed).train

    @property
    def name(self) -> str:
        """Name of the data in result rows."""
        return self.clouds.name if self.config.published is None else "published ModelNet40 folds"

    def __getitem__(self, number: int) -> tuple[Clouds, Clouds]:
        """Training clouds and queries of a fold, labels 0 to W - 1.

        Raises:
            InputError: there are too few classes or clouds, or a published fold is missing.
        """
        config = self.config
        if config.published is None:
            drawn = fold(
                self.clouds, way=config.way, shot=config.shot, fold=number, seed=config.train.seed
            )
            return drawn.split(self.clouds)
        part = f"{config.way}way_{config.shot}shot/{number}"
        root = Path(config.published)
        train, test = (MODELNET_FEWSHOT.read(root, f"{part}/{name}") for name in ("train", "test"))
        return train, test


def probe_fold(model: Any, train: Clouds, queries: Clouds, *, points: int) -> dict[str, float]:
    """Accuracy in percent of a linear SVM on frozen features; see the module."""
    scaler = StandardScaler()
    fit = scaler.fit_transform(extract(model, train, points=points))
    seen = scaler.transform(extract(model, queries, points=points))
    chosen = SVC(C=1.0, kernel="linear").fit(fit, train.labels).predict(seen)
    return {"oa": 100 * overall_accuracy(queries.labels, chosen)}


def finetune_fold(
    model: Any, train: Clouds, queries: Clouds, config: FewshotConfig
) -> dict[str, float]:
    """Accuracies in percent of a fine-tuned copy of the model; runs in the folder of `config`."""
    made = Classifier.from_model(
        model,
        train.class_names,
        head=config.head,
        generator=torch.Generator().manual_seed(config.train.seed),
    )
    task = ClassifyTask(config, made, Splits(train=train, validation=None, test=queries))
    outcome = fit_and_select(task)
    shutil.rmtree(Path(config.out) / "checkpoints", ignore_errors=True)
    return {"oa": outcome.last.test["oa"], "oa_best_on_test": outcome.best_on_test.test["oa"]}


def score_folds(model: Any, folds: Folds, config: FewshotConfig) -> Iterator[dict[str, Any]]:
    """A row for every fold, those already in `<out>/folds.jsonl` first."""
    path = Path(config.out) / "folds.jsonl"
    rows = read_rows(path)
    yield from rows
    for number in range(len(rows), config.folds):
        train, queries = folds[number]
        if config.mode == "probe":
            scores = probe_fold(model, train, queries, points=config.data.points)
        else:
            own = replace(config, out=str(Path(config.out) / f"fold{number}"), resume=True)
            scores = finetune_fold(model, train, queries, own)
        row = {"fold": number} | {key: round(value, 3) for key, value in scores.items()}
        append(path, [row | {"classes": list(train.class_names), "queries": len(queries)}])
        log.info("fold %d/%d  %s", number + 1, config.folds, scores)
        yield row


def fewshot(config: FewshotConfig) -> dict[str, Any]:
    """Scores a model over the folds of an episode protocol; prints and appends the row.

    Returns:
        The result row: mean and sample standard deviation over folds.

    Raises:
        InputError: the model or data cannot be read or do not fit the settings, or the run folder
            holds another run.
    """
    began = time.monotonic()
    if config.published is None:
        require_data(config.data)
    changed = deviations(config.protocol, config, "fewshot")
    model = start_model(config)
    config = replace(config, data=read_for(config.data, model.shape))
    folds = Folds(config)
    folds[0]  # refuses data without enough classes before the run folder is made
    with opened(Path(config.out), config):
        rows = list(score_folds(model, folds, config))
    row = model_columns(config.model, model, start_origin(config.model, config))
    if config.mode == "finetune":
        row["frozen"] = frozen_words(config, model)
    row |= {"mode": config.mode, "way": config.way, "shot": config.shot, "folds": len(rows)}
    for key in ("oa", "oa_best_on_test"):
        if key in rows[0]:
            mean, std = mean_std(np.array([found[key] for found in rows]))
            row |= {key: round(mean, 2), f"{key}_std": round(std, 2)}
    row |= {
        "task": "few-shot classification",
        "data": folds.name,
        "oa_folds": [found["oa"] for found in rows],
        "seed": config.train.seed,
        "code": code_version(),
        "protocol": config.protocol,
        "deviations": changed,
        "settings": to_dict(config),
        "seconds": round(time.monotonic() - began, 1),
    }
    if config.results is not None:
        append(config.results, [row | {"run": run_name(Path(config.out))}])
    print(table([row], FEWSHOT_COLUMNS))
    return row
