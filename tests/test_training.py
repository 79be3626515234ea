import csv
import os
import signal
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import TINY
from processes import ended, freeze_batchnorm, frozen_batchnorm, start, two_ranks

from foundry3d.checkpoints.folder import load, save
from foundry3d.config import (
    AugmentConfig,
    DataConfig,
    DistillConfig,
    JepaConfig,
    MaskedConfig,
    PretrainConfig,
    StudentOptions,
    TokenLossConfig,
    TrainConfig,
    to_dict,
)
from foundry3d.data.clouds import Clouds
from foundry3d.errors import InputError
from foundry3d.models.backbone import Backbone
from foundry3d.models.student import Student
from foundry3d.training.distill import DistillTask, distill
from foundry3d.training.engine import fit, warn_of_slow_bf16
from foundry3d.training.pretrain import PretrainTask, pretrain
from foundry3d.training.pretrain import start as untrained
from foundry3d.training.task import rate

DATA = DataConfig(train="procedural", train_clouds=48, points=64, validation=0.0)
TRAIN = TrainConfig(epochs=2, batch_size=16, warmup_epochs=1, accelerator="cpu")
MASKED = PretrainConfig(
    backbone=replace(TINY, drop_path=0.2, dropout=0.1, attention_dropout=0.1),
    masked=MaskedConfig(decoder_depth=1, decoder_heads=3),
    jepa=JepaConfig(predictor_dim=12, predictor_depth=1, predictor_heads=3),
    data=DATA,
    train=TRAIN,
)


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    x, y = a.state_dict(), b.state_dict()
    return all(torch.equal(x[k], y[k]) for k in x)


def metrics(out: Path) -> list[dict]:
    text = (out / "metrics" / "version_0" / "metrics.csv").read_text()
    return list(csv.DictReader(text.splitlines()))


@pytest.mark.parametrize("objective", ["masked", "jepa"])
def test_a_run_leaves_everything(tmp_path: Path, objective: str) -> None:
    out = tmp_path / "run"
    model = pretrain(replace(MASKED, out=str(out), objective=objective))
    assert {p.name for p in out.iterdir()} == {
        "config.yaml",
        "command.txt",
        "metrics",
        "tensorboard",
        "checkpoints",
        "model",
    }
    assert same(load(out / "model"), model)
    names = set(metrics(out)[0])
    assert "loss" in names
    monitors = {"prediction_std", "target_std", "ema_decay"}
    assert names & monitors == (monitors if objective == "jepa" else set())
    with pytest.raises(InputError, match="already holds a run"):
        pretrain(replace(MASKED, out=str(out), objective=objective))
    with pytest.raises(InputError, match="other settings of train"):
        other = replace(TRAIN, epochs=3)
        pretrain(replace(MASKED, out=str(out), objective=objective, train=other, resume=True))


def test_same_seed_same_weights_other_seed_others(tmp_path: Path) -> None:
    short = replace(TRAIN, epochs=1)
    runs = [
        pretrain(replace(MASKED, out=str(tmp_path / f"{i}"), train=replace(short, seed=seed)))
        for i, seed in enumerate((5, 5, 6))
    ]
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


def die() -> None:
    """Has this process killed in the middle of its second epoch of six steps."""
    step = PretrainTask.training_step

    def training_step(self: PretrainTask, batch: object, index: int) -> torch.Tensor:
        if self.global_step == 9:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, batch, index)

    PretrainTask.training_step = training_step  # type: ignore[method-assign]


