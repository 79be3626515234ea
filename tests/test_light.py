"""The light tokenizer: its form, its groups, its two phases of distillation."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import TINY
from test_training import DATA, TRAIN, metrics, same
from torch import Tensor

from foundry3d.baselines import FPSStudent
from foundry3d.checkpoints.folder import load, save
from foundry3d.config import (
    BackboneConfig,
    DistillConfig,
    JepaConfig,
    MaskedConfig,
    StudentConfig,
    StudentOptions,
    TokenLossConfig,
)
from foundry3d.errors import InputError
from foundry3d.geometry import group_at, nearest_of
from foundry3d.inference.cost import count
from foundry3d.models.backbone import Backbone
from foundry3d.models.student import Student
from foundry3d.models.tokenizer import SingleStage
from foundry3d.training.distill import DistillTask, distill, student_of
from foundry3d.training.jepa import Jepa
from foundry3d.training.mae import MaskedReconstruction

LIGHT = StudentOptions(supertokens=4, point_widths=(4, 8, 16), group_size=4)
FIRST = TokenLossConfig(epochs=2)


@pytest.fixture
def saved(teacher: Backbone, tmp_path: Path) -> Path:
    return save(teacher, tmp_path / "teacher", provenance={})


@pytest.fixture
def single(generator: torch.Generator) -> SingleStage:
    """A single-stage tokenizer whose BatchNorm statistics are not the initial ones."""
    made = SingleStage(24, (8, 16), bias=True)
    made.train()(torch.randn(3, 5, 7, 3, generator=generator))
    return made.eval()


def test_single_stage_is_its_formula(single: SingleStage, generator: torch.Generator) -> None:
    x = torch.randn(2, 3, 7, 3, generator=generator, requires_grad=True)
    norm, rows = single.lift_norm, []
    for group in x.flatten(0, 1):
        hidden = group @ single.lift.weight.T + single.lift.bias
        hidden = (hidden - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
        hidden = (hidden * norm.weight + norm.bias).clamp_min(0)
        widened = hidden @ single.widen.weight.T + single.widen.bias
        rows.append(single.project.weight @ widened.max(dim=0).values + single.project.bias)
    expected = torch.stack(rows).view(2, 3, 24)
    found = single(x)
    torch.testing.assert_close(found, expected)
    grads = [torch.autograd.grad(y.square().sum(), x)[0] for y in (found, expected)]
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("widths", [(8, 16, 32), (8, 16)])
def test_points_of_a_group_have_no_order(
    widths: tuple[int, ...], points: Tensor, generator: torch.Generator
) -> None:
    model = Backbone(replace(TINY, point_widths=widths), generator=generator).eval()
    groups = model.group(points).neighborhoods
    order = torch.randperm(groups.shape[2], generator=generator)
    torch.testing.assert_close(model.tokenizer(groups), model.tokenizer(groups[:, :, order]))


def test_sliced_groups_are_the_neighbours_of_a_smaller_k(generator: torch.Generator) -> None:
    random = torch.randn(2, 96, 3, generator=generator)
    line = torch.linspace(0, 1, 96)[None, :, None] * torch.ones(2, 96, 3)
    clustered = random * 0.01 + torch.randint(3, (2, 96, 1), generator=generator)
    doubled = random[:, :48].repeat(1, 2, 1)
    for points in (random, line, clustered, doubled, random + 1000):
        centers = points[:, ::9]
        whole = group_at(points, centers, 16, radius=0.3)
        for size in (1, 5, 16):
            own = group_at(points, centers, size, radius=0.3)
            for found, expected in zip(nearest_of(whole, size), own, strict=True):
                assert torch.equal(found, expected)
    with pytest.raises(InputError, match="cannot take 17"):
        nearest_of(whole, 17)


@pytest.mark.parametrize("options", [{}, {"dim": 12, "heads": 2}, {"gate": True}])
@pytest.mark.parametrize("widths", [(4, 8, 16), (6, 10), None])
def test_only_a_tokenizer_of_other_widths_is_new(
    teacher: Backbone, points: Tensor, widths: tuple[int, ...] | None, options: dict
) -> None:
    plain = Student.from_teacher(teacher, supertokens=4, **options)
    light = Student.from_teacher(
        teacher, supertokens=4, point_widths=widths, group_size=4, **options
    )
    assert light.shape.point_widths == (widths or TINY.point_widths)
    assert light.group(points).neighborhoods.shape == (4, 12, 4, 3)
    assert light(points).features.shape == plain(points).features.shape
    assert same(light.position, teacher.position)
    if widths is None:
        assert same(light.tokenizer, teacher.tokenizer)
    if not options.get("dim"):
        assert same(light.encoder, teacher.encoder)


def test_a_point_bert_teacher_can_have_a_single_stage_student(points: Tensor) -> None:
    teacher = Backbone(replace(TINY, tokenizer_dim=20)).eval()
    student = Student.from_teacher(teacher, supertokens=4, point_widths=(6, 10))
    assert student(points).features.shape == teacher(points).features.shape


def test_a_single_stage_can_be_pretrained(points: Tensor, generator: torch.Generator) -> None:
    model = Backbone(replace(TINY, point_widths=(8, 16)), generator=generator).train()
    groups = model.group(points, generator=generator)
    jepa = JepaConfig(predictor_dim=12, predictor_depth=1, predictor_heads=3)
    losses = [
        MaskedReconstruction(model, MaskedConfig(decoder_depth=1, decoder_heads=3))(groups),
        Jepa(model, jepa)(groups)[0],
    ]
    for loss in losses:
        model.zero_grad()
        loss.backward()
        weights = list(model.tokenizer.parameters())
        assert all(w.grad is not None and bool(w.grad.isfinite().all()) for w in weights)


def test_round_trip_and_cost_by_hand(teacher: Backbone, points: Tensor, tmp_path: Path) -> None:
    student = Student.from_teacher(teacher, supertokens=4, point_widths=(6, 10), group_size=5)
    again = load(save(student, tmp_path / "s", provenance={}))
    assert isinstance(again, Student)
    assert again.config == student.config
    assert torch.equal(again(points).features, student(points).features)
    whole = Student.from_teacher(teacher, supertokens=4)
    tokens, k, d = 12, 8, 24
    theirs = tokens * k * (3 * 8 + 8 * 16 + 32 * 32 + 32 * d)
    ours = tokens * 5 * (3 * 6 + 6 * 10) + tokens * 10 * d
    assert count(whole).macs - count(student).macs == theirs - ours
    three = Student.from_teacher(teacher, supertokens=4, point_widths=(4, 8, 16), group_size=4)
    ours = tokens * 4 * (3 * 4 + 4 * 8 + 16 * 16 + 16 * d)
    assert count(whole).macs - count(three).macs == theirs - ours


@pytest.mark.parametrize("options", [{}, {"dim": 12, "heads": 2}, {"gate": True}])
def test_the_first_phase_touches_the_tokenizer_alone(
    teacher: Backbone, saved: Path, tmp_path: Path, options: dict
) -> None:
    """A schedule that stands still after it shows the student as it left the first phase."""
    train = replace(TRAIN, epochs=12, lr=1e-2, warmup_epochs=0)
    config = DistillConfig(
        teacher=str(saved), out=str(tmp_path / "run"), student=replace(LIGHT, **options),
        data=DATA, train=train, token_loss=TokenLossConfig(epochs=11), frozen="none",
    )  # fmt: skip
    start = student_of(load(saved), config).state_dict()
    seen: list[dict[str, Tensor]] = []

    class Watched(DistillTask):
        def on_train_epoch_end(self) -> None:
            if self.current_epoch + 1 in (11, 12):
                seen.append({k: v.clone() for k, v in self.student.state_dict().items()})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("foundry3d.training.distill.DistillTask", Watched)
        distill(config)
    first, second = seen
    for name, value in start.items():
        assert torch.equal(value, first[name]) != name.startswith("tokenizer."), name
    moved = {n.split(".")[0] for n, v in first.items() if not torch.equal(v, second[n])}
    assert {"tokenizer", "position", "encoder", "dso", "cau"} <= moved
    rows = metrics(tmp_path / "run")
    apart = [float(r["token_loss"]) for r in rows if r["token_loss"]]
    assert len(apart) == 36
    assert apart[32] < 0.8 * apart[0]
    assert sum(bool(r["loss"]) for r in rows) == 3


@pytest.mark.parametrize("weight", [0.0, 2.0])
def test_the_joint_loss_is_the_sum(
    teacher: Backbone, points: Tensor, monkeypatch: pytest.MonkeyPatch, weight: float
) -> None:
    config = DistillConfig(
        student=LIGHT, data=replace(DATA, points=96), token_loss=TokenLossConfig(weight=weight)
    )
    student = Student.from_teacher(teacher, supertokens=4, point_widths=(4, 8, 16), group_size=4)
    task, logged = DistillTask(config, teacher, student).train(), {}
    monkeypatch.setattr(task, "log", lambda name, value, **_: logged.update({name: value}))
    monkeypatch.setattr(task, "step_generator", lambda: torch.Generator().manual_seed(0))
    total = task.training_step(points, 0)
    assert ("token_loss" in logged) == (weight > 0)
    expected = logged["loss"] + (weight * logged["token_loss"] if weight else 0.0)
    torch.testing.assert_close(total, expected)


def test_resuming_in_either_phase_changes_nothing(saved: Path, tmp_path: Path) -> None:
    config = DistillConfig(
        teacher=str(saved), student=LIGHT, data=DATA, train=replace(TRAIN, epochs=5),
        token_loss=TokenLossConfig(epochs=3), unfreeze_epoch=4,
    )  # fmt: skip
    whole = distill(replace(config, out=str(tmp_path / "whole")))

    class Stopped(Exception):
        pass

    part = replace(config, out=str(tmp_path / "part"), resume=True)
    original = DistillTask.on_train_epoch_start
    for epoch in (2, 4):

        def stop(self: DistillTask, epoch: int = epoch) -> None:
            if self.current_epoch == epoch:
                raise Stopped
            original(self)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(DistillTask, "on_train_epoch_start", stop)
            with pytest.raises(Stopped):
                distill(part)
    assert same(distill(part), whole)


def test_what_cannot_be_light_is_one_sentence(teacher: Backbone, saved: Path) -> None:
    for wrong, says in [
        ({"point_widths": (8,)}, "two or three widths in 1"),
        ({"point_widths": (8, 0)}, "two or three widths in 1"),
        ({"group_size": 0}, "group_size must be positive"),
    ]:
        with pytest.raises(InputError, match=says):
            StudentOptions(**wrong)
    with pytest.raises(InputError, match="epochs must be >= 0"):
        TokenLossConfig(epochs=-1)
    with pytest.raises(InputError, match="weight must be >= 0"):
        TokenLossConfig(weight=-1.0)
    with pytest.raises(InputError, match="three point_widths"):
        BackboneConfig(point_widths=(8, 16), tokenizer_dim=12)
    with pytest.raises(InputError, match="takes only supertokens, not point_widths, group_size"):
        replace(LIGHT, kind="tome")
    with pytest.raises(InputError, match="token_loss needs a student of kind supertokens"):
        DistillConfig(student=StudentOptions(kind="tome"), token_loss=FIRST)
    with pytest.raises(InputError, match="expected a student of kind supertokens, got kind tome"):
        Student.from_teacher(teacher, kind="tome")
    with pytest.raises(InputError, match=r"fewer than the 2 train\.epochs"):
        DistillConfig(token_loss=FIRST, train=TRAIN)
    with pytest.raises(InputError, match="at most the teacher's 8 points, got group_size 9"):
        Student.from_teacher(teacher, supertokens=4, group_size=9)
    own = FPSStudent.from_teacher(teacher, supertokens=4, points=96)
    with pytest.raises(InputError, match="a Backbone and a FPSStudent"):
        DistillTask(DistillConfig(token_loss=FIRST), teacher, own)
    wide = Student(StudentConfig(backbone=replace(TINY, dim=30), output_dim=24, supertokens=4))
    with pytest.raises(InputError, match="as wide as the teacher's 24, got 30"):
        DistillTask(DistillConfig(token_loss=FIRST), teacher, wide)
