"""Options of distillation: what each adds to the loss, the weights and a resumed run."""

import csv
import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from conftest import TINY
from processes import ended, freeze_batchnorm, frozen_batchnorm, two_ranks
from test_training import DATA, TRAIN, same
from torch import Tensor, nn

from foundry3d.baselines import FPSStudent, Merged
from foundry3d.checkpoints.folder import load, read_config, save
from foundry3d.config import (
    AugmentConfig,
    BudgetDraws,
    DistillConfig,
    PackConfig,
    ReductionConfig,
    StudentOptions,
    TokenLossConfig,
    to_dict,
)
from foundry3d.config.earlier import DISTILLATION
from foundry3d.data.packing import pack
from foundry3d.errors import InputError
from foundry3d.geometry import group_at
from foundry3d.models.backbone import Backbone
from foundry3d.models.budget import Budget
from foundry3d.models.student import Student
from foundry3d.models.truncated import Truncated
from foundry3d.training import goal_task
from foundry3d.training.averaging import moving_average, share_of_old
from foundry3d.training.distill import DistillTask, distill
from foundry3d.training.dropped import points_kept
from foundry3d.training.losses import (
    distance,
    matching_block,
    plain_norm,
    relation_loss,
    scale_of,
    similarities,
)

RUN = DistillConfig(
    student=StudentOptions(supertokens=4), data=DATA, train=replace(TRAIN, epochs=3, lr=3e-3),
    unfreeze_epoch=None,
)  # fmt: skip
STILL = AugmentConfig(scale=(1.0, 1.0), rotate=False)
OPTIONS: dict[str, dict[str, Any]] = {
    "blocks": {"loss_blocks": (0, 2), "block_weights": (0.5, 2.0)},
    "relations": {"relation_weight": 3.0},
    "whiten": {"whiten": True},
    "ema": {"ema": 0.9},
    "dropped": {"dropped_points": 0.5},
}
ALL = {name: value for options in OPTIONS.values() for name, value in options.items()}


@pytest.fixture
def saved(teacher: Backbone, tmp_path: Path) -> Path:
    return save(teacher, tmp_path / "teacher", provenance={})


def rows_of(out: Path) -> list[dict[str, str]]:
    text = (out / "metrics" / "version_0" / "metrics.csv").read_text()
    return [row for row in csv.DictReader(text.splitlines()) if row["loss"]]