def test_killed_and_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    """kill -9 in the middle of an epoch; the resumed run ends with the same weights."""
    whole = replace(
        MASKED,
        out=str(tmp_path / "whole"),
        train=replace(TRAIN, epochs=3),
        data=replace(DATA, train_clouds=96),
    )
    expected = pretrain(whole)
    broken = tmp_path / "broken"
    config = (tmp_path / "whole" / "config.yaml").read_text()
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(config.replace(str(tmp_path / "whole"), str(broken)))
    process = start(["pretrain", "--config", str(recipe)], tmp_path / "said", first=die)
    assert ended(process) == -signal.SIGKILL, (tmp_path / "said").read_text()
    last = torch.load(broken / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 6
    assert not (broken / "model").exists()
    resumed = pretrain(replace(whole, out=str(broken), resume=True))
    assert same(resumed, expected)
    assert len(list((broken / "metrics").iterdir())) == 2  # the first part's metrics are kept


def test_schedule_warms_up_then_falls() -> None:
    config = TrainConfig(epochs=150, warmup_epochs=15, lr=1e-3, start_lr=1e-6, final_lr=1e-6)
    rates = [rate(e, config) for e in np.linspace(0, 150, 301)]
    assert rates[0] == pytest.approx(1e-6)
    assert max(rates) == pytest.approx(1e-3)
    assert int(np.argmax(rates)) == 30
    assert rates[-1] == pytest.approx(1e-6)
    assert rate(82.5, config) == pytest.approx((1e-3 + 1e-6) / 2)
    assert all(np.diff(rates[:31]) > 0) and all(np.diff(rates[30:]) < 0)


@pytest.fixture
def saved(teacher: Backbone, tmp_path: Path) -> Path:
    return save(teacher, tmp_path / "teacher", provenance={})


def test_distilling_lowers_the_loss_and_freezes(saved: Path, tmp_path: Path) -> None:
    base = DistillConfig(
        teacher=str(saved),
        student=StudentOptions(supertokens=4),
        data=DATA,
        train=replace(TRAIN, epochs=12, lr=3e-3),
        unfreeze_epoch=None,
    )
    teacher = load(saved)
    frozen = distill(replace(base, out=str(tmp_path / "frozen")))
    assert same(frozen.encoder, teacher.encoder)
    assert not same(frozen.tokenizer, teacher.tokenizer)
    assert same(load(saved), teacher)
    losses = [float(r["loss"]) for r in metrics(tmp_path / "frozen") if r["loss"]]
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])
    used = [float(r["supertokens_used"]) for r in metrics(tmp_path / "frozen") if r["loss"]]
    assert 0 < min(used) <= max(used) <= 1
    late = replace(base, unfreeze_epoch=1, train=replace(TRAIN, epochs=1))
    assert same(distill(replace(late, out=str(tmp_path / "late"))).encoder, teacher.encoder)
    free = replace(base, frozen="none", unfreeze_epoch="auto", train=replace(TRAIN, epochs=1))
    thawed = distill(replace(free, out=str(tmp_path / "free"), loss="mse"))
    assert not same(thawed.encoder, teacher.encoder)


def test_narrow_students_train_their_encoder_at_once(saved: Path, tmp_path: Path) -> None:
    config = DistillConfig(
        teacher=str(saved), out=str(tmp_path / "t"),
        student=StudentOptions(supertokens=4, dim=12, heads=2), frozen="none",
        data=DATA, train=replace(TRAIN, epochs=1),
    )  # fmt: skip
    student = distill(config)
    assert student.output_dim == 24
    assert student.config.backbone.dim == 12
    assert all(p.requires_grad for p in student.parameters())


def test_teacher_and_student_read_the_same_groups(
    teacher: Backbone, points: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = Student.from_teacher(teacher, supertokens=12, cau_norm=False)
    config = DistillConfig(train=TRAIN, data=replace(DATA, points=96))
    task = DistillTask(config, teacher, student)
    seen = []
    for model in (teacher, student):
        model.tokenizer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    monkeypatch.setattr(task, "log", lambda *a, **k: None)
    monkeypatch.setattr(DistillTask, "step_generator", lambda self: torch.Generator())
    task.train()
    loss = task.training_step(points, 0)
    assert seen[0] is seen[1]
    assert loss.requires_grad
    assert not teacher.training


def test_jepa_can_start_from_reconstruction(tmp_path: Path) -> None:
    one = replace(TRAIN, epochs=1)
    first = pretrain(replace(MASKED, out=str(tmp_path / "a"), train=one))
    cold = replace(one, lr=1e-12, start_lr=1e-12, final_lr=1e-12)
    second = replace(
        MASKED, out=str(tmp_path / "b"), train=cold, objective="jepa",
        init=str(tmp_path / "a" / "model"),
    )  # fmt: skip
    torch.testing.assert_close(
        pretrain(second).encoder.norm.weight, first.encoder.norm.weight, atol=1e-6, rtol=0
    )
    wider = replace(second, out=str(tmp_path / "c"), backbone=replace(TINY, depth=4))
    with pytest.raises(InputError, match="other sizes"):
        pretrain(wider)


def test_a_student_is_no_teacher(saved: Path, teacher: Backbone, tmp_path: Path) -> None:
    save(Student.from_teacher(teacher, supertokens=2), tmp_path / "s", provenance={})
    with pytest.raises(InputError, match="a teacher is a backbone"):
        distill(DistillConfig(teacher=str(tmp_path / "s"), out=str(tmp_path / "x"), data=DATA))
    assert not (tmp_path / "x").exists()


def test_two_devices_share_an_epoch(tmp_path: Path) -> None:
    """The command starts its second process by itself; three steps of 16 clouds become one."""
    config = replace(MASKED, out=str(tmp_path / "two"), train=replace(TRAIN, epochs=1, devices=2))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(to_dict(config)))
    process = start(["pretrain", "--config", str(recipe)], tmp_path / "said")
    assert ended(process) == 0, (tmp_path / "said").read_text()
    assert sum(bool(row["loss"]) for row in metrics(tmp_path / "two")) == 1
    assert not same(load(tmp_path / "two" / "model"), untrained(config))


