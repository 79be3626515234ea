import copy
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY
from torch import Tensor
from torch.nn import functional as F

from foundry3d.checkpoints.folder import load, read_config, save
from foundry3d.config import (
    DataConfig,
    DistillConfig,
    JepaConfig,
    PretrainConfig,
    StudentConfig,
    StudentOptions,
    TrainConfig,
)
from foundry3d.data.clouds import Clouds
from foundry3d.errors import InputError
from foundry3d.evaluation.probe import extract
from foundry3d.models.backbone import Backbone
from foundry3d.models.budget import Budget
from foundry3d.models.student import Student
from foundry3d.models.supertokens import CAU, DSO, SupertokenEncoder
from foundry3d.training.distill import DistillTask, distill, student_of
from foundry3d.training.goals import held_out_losses
from foundry3d.training.jepa import Jepa
from foundry3d.training.pretrain import pretrain
from foundry3d.transforms import normalise

OPTIONS = {
    "soft_assignment": True,
    "dso_bias": True,
    "cau_norm": True,
    "supertoken_positions": True,
    "assignment_heads": 3,
    "temperature": 0.5,
    "cau_positions": False,
    "supertokens_after": 1,
}
DRAWN = {"temperature_end": 0.5, "supertoken_std": 0.02}
"""Options of which a finished student's function knows nothing, see `test_health.py`."""
DATA = DataConfig(train="procedural", train_clouds=32, points=64, validation=0.0)
TRAIN = TrainConfig(epochs=1, batch_size=16, warmup_epochs=1, accelerator="cpu")


def made(teacher: Backbone, **options: object) -> Student:
    """A student of the tiny teacher, the same draws for all options, choices spread out."""
    generator = torch.Generator().manual_seed(3)
    student = Student.from_teacher(teacher, supertokens=5, generator=generator, **options)
    with torch.no_grad():
        student.dso.query.weight.mul_(4)
        student.dso.key.weight.mul_(4)
    return student


def test_every_option_of_a_distillation_reaches_the_student(teacher: Backbone) -> None:
    """Only sizes that follow from the teacher are no options."""
    wanted = OPTIONS | DRAWN | {"supertokens": 7, "gate_through": False, "gate_ratio": 0.25}
    found = student_of(teacher, DistillConfig(student=StudentOptions(**wanted))).config
    assert {name: getattr(found, name) for name in wanted} == wanted
    gated = DistillConfig(student=StudentOptions(gate=True, supertokens=7))
    assert student_of(teacher, gated).config.gate
    own = {"backbone", "output_dim"}
    assert {f.name for f in fields(StudentConfig)} - own == wanted.keys() | {"gate"}


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_changes_what_it_says(teacher: Backbone, points: Tensor, option: str) -> None:
    """The same weights, another function; the temperature changes the gradient alone."""
    plain = made(teacher)
    other = made(teacher, **{option: OPTIONS[option]})
    with torch.no_grad():
        for name, weight in other.named_parameters():
            if name in plain.state_dict():
                weight.copy_(plain.state_dict()[name])
            else:
                weight.add_(0.3 * torch.ones_like(weight).cumsum(-1).sin())
    assert torch.allclose(plain(points).features, other(points).features) == (
        option == "temperature"
    )
    gradients = []
    for student in (plain, other):
        draws = torch.Generator().manual_seed(0)
        student.train()(points, generator=draws).features.square().mean().backward()
        gradients.append(student.dso.query.weight.grad)
    assert not torch.allclose(*gradients, rtol=1e-3)


@pytest.mark.parametrize(
    ("option", "parameters"),
    [
        ("dso_bias", ["dso.key.bias", "dso.value.bias"]),
        ("cau_norm", ["cau.norm.weight", "cau.norm.bias"]),
        ("supertoken_positions", ["dso.positions"]),
    ],
)
def test_new_parameters_learn(
    teacher: Backbone, points: Tensor, generator: torch.Generator, option: str, parameters: list
) -> None:
    plain, student = made(teacher), made(teacher, **{option: True}).train()
    student(points, generator=generator).features.square().mean().backward()
    for name in parameters:
        assert name not in dict(plain.named_parameters())
        gradient = student.get_parameter(name).grad
        assert gradient is not None
        assert float(gradient.abs().max()) > 0


