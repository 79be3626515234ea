"""How well a student reproduces its teacher: measures that do not saturate as accuracies do.

Shapes: n tokens or clouds, d width of token features, p and q widths of pooled ones.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from foundry3d.errors import InputError


class TokenFidelity:
    """Unexplained variance and cosine over the tokens of many batches, in float64.

    Both compare token features of a student with its teacher's, tokens of all clouds together.
    """

    def __init__(self) -> None:
        self.count = 0
        self._error = self._square = self._cosine = 0.0
        self._sum: Tensor | None = None

    def add(self, found: Tensor, wanted: Tensor) -> None:
        """Adds features (..., d) of the student and of the teacher.

        Raises:
            InputError: shapes differ.
        """
        if found.shape != wanted.shape:
            raise InputError(
                f"expected features of the teacher's shape {tuple(wanted.shape)}, got "
                f"{tuple(found.shape)}"
            )
        a, b = (t.detach().double().flatten(0, -2) for t in (found, wanted))
        self.count += len(b)
        self._error += float((a - b).square().sum())
        self._square += float(b.square().sum())
        self._cosine += float(F.cosine_similarity(a, b, dim=-1).sum())
        total = b.sum(dim=0)
        self._sum = total if self._sum is None else self._sum + total

    @property
    def unexplained(self) -> float:
        """Squared error over the variance of the teacher's features.

        0 = the same features, 1 = as good as predicting their mean; infinite where there is an
        error and no variance.
        """
        if self._sum is None:
            return float("nan")
        variance = self._square - float(self._sum.square().sum()) / self.count
        if variance <= 1e-12 * self._square:
            return float("inf") if self._error else 0.0
        return self._error / variance

    @property
    def cosine(self) -> float:
        """Mean cosine between the features of a token."""
        return self._cosine / self.count if self.count else float("nan")


def unexplained(found: Tensor, wanted: Tensor) -> float:
    """Share of the variance of `wanted` (..., d) that `found` leaves; see `TokenFidelity`.

    Raises:
        InputError: shapes differ.
    """
    sums = TokenFidelity()
    sums.add(found, wanted)
    return sums.unexplained


def mean_cosine(found: Tensor, wanted: Tensor) -> float:
    """Mean cosine between features (..., d) of the same tokens.

    Raises:
        InputError: shapes differ.
    """
    sums = TokenFidelity()
    sums.add(found, wanted)
    return sums.cosine


def linear_cka(first: Tensor, second: Tensor) -> float:
    """Linear centred kernel alignment of features (n, p) and (n, q) of the same clouds.

    In [0, 1]; 1 = the same up to rotation, scale and shift (Kornblith et al., 2019, equation 3).
    NaN where one of the two does not vary.

    Raises:
        InputError: the numbers of clouds differ.
    """
    if len(first) != len(second):
        raise InputError(f"expected features of the same clouds, got {len(first)}, {len(second)}")
    a, b = (t.detach().double() - t.detach().double().mean(dim=0) for t in (first, second))
    if len(a) < a.shape[1] + b.shape[1]:  # products of clouds are the smaller matrices
        one, other = a @ a.T, b @ b.T
        shared, norms = (one * other).sum(), one.norm() * other.norm()
    else:
        shared, norms = (b.T @ a).square().sum(), (a.T @ a).norm() * (b.T @ b).norm()
    return float(shared / norms) if norms > 0 else float("nan")