def test_two_processes_end_with_the_weights_of_one(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same batches, nothing drawn and BatchNorm frozen, in every phase of distillation.

    What waits for the tokenizer must not keep distributed training waiting.
    """
    light = StudentOptions(
        supertokens=4, point_widths=(4, 8, 16), group_size=4, soft_assignment=True
    )
    one = DistillConfig(
        teacher=str(saved), out=str(tmp_path / "one"), student=light, unfreeze_epoch=2,
        token_loss=TokenLossConfig(epochs=1), starts="first",
        data=replace(DATA, subsample="first"),
        augment=AugmentConfig(scale=(1.0, 1.0), rotate=False),
        train=replace(TRAIN, epochs=3, precision="64-true"),  # AdamW takes the sign of rounding
    )  # fmt: skip
    two = replace(one, out=str(tmp_path / "two"), train=replace(one.train, batch_size=8, devices=2))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(to_dict(two)))
    ranks = two_ranks(
        ["distill", "--config", str(recipe)], tmp_path / "said", first=freeze_batchnorm
    )
    monkeypatch.setattr(torch.nn.BatchNorm1d, "forward", frozen_batchnorm)
    expected = distill(one).state_dict()
    for number, rank in enumerate(ranks):
        assert ended(rank) == 0, (tmp_path / f"said.{number}").read_text()
    found, teacher = load(tmp_path / "two" / "model").state_dict(), load(saved).state_dict()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name].to(value), value, atol=1e-5, rtol=0, msg=f"{name}: {{}}".format
        )
    moved = [name for name in found if name.startswith("encoder.") and "weight" in name]
    assert all(not torch.equal(found[name], teacher[name]) for name in moved)


def test_clouds_survive_training(tmp_path: Path) -> None:
    g = np.random.default_rng(0)
    clouds = Clouds(points=g.normal(size=(32, 64, 3)).astype(np.float32), labels=np.full(32, -1))
    before = clouds.points.copy()
    config = replace(
        MASKED,
        out=str(tmp_path / "r"),
        train=replace(TRAIN, epochs=1),
        augment=AugmentConfig(flip=True, translate=0.1),
    )
    fit(PretrainTask(config, Backbone(MASKED.backbone)), clouds, config)
    assert np.array_equal(before, clouds.points)


@pytest.mark.parametrize(("ratio", "lines"), [(15.0, 1), (0.1, 0)])
def test_slow_bf16_is_reported(ratio: float, lines: int, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING", logger="foundry3d"):
        warn_of_slow_bf16(ratio)
    assert ["15 times slower" in r.getMessage() for r in caplog.records] == [True] * lines


@pytest.mark.parametrize(
    "change",
    [
        {"accelerator": "nonsense"},
        {"devices": 0},
        pytest.param(
            {"logger": "wandb"},
            marks=pytest.mark.skipif(bool(find_spec("wandb")), reason="is here"),
        ),
    ],
)
def test_what_the_machine_lacks_is_one_sentence(tmp_path: Path, change: dict) -> None:
    with pytest.raises(InputError, match=r"cannot be set up|devices is a positive number"):
        pretrain(replace(MASKED, out=str(tmp_path / "r"), train=replace(TRAIN, **change)))
    assert not (tmp_path / "r" / "config.yaml").exists()
