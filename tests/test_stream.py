"""Streams: a clock that the model advances injects load without any time passing."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from foundry3d import Budget, InputError, Stream, Student
from foundry3d.inference.stream import Controller, ladder
from foundry3d.models.backbone import Backbone
from foundry3d.models.budget import Timing


class Load:
    """A machine on which a call takes 1 ms and 1 ms per token of its budget, times `factor`."""

    def __init__(self) -> None:
        self.now, self.factor = 0.0, 1.0

    def clock(self) -> float:
        return self.now

    def spend(self, model: Any, given: Any, named: dict[str, Any], tokens: Any) -> None:
        budget = named["budget"]
        self.now += (1 + (budget.token_budget or budget.supertokens)) * self.factor / 1000


@contextmanager
def loaded(student: Student) -> Iterator[Load]:
    load = Load()
    hook = student.register_forward_hook(load.spend, with_kwargs=True)
    yield load
    hook.remove()


def made(teacher: Backbone, **options: Any) -> Student:
    generator = torch.Generator().manual_seed(0)
    return Student.from_teacher(teacher, generator=generator, **options)


CLOUD = torch.randn(1, 64, 3, generator=torch.Generator().manual_seed(1))


def run(stream: Stream, calls: int) -> None:
    for _ in range(calls):
        stream(CLOUD)


def test_starts_with_the_budget_that_the_profile_chooses(teacher: Backbone) -> None:
    student = made(teacher, supertokens=4, gate=True)
    with loaded(student) as load:
        stream = Stream(student, 9.5, points=64, clock=load.clock)
        assert stream.budget.token_budget == 8
        run(stream, 30)
    assert {step.tokens for step in stream.history} == {8}
    assert stream.summary().within == 1 and stream.summary().moves == 0
    expected = student(CLOUD, budget=Budget(supertokens=4, token_budget=8))
    assert torch.equal(stream(CLOUD).features, expected.features)


def test_keeps_the_limit_when_load_comes_and_goes(teacher: Backbone) -> None:
    student = made(teacher, supertokens=4, gate=True)
    with loaded(student) as load:
        stream = Stream(student, 13.3, points=64, clock=load.clock)
        run(stream, 20)
        load.factor = 2.0
        run(stream, 30)
        under_load = list(stream.history)[20:]
        load.factor = 1.0
        run(stream, 100)
    tokens = [step.tokens for step in stream.history]
    assert tokens[19] == 12  # all tokens
    missed = [i for i, step in enumerate(under_load) if not step.within]
    assert missed == [0, 1]
    assert under_load[1].move < 0 and under_load[1].load == pytest.approx(2)
    assert min(tokens[20:50]) == tokens[49] == 5  # the largest with 2 * (1 + tokens) <= 13.3
    assert tokens[-1] == 11  # 1 + 12 would keep the limit, but without the margin
    summary = stream.summary()
    assert summary.calls == 150 and summary.within == pytest.approx(148 / 150)
    assert summary.moves == sum(step.move != 0 for step in stream.history)
    assert summary.tokens == pytest.approx(sum(tokens) / 150)
    times = torch.tensor([step.milliseconds for step in stream.history])
    assert summary.median == pytest.approx(times.median(), abs=1)
    assert (times <= summary.p95).float().mean() >= 0.95


def test_one_slow_call_moves_nothing(teacher: Backbone) -> None:
    student = made(teacher, supertokens=4, gate=True)
    with loaded(student) as load:
        stream = Stream(student, 13.3, points=64, clock=load.clock)
        for factor in (1, 1, 50, *[1] * 10, 50, 1):
            load.factor = factor
            stream(CLOUD)
    assert [step.within for step in stream.history].count(False) == 2
    assert stream.summary().moves == 0


def test_moves_the_supertokens_of_students_without_a_gate(teacher: Backbone) -> None:
    student = made(teacher, supertokens=8)
    with loaded(student) as load:
        stream = Stream(student, 9.5, points=64, clock=load.clock)
        run(stream, 2)
        load.factor = 3.0
        run(stream, 10)
    budgets = [step.budget for step in stream.history]
    assert budgets[0] == Budget(supertokens=8) and budgets[-1] == Budget(supertokens=2)


def test_a_limit_that_no_budget_keeps_is_reported(teacher: Backbone, caplog) -> None:
    student = made(teacher, supertokens=4, gate=True)
    with loaded(student) as load:
        stream = Stream(student, 0.5, points=64, clock=load.clock)
        run(stream, 12)
    assert "smallest budget" in caplog.text
    assert stream.summary().within == 0 and stream.summary().moves == 0
    assert stream.budget == Budget(supertokens=1, token_budget=1)


def test_the_history_is_bounded_and_the_counts_are_not(teacher: Backbone) -> None:
    student = made(teacher, supertokens=4)
    with loaded(student) as load:
        stream = Stream(student, 50.0, points=64, keep=3, clock=load.clock)
        with pytest.raises(InputError, match="no cloud"):
            stream.summary()
        run(stream, 5)
    assert len(stream.history) == 3 and stream.summary().calls == 5
    with pytest.raises(InputError, match="points"):
        stream(CLOUD[:, :3])
    assert stream.summary().calls == 5


def test_the_ladder_leaves_out_what_is_slower_without_more_tokens() -> None:
    def timing(tokens: int, milliseconds: float) -> Timing:
        return Timing(Budget(supertokens=tokens), tokens, milliseconds)

    given = [timing(1, 3.0), timing(2, 2.0), timing(4, 2.5), timing(8, 2.5), timing(8, 4.0)]
    assert ladder(given) == [given[1], given[3]]


def test_a_step_up_comes_only_after_patience() -> None:
    rungs = [Timing(Budget(supertokens=i), i, float(i)) for i in (1, 2, 3)]
    controller = Controller(rungs, 3.0)
    for _ in range(3):
        controller.observe(9.0)
    assert controller.at == 0
    moves = [controller.observe(float(controller.at + 1)) for _ in range(60)]
    assert sum(moves) == 1 and controller.at == 1  # 3 is not within 0.95 * 3
    # calls count from the one after which a single slow call is left in the window
    assert moves.index(1) + 1 == Controller.WINDOW - 2 + Controller.PATIENCE


@pytest.mark.parametrize("limit", [0, -1, float("nan")])
def test_limits_that_are_not_positive_are_refused(teacher: Backbone, limit: float) -> None:
    with pytest.raises(InputError, match="positive"):
        Stream(made(teacher, supertokens=4), limit)


def test_models_without_a_choice_of_budgets_are_refused(teacher: Backbone) -> None:
    with pytest.raises(InputError, match="distil"):
        Stream(teacher, 20)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no budget to move"):
        Stream(made(teacher, supertokens=1), 20)
    with pytest.raises(InputError, match="eval"):
        Stream(made(teacher, supertokens=4).train(), 20)