def test_soft_maps_are_softmax_and_learn_without_noise(teacher: Backbone, points: Tensor) -> None:
    student = made(teacher, soft_assignment=True)
    tokens, positions = student.embed_groups(student.group(points))
    packed = student.dso(tokens, positions)
    expected = student.dso.logits(student.dso.norm(tokens)).softmax(dim=-1)
    assert torch.equal(packed.cam, expected)
    assert bool(packed.used.all())
    values = student.dso.value(student.dso.norm(tokens))
    mean = (expected[0, :, 2:3] * values[0]).sum(0) / expected[0, :, 2].sum()
    torch.testing.assert_close(packed.supertokens[0, 2], student.dso.out(mean))
    noisy = student.train().dso(tokens, positions, torch.Generator().manual_seed(0))
    assert torch.equal(noisy.cam, packed.cam)


def test_normed_outputs_are_normed(teacher: Backbone, points: Tensor) -> None:
    features = made(teacher, cau_norm=True)(points).features
    torch.testing.assert_close(features.mean(-1), torch.zeros(4, 12), atol=1e-5, rtol=0)
    torch.testing.assert_close(features.var(-1, correction=0), torch.ones(4, 12), atol=1e-3, rtol=0)


def test_learned_positions_are_added_to_the_means(teacher: Backbone, points: Tensor) -> None:
    plain, student = made(teacher), made(teacher, supertoken_positions=True)
    tokens, positions = student.embed_groups(student.group(points))
    before = plain.dso(tokens, positions).positions
    after = student.dso(tokens, positions).positions
    torch.testing.assert_close(after, before + student.dso.positions)


@pytest.mark.parametrize("loss", ["smooth_l1", "mse"])
def test_loss_is_the_one_asked_for(
    teacher: Backbone, points: Tensor, monkeypatch: pytest.MonkeyPatch, loss: str
) -> None:
    config = DistillConfig(loss=loss, train=TRAIN, data=replace(DATA, points=96))
    task = DistillTask(config, teacher, made(teacher))
    monkeypatch.setattr(task, "log", lambda *a, **k: None)
    monkeypatch.setattr(task, "prepared", lambda points, generator: 3 * points)
    found = task.training_step(points, 0)
    groups = task.student.group(3 * points)
    gap = task.student.encode(groups).features - teacher.encode(groups).features
    small = gap.abs() < 1
    assert 0 < int(small.sum()) < small.numel()  # both branches of the smooth loss are seen
    expected = gap.square()
    if loss == "smooth_l1":
        expected = torch.where(small, 0.5 * gap.square(), gap.abs() - 0.5)
    torch.testing.assert_close(found, expected.mean())


def test_one_head_is_the_plain_formula_to_the_bit(generator: torch.Generator) -> None:
    dso, cau = DSO(12, 4).eval(), CAU(12)
    tokens, positions = torch.randn(2, 3, 10, 12, generator=generator).unbind(0)
    packed = dso(tokens, positions)
    normed = dso.norm(tokens)
    logits = dso.key(normed) @ dso.query(dso.supertokens).T * 12**-0.5
    cam = F.one_hot(logits.argmax(-1), 4).to(logits.dtype)
    share = (cam / cam.sum(1).clamp_min(1).unsqueeze(1)).transpose(1, 2)
    assert torch.equal(packed.cam, cam)
    assert torch.equal(packed.supertokens, dso.out(share @ dso.value(normed)))
    assert torch.equal(packed.positions, share @ positions)
    encoded = torch.randn(3, 4, 12, generator=generator)
    expected = cau.fc2(F.gelu(cau.fc1(tokens + cam @ encoded)))
    assert torch.equal(cau(tokens, cam, encoded), expected)


def test_heads_against_loops(generator: torch.Generator) -> None:
    """Every head, cloud, supertoken and token by itself."""
    heads, width, count = 3, 4, 24  # 7 tokens of 3 heads cannot choose them all
    dso, cau = DSO(12, count, heads=heads).eval(), CAU(12, heads=heads)
    tokens, positions = torch.randn(2, 2, 7, 12, generator=generator).unbind(0)
    packed = dso(tokens, positions)
    encoded = torch.randn(2, count, 12, generator=generator)
    normed, queries = dso.norm(tokens), dso.query(dso.supertokens)
    for b in range(2):
        keys, values = dso.key(normed[b]), dso.value(normed[b])
        merged, weight = torch.zeros(count, 12), torch.zeros(7, count)
        found = torch.zeros(7, 12)
        for h in range(heads):
            part = slice(h * width, (h + 1) * width)
            chosen = (keys[:, part] @ queries[:, part].T / width**0.5).argmax(dim=1)
            assert torch.equal(packed.cam[b, h].argmax(-1), chosen)
            for i in range(count):
                if (chosen == i).any():
                    merged[i, part] = values[chosen == i][:, part].mean(0)
                weight[:, i] += (chosen == i).float()
            for j in range(7):
                found[j, part] = encoded[b, chosen[j], part]
        assert torch.equal(packed.used[b], weight.sum(0) > 0)
        torch.testing.assert_close(packed.supertokens[b], dso.out(merged))
        for i in torch.nonzero(packed.used[b]).flatten():
            mean = (weight[:, i, None] * positions[b]).sum(0) / weight[:, i].sum()
            torch.testing.assert_close(packed.positions[b, i], mean)
        expected = cau.fc2(F.gelu(cau.fc1(tokens[b] + found)))
        torch.testing.assert_close(cau(tokens, packed.cam, encoded)[b], expected)
    assert not packed.used.all()
    assert torch.equal(packed.assignment, packed.cam[:, 0].argmax(-1))


