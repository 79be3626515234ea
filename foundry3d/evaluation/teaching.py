"""A linear classifier on pooled features from a few examples, chosen and judged by leave-one-out.

An example has several rows: its own features, and those of augmented copies. Leaving it out leaves
all of its rows out, and its first row is then classified. Nearest class mean (linear as well, with
weights mu and bias -|mu|^2 / 2) and ridge regression to one-hot targets, in which every class
counts the same, are both left out exactly: no candidate is fitted more than once.

Shapes: n examples, m rows of all examples, D width of a row, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from foundry3d.errors import InputError

STRENGTHS = (10.0, 3.0, 1.0, 0.3, 0.1)
"""Ridge penalties that are tried, relative to features of variance 1."""
MOST_FOR_MEANS = 2
"""With at most this many examples of every class only the nearest mean is considered."""
SHARED = 0.5
"""Share of the correlations, against no correlation at all, in what whitens features."""
KNOWN = 0.95
"""Share of the examples that the limit for unknown shapes lets pass."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Features of the examples and their copies.

    Attributes:
        features: (m, D) float64, whitened.
        example: (m,) int64, the example of each row; the first row of an example is its own.
        labels: (n,) int64, the class of each example.
        classes: C; every class has an example.
    """

    features: np.ndarray
    example: np.ndarray
    labels: np.ndarray
    classes: int

    def __post_init__(self) -> None:
        if np.unique(self.labels).size != self.classes or self.classes < 2:
            raise InputError(f"expected examples of two or more classes, got {self.classes}")

    @property
    def own(self) -> np.ndarray:
        """(n, D) the first row of each example."""
        return self.features[np.unique(self.example, return_index=True)[1]]

    @property
    def judged(self) -> np.ndarray:
        """(n,) bool: whether the class of an example has another one."""
        return np.bincount(self.labels)[self.labels] > 1


class Scale(NamedTuple):
    """What whitens features: their mean (D,) and the matrix (D, D) that is applied after it."""

    mean: np.ndarray
    matrix: np.ndarray

    def apply(self, features: np.ndarray) -> np.ndarray:
        """Whitened features (..., D) float64."""
        return (features - self.mean) @ self.matrix


def scale_of(features: np.ndarray) -> Scale:
    """The scale of features (n, D); one that never changes keeps its unit.

    Features are standardised; then directions in which they vary together are shrunk, by the
    inverse square root of `SHARED` of their correlations and the rest of the identity. Directions
    that all shapes share say little about classes: on ModelNet10-vox, five examples per class, this
    is worth 9 points over standardisation alone (`docs/teach.md`).
    """
    mean, std = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
    std = np.where(std > 0, std, 1.0)
    rows = (features - mean) / std
    mixed = SHARED * (rows.T @ rows) / len(rows) + (1 - SHARED) * np.eye(len(mean))
    values, vectors = np.linalg.eigh(mixed)
    return Scale(mean, (vectors / np.sqrt(values)) @ vectors.T / std[:, None])


class Head(NamedTuple):
    """A linear classifier: logits are `features @ weight.T + bias`, (C, D) and (C,)."""

    weight: np.ndarray
    bias: np.ndarray

    def logits(self, features: np.ndarray) -> np.ndarray:
        """(n, C) of features (n, D)."""
        return features @ self.weight.T + self.bias

    def cooled(self, temperature: float) -> Head:
        """The head whose logits are divided by a temperature."""
        return Head(self.weight / temperature, self.bias / temperature)

    def folded(self, scale: Scale) -> Head:
        """The head that gives the same logits for features that are not whitened."""
        weight = self.weight @ scale.matrix.T
        return Head(weight, self.bias - weight @ scale.mean)


def from_means(means: np.ndarray) -> Head:
    """The head whose largest logit is that of the nearest of the class means (C, D)."""
    return Head(means, -0.5 * (means**2).sum(axis=1))


def class_means(rows: Rows) -> np.ndarray:
    """(C, D) the mean row of each class."""
    return _sums(rows) / np.bincount(rows.labels[rows.example])[:, None]


def _sums(rows: Rows) -> np.ndarray:
    found = np.zeros((rows.classes, rows.features.shape[1]))
    np.add.at(found, rows.labels[rows.example], rows.features)
    return found


def _means_without(rows: Rows) -> np.ndarray:
    """(n, D) for each example the mean of its class without it; NaN where it is alone."""
    own = np.zeros((len(rows.labels), rows.features.shape[1]))
    np.add.at(own, rows.example, rows.features)
    copies = np.bincount(rows.example)
    count = np.bincount(rows.labels[rows.example])[rows.labels] - copies
    with np.errstate(invalid="ignore", divide="ignore"):
        return (_sums(rows)[rows.labels] - own) / count[:, None]


def means_left_out(rows: Rows) -> np.ndarray:
    """Logits (n, C) of every example by nearest means without it; -inf for an empty class."""
    found = from_means(class_means(rows)).logits(rows.own)
    without = _means_without(rows)
    own = (rows.own * without).sum(axis=1) - 0.5 * (without**2).sum(axis=1)
    found[np.arange(len(found)), rows.labels] = np.nan_to_num(own, nan=-np.inf)
    return found


def _weighted(rows: Rows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows with a constant (m, D + 1), targets (m, C), and roots of weights (m, 1).

    The weights of a class add up to 1 / C, and both arrays are multiplied by their roots.
    """
    labels = rows.labels[rows.example]
    root = np.sqrt(1 / (rows.classes * np.bincount(labels)))[labels][:, None]
    constant = np.ones((len(labels), 1))
    return (
        root * np.concatenate([rows.features, constant], axis=1),
        root * np.eye(rows.classes)[labels],
        root,
    )


