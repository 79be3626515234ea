"""What a model returns.

Shapes: B clouds, n points read, c tokens, d width, C classes, P parts.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from foundry3d_edge.metadata import Metadata

Rows = np.ndarray | list[np.ndarray]
"""Arrays of several clouds; a list where they differ in size."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """Arrays of one cloud, without the axis B, or of several; None where there is no such output.

    Attributes:
        features: (B, c, d), one feature per token.
        centers: (B, c, 3), where the tokens are, in the coordinates that the cloud came in.
        pooled: (B, 2d), the maximum and mean of the features.
        assignment: (B, c) int64, the supertoken of each token.
        logits: (B, C) of the classes, or (B, n, P) of the parts of each point.
        label: (B,) or (B, n), names of the classes or parts; numbers where the file has no names.
        confidence: (B,) or (B, n), softmax of the label.
        index: (B, n) int64, which points of the cloud were read; None where all were.
    """

    features: Rows | None = None
    centers: Rows | None = None
    pooled: Rows | None = None
    assignment: Rows | None = None
    logits: Rows | None = None
    label: Rows | None = None
    confidence: Rows | None = None
    index: Rows | None = None


def answer(logits: np.ndarray, metadata: Metadata, category: int) -> dict[str, np.ndarray]:
    """Label and confidence of logits (..., C), of the parts that a category has."""
    names = metadata.classes or metadata.parts
    if metadata.owned and metadata.owned[category]:
        kept = np.full(logits.shape[-1], -np.inf, logits.dtype)
        kept[list(metadata.owned[category])] = 0
        logits = logits + kept
    odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
    number = odds.argmax(axis=-1)
    label = np.asarray(names)[number] if len(names) == logits.shape[-1] else number
    return {"label": np.asarray(label), "confidence": odds.max(axis=-1) / odds.sum(axis=-1)}


def together(clouds: list[dict[str, Any]], *, single: bool) -> Result:
    """The result of clouds, from the arrays of each by name."""
    if single:
        return Result(**clouds[0])
    names = [field.name for field in fields(Result) if field.name in clouds[0]]
    return Result(**{name: _rows([cloud[name] for cloud in clouds]) for name in names})


def _rows(arrays: list[Any]) -> Any:
    if all(array is None for array in arrays):
        return None
    same = len({np.shape(array) for array in arrays}) == 1
    return np.stack(arrays) if same and arrays[0] is not None else arrays