def test_heads_choose_apart_and_all_of_them_learn(
    teacher: Backbone, points: Tensor, generator: torch.Generator
) -> None:
    student = made(teacher, assignment_heads=4)
    output = student(points)
    tokens, positions = student.embed_groups(student.group(points))
    packed = student.dso(tokens, positions)
    choices = packed.cam.argmax(-1)
    assert not torch.equal(choices[:, 0], choices[:, 1])
    assert torch.equal(output.assignment, choices[:, 0])
    assert torch.equal(output.tokens_used, packed.used.sum(1))
    student.train()(points, generator=generator).features.square().mean().backward()
    gradient = student.dso.query.weight.grad
    assert gradient is not None
    assert (gradient.view(4, 6, 24).abs().amax(dim=(1, 2)) > 0).all()


@pytest.mark.parametrize("options", [{}, {"soft_assignment": True}, {"dim": 12, "heads": 2}])
def test_students_of_several_heads_keep_the_symmetries(
    teacher: Backbone, points: Tensor, generator: torch.Generator, options: dict
) -> None:
    student = made(teacher, assignment_heads=2, **options)
    output = student(points)
    assert output.features.shape == (4, 12, 24)
    alone = torch.cat([student(cloud[None]).features for cloud in points])
    torch.testing.assert_close(alone, output.features, atol=1e-5, rtol=1e-5)
    order = torch.cat(
        [torch.zeros(1, dtype=torch.long), 1 + torch.randperm(95, generator=generator)]
    )
    torch.testing.assert_close(
        student(points[:, order]).features, output.features, atol=1e-5, rtol=1e-5
    )
    assert student(points, budget=Budget(supertokens=2)).assignment.max() < 2


def test_heads_that_do_not_fit_are_refused(teacher: Backbone) -> None:
    with pytest.raises(InputError, match="divide the encoder width, got 5 and 24"):
        Student.from_teacher(teacher, supertokens=4, assignment_heads=5)
    with pytest.raises(InputError, match="gate merges whole tokens"):
        Student.from_teacher(teacher, supertokens=4, assignment_heads=2, gate=True)
    with pytest.raises(InputError, match="assignment_heads must be positive"):
        Student.from_teacher(teacher, supertokens=4, assignment_heads=0)


def test_heads_survive_saving(teacher: Backbone, points: Tensor, tmp_path: Path) -> None:
    student = made(teacher, assignment_heads=3)
    again = load(save(student, tmp_path / "s", provenance={}))
    assert torch.equal(again(points).features, student(points).features)


def parts_of(student: Student) -> SupertokenEncoder:
    return SupertokenEncoder(
        student.dso, student.encoder, student.cau, cau_positions=student.config.cau_positions
    )


def test_encoder_with_supertokens_is_the_student(teacher: Backbone, points: Tensor) -> None:
    for heads in (1, 3):
        student = made(teacher, assignment_heads=heads, cau_positions=heads == 1)
        groups = student.group(points)
        features = parts_of(student)(*student.embed_groups(groups))
        torch.testing.assert_close(features, student.encode(groups).features)


