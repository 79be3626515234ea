"""From a time limit to a budget: a profile measured on this machine, and the choice from it.

Shapes: B clouds, N points, c tokens, s supertokens.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor

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


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a call asks of a student; None = as the student was made.

    Attributes:
        ratio: r, tokens of a fusion probability above it are merged.
        token_budget: b, exactly as many tokens enter the encoder, c = nothing is merged.
        supertokens: s', the first s' of the s supertokens are used.
        merged: (B,) int64, how many of each cloud's tokens are merged (training).
        packed: clouds that keep different numbers of tokens are encoded without padding, those of
            equal numbers together; the results are the same.
    """

    ratio: float | None = None
    token_budget: int | None = None
    supertokens: int | None = None
    merged: Tensor | None = None
    packed: bool = False

    def check(self, *, gated: bool, tokens: int, supertokens: int) -> None:
        """Refuses what a student of c tokens and s supertokens cannot do.

        Raises:
            InputError: values out of range, two budgets at once, or a budget without a gate.
        """
        count = supertokens if self.supertokens is None else self.supertokens
        if not _whole(count) or not 1 <= count <= supertokens:
            raise InputError(f"supertokens must be a whole number in 1..{supertokens}, got {count}")
        asked = [
            name for name in ("ratio", "token_budget", "merged") if getattr(self, name) is not None
        ]
        if len(asked) > 1:
            raise InputError(f"give one of ratio and token_budget, got {' and '.join(asked)}")
        if asked and not gated:
            raise InputError(
                f"{asked[0]} needs a student with a gate; distil one with --gate, or lower "
                "supertokens"
            )
        ratio, budget = self.ratio, self.token_budget
        if ratio is not None and not (_number(ratio) and 0 <= ratio <= 1):
            raise InputError(f"ratio must lie in [0, 1], got {ratio}")
        if budget is not None and not (_whole(budget) and count <= budget <= tokens):
            raise InputError(
                f"token_budget must be a whole number in {count}..{tokens} (from the supertokens "
                f"to all tokens), got {budget}"
            )


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def draw_merged(
    batch: int, tokens: int, *, all_merged: float, generator: torch.Generator
) -> Tensor:
    """(B,) int64 numbers of tokens to merge, a ratio drawn for every cloud.

    Args:
        batch: B.
        tokens: c.
        all_merged: share of the clouds that merge all c; the others draw from 0..c.
        generator: of the draws.
    """
    device = generator.device
    drawn = torch.randint(0, tokens + 1, (batch,), device=device, generator=generator)
    whole = torch.rand(batch, device=device, generator=generator) < all_merged
    return torch.where(whole, tokens, drawn)


def draw_supertokens(supertokens: int, *, whole: float, generator: torch.Generator) -> int:
    """s', how many of s supertokens a step uses: a power of two below s, or s.

    Args:
        supertokens: s.
        whole: probability of s itself; the powers of two below share the rest equally.
        generator: of the draw.
    """
    below = [2**i for i in range(supertokens.bit_length()) if 2**i < supertokens]
    draw = torch.rand((), device=generator.device, generator=generator).item()
    if not below or draw < whole:
        return supertokens
    return below[min(int((draw - whole) / (1 - whole) * len(below)), len(below) - 1)]