def _solved(inputs: np.ndarray, strength: float) -> np.ndarray:
    """(A^T A + strength I)^-1 A^T of inputs A (m, D + 1), whose constant is not penalised."""
    penalty = np.full(inputs.shape[1], strength)
    penalty[-1] = 0
    return np.linalg.solve(inputs.T @ inputs + np.diag(penalty), inputs.T)


def ridge(rows: Rows, strength: float) -> Head:
    """Ridge regression to one-hot targets; the bias is not penalised."""
    inputs, targets, _ = _weighted(rows)
    found = (_solved(inputs, strength) @ targets).T
    return Head(found[:, :-1], found[:, -1])


def ridge_left_out(rows: Rows, strength: float) -> np.ndarray:
    """Outputs (n, C) for every example of the regression without it.

    With hat matrix H, the residuals of rows g when they are left out are
    (I - H_gg)^-1 times their residuals in the fit to all rows.
    """
    inputs, targets, root = _weighted(rows)
    solved = _solved(inputs, strength)
    residuals = targets - inputs @ (solved @ targets)
    found = np.empty((len(rows.labels), rows.classes))
    for i in range(len(found)):
        own = np.flatnonzero(rows.example == i)
        hat = inputs[own] @ solved[:, own]
        left = np.linalg.solve(np.eye(len(own)) - hat, residuals[own])
        found[i] = ((targets[own] - left) / root[own])[0]
    return found


def softmax(logits: np.ndarray) -> np.ndarray:
    """Shares (n, C) that add up to 1."""
    shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shares / shares.sum(axis=-1, keepdims=True)


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """The temperature for which softmax of logits (n, C) predicts labels (n,) best.

    Targets are smoothed by 1 / (n + 1), so that few examples never make a classifier certain.

    Returns:
        The temperature, and the mean negative log-likelihood with it.
    """
    count, classes = logits.shape
    targets = np.full((count, classes), 1 / (classes * (count + 1)))
    targets[np.arange(count), labels] += count / (count + 1)
    centred = logits - logits.mean(axis=1, keepdims=True)
    spread = float(centred.std()) or 1.0
    found = []
    for temperature in spread * 2.0 ** np.arange(-6, 6.5, 0.5):
        chances = np.log(np.maximum(softmax(logits / temperature), 1e-300))
        found.append((float(-(targets * chances).sum(axis=1).mean()), float(temperature)))
    loss, best = min(found)
    return best, loss