def stepping(
    config: DistillConfig,
    teacher: Backbone,
    student: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[DistillTask, dict[str, Tensor]]:
    """A task in training mode whose draws are those of seed 0, and what it logs."""
    logged: dict[str, Tensor] = {}
    task = DistillTask(config, teacher, student).train()
    monkeypatch.setattr(task, "log", lambda name, value, **_: logged.update({name: value}))
    monkeypatch.setattr(task, "step_generator", lambda: torch.Generator().manual_seed(0))
    return task, logged


# ---------------------------------------------------------------- functions


def test_similarities_by_hand() -> None:
    features = torch.tensor([[[3.0, 0.0], [0.0, 2.0], [1.0, 1.0]]])
    half = math.sqrt(0.5)
    wanted = torch.tensor([[[1.0, 0.0, half], [0.0, 1.0, half], [half, half, 1.0]]])
    torch.testing.assert_close(similarities(features), wanted)


def test_similarities_are_not_rounded_in_mixed_precision(generator: torch.Generator) -> None:
    features = torch.randn(2, 5, 6, generator=generator)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = similarities(features)
    assert torch.equal(found, similarities(features))


def test_relations_do_not_see_rotations_and_scales_of_features(
    generator: torch.Generator,
) -> None:
    goal = torch.randn(2, 5, 6, generator=generator)
    turn, _ = torch.linalg.qr(torch.randn(6, 6, generator=generator))
    assert float(relation_loss(2 * goal @ turn, goal)) < 1e-12
    own = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    other = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    assert float(relation_loss(own, other)) == pytest.approx(2 * 0.5 / 4)


def test_distances_are_equation_1_and_the_squared_error() -> None:
    own, goal = torch.tensor([0.0, 3.0]), torch.tensor([0.5, 0.0])
    assert float(distance(own, goal, "smooth_l1")) == pytest.approx((0.125 + 2.5) / 2)
    assert float(distance(own, goal, "mse")) == pytest.approx((0.25 + 9) / 2)


def test_scale_of_batches_is_that_of_all_tokens(generator: torch.Generator) -> None:
    features = 5 + 3 * torch.randn(2, 6, 4, 3, generator=generator)
    features[0, ..., 1] = 7.0  # a feature that does not vary
    mean, std = scale_of(features.split([1, 3, 2], dim=1))
    rows = features.flatten(1, 2).double()
    torch.testing.assert_close(mean, rows.mean(dim=1))
    plain = rows.std(dim=1, correction=0)
    torch.testing.assert_close(std[1], plain[1])
    torch.testing.assert_close(std[0, [0, 2]], plain[0, [0, 2]])
    torch.testing.assert_close(std[0, 1], 0.01 * plain[0].mean(), rtol=1e-5, atol=0)
    with pytest.raises(InputError, match="no scale to whiten by"):
        scale_of([torch.ones(1, 2, 3, 4)])


def test_matching_blocks_keep_their_relative_depth() -> None:
    def of(depth: int) -> list[int]:
        return [matching_block(block, teacher=12, student=depth) for block in (0, 3, 7, 11)]

    assert of(12) == [0, 3, 7, 11]
    assert of(6) == [0, 1, 3, 5]
    assert of(1) == [0, 0, 0, 0]


def test_the_moving_average_by_hand() -> None:
    """Weights and BatchNorm statistics are averaged, counters copied, the first step is copied."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1))
    average = moving_average(model, 0.3)
    wanted = [0.0, 0.0]
    for step in range(6):
        with torch.no_grad():
            model[0].weight.fill_(float(step + 1))
            model[1].running_mean.fill_(10.0 * step)
            model[1].num_batches_tracked.fill_(step)
        average.update_parameters(model)
        old = min(0.3, (1 + step) / (10 + step)) if step else 0.0
        new = float(step + 1), 10.0 * step
        wanted = [old * w + (1 - old) * n for w, n in zip(wanted, new, strict=True)]
        found = average.module
        assert found[0].weight.item() == pytest.approx(wanted[0])
        assert found[1].running_mean.item() == pytest.approx(wanted[1])
        assert found[1].num_batches_tracked.item() == step
    assert not any(parameter.requires_grad for parameter in average.parameters())
    shares = share_of_old(torch.tensor([0, 8, 10**6]), 0.9)
    torch.testing.assert_close(shares, torch.tensor([0.1, 0.5, 0.9]))


@pytest.mark.parametrize(("share", "kept"), [(0.0, 10), (0.25, 8), (0.5, 5), (0.99, 1)])
def test_points_kept(share: float, kept: int) -> None:
    assert points_kept(10, share) == kept


# ---------------------------------------------------------------- features after blocks


MODELS: dict[str, Callable[[Backbone], Any]] = {
    "teacher": lambda teacher: teacher,
    "class": lambda teacher: Backbone(replace(TINY, class_token=True)).eval(),
    "student": lambda teacher: Student.from_teacher(teacher, supertokens=4),
    "gate": lambda teacher: Student.from_teacher(teacher, supertokens=4, gate=True),
    "after": lambda teacher: Student.from_teacher(teacher, supertokens=4, supertokens_after=1),
    "narrow": lambda teacher: Student.from_teacher(teacher, supertokens=4, dim=12, heads=3),
    "truncated": lambda teacher: Truncated.from_teacher(teacher, depth=3),
    "shallow": lambda teacher: Truncated.from_teacher(teacher, depth=0),
}


@pytest.mark.parametrize("name", MODELS)
def test_features_after_blocks_come_with_the_output(
    teacher: Backbone, points: Tensor, name: str
) -> None:
    model = MODELS[name](teacher)
    groups, layers = model.group(points), () if name == "shallow" else (2, 0)
    tokens = model.tokenizer(groups.neighborhoods)
    output, blocks = model.encode_blocks(groups, layers, tokens=tokens)
    wanted = model.encode(groups)
    torch.testing.assert_close(output.features, wanted.features)
    assert torch.equal(output.centers, wanted.centers)
    assert torch.equal(output.tokens_used, wanted.tokens_used) or name == "gate"
    for part in ("assignment", "probability"):
        torch.testing.assert_close(getattr(output, part), getattr(wanted, part))
    for found, block in zip(blocks, model.block_features(groups, layers), strict=True):
        torch.testing.assert_close(found, block)


@pytest.mark.parametrize("gate", [False, True])
def test_features_after_blocks_have_the_draws_and_budget_of_training(
    teacher: Backbone, points: Tensor, gate: bool
) -> None:
    student = Student.from_teacher(teacher, supertokens=4, gate=gate).train()
    groups = student.group(points, drawn=False)
    budget = Budget(supertokens=2, merged=torch.tensor([3, 12, 0, 7]) if gate else None)

    def seeded() -> torch.Generator:
        return torch.Generator().manual_seed(3)

    output, _ = student.encode_blocks(groups, (1,), budget=budget, generator=seeded())
    wanted = student.encode(groups, budget=budget, generator=seeded())
    assert wanted.assignment is not None and output.assignment is not None
    assert torch.equal(output.assignment, wanted.assignment)
    assert torch.equal(output.features, wanted.features)


# ---------------------------------------------------------------- one step


def test_without_options_a_step_is_equation_1(
    teacher: Backbone, points: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = Student.from_teacher(teacher, supertokens=4)
    config = replace(RUN, augment=STILL, starts="first", data=replace(DATA, points=96))
    task, logged = stepping(config, teacher, student, monkeypatch)
    loss = task.training_step(points, 0)
    generator = torch.Generator().manual_seed(0)
    ready = task.ready(points, generator)
    own = student.encode(ready.groups, generator=generator).features
    assert torch.equal(loss, F.smooth_l1_loss(own, teacher.encode(ready.groups).features))
    assert torch.equal(loss, logged["loss"])
    assert not any(name.startswith(("average", "comparison")) for name in task.state_dict())
    assert config.extras == {}


@pytest.mark.parametrize("kind", ["supertokens", "gate", "truncated"])
@pytest.mark.parametrize("whiten", [False, True])
def test_the_loss_is_the_weighted_sum(
    teacher: Backbone,
    points: Tensor,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    whiten: bool,
) -> None:
    """Every part by hand, from the features that the step compares."""
    config = replace(
        RUN, loss_blocks=(0, 1), block_weights=(0.5, 2.0), relation_weight=3.0, whiten=whiten,
        token_loss=TokenLossConfig(weight=0.7), data=replace(DATA, points=96),
    )  # fmt: skip
    if kind == "truncated":
        student: Any = Truncated.from_teacher(teacher, depth=3)
        config = replace(config, frozen="none", unfreeze_epoch="auto")
        config = replace(config, student=StudentOptions(kind="truncated", depth=3))
    else:
        student = Student.from_teacher(teacher, supertokens=4, gate=kind == "gate")
    task, logged = stepping(config, teacher, student, monkeypatch)
    mean, std = torch.zeros(3, 24), torch.ones(3, 24)
    if whiten:
        generator = torch.Generator().manual_seed(1)
        mean, std = (torch.rand(3, 24, generator=generator) + 0.1 for _ in range(2))
        task.comparison.mean.copy_(mean)
        task.comparison.std.copy_(std)
    seen: list[Any] = []
    task.comparison.register_forward_pre_hook(lambda _, given: seen.append(given))
    total = task.training_step(points, 0)
    ((own, blocks, goal),) = seen
    read = goal.groups
    assert torch.equal(goal.features, teacher.encode(read).features)
    for i, block in enumerate(teacher.block_features(read, (0, 1))):
        assert torch.equal(goal.blocks[:, :, i], F.layer_norm(block, (24,)))
    pairs = [(own, goal.features)]
    pairs += [(F.layer_norm(blocks[i], (24,)), goal.blocks[:, :, i]) for i in range(2)]
    scaled = [[(x - mean[i]) / std[i] for x in pair] for i, pair in enumerate(pairs)]
    losses = [F.smooth_l1_loss(*pair) for pair in scaled]
    wanted = losses[0] + 3 * relation_loss(*scaled[0]) + 0.5 * losses[1] + 2 * losses[2]
    torch.testing.assert_close(total, wanted + 0.7 * logged["token_loss"])
    torch.testing.assert_close(logged["loss"], F.smooth_l1_loss(own, goal.features))
    assert ("whitened_loss" in logged) == whiten
    total.backward()
    head = student.mlp if kind == "truncated" else student.cau
    assert all(bool(p.grad.any()) for p in head.parameters())


@pytest.mark.parametrize("kind", ["supertokens", "truncated", "tome", "another teacher"])
def test_dropped_points_are_missing_for_the_student_alone(
    teacher: Backbone, points: Tensor, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    config = replace(
        RUN, dropped_points=0.5, frozen="none", unfreeze_epoch="auto", augment=STILL,
        data=replace(DATA, points=96),
    )  # fmt: skip
    student: Any = Student.from_teacher(teacher, supertokens=4)
    if kind == "truncated":
        student = Truncated.from_teacher(teacher, depth=1)
    elif kind == "tome":
        student = Merged.from_teacher(teacher, ReductionConfig(method="tome", reach=4))
    taught: Any = (lambda x: teacher(x)) if kind == "another teacher" else teacher
    task, _ = stepping(config, taught, student, monkeypatch)
    read: dict[str, list[Tensor]] = {"teacher": [], "student": []}
    for name, model in (("teacher", teacher), ("student", student)):
        model.tokenizer.register_forward_pre_hook(
            lambda _, given, name=name: read[name].append(given[0])
        )
    task.training_step(points, 0)
    ready = task.ready(points, torch.Generator().manual_seed(0))
    whole = group_at(ready.points, task.goal(ready, features=True).groups.centers, 8)
    assert torch.equal(read["teacher"][0], whole.neighborhoods)
    (own,) = read["student"]
    every = whole.centers[:, :, None, None] - ready.points[:, None, None]
    for cloud in range(4):
        offsets = -every[cloud].flatten(1, 2)
        near = torch.cdist(own[cloud], offsets).argmin(dim=-1)
        torch.testing.assert_close(offsets.gather(1, near[..., None].expand(-1, -1, 3)), own[cloud])
        assert len(near.unique()) <= 48
    kept = [set(torch.cdist(own[i], -every[i].flatten(1, 2)).argmin(-1).flatten().tolist())
            for i in range(4)]  # fmt: skip
    assert kept[0] != kept[1]
    assert not torch.equal(own, whole.neighborhoods)


# ---------------------------------------------------------------- runs


@pytest.mark.parametrize("name", OPTIONS)
def test_each_option_changes_the_run_and_lowers_its_loss(
    saved: Path, tmp_path: Path, name: str
) -> None:
    base = replace(RUN, teacher=str(saved), train=replace(RUN.train, epochs=8))
    options = OPTIONS[name]
    plain = distill(replace(base, out=str(tmp_path / "plain"), train=replace(RUN.train, epochs=1)))
    short = replace(base, out=str(tmp_path / "short"), train=replace(RUN.train, epochs=1))
    assert not same(distill(replace(short, **options)), plain)
    distill(replace(base, out=str(tmp_path / "run"), **options))
    rows = rows_of(tmp_path / "run")
    parts = {
        "blocks": ["block_0_loss", "block_2_loss"],
        "whiten": ["whitened_loss"],
    }
    for part in ["loss", *parts.get(name, [])]:
        values = [float(row[part]) for row in rows]
        assert sum(values[-3:]) < 0.9 * sum(values[:3]), part
    facts = read_config(tmp_path / "run" / "model")["provenance"]
    wanted = {k: list(v) if isinstance(v, tuple) else v for k, v in options.items()}
    assert facts["distill_extras"] == wanted
    assert "distill_extras" not in read_config(tmp_path / "plain" / "model")["provenance"]


def test_relations_are_kept_better_where_they_count(saved: Path, tmp_path: Path) -> None:
    base = replace(RUN, teacher=str(saved), train=replace(RUN.train, epochs=8))
    last = []
    for weight in (1e-9, 100.0):
        out = tmp_path / str(weight)
        distill(replace(base, out=str(out), relation_weight=weight))
        last.append(sum(float(row["relation_loss"]) for row in rows_of(out)[-3:]))
    assert last[1] < 0.8 * last[0]


def test_the_saved_student_is_the_average(saved: Path, tmp_path: Path) -> None:
    """Averaged by hand from the weights after every step."""
    seen: list[dict[str, Tensor]] = []
    original = DistillTask.on_train_batch_end

    def watched(self: DistillTask, outputs: Any, batch: Any, index: int) -> None:
        original(self, outputs, batch, index)
        seen.append({name: value.clone() for name, value in self.student.state_dict().items()})

    config = replace(RUN, teacher=str(saved), out=str(tmp_path / "run"), ema=0.4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DistillTask, "on_train_batch_end", watched)
        found = distill(config).state_dict()
    wanted = dict(seen[0])
    for count, state in enumerate(seen[1:], 1):
        old = min(0.4, (1 + count) / (10 + count))
        for name, value in state.items():
            mixed = old * wanted[name] + (1 - old) * value
            wanted[name] = mixed if value.is_floating_point() else value
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, msg=f"{name}: {{}}".format)
    assert any(not torch.equal(found[name], seen[-1][name]) for name in found)
    kept = load(tmp_path / "run" / "model")
    assert all(torch.equal(v, found[k]) for k, v in kept.state_dict().items())
    teacher = load(saved)
    assert same(kept.encoder, teacher.encoder)  # frozen, so its average is bit for bit the same


def test_whitening_is_measured_on_training_batches(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(goal_task, "SCALE_BATCHES", 2)
    kept: list[Tensor] = []
    original = DistillTask.on_fit_start

    def watched(self: DistillTask) -> None:
        original(self)
        batches = itertools.islice(self.sampled_goals(), 5)
        kinds = torch.cat([torch.stack([g.features, g.blocks[:, :, 0]]) for g in batches], dim=1)
        kept.extend([self.comparison.mean, self.comparison.std, kinds])

    monkeypatch.setattr(DistillTask, "on_fit_start", watched)
    config = replace(RUN, teacher=str(saved), out=str(tmp_path / "run"), whiten=True)
    distill(replace(config, loss_blocks=(1,)))
    mean, std, kinds = kept
    assert kinds.shape == (2, 2 * 16, 12, 24)
    torch.testing.assert_close(mean, kinds.mean(dim=(1, 2)))
    torch.testing.assert_close(std, kinds.flatten(1, 2).std(dim=1, correction=0))


def test_streamed_clouds_take_every_option(saved: Path, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    pack(PackConfig(source="procedural", clouds=32, samples=80, shard_clouds=16, out=str(shards)))
    config = replace(RUN, teacher=str(saved), data=replace(DATA, train=str(shards)), **ALL)
    found = [distill(replace(config, out=str(tmp_path / name))) for name in ("a", "b")]
    assert same(*found)


@pytest.mark.parametrize("options", [*OPTIONS.values(), ALL])
def test_a_stopped_run_goes_on_as_if_it_had_not(
    saved: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    config = replace(RUN, teacher=str(saved), train=replace(RUN.train, epochs=4), **options)
    whole = distill(replace(config, out=str(tmp_path / "whole")))
    measured: list[int] = []
    scale = goal_task.Comparison.measure

    class Stopped(Exception):
        pass

    def stop(self: DistillTask) -> None:
        if self.current_epoch == 2:
            raise Stopped

    def counted(self: Any, goals: Any) -> None:
        measured.append(1)
        scale(self, goals)

    part = replace(config, out=str(tmp_path / "part"), resume=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(goal_task.Comparison, "measure", counted)
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(DistillTask, "on_train_epoch_start", stop)
            with pytest.raises(Stopped):
                distill(part)
        assert same(distill(part), whole)
        assert same(distill(part), whole)  # ended already: the same average is saved again
    assert len(measured) == ("whiten" in options)


def test_options_go_together_with_kept_goals_gate_budgets_and_light_tokenizers(
    saved: Path, tmp_path: Path
) -> None:
    """The teacher's features read once or in every step give the same weights."""
    config = replace(
        RUN, teacher=str(saved), augment=STILL, starts="first", gate_lambda=0.01,
        student=StudentOptions(
            supertokens=4, gate=True, point_widths=(4, 8, 16), group_size=4
        ),
        token_loss=TokenLossConfig(epochs=1, weight=0.5),
        budgets=BudgetDraws(random_ratio=True, nested=True), **ALL,
    )  # fmt: skip
    found = [
        distill(replace(config, out=str(tmp_path / str(cache)), teacher_cache=cache))
        for cache in (2048, 0)
    ]
    assert same(*found)


def test_two_processes_have_the_weights_of_one(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same batches, nothing drawn and BatchNorm frozen; scale and average included."""
    options = {name: value for name, value in ALL.items() if name != "dropped_points"}
    one = replace(
        RUN, teacher=str(saved), out=str(tmp_path / "one"), starts="first", augment=STILL,
        student=StudentOptions(supertokens=4, soft_assignment=True),
        data=replace(DATA, subsample="first"), teacher_cache=0,
        train=replace(TRAIN, precision="64-true"), **options,
    )  # fmt: skip
    two = replace(one, out=str(tmp_path / "two"), train=replace(one.train, batch_size=8, devices=2))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(to_dict(two)))
    ranks = two_ranks(
        ["distill", "--config", str(recipe)], tmp_path / "said", first=freeze_batchnorm
    )
    monkeypatch.setattr(torch.nn.BatchNorm1d, "forward", frozen_batchnorm)
    monkeypatch.setattr(goal_task, "SCALE_BATCHES", 3)  # all 48 clouds, as in six batches of 8
    expected = distill(one).state_dict()
    for number, rank in enumerate(ranks):
        assert ended(rank) == 0, (tmp_path / f"said.{number}").read_text()
    found = load(tmp_path / "two" / "model").state_dict()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name].to(value), value, atol=1e-5, rtol=0, msg=f"{name}: {{}}".format
        )


def test_runs_of_earlier_versions_are_resumed(saved: Path, tmp_path: Path) -> None:
    """Their settings lack the options, which are off."""
    config = replace(RUN, teacher=str(saved), out=str(tmp_path / "run"))
    assert {name: to_dict(config)[name] for name in DISTILLATION} == DISTILLATION
    first = distill(config)
    path = tmp_path / "run" / "config.yaml"
    name, _, text = path.read_text().partition("\n")
    values = {k: v for k, v in yaml.safe_load(text).items() if k not in DISTILLATION}
    path.write_text(name + "\n" + yaml.safe_dump(values))
    assert same(distill(replace(config, resume=True)), first)
    with pytest.raises(InputError, match="other settings of ema"):
        distill(replace(config, resume=True, ema=0.9))


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"loss_blocks": (-1,)}, "different blocks of the teacher"),
        ({"loss_blocks": (1, 1)}, "different blocks of the teacher"),
        ({"loss_blocks": (0, 1), "block_weights": (1.0, 1.0, 1.0)}, "one number in 0"),
        ({"block_weights": (-1.0,)}, "one number in 0"),
        ({"relation_weight": -1.0}, "relation_weight must be >= 0"),
        ({"ema": 1.0}, r"ema must lie in \[0, 1\)"),
        ({"dropped_points": 1.0}, r"dropped_points must lie in \[0, 1\)"),
        ({"loss_blocks": (0,), "student": StudentOptions(kind="tome")}, "got kind tome"),
        (
            {"dropped_points": 0.1, "student": StudentOptions(kind="fps-student")},
            "got kind fps-student",
        ),
    ],
)
def test_bad_options_are_one_sentence(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        replace(RUN, **options)


def test_what_a_pair_cannot_do_is_one_sentence(teacher: Backbone) -> None:
    student = Student.from_teacher(teacher, supertokens=4)
    fps = FPSStudent.from_teacher(teacher, supertokens=4, points=96)
    short, two = (Truncated.from_teacher(teacher, depth=depth) for depth in (1, 2))
    free = replace(RUN, frozen="none", unfreeze_epoch="auto")
    blocks, dropped = (
        replace(free, loss_blocks=(1,)), replace(free, dropped_points=0.9)
    )  # fmt: skip
    for config, taught, learner, says in [
        (blocks, lambda x: teacher(x), student, "blocks of a Backbone"),
        (blocks, teacher, fps, "a Backbone and a FPSStudent"),
        (blocks, teacher, short, "it has 1 of 3 blocks"),
        (blocks, teacher, two, "end before its last block"),
        (replace(free, loss_blocks=(3,)), teacher, student, "the teacher has 3 blocks"),
        (dropped, teacher, student, "leaves 7 of 64 points, the student's groups have 8"),
        (dropped, teacher, fps, "around the teacher's centers, got a FPSStudent"),
    ]:
        with pytest.raises(InputError, match=says):
            DistillTask(config, taught, learner)


def test_plain_norm_is_that_of_the_part_head(generator: torch.Generator) -> None:
    x = 3 + torch.randn(2, 4, 6, generator=generator)
    found = plain_norm(x)
    torch.testing.assert_close(found.mean(-1), torch.zeros(2, 4), atol=1e-6, rtol=0)
    torch.testing.assert_close(found.square().mean(-1), torch.ones(2, 4), atol=1e-4, rtol=0)
