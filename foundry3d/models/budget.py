"""Budgets: what a call may ask of a student, how training draws budgets, and a budget for a time.

Shapes: B clouds, N points, c tokens, s supertokens.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from statistics import median
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from foundry3d.errors import InputError
from foundry3d.models.gate import listing_merges

BudgetRule = Literal["exact", "paper"]
"""How a token budget becomes a number of merged tokens."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Budget:
    """How much a student may compute; None = as the student was made.

    Attributes:
        ratio: r; tokens whose fusion probability is above it are merged.
        token_budget: b; how many tokens of every cloud enter the encoder, c = nothing is merged.
        rule: of the token budget. exact: exactly b tokens enter. paper: that of Listing 1, at most
            b - 1 enter, or b if b = s, unless probabilities are equal; see `gate.listing_merges`.
        supertokens: s'; only the first s' of the s supertokens are used.
        merged: how many tokens are merged: of every cloud, or (B,) int64 of each.
        packed: clouds that keep different numbers of tokens are encoded without padding, clouds of
            equal length together. The features are the same.

    Raises:
        InputError: ratio is outside [0, 1], more than one of ratio, token_budget and merged is
            given, or the rule is unknown or given without a token budget.
    """

    ratio: float | None = None
    token_budget: int | None = None
    rule: BudgetRule = "exact"
    supertokens: int | None = None
    merged: int | Tensor | None = None
    packed: bool = False

    def __post_init__(self) -> None:
        gated = self._gated()
        if len(gated) > 1:
            raise InputError(f"give one of ratio and token_budget, got {' and '.join(gated)}")
        if self.ratio is not None and not (_number(self.ratio) and 0 <= self.ratio <= 1):
            raise InputError(f"ratio must lie in [0, 1], got {self.ratio}")
        if self.rule not in get_args(BudgetRule):
            raise InputError(f"rule must be exact or paper, got {self.rule!r}")
        if self.rule != "exact" and self.token_budget is None:
            raise InputError(f"rule {self.rule!r} must come with a token_budget")

    def __repr__(self) -> str:
        return f"Budget({', '.join(f'{name}={value}' for name, value in self.asked().items())})"

    def asked(self) -> dict[str, Any]:
        """The fields that differ from their default, by name."""
        named = {field.name: (getattr(self, field.name), field.default) for field in fields(self)}
        return {name: value for name, (value, default) in named.items() if value is not default}

    def check(self, *, gated: bool, tokens: int, supertokens: int) -> None:
        """Refuses what a student of c tokens and s supertokens cannot do.

        Raises:
            InputError: a number is out of range, or the budget needs a gate and there is none.
        """
        count = supertokens if self.supertokens is None else self.supertokens
        if not _whole(count) or not 1 <= count <= supertokens:
            raise InputError(f"supertokens must be a whole number in 1..{supertokens}, got {count}")
        if self._gated() and not gated:
            raise InputError(
                f"{self._gated()[0]} needs a student with a gate; distil one with "
                "--student.gate, or lower supertokens"
            )
        budget, merged = self.token_budget, self.merged
        if budget is not None and not (_whole(budget) and count <= budget <= tokens):
            raise InputError(
                f"token_budget must be a whole number in {count}..{tokens} (from the supertokens "
                f"to all tokens), got {budget}"
            )
        if not (merged is None or isinstance(merged, Tensor)) and not (
            _whole(merged) and 0 <= merged <= tokens
        ):
            raise InputError(f"merged must be a whole number in 0..{tokens}, got {merged}")

    @property
    def exact(self) -> int | None:
        """The token budget if exactly as many tokens are to enter the encoder."""
        return self.token_budget if self.rule == "exact" else None

    def merged_of(self, probability: Tensor, ratio: float, *, supertokens: int) -> Tensor:
        """(B,) int64, how many tokens of each cloud are merged; not for `exact` token budgets.

        Args:
            probability: (B, c) of the gate.
            ratio: r where the budget has none.
            supertokens: s, those in use.
        """
        if self.token_budget is not None:
            return listing_merges(probability, self.token_budget, supertokens)
        if isinstance(self.merged, int):
            return probability.new_full(probability.shape[:1], self.merged, dtype=torch.int64)
        if self.merged is not None:
            return self.merged
        return (probability > (ratio if self.ratio is None else self.ratio)).sum(dim=1)

    def _gated(self) -> list[str]:
        names = ("ratio", "token_budget", "merged")
        return [name for name in names if getattr(self, name) is not None]


