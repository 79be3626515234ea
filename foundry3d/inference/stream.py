"""`Stream`: a student that keeps a time limit over a stream of clouds, under changing load.

It measures every call and moves the budget: the token budget of a student with a gate, otherwise
the number of supertokens. The controller is `Ladder` and `Controller`, which know no model.

Shapes: B clouds, N points.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor

from foundry3d.config.attributes import width_of
from foundry3d.errors import InputError
from foundry3d.models.backbone import Tokens
from foundry3d.models.budget import Budget, Timing, candidates, choose, profile
from foundry3d.models.student import Student

log = logging.getLogger("foundry3d")

Clock = Callable[[], float]
"""Seconds since some moment, as `time.perf_counter`."""


class Step(NamedTuple):
    """One call of a stream.

    Attributes:
        milliseconds: how long it took.
        budget: what it computed.
        tokens: the most tokens that entered the encoder.
        within: it kept the limit.
        load: how many times longer than in the profile calls take at present.
        move: how many rungs the next call is above this one, negative = below.
    """

    milliseconds: float
    budget: Budget
    tokens: int
    within: bool
    load: float
    move: int


@dataclass(frozen=True, kw_only=True)
class StreamSummary:
    """What a stream did.

    Attributes:
        calls: since it was made.
        within: share of them that kept the limit.
        moves: how often the budget changed.
        median: milliseconds of the calls in the history.
        p95: 95 % of the calls in the history took at most this long.
        tokens: mean of the tokens that entered the encoder, over the history.
    """

    calls: int
    within: float
    moves: int
    median: float
    p95: float
    tokens: float


def ladder(timings: Iterable[Timing]) -> list[Timing]:
    """The timings that no other one with as many tokens beats, fewest tokens and quickest first."""
    found: list[Timing] = []
    for timing in sorted(timings, key=lambda t: (-t.tokens, t.milliseconds)):
        if not found or timing.milliseconds < found[-1].milliseconds:
            found.append(timing)
    return found[::-1]


class Controller:
    """Which budget comes next, from how long calls took.

    The load is the second largest, over the last `WINDOW` calls, of the time that a call took
    divided by the time of its budget in the profile. So one slow call alone changes nothing, two
    do, and a budget is predicted to take what all but one of ten calls took.

    - Down: when a call misses the limit and its budget is predicted to miss it too, the largest
      budget that is predicted to keep it comes next, at once (the smallest if there is none).
    - Up: when the next larger budget has been predicted to keep the limit with `MARGIN` to spare
      after `PATIENCE` calls in a row, it comes next. The margin and the patience are the
      hysteresis: without them the budget would swing between two neighbours.

    Args:
        rungs: from `ladder`.
        milliseconds: the limit.
    """

    WINDOW, MARGIN, PATIENCE = 10, 0.05, 10

    def __init__(self, rungs: Sequence[Timing], milliseconds: float) -> None:
        self.rungs, self.limit = list(rungs), milliseconds
        self.ratios = deque([1.0] * self.WINDOW, maxlen=self.WINDOW)
        self.at = self._largest(self.limit)
        self.patient = 0

    @property
    def load(self) -> float:
        """How many times longer than in the profile calls take at present."""
        return sorted(self.ratios)[-2]

    def observe(self, milliseconds: float) -> int:
        """Takes the time of a call at the present rung; returns by how many rungs it moves."""
        self.ratios.append(milliseconds / self.rungs[self.at].milliseconds)
        before = self.at
        if milliseconds > self.limit and self._predicted(self.at) > self.limit:
            self.at = min(self._largest(self.limit), self.at)
            self.patient = 0
        elif self.at + 1 < len(self.rungs) and self._predicted(self.at + 1) <= self._safe:
            self.patient += 1
            if self.patient == self.PATIENCE:
                self.at, self.patient = self.at + 1, 0
        else:
            self.patient = 0
        return self.at - before

    @property
    def _safe(self) -> float:
        return (1 - self.MARGIN) * self.limit

    def _predicted(self, rung: int) -> float:
        return self.rungs[rung].milliseconds * self.load

    def _largest(self, limit: float) -> int:
        fitting = [i for i in range(len(self.rungs)) if self._predicted(i) <= limit]
        return max(fitting, default=0)


class Stream:
    """A student that keeps a time limit over a stream of clouds.

    It starts with the budget that `Student.budget_for` would choose, and then moves it by what it
    measures; see `Controller`. Clouds of another size than the profile's are part of the load.

        stream = foundry3d.Stream(student, milliseconds=20)
        for points in sensor:
            tokens = stream(points)         # points (1, N, 3)
        print(stream.summary())

    Args:
        model: a student in evaluation mode, with a gate or with more than one supertoken; those
            trained with nested supertokens or with a gate keep their accuracy at small budgets.
        milliseconds: limit for a call.
        batch: B of the clouds that the profile is measured on.
        points: N of them.
        repeats: calls of every candidate in the profile.
        keep: how many calls the history holds.
        clock: seconds, for tests and simulations.

    Attributes:
        rungs: the budgets that it moves between, with their times in the profile.
        history: the last calls, oldest first.

    Raises:
        InputError: another kind of model, one in training mode, one that has a single budget, or
            a limit that is not positive.
    """

    def __init__(
        self,
        model: Student,
        milliseconds: float,
        *,
        batch: int = 1,
        points: int = 1024,
        repeats: int = 5,
        keep: int = 1000,
        clock: Clock = time.perf_counter,
    ) -> None:
        wanted = _candidates(model)
        if not milliseconds > 0:
            raise InputError(f"milliseconds must be positive, got {milliseconds}")
        self.model, self.milliseconds, self.clock = model, milliseconds, clock
        device = next(model.parameters()).device
        width = width_of(model.shape.attributes)
        clouds = torch.randn(batch, points, width, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            run = partial(model, clouds.to(device))
            self.rungs = ladder(profile(run, wanted, repeats=repeats, clock=clock))
        self._warn()
        self.controller = Controller(self.rungs, milliseconds)
        self.history: deque[Step] = deque(maxlen=keep)
        self._calls = self._within = self._moves = 0

    @property
    def budget(self) -> Budget:
        """Of the next call."""
        return self.rungs[self.controller.at].budget

    def __call__(self, points: Tensor) -> Tokens:
        """Features of points (B, N, 3) at the present budget, without gradients.

        Raises:
            InputError: points that the model refuses; the history does not change.
        """
        rung = self.rungs[self.controller.at]
        began = self.clock()
        with torch.inference_mode():
            tokens: Tokens = self.model(points, budget=rung.budget)
        if points.is_cuda:
            torch.cuda.synchronize(points.device)
        took = 1000 * (self.clock() - began)
        within, move = took <= self.milliseconds, self.controller.observe(took)
        self.history.append(
            Step(took, rung.budget, rung.tokens, within, self.controller.load, move)
        )
        self._calls += 1
        self._within += within
        self._moves += move != 0
        return tokens

    def summary(self) -> StreamSummary:
        """What the stream did so far.

        Raises:
            InputError: no call yet.
        """
        if not self.history:
            raise InputError("the stream has seen no cloud yet; call it first")
        times = sorted(step.milliseconds for step in self.history)
        return StreamSummary(
            calls=self._calls,
            within=self._within / self._calls,
            moves=self._moves,
            median=median(times),
            p95=times[-(len(times) // 20) - 1],
            tokens=sum(step.tokens for step in self.history) / len(self.history),
        )

    def _warn(self) -> None:
        try:
            choose(self.rungs, self.milliseconds)
        except InputError as error:
            log.warning("%s; the stream runs at its smallest budget", error)


def _candidates(model: Student) -> list[Timing]:
    """The budgets of a student that a stream can move between.

    Raises:
        InputError: another kind of model, one in training mode, or one that has a single budget.
    """
    if not isinstance(model, Student):
        raise InputError(
            f"a stream moves the budget of a student, a {type(model).__name__} has none; distil "
            "one first"
        )
    if model.training:
        raise InputError("expected a model in evaluation mode; call model.eval() first")
    found = candidates(model.shape.groups, model.config.supertokens, gated=model.gate is not None)
    if len(found) == 1:
        raise InputError(
            "this student has one supertoken and no gate, so there is no budget to move; distil "
            "one with --student.gate or more supertokens"
        )
    return found
