"""From a time limit to a budget: a profile measured on this machine, and the choice from it.

Shapes: B clouds, N points, c tokens, s supertokens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, NamedTuple

import torch

from foundry3d.errors import InputError


class Timing(NamedTuple):
    """What a call at a budget took.

    Attributes:
        budget: the call's keyword arguments.
        tokens: tokens that enter the encoder at most.
        milliseconds: median of the repetitions.
    """

    budget: dict[str, int]
    tokens: int
    milliseconds: float


def candidates(tokens: int, supertokens: int, *, gated: bool, steps: int = 7) -> list[Timing]:
    """Budgets worth measuring, fewest tokens first, not yet timed.

    The first s' of s supertokens for s' of powers of two and s itself; with a gate also `steps`
    token budgets from s to c.
    """
    fewer = [2**i for i in range(supertokens.bit_length()) if 2**i < supertokens]
    found = []
    for count in [*fewer, supertokens]:
        budget = {"supertokens": count} | ({"token_budget": count} if gated else {})
        found.append(Timing(budget, count, float("nan")))
    if gated:
        for i in range(1, steps):
            count = supertokens + round(i * (tokens - supertokens) / (steps - 1))
            budget = {"supertokens": supertokens, "token_budget": count}
            found.append(Timing(budget, count, float("nan")))
    return found


def profile(
    run: Callable[..., Any], budgets: Sequence[Timing], *, repeats: int = 9
) -> list[Timing]:
    """Measures `run(**budget)` at every budget, interleaved, after one call each to warm up."""
    taken: list[list[float]] = [[] for _ in budgets]
    for repeat in range(repeats + 1):
        for times, timing in zip(taken, budgets, strict=True):
            began = time.perf_counter()
            run(**timing.budget)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if repeat:
                times.append(1000 * (time.perf_counter() - began))
    return [
        timing._replace(milliseconds=median(times))
        for timing, times in zip(budgets, taken, strict=True)
    ]


def choose(timings: Sequence[Timing], milliseconds: float) -> Timing:
    """The timing with the most tokens within the limit; the quicker one among equals.

    Raises:
        InputError: a limit that is not positive, or that no budget keeps.
    """
    if not milliseconds > 0:
        raise InputError(f"milliseconds must be positive, got {milliseconds}")
    within = [t for t in timings if t.milliseconds <= milliseconds]
    if not within:
        least = min(t.milliseconds for t in timings)
        raise InputError(
            f"no budget keeps {milliseconds:g} ms on this machine, the quickest takes {least:.2f} "
            "ms; give more time, fewer points, or a smaller model"
        )
    return max(within, key=lambda t: (t.tokens, -t.milliseconds))
