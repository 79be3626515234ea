"""How supertokens are used: known values of its measures, what a run logs, and the ablations."""

import csv
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from foundry3d.checkpoints.folder import load, save
from foundry3d.config import (
    AugmentConfig,
    DataConfig,
    DistillConfig,
    StudentConfig,
    StudentOptions,
    TrainConfig,
    from_dict,
    to_dict,
)
from foundry3d.errors import InputError
from foundry3d.models.backbone import Backbone
from foundry3d.models.health import choices, noiseless, tokens_read, usage, used_per_cloud
from foundry3d.models.student import Student
from foundry3d.models.supertokens import annealed
from foundry3d.training.distill import DistillTask, distill

DATA = DataConfig(train="procedural", test=None, train_clouds=32, points=64, validation=0.0)
TRAIN = TrainConfig(epochs=3, batch_size=8, warmup_epochs=1, accelerator="cpu")


def test_usage_of_known_counts() -> None:
    assert usage(torch.tensor([5, 5, 5, 5])) == (1.0, pytest.approx(1.0), 0)
    assert usage(torch.tensor([0, 9, 0, 0])) == (0.25, 0.0, 3)
    assert usage(torch.tensor([7])) == (1.0, 0.0, 0)
    assert usage(torch.zeros(4, dtype=torch.long)) == (0.0, 0.0, 4)
    halves = usage(torch.tensor([3, 3, 0, 0]))
    assert halves == (0.5, pytest.approx(math.log(2) / math.log(4)), 2)


def test_counts_leave_out_tokens_that_are_not_merged() -> None:
    assignment = torch.tensor([[0, 2, 2, -1], [-1, -1, -1, -1], [3, 3, 3, 3]])
    assert choices(assignment, 5).tolist() == [1, 0, 2, 4, 0]
    assert used_per_cloud(assignment, 5).tolist() == [2, 0, 1]


def test_usage_does_not_depend_on_the_order_of_supertokens(generator: torch.Generator) -> None:
    counts = torch.randint(0, 50, (16,), generator=generator)
    order = torch.randperm(16, generator=generator)
    assert usage(counts[order]) == pytest.approx(usage(counts))


def test_a_run_logs_the_usage_of_each_epoch(teacher: Backbone, tmp_path: Path) -> None:
    saved = save(teacher, tmp_path / "teacher", provenance={})
    config = DistillConfig(
        teacher=str(saved), out=str(tmp_path / "run"), student=StudentOptions(supertokens=4),
        frozen="none", data=DATA, train=TRAIN,
    )  # fmt: skip
    distill(config)
    (path,) = (tmp_path / "run" / "metrics").glob("*/metrics.csv")
    rows = [r for r in csv.DictReader(path.read_text().splitlines()) if r["assignment_entropy"]]
    assert [int(row["epoch"]) for row in rows] == [0, 1, 2]
    for row in rows:
        assert 0 <= float(row["assignment_entropy"]) <= 1
        assert float(row["dead_supertokens"]) == 4 * (1 - float(row["epoch_supertokens_used"]))


