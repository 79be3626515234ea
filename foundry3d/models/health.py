"""How a student uses its supertokens: measures of its assignment, and the assignment itself.

In training, Gumbel noise spreads the choices over supertokens that are never chosen without it, so
the measures are for choices without noise: those that the student makes once it is trained.

Shapes: B clouds, c tokens, s supertokens, n tokens of any number of clouds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from foundry3d.models.supertokens import DSO, first_choice


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


@contextmanager
def tokens_read(dso: DSO) -> Iterator[list[Tensor]]:
    """Yields a list that collects the layer-normed tokens (B, c, d) of each call of a DSO.

    They are detached; nothing more is added when the block ends.
    """
    read: list[Tensor] = []

    def keep(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        read.append(output.detach())

    hook = dso.norm.register_forward_hook(keep)
    try:
        yield read
    finally:
        hook.remove()


@torch.no_grad()
def noiseless(dso: DSO, normed: Tensor) -> Tensor:
    """What layer-normed tokens (B, c, d) choose without noise, (B, c) int64; of the first head."""
    return first_choice(dso.logits(normed))
