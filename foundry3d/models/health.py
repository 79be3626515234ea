"""How a student uses its supertokens: pure functions of counts and assignments.

Shapes: B clouds, c tokens, s supertokens, n tokens of any number of clouds.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Usage(NamedTuple):
    """How many tokens went to which supertoken, in three numbers.

    Attributes:
        share: of the supertokens that were chosen at least once, in [0, 1].
        entropy: of the distribution of tokens over supertokens, divided by log s: 1 = all are
            chosen equally often, 0 = all tokens chose the same one.
        dead: number of supertokens that were never chosen.
    """

    share: float
    entropy: float
    dead: int


def choices(assignment: Tensor, supertokens: int) -> Tensor:
    """How many tokens of an assignment (B, c) chose each supertoken, (s,) int64.

    Args:
        assignment: int64 in -1..s-1; tokens of -1, which are not merged, are not counted.
        supertokens: s.
    """
    return assignment[assignment >= 0].bincount(minlength=supertokens)


def usage(counts: Tensor) -> Usage:
    """The usage of supertokens that were chosen so often; all zeros where no token chose any.

    Args:
        counts: (s,) tokens of each supertoken.
    """
    used = int((counts > 0).sum())
    chosen = counts[counts > 0].double()
    p = chosen / chosen.sum()
    entropy = -float((p * p.log()).sum()) / math.log(len(counts)) if used > 1 else 0.0
    return Usage(used / len(counts), entropy, len(counts) - used)


def used_per_cloud(assignment: Tensor, supertokens: int) -> Tensor:
    """How many different supertokens each cloud of an assignment (B, c) uses, (B,) int64."""
    chosen = torch.zeros(len(assignment), supertokens + 1, dtype=torch.bool)
    chosen = chosen.to(assignment.device).scatter_(1, assignment + 1, True)
    return chosen[:, 1:].sum(dim=1)
