"""Inference never waits for an accelerator, so that a host can queue the next batch meanwhile.

A meta tensor has a shape and no numbers: whatever asks for one (`item`, `bool`, `nonzero`, boolean
indexing, a copy to the host) fails on it, as it would make a GPU be waited for.
"""

from collections.abc import Callable, Iterator
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

import foundry3d
from foundry3d.baselines.merged import Merged
from foundry3d.config import ReductionConfig
from foundry3d.geometry import backends, ops
from foundry3d.models.backbone import Backbone
from foundry3d.models.budget import Budget
from foundry3d.models.student import Student
from foundry3d.models.upsample import FeatureUpsampling

STUDENTS = [
    ({}, Budget()),
    ({}, Budget(supertokens=2)),
    ({"soft_assignment": True}, Budget()),
    ({"assignment_heads": 2}, Budget()),
    ({"dim": 12, "heads": 2}, Budget()),
    ({"gate": True}, Budget(token_budget=8)),
    ({"gate": True}, Budget(token_budget=12)),
    ({"gate": True}, Budget(token_budget=4, supertokens=3)),
]


@pytest.mark.parametrize(("options", "budget"), STUDENTS, ids=str)
def test_students_need_no_numbers(
    teacher: Backbone, points: Tensor, options: dict[str, Any], budget: Budget
) -> None:
    student = Student.from_teacher(teacher, supertokens=4, **options).to("meta")
    for model in (student, foundry3d.compile(student), foundry3d.compile(student, "bf16")):
        tokens = model(points.to("meta"), budget=budget)
        assert tokens.features.is_meta
        assert tokens.features.shape == (4, 12, 24)
        assert tokens.tokens_used.shape == (4,)


def test_teachers_and_what_reads_them_need_no_numbers(teacher: Backbone, points: Tensor) -> None:
    merged = Merged.around(teacher, ReductionConfig(removed=(4,)))
    rise = FeatureUpsampling(24, (16, 8)).eval().to("meta")
    with_class = Backbone.preset("vit_t", groups=12, group_size=8, class_token=True).to("meta")
    blank = points.to("meta")
    tokens = teacher.to("meta")(blank)
    assert tokens.features.shape == merged.to("meta")(blank).features.shape == (4, 12, 24)
    assert rise(blank, tokens.centers, tokens.features).shape == (4, 96, 8)
    assert with_class(blank).features.shape == (4, 12, 192)


def test_thresholds_do_need_them(teacher: Backbone, points: Tensor) -> None:
    """How many tokens pass a threshold decides shapes; the tests above could otherwise not fail."""
    student = Student.from_teacher(teacher, supertokens=4, gate=True).to("meta")
    with pytest.raises(RuntimeError, match="meta"):
        student(points.to("meta"), budget=Budget(ratio=0.5))
    with pytest.raises(RuntimeError, match="meta"):
        bool(points.to("meta").isfinite().all())


def test_a_cloud_without_numbers_spoils_itself_alone(
    teacher: Backbone, points: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the torch form, and so an accelerator, does with points that the CPU refuses."""
    monkeypatch.setattr(ops, "check_points", lambda points, at_least=1, attributes=0: None)
    monkeypatch.setattr(backends, "twin", lambda points, backend, triton: None)
    student = Student.from_teacher(teacher, supertokens=4)
    for row, column, value in ((0, 0, "nan"), (50, 1, "nan"), (50, 2, "inf"), (0, 2, "-inf")):
        bad = points.clone()
        bad[2, row, column] = float(value)
        for model in (teacher, student):
            found, good = model(bad).features, model(points).features
            assert bool(found[2].isnan().all()), (row, value)
            rest = [0, 1, 3]
            torch.testing.assert_close(found[rest], good[rest])


@pytest.fixture
def strict() -> Iterator[Callable[[str], None]]:
    before = torch.cuda.get_sync_debug_mode()
    yield torch.cuda.set_sync_debug_mode
    torch.cuda.set_sync_debug_mode(before)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("options", "budget"), STUDENTS, ids=str)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_cuda_is_not_waited_for(
    teacher: Backbone,
    points: Tensor,
    strict: Callable[[str], None],
    options: dict[str, Any],
    budget: Budget,
    precision: Literal["fp32", "bf16"],
) -> None:
    student = Student.from_teacher(teacher, supertokens=4, **options).cuda()
    there, models = points.cuda(), [student, foundry3d.compile(student, precision)]
    with torch.inference_mode():
        expected = [
            model(there, budget=budget).features for model in models
        ]  # compiles the kernels
        strict("error")
        found = [model(there, budget=budget).features for model in models]
        strict("default")
    for own, other in zip(found, expected, strict=True):
        torch.testing.assert_close(own, other)
