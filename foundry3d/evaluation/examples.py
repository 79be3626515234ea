"""A classifier from a few examples: the nearest class mean of standardised pooled features.

Shapes: n clouds, D width of pooled features.
"""

from __future__ import annotations

import numpy as np
from sklearn.preprocessing import StandardScaler

from foundry3d.errors import InputError
from foundry3d.evaluation.metrics import mean_std, overall_accuracy

DRAWS = 10


def nearest_mean(support: np.ndarray, labels: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Class (n,) whose mean of support (m, D) is nearest to each of queries (n, D)."""
    kinds = np.unique(labels)
    means = np.stack([support[labels == kind].mean(axis=0) for kind in kinds])
    apart = ((queries[:, None] - means[None]) ** 2).sum(axis=-1)
    return kinds[apart.argmin(axis=1)]


def draw_examples(labels: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Indices of `count` clouds of every class in labels (n,), without repetition.

    Raises:
        InputError: a class has fewer clouds.
    """
    drawn = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if len(members) < count:
            raise InputError(
                f"expected at least {count} clouds of every class to draw examples from, class "
                f"{label} has {len(members)}; ask for fewer examples or name more clouds"
            )
        drawn.append(generator.choice(members, count, replace=False))
    return np.concatenate(drawn)


def taught_accuracy(
    train: np.ndarray,
    labels: np.ndarray,
    test: np.ndarray,
    test_labels: np.ndarray,
    *,
    examples: int,
    draws: int = DRAWS,
    seed: int = 0,
) -> tuple[float, float]:
    """Accuracy in percent of classifiers taught with a few examples: mean and std over draws.

    Args:
        train: pooled features (n, D) that examples are drawn from; no others are read.
        labels: (n,) their classes.
        test: pooled features (m, D).
        test_labels: (m,) their classes.
        examples: per class.
        draws: classifiers, each from examples of its own.
        seed: of the draws.

    Raises:
        InputError: a class has fewer clouds than examples are asked for.
    """
    generator, found = np.random.default_rng(seed), []
    for _ in range(draws):
        chosen = draw_examples(labels, examples, generator)
        scaler = StandardScaler().fit(train[chosen])
        support, queries = scaler.transform(train[chosen]), scaler.transform(test)
        answers = nearest_mean(support, labels[chosen], queries)
        found.append(100 * overall_accuracy(test_labels, answers))
    return mean_std(np.array(found))
