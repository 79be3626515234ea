"""Classification without training: features are only compared.

`class_mean` and `knn` compare with the training clouds: pooled features are centred on the mean
of the training features and scaled to length 1 (CL2N of SimpleShot, Wang et al. 2019); the nearest
class mean or the majority of k neighbours decides. `text` compares with text embeddings by cosine.

Shapes: n clouds, D width of pooled features, C classes.
"""

from __future__ import annotations

import time
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from foundry3d.checkpoints.folder import load_backbone
from foundry3d.checkpoints.origin import origin_of
from foundry3d.config import ZeroshotConfig, read_for
from foundry3d.data.labelled import labelled_splits
from foundry3d.data.loading import Splits
from foundry3d.errors import InputError
from foundry3d.evaluation.examples import nearest_mean as nearest_mean
from foundry3d.evaluation.metrics import mean_class_accuracy, overall_accuracy
from foundry3d.evaluation.probe import extract
from foundry3d.evaluation.rows import data_columns, model_columns
from foundry3d.extras import explained
from foundry3d.inference.allocator import retain_memory
from foundry3d.report.rows import append, table

with explained():
    from sklearn.neighbors import KNeighborsClassifier

ZEROSHOT_COLUMNS = {
    "model": "model",
    "tokens": "tokens",
    "encoded": "encoded",
    "params_m": "params (M)",
    "class_mean": "class mean",
    "knn": "k-NN",
    "text": "text",
}


def unit(features: np.ndarray) -> np.ndarray:
    """Rows (n, D) scaled to length 1; rows of zeros stay zero."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(length > 0, length, 1.0)


def nearest_text(queries: np.ndarray, embeddings: np.ndarray) -> np.ndarray:
    """Row (n,) of embeddings (C, D) that has the largest cosine with each of queries (n, D)."""
    return (unit(queries) @ unit(embeddings).T).argmax(axis=1)


def read_texts(path: str | Path, classes: tuple[str, ...]) -> np.ndarray:
    """Text embeddings (C, D) of the classes, in their order, from an archive.

    Args:
        path: .npz with `names` (any number of strings) and `embeddings`, one row per name.
        classes: names that must be among them.

    Raises:
        InputError: the file is not such an archive, or a class has no row.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            names = [str(name) for name in archive["names"]]
            found = archive["embeddings"].astype(np.float32)
    except (OSError, KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path}: expected an .npz archive with 'names' and 'embeddings' ({error})"
        ) from None
    if found.ndim != 2 or len(found) != len(names):
        raise InputError(
            f"{path}: expected embeddings of shape ({len(names)}, D), one row per name, got "
            f"{found.shape}"
        )
    lacking = sorted(set(classes) - set(names))
    if lacking:
        raise InputError(f"{path}: has no embedding of {', '.join(lacking[:5])}; add them")
    return found[[names.index(name) for name in classes]]


def scores(
    train: np.ndarray,
    labels: np.ndarray,
    test: np.ndarray,
    test_labels: np.ndarray,
    *,
    neighbors: int,
    texts: np.ndarray | None = None,
) -> dict[str, float]:
    """Accuracies in percent of pooled features (n, D); see the module.

    Raises:
        InputError: the text embeddings have another width.
    """
    center = train.mean(axis=0)
    support, queries = unit(train - center), unit(test - center)
    voting = KNeighborsClassifier(min(neighbors, len(support))).fit(support, labels)
    chosen = {"class_mean": nearest_mean(support, labels, queries), "knn": voting.predict(queries)}
    if texts is not None:
        if texts.shape[1] != test.shape[1]:
            raise InputError(
                f"expected text embeddings as wide as the model's pooled features, "
                f"{test.shape[1]}, got {texts.shape[1]}; a model can only be compared with texts "
                "that it was aligned with"
            )
        chosen["text"] = nearest_text(test, texts)
    classes = 1 + int(max(labels.max(), test_labels.max()))
    found = {}
    for name, classes_of in chosen.items():
        found[name] = 100 * overall_accuracy(test_labels, classes_of)
        found[f"{name}_macc"] = 100 * mean_class_accuracy(test_labels, classes_of, classes)
    return found


def zeroshot_row(name: str, splits: Splits, config: ZeroshotConfig) -> dict[str, Any]:
    """The result row of one saved model."""
    began = time.monotonic()
    assert splits.test is not None
    model, points = load_backbone(name), config.data.points
    texts = None if config.texts is None else read_texts(config.texts, splits.test.class_names)
    found = scores(
        extract(model, splits.train, points=points),
        splits.train.labels,
        extract(model, splits.test, points=points),
        splits.test.labels,
        neighbors=config.neighbors,
        texts=texts,
    )
    row = model_columns(name, model, origin_of(name))
    row |= {key: round(value, 2) for key, value in found.items()}
    return row | {
        "task": "zero-shot classification",
        "protocol": f"centred on train, length 1; nearest class mean; {config.neighbors} "
        "neighbours; text by cosine; nothing trained or selected",
        **data_columns(splits, points=points, seed=config.seed),
        "seconds": round(time.monotonic() - began, 1),
    }


def zeroshot(config: ZeroshotConfig) -> list[dict[str, Any]]:
    """Scores saved models without training; prints and appends a row for each.

    Raises:
        InputError: models, texts or data cannot be read, or do not fit each other.
    """
    retain_memory()
    shapes = (load_backbone(name).shape for name in config.models)
    config = replace(config, data=read_for(config.data, *shapes))
    splits = labelled_splits(config.data, seed=config.seed)
    rows = []
    for name in config.models:
        rows.append(zeroshot_row(name, splits, config))
        if config.results is not None:
            append(config.results, rows[-1:])
    print(table(rows, ZEROSHOT_COLUMNS))
    return rows