def refuse_budget(budget: Budget | None) -> None:
    """For models without supertokens.

    Raises:
        InputError: the budget asks for something.
    """
    if budget is not None and budget.asked():
        raise InputError(
            f"{', '.join(budget.asked())}: budgets are for students with supertokens; teachers "
            "and truncated students encode all of their tokens"
        )


def draw_merged(
    batch: int, tokens: int, *, all_merged: float, generator: torch.Generator
) -> Tensor:
    """(B,) int64 numbers of tokens to merge, drawn independently for every cloud.

    Args:
        batch: B.
        tokens: c.
        all_merged: probability that a cloud merges all c tokens; otherwise 0..c is drawn.
        generator: source of the draws.
    """
    device = generator.device
    drawn = torch.randint(0, tokens + 1, (batch,), device=device, generator=generator)
    whole = torch.rand(batch, device=device, generator=generator) < all_merged
    return torch.where(whole, tokens, drawn)


def draw_supertokens(supertokens: int, *, whole: float, generator: torch.Generator) -> int:
    """s', how many of s supertokens a step uses: s, or a power of two below it.

    Args:
        supertokens: s.
        whole: probability of s itself; the powers of two below it share the rest equally.
        generator: source of the draw.
    """
    below = _powers_of_two(supertokens)
    draw = torch.rand((), device=generator.device, generator=generator).item()
    if not below or draw < whole:
        return supertokens
    return below[min(int((draw - whole) / (1 - whole) * len(below)), len(below) - 1)]


class Timing(NamedTuple):
    """How long a call took at a budget.

    Attributes:
        budget: of the call.
        tokens: the most tokens that enter the encoder.
        milliseconds: median over the repetitions; NaN until measured.
    """

    budget: Budget
    tokens: int
    milliseconds: float = math.nan


def candidates(tokens: int, supertokens: int, *, gated: bool, steps: int = 7) -> list[Timing]:
    """Budgets worth measuring, fewest tokens first, not yet timed.

    The first s' of s supertokens, for s itself and the powers of two below it; with a gate also
    `steps` token budgets from s to c.
    """
    found = [
        Timing(Budget(supertokens=count, token_budget=count if gated else None), count)
        for count in [*_powers_of_two(supertokens), supertokens]
    ]
    if gated:
        for i in range(1, steps):
            count = supertokens + round(i * (tokens - supertokens) / (steps - 1))
            found.append(Timing(Budget(supertokens=supertokens, token_budget=count), count))
    return found


def profile(
    run: Callable[..., object],
    budgets: Sequence[Timing],
    *,
    repeats: int = 9,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Timing]:
    """Times `run(budget=...)` at every budget, interleaved, after one warm-up call each.

    Args:
        run: called with the budget.
        budgets: from `candidates`.
        repeats: measured calls of each.
        clock: seconds.
    """
    taken: list[list[float]] = [[] for _ in budgets]
    for repeat in range(repeats + 1):
        for times, timing in zip(taken, budgets, strict=True):
            began = clock()
            run(budget=timing.budget)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if repeat:
                times.append(1000 * (clock() - began))
    return [
        timing._replace(milliseconds=median(times))
        for timing, times in zip(budgets, taken, strict=True)
    ]


def choose(timings: Sequence[Timing], milliseconds: float) -> Timing:
    """The timing with the most tokens within the limit; the faster one among equals.

    Raises:
        InputError: the limit is not positive, or every budget takes longer.
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


def _powers_of_two(limit: int) -> list[int]:
    return [2**i for i in range(limit.bit_length()) if 2**i < limit]


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