def wilson(correct: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval of a share, `correct` of `count`: of 95 % for the default z.

    Raises:
        InputError: not 0 <= correct <= count with count at least 1.
    """
    if not 0 <= correct <= count or count < 1:
        raise InputError(f"expected a share of at least one, got {correct} of {count}")
    share, extra = correct / count, z * z / count
    middle = (share + extra / 2) / (1 + extra)
    half = z * math.sqrt(share * (1 - share) / count + extra / (4 * count)) / (1 + extra)
    return max(0.0, middle - half), min(1.0, middle + half)


class Chosen(NamedTuple):
    """The classifier that leave-one-out chose.

    Attributes:
        name: "nearest mean" or "ridge" with its penalty.
        head: for whitened features; softmax of its logits is the confidence.
        answers: (n,) int64, the class of each example when it was left out; -1 where its class
            has no other example.
        loss: mean negative log-likelihood of the calibrated confidences for examples that were left
            out; infinite where none was.
        tried: how many candidates there were.
    """

    name: str
    head: Head
    answers: np.ndarray
    loss: float
    tried: int


def choose(rows: Rows, strengths: Sequence[float] = STRENGTHS) -> Chosen:
    """The best of nearest mean and ridge regressions by leave-one-out.

    The smallest loss of the calibrated confidences wins, which differs less by chance than the
    number of right answers. Where no class has a second example nothing can be left out: the
    temperature is then D.
    """
    judged, labels = rows.judged, rows.labels
    if np.bincount(labels).max() <= MOST_FOR_MEANS:
        strengths = ()
    means = from_means(class_means(rows))
    if not judged.any():
        head = means.cooled(rows.features.shape[1])
        return Chosen("nearest mean", head, np.full(len(labels), -1), math.inf, 1)
    candidates: list[tuple[str, Callable[[], Head], np.ndarray]] = [
        ("nearest mean", lambda: means, means_left_out(rows))
    ]
    for strength in strengths:
        fit = partial(ridge, rows, strength)
        candidates.append((f"ridge, penalty {strength:g}", fit, ridge_left_out(rows, strength)))
    found = []
    for i, (_, _, logits) in enumerate(candidates):
        temperature, loss = fit_temperature(logits[judged], labels[judged])
        found.append((loss, i, temperature))
    loss, best, temperature = min(found)
    name, refit, logits = candidates[best]
    answers = np.where(judged, logits.argmax(axis=1), -1)
    return Chosen(name, refit().cooled(temperature), answers, loss, len(candidates))


class Limit(NamedTuple):
    """How far from every class mean a cloud may be that is not unknown.

    Attributes:
        means: (C, D) of the classes.
        distance: the limit of `distances`.
        beyond: how many of the examples were further away when they were left out.
        judged: of how many.
    """

    means: np.ndarray
    distance: float
    beyond: int
    judged: int


def distances(features: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Root mean square distance (n,) of features (n, D) from the nearest of means (C, D)."""
    return np.sqrt(np.min([((features - mean) ** 2).mean(axis=1) for mean in means], axis=0))


def limit_of(rows: Rows, known: float = KNOWN) -> Limit | None:
    """The limit that lets a share of the examples pass, each left out of its class mean.

    None where no class has a second example.
    """
    means, without, judged = class_means(rows), _means_without(rows), rows.judged
    if not judged.any():
        return None
    found = []
    for i in np.flatnonzero(judged):
        others = np.delete(means, rows.labels[i], axis=0)
        found.append(distances(rows.own[i : i + 1], np.vstack([others, without[i]]))[0])
    distance = float(np.quantile(found, known, method="higher"))
    beyond = int((np.array(found) > distance).sum())
    return Limit(means, distance, beyond, len(found))
