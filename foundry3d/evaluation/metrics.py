"""Scores of predictions: accuracies, IoU over a data set, and the two mIoU of part segmentation.

All take integer arrays and return shares in [0, 1]. Part segmentation, as usual since PointNet: the
IoU of a part in a shape is 1 when neither truth nor prediction has it; the IoU of a shape is the
mean over the parts that its category owns; mIoU_I is the mean over all shapes, and mIoU_C the mean
over categories of the mean over their shapes. Data-set IoU counts the points of all shapes together
instead, so that an absent part earns nothing.

Shapes: n clouds, N points, P parts, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from foundry3d.errors import InputError


class MeanStd(NamedTuple):
    """Mean and sample standard deviation (n - 1) of repeated runs; 0 for a single run."""

    mean: float
    std: float


def mean_std(values: Sequence[float] | np.ndarray) -> MeanStd:
    """Mean and sample standard deviation of one or more values.

    Raises:
        InputError: there are no values.
    """
    found = np.asarray(values, np.float64)
    if not found.size:
        raise InputError("a mean needs at least one value, got none")
    return MeanStd(float(found.mean()), float(found.std(ddof=1)) if found.size > 1 else 0.0)


def confusion(labels: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """Counts (C, C) int64: rows are the truth, columns the prediction.

    Args:
        labels: true classes, any shape.
        predictions: of the same shape.
        classes: C.

    Raises:
        InputError: shapes differ, or a class is outside 0..C-1.
    """
    labels, predictions = _checked(labels, predictions, classes)
    pairs = labels.ravel() * classes + predictions.ravel()
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def _checked(
    labels: np.ndarray, predictions: np.ndarray, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    labels, predictions = np.asarray(labels, np.int64), np.asarray(predictions, np.int64)
    if labels.shape != predictions.shape or not labels.size:
        raise InputError(
            "expected as many predictions as labels and at least one, got shapes "
            f"{labels.shape} and {predictions.shape}"
        )
    low = min(labels.min(), predictions.min())
    high = max(labels.max(), predictions.max())
    if low < 0 or high >= classes:
        raise InputError(f"expected classes in 0..{classes - 1}, found {low}..{high}")
    return labels, predictions


def overall_accuracy(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Share of labels (any shape) that are predicted correctly.

    Raises:
        InputError: shapes differ, or there is nothing to score.
    """
    classes = 1 + max(int(np.max(labels, initial=0)), int(np.max(predictions, initial=0)))
    labels, predictions = _checked(labels, predictions, classes)
    return float((labels == predictions).mean())


def mean_class_accuracy(labels: np.ndarray, predictions: np.ndarray, classes: int) -> float:
    """Mean recall of the classes that occur among the labels.

    Raises:
        InputError: as `confusion`.
    """
    matrix = confusion(labels, predictions, classes)
    counts = matrix.sum(axis=1)
    seen = counts > 0
    return float((matrix.diagonal()[seen] / counts[seen]).mean())


def class_iou(matrix: np.ndarray) -> np.ndarray:
    """Data-set IoU (C,) of a confusion matrix (C, C); NaN for classes in neither rows nor columns.

    True positives over true positives, false positives and false negatives of all points.
    """
    hits = matrix.diagonal().astype(np.float64)
    union = matrix.sum(axis=0) + matrix.sum(axis=1) - hits
    return np.divide(hits, union, out=np.full(len(hits), np.nan), where=union > 0)


def mean_class_iou(matrix: np.ndarray, *, without: Sequence[int] = ()) -> float:
    """Mean data-set IoU of the classes that occur, except those in `without`.

    Points of a class in `without` still count where they are predicted as another class. NaN if no
    class is left.
    """
    values = np.delete(class_iou(matrix), list(without))
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else float("nan")


def part_iou(labels: np.ndarray, predictions: np.ndarray, parts: int) -> np.ndarray:
    """IoU (n, P) of every part in every shape; 1 where neither labels nor predictions have it.

    Args:
        labels: (n, N) true part of each point.
        predictions: (n, N).
        parts: P.

    Raises:
        InputError: shapes differ, or a part is outside 0..P-1.
    """
    labels, predictions = _checked(labels, predictions, parts)
    n = len(labels)
    offset = np.arange(n)[:, None] * parts

    def counts(values: np.ndarray) -> np.ndarray:
        return np.bincount(values, minlength=n * parts).reshape(n, parts)

    hits = counts((labels + offset)[labels == predictions])
    union = counts((labels + offset).ravel()) + counts((predictions + offset).ravel()) - hits
    return np.divide(hits, union, out=np.ones((n, parts)), where=union > 0)


def shape_iou(
    labels: np.ndarray,
    predictions: np.ndarray,
    categories: np.ndarray,
    owned: Sequence[np.ndarray],
) -> np.ndarray:
    """IoU (n,) of every shape: the mean of `part_iou` over the parts its category owns.

    Args:
        labels: (n, N) true part of each point.
        predictions: (n, N), already restricted to the parts of the category.
        categories: (n,) category of each shape.
        owned: the parts of each category.

    Raises:
        InputError: as `part_iou`; or a category is outside `owned`, or does not own a part that
            occurs in one of its shapes.
    """
    parts = 1 + max(int(np.max(part, initial=0)) for part in (*owned, labels, predictions))
    owners = np.zeros((len(owned), parts), bool)
    for category, part in enumerate(owned):
        owners[category, part] = True
    if np.min(categories, initial=0) < 0 or np.max(categories, initial=0) >= len(owned):
        raise InputError(f"expected categories in 0..{len(owned) - 1}, found others")
    mine = owners[categories]
    stray = ~np.take_along_axis(mine, np.asarray(labels, np.int64), axis=1)
    if stray.any():
        shape = int(stray.any(axis=1).argmax())
        raise InputError(
            f"shape {shape} has a part that its category {int(categories[shape])} does not own; "
            "give the parts of each category"
        )
    found = part_iou(labels, predictions, parts)
    return np.where(mine, found, 0).sum(axis=1) / mine.sum(axis=1)


def miou_instance(shapes: np.ndarray) -> float:
    """mIoU_I: the mean of `shape_iou` (n,) over all shapes."""
    return float(np.mean(shapes))


def miou_category(shapes: np.ndarray, categories: np.ndarray) -> float:
    """mIoU_C: the mean over the categories that occur of the mean `shape_iou` (n,) in each."""
    means = [float(shapes[categories == category].mean()) for category in np.unique(categories)]
    return float(np.mean(means))