def test_the_usage_of_an_epoch_counts_all_of_its_tokens(
    teacher: Backbone, points: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = Student.from_teacher(teacher, supertokens=3)
    task = DistillTask(DistillConfig(data=DATA, train=TRAIN), teacher, student).train()
    monkeypatch.setattr(task, "log", lambda *a, **k: None)
    monkeypatch.setattr(DistillTask, "step_generator", lambda self: torch.Generator())
    task.training_step(points, 0)
    task.training_step(points[:2], 1)
    assert task.chosen is not None
    assert int(task.chosen.sum()) == 6 * 12
    assert len(task.chosen) == 3
    assert not student.dso.norm._forward_hooks


def test_choices_are_counted_without_noise(teacher: Backbone, points: torch.Tensor) -> None:
    student = Student.from_teacher(teacher, supertokens=6, generator=torch.Generator())
    with tokens_read(student.dso) as read:
        expected = student(points).assignment
    assert len(read) == 1
    assert torch.equal(noiseless(student.dso, read[0]), expected)
    student.train()
    groups, noisy = student.group(points), []
    with tokens_read(student.dso) as read:
        for seed in range(5):
            drawn = torch.Generator().manual_seed(seed)
            noisy.append(student.encode(groups, generator=drawn).assignment)
    assert not all(torch.equal(noisy[0], other) for other in noisy)
    one, *others = (noiseless(student.dso, normed) for normed in read)
    assert student.dso.norm.weight.grad is None
    for other in others:  # BatchNorm reads the same batch, so the tokens are the same
        assert torch.equal(one, other)


def test_the_temperature_falls_geometrically() -> None:
    assert annealed(2.0, None, 0.7) == 2.0
    assert annealed(2.0, 0.5, 0.0) == 2.0
    assert annealed(2.0, 0.5, 0.5) == pytest.approx(1.0)
    assert annealed(2.0, 0.5, 1.0) == pytest.approx(0.5)


def test_a_run_anneals_the_temperature_and_keeps_the_last(
    teacher: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved, seen = save(teacher, tmp_path / "teacher", provenance={}), []
    step = DistillTask.training_step

    def watched(self: DistillTask, batch, index: int) -> torch.Tensor:
        seen.append(self.student.dso.temperature)
        return step(self, batch, index)

    monkeypatch.setattr(DistillTask, "training_step", watched)
    options = StudentOptions(supertokens=4, temperature=2.0, temperature_end=0.5)
    config = DistillConfig(
        teacher=str(saved), out=str(tmp_path / "run"), student=options, frozen="none",
        data=DATA, train=TRAIN,
    )  # fmt: skip
    student = distill(config)
    assert seen == pytest.approx([2.0 * 0.25 ** (i / 12) for i in range(12)])
    assert student.dso.temperature == pytest.approx(0.5)
    assert load(tmp_path / "run").dso.temperature == pytest.approx(0.5)


def test_a_resumed_run_goes_on_at_its_temperature(
    teacher: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = save(teacher, tmp_path / "teacher", provenance={})
    options = StudentOptions(supertokens=4, temperature=2.0, temperature_end=0.5)
    config = DistillConfig(
        teacher=str(saved), student=options, frozen="none", data=DATA, train=TRAIN,
        augment=AugmentConfig(), out=str(tmp_path / "whole"),
    )  # fmt: skip
    whole = distill(config)

    def stop(self: DistillTask) -> None:
        if self.current_epoch == 2:
            raise InputError("stopped here")

    with monkeypatch.context() as patched:
        patched.setattr(DistillTask, "on_train_epoch_end", stop)
        with pytest.raises(InputError, match="stopped here"):
            distill(replace(config, out=str(tmp_path / "parts")))
    again = distill(replace(config, out=str(tmp_path / "parts"), resume=True))
    own = again.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in whole.state_dict().items())


def test_the_initial_scale_of_supertokens(teacher: Backbone) -> None:
    def drawn(**options: float) -> torch.Tensor:
        made = torch.Generator().manual_seed(3)
        options = StudentOptions(supertokens=12, **options)
        return Student.from_teacher(teacher, options, generator=made).dso.supertokens.detach()

    assert 0.75 < float(drawn().std()) < 1.0
    assert 0.015 < float(drawn(supertoken_std=0.02).std()) < 0.025
    assert drawn().abs().max() <= 2
    for wrong in ({"supertoken_std": 0.0}, {"temperature_end": -1.0}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            StudentOptions(**wrong)


def test_students_saved_before_these_options_load_unchanged(
    teacher: Backbone, points: torch.Tensor
) -> None:
    student = Student.from_teacher(teacher, supertokens=4)
    values = to_dict(student.config)
    for name in ("temperature_end", "supertoken_std"):
        values.pop(name)
    sizes = from_dict(StudentConfig, values)
    assert sizes == student.config
    again = Student(sizes, generator=torch.Generator()).eval()
    again.load_state_dict(student.state_dict())
    assert again.dso.temperature == 1.0
    assert torch.equal(again(points).features, student(points).features)
