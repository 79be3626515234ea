"""Models in bfloat16 read float32 points: geometry stays float32, tokens are bfloat16."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from foundry3d.baselines.merged import Merged
from foundry3d.config import ReductionConfig
from foundry3d.heads.classifier import Classifier
from foundry3d.heads.segmenter import Segmenter
from foundry3d.models.backbone import Backbone
from foundry3d.models.budget import Budget
from foundry3d.models.gate import Gate, by_probability
from foundry3d.models.student import Student
from foundry3d.models.upsample import FeatureUpsampling

EPS = 2.0**-8  # half of the distance between bfloat16 neighbours at 1


def apart(half: Tensor, full: Tensor) -> Tensor:
    """Relative difference (B,) of the clouds' results."""
    return (half.float() - full).flatten(1).norm(dim=1) / full.flatten(1).norm(dim=1)


def spread_out(student: Student, points: Tensor) -> Student:
    """The student with clear choices of supertoken and probabilities over (0, 1)."""
    with torch.no_grad():
        student.dso.query.weight.mul_(20)
        student.dso.key.weight.mul_(20)
        if student.gate is not None:
            logits = student(points).probability.logit()
            student.gate.fc2.weight.div_(logits.std())
            student.gate.fc2.bias.sub_(logits.mean()).div_(logits.std())
    return student


def test_a_teacher_agrees(teacher: Backbone, points: Tensor) -> None:
    half = copy.deepcopy(teacher).to(torch.bfloat16)
    full, found = teacher(points), half(points)
    assert found.features.dtype == torch.bfloat16
    assert torch.equal(found.centers, full.centers)
    assert apart(found.features, full.features).max() < 8 * EPS


@pytest.mark.parametrize(
    ("options", "budget"),
    [
        ({}, Budget()),
        ({"soft_assignment": True}, Budget()),
        ({"assignment_heads": 2}, Budget()),
        ({"dim": 12, "heads": 2}, Budget()),
        ({"gate": True}, Budget()),
        ({"gate": True}, Budget(ratio=0.5)),
        ({"gate": True}, Budget(ratio=0.5, packed=True)),
        ({"gate": True}, Budget(token_budget=8)),
        ({"gate": True}, Budget(token_budget=12)),
    ],
    ids=str,
)
def test_students_agree(
    teacher: Backbone, generator: torch.Generator, options: dict[str, Any], budget: Budget
) -> None:
    """Of the clouds whose tokens choose the same supertokens, and those are most."""
    points = torch.randn(24, 96, 3, generator=generator)
    made = Student.from_teacher(teacher, supertokens=4, generator=generator, **options)
    student = spread_out(made, points)
    half = copy.deepcopy(student).to(torch.bfloat16)
    full, found = student(points, budget=budget), half(points, budget=budget)
    assert found.features.dtype == torch.bfloat16
    same = (found.assignment == full.assignment).all(dim=1)
    assert same.float().mean() > 0.75
    assert apart(found.features, full.features)[same].max() < 8 * EPS
    if budget.token_budget is not None:
        assert found.tokens_used.tolist() == [budget.token_budget] * len(points)
    if found.probability is not None and full.probability is not None:
        assert found.probability.dtype == torch.float32
        assert (found.probability - full.probability).abs().max() < 8 * EPS


def test_probabilities_rank_without_ties(generator: torch.Generator) -> None:
    """Logits of 8 significant bits would make many of 256 tokens equal."""
    gate = Gate(24)
    tokens = torch.randn(4, 256, 24, generator=generator)
    half = copy.deepcopy(gate).to(torch.bfloat16)
    found = half(tokens.to(torch.bfloat16))
    assert all(row.unique().numel() > 250 for row in found)
    assert all(row.to(torch.bfloat16).unique().numel() < 250 for row in found)
    order = by_probability(gate(tokens))
    ranked = found.gather(1, order)
    assert (ranked[:, 1:] - ranked[:, :-1]).max() < 8 * EPS


def test_reduced_models_heads_and_upsampling_take_float32_points(
    teacher: Backbone, points: Tensor, generator: torch.Generator
) -> None:
    merged = Merged.around(teacher, ReductionConfig(removed=(4,)))
    classifier = Classifier.from_model(teacher, ("a", "b"), generator=generator)
    segmenter = Segmenter.from_model(teacher, parts=("a", "b"), generator=generator)
    labels = torch.zeros(len(points), dtype=torch.int64)
    with torch.no_grad():
        for model, inputs in ((classifier, (points,)), (segmenter, (points, labels))):
            half = copy.deepcopy(model).to(torch.bfloat16)
            assert apart(half(*inputs), model(*inputs)).max() < 16 * EPS
        assert copy.deepcopy(merged).to(torch.bfloat16)(points).features.dtype == torch.bfloat16
        rise = FeatureUpsampling(24, (16, 8)).eval()
        tokens = teacher(points)
        full = rise(points, tokens.centers, tokens.features)
        found = rise.to(torch.bfloat16)(points, tokens.centers, tokens.features.to(torch.bfloat16))
        assert apart(found, full).max() < 8 * EPS


def test_training_in_half_reaches_every_weight(
    teacher: Backbone, points: Tensor, generator: torch.Generator
) -> None:
    student = Student.from_teacher(teacher, supertokens=4, gate=True, generator=generator)
    student = spread_out(student, points).to(torch.bfloat16).train()
    merged = torch.tensor([0, 5, 9, 12])
    found = student(points, budget=Budget(merged=merged), generator=generator)
    found.features.float().square().mean().backward()
    for name, weight in student.named_parameters():
        assert weight.grad is not None and bool(weight.grad.isfinite().all()), name
        assert float(weight.grad.abs().max()) > 0, name