def test_hidden_tokens_enter_no_supertoken(teacher: Backbone, points: Tensor) -> None:
    """Hiding is leaving out, and a token of weight two is that token twice."""
    student = made(teacher)
    encoder, (tokens, positions) = parts_of(student), student.embed_groups(student.group(points))
    bias = torch.zeros(4, 12)
    bias[:, 8:] = float("-inf")
    alone = encoder(tokens[:, :8], positions[:, :8])
    hidden = encoder(tokens, positions, bias=bias)
    torch.testing.assert_close(hidden[:, :8], alone, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(encoder(tokens, positions)[:, :8], alone, atol=1e-3)
    sizes = torch.ones(4, 12)
    sizes[:, 3] = 2
    again = torch.cat([tokens, tokens[:, 3:4]], 1), torch.cat([positions, positions[:, 3:4]], 1)
    twice = encoder(*again)[:, :12]
    torch.testing.assert_close(
        encoder(tokens, positions, bias=sizes.log()), twice, atol=1e-5, rtol=1e-5
    )


def test_jepa_with_supertokens(teacher: Backbone, points: Tensor, generator) -> None:
    """A step reaches every part, the target is the copy's CAU output, and the copy follows."""
    student = made(teacher).train()
    sizes = JepaConfig(predictor_dim=12, predictor_depth=2, predictor_heads=3)
    jepa = Jepa(student, sizes, generator=generator)
    before = copy.deepcopy(student).eval()
    loss, monitors = jepa(student.group(points, generator=generator), generator=generator)
    loss.backward()
    assert torch.isfinite(loss) and float(loss.detach()) > 0
    assert float(monitors["target_std"]) > 0
    assert all(p.grad is None for p in jepa.target_encoder.parameters())
    for name in ("dso.query.weight", "dso.supertokens", "cau.fc2.weight", "tokenizer.lift.weight"):
        assert float(student.get_parameter(name).grad.abs().max()) > 0
    groups = before.group(points)
    expected = F.layer_norm(before.encode(groups).features, (24,))
    torch.testing.assert_close(jepa.target_features(*before.embed_groups(groups)), expected)
    names = [name for name, _ in jepa.target_encoder.named_parameters()]
    assert names == [n for n, _ in parts_of(student).named_parameters()]
    with torch.no_grad():
        student.dso.supertokens.add_(1.0)
        student.cau.fc1.bias.add_(1.0)
    decay = jepa.update_target(0.5)
    ours, theirs = jepa.target_encoder, before
    for mine, old in (
        (ours.dso.supertokens, theirs.dso.supertokens),
        (ours.cau.fc1.bias, theirs.cau.fc1.bias),
    ):
        torch.testing.assert_close(mine, old + (1 - decay))
    jepa.update_target(0.5, copy_weights=True)
    assert torch.equal(ours.dso.supertokens, student.dso.supertokens)


def test_pretraining_with_supertokens_leaves_a_student(tmp_path: Path) -> None:
    config = PretrainConfig(
        out=str(tmp_path / "run"), objective="jepa", supertokens=4, data=DATA, train=TRAIN,
        backbone=replace(TINY, dropout=0.1, drop_path=0.1),
        jepa=JepaConfig(predictor_dim=12, predictor_depth=1, predictor_heads=3),
    )  # fmt: skip
    pretrain(config)
    student = load(tmp_path / "run" / "model")
    assert isinstance(student, Student)
    assert student.shape == config.backbone
    g = np.random.default_rng(0)
    clouds = Clouds(points=g.normal(size=(6, 64, 3)).astype(np.float32), labels=np.full(6, -1))
    features = extract(student, clouds, points=64)
    assert features.shape == (6, 48)
    assert np.isfinite(features).all()
    assert student(normalise(torch.from_numpy(clouds.points))).features.shape == (6, 12, 24)


@pytest.mark.parametrize("change", [{"objective": "masked"}, {"init": "somewhere"}])
def test_supertokens_are_for_jepa_from_scratch(change: dict) -> None:
    with pytest.raises(InputError, match="objective jepa"):
        PretrainConfig(**({"objective": "jepa", "supertokens": 4} | change))


def test_students_keep_their_loss(teacher: Backbone, tmp_path: Path) -> None:
    """The last training loss in config.json; the one on other clouds with and without a gate."""
    save(teacher, tmp_path / "teacher", provenance={})
    config = DistillConfig(
        teacher=str(tmp_path / "teacher"), out=str(tmp_path / "s"), data=DATA, train=TRAIN,
        student=StudentOptions(supertokens=4),
    )  # fmt: skip
    student = distill(config)
    kept = read_config(tmp_path / "s" / "model")["provenance"]["metrics"]["loss"]
    assert 0 < kept < 10
    g = np.random.default_rng(0)
    points = g.normal(size=(70, 80, 3)).astype(np.float32)  # more than one batch of 64
    clouds = Clouds(points=points, labels=np.full(70, -1))
    found = held_out_losses(teacher, student, clouds, 64)
    cloud = normalise(torch.from_numpy(points[:, :64]))
    expected = F.smooth_l1_loss(student(cloud).features, teacher(cloud).features)
    assert found["loss"] == pytest.approx(float(expected.detach()), rel=1e-4)
    assert found["fusion_ratio"] == 1
    assert "probability" not in found
    gated = Student.from_teacher(teacher, supertokens=4, gate=True)
    losses = held_out_losses(teacher, gated, clouds, 64)
    with torch.no_grad():
        output = gated(cloud)
    assert losses["probability"] == pytest.approx(float(output.probability.mean()), rel=1e-4)
    merged = float((output.assignment >= 0).float().mean())
    assert losses["fusion_ratio"] == pytest.approx(merged, rel=1e-4)
