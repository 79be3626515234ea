from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY
from torch import Tensor, nn

from foundry3d.baselines import (
    FPSStudent,
    KMeansStudent,
    LargerGroups,
    Merged,
    PatchMerger,
    RandomSampling,
    Reduction,
    fit_prototypes,
)
from foundry3d.baselines.matching import (
    cluster,
    energy_matching,
    merge,
    merged_sizes,
    soft_matching,
)
from foundry3d.baselines.trace import Trace
from foundry3d.checkpoints import folder as checkpoint
from foundry3d.config import (
    DataConfig,
    DistillConfig,
    KMeansStudentConfig,
    MergedConfig,
    ReductionConfig,
    StudentOptions,
    TrainConfig,
)
from foundry3d.errors import InputError
from foundry3d.geometry import Groups, gather
from foundry3d.inference.cost import count
from foundry3d.models.backbone import Backbone
from foundry3d.training.distill import distill

HOOKED = ("tome", "pitome", "kmeans", "fps", "random")
METHODS = (*HOOKED, "patchmerger")


def start(tokens: Tensor, sizes: Tensor | None = None) -> Reduction:
    batch, n, _ = tokens.shape
    return Reduction(
        tokens=tokens,
        positions=tokens.flip(-1),
        centers=tokens[..., :3],
        sizes=torch.ones(batch, n) if sizes is None else sizes,
        source=torch.arange(n).expand(batch, -1),
    )


def one_hot(source: Tensor, left: int) -> Tensor:
    """(B, m, c) matrix of sources (B, c), as the reference stores it."""
    return nn.functional.one_hot(source, left).mT.float()


@pytest.fixture(scope="module")
def published(parity: Path) -> dict[str, Tensor]:
    with np.load(parity / "merging.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


@pytest.fixture
def groups(teacher: Backbone, points: Tensor) -> Groups:
    return teacher.group(points)


def with_class(teacher: Backbone) -> Backbone:
    model = Backbone(replace(teacher.config, class_token=True), generator=torch.Generator()).eval()
    model.load_state_dict(model.state_dict() | teacher.state_dict())
    return model


def merged(backbone: Backbone, method: str, **schedule: object) -> Merged:
    reduction = ReductionConfig(method=method, **(schedule or {"reach": 3}))
    if method == "patchmerger":
        return Merged.from_teacher(backbone, reduction, generator=torch.Generator().manual_seed(3))
    return Merged.around(backbone, reduction)


# ---------------------------------------------------------------- parity with the references


def test_tome_agrees_with_the_reference_over_two_steps(published: dict[str, Tensor]) -> None:
    now, left = start(published["x"]), 16
    for step in ("", "2"):
        left -= int(published[f"tome{step}_r"])
        now = now.merged(soft_matching(published[f"metric{step}"], left), left)
        torch.testing.assert_close(now.tokens, published[f"tome{step}_y"], atol=1e-5, rtol=0)
        assert torch.equal(now.sizes, published[f"tome{step}_size"].squeeze(-1))
        assert torch.equal(one_hot(now.source, left), published[f"tome{step}_source"])


def test_pitome_agrees_with_the_reference(published: dict[str, Tensor]) -> None:
    left = round(16 * float(published["pitome_ratio"]))
    target = energy_matching(published["metric"], left, float(published["pitome_margin"]))
    now = start(published["x"]).merged(target, left)
    torch.testing.assert_close(now.tokens, published["pitome_y"], atol=1e-5, rtol=0)
    assert torch.equal(now.sizes, published["pitome_size"].squeeze(-1))
    assert torch.equal(one_hot(now.source, left), published["pitome_source"])


def test_patchmerger_agrees_with_the_reference(published: dict[str, Tensor]) -> None:
    merger = PatchMerger(48, 2)
    with torch.no_grad():
        merger.queries.copy_(published["patchmerger_queries"])
        merger.norm.weight.copy_(published["patchmerger_norm_weight"])
        merger.norm.bias.copy_(published["patchmerger_norm_bias"])
        found = merger(start(published["x"]))
    torch.testing.assert_close(found.tokens, published["patchmerger_y"], atol=1e-5, rtol=0)
    assert found.sizes.sum(dim=1).tolist() == [16] * len(found.sizes)


# ---------------------------------------------------------------- matching and merging


def slow_tome(keys: Tensor, left: int) -> set[frozenset[int]]:
    """Groups of one cloud's tokens (n, d), pair by pair."""
    normed = nn.functional.normalize(keys, dim=-1)
    n = len(keys)
    odd = range(1, n, 2)
    partner = {i: max(odd, key=lambda j, i=i: float(normed[i] @ normed[j])) for i in range(0, n, 2)}
    best = sorted(partner, key=lambda i: -float(normed[i] @ normed[partner[i]]))
    members = {i: {i} for i in range(n)}
    for i in best[: n - left]:
        members[partner[i]] |= members.pop(i)
    return {frozenset(group) for group in members.values()}


def cells(target: Tensor) -> set[frozenset[int]]:
    return {frozenset((target == row).nonzero().flatten().tolist()) for row in target.unique()}


@pytest.mark.parametrize(("n", "left"), [(12, 6), (13, 7), (13, 12), (2, 1)])
def test_tome_is_the_pairwise_form(n: int, left: int, generator: torch.Generator) -> None:
    keys = torch.randn(3, n, 8, generator=generator)
    target = soft_matching(keys, left)
    for cloud in range(3):
        assert cells(target[cloud]) == slow_tome(keys[cloud], left)


def test_pitome_protects_the_lonely_and_does_not_care_for_order(generator: torch.Generator) -> None:
    keys = torch.randn(2, 14, 16, generator=generator)
    keys[:, 3] = -keys.sum(dim=1)  # opposite to the others
    target = energy_matching(keys, 8, 0.5)
    assert not bool((target[:, 3, None] == target)[:, [0, 1, 2, *range(4, 14)]].any())
    order = torch.randperm(14, generator=generator)
    torch.testing.assert_close(energy_matching(keys[:, order], 8, 0.5), target[:, order])


def test_merging_is_a_weighted_mean_and_keeps_the_sum(generator: torch.Generator) -> None:
    values = torch.randn(3, 10, 5, generator=generator, dtype=torch.float64)
    sizes = torch.randint(1, 4, (3, 10), generator=generator).double()
    target = torch.randint(4, (3, 10), generator=generator)
    rows, mass = merge(values, target, 4, sizes), merged_sizes(target, 4, sizes)
    matrix = one_hot(target, 4).double() * sizes[:, None]
    expected = matrix @ values / matrix.sum(-1, keepdim=True).clamp_min(1)
    torch.testing.assert_close(rows, expected)
    whole = (values * sizes[..., None]).sum(1)
    torch.testing.assert_close((rows * mass[..., None]).sum(1), whole)


def test_two_steps_are_the_mean_of_the_tokens_that_went_in(generator: torch.Generator) -> None:
    first = start(torch.randn(2, 16, 6, generator=generator))
    now = first.merged(soft_matching(first.tokens, 9), 9)
    now = now.merged(energy_matching(now.tokens, 5, 0.4), 5)
    matrix = one_hot(now.source, 5)
    torch.testing.assert_close(matrix.sum(-1), now.sizes)
    for name in ("tokens", "positions", "centers"):
        expected = matrix @ getattr(first, name) / now.sizes[..., None]
        torch.testing.assert_close(getattr(now, name), expected, atol=1e-5, rtol=1e-5)
    alone = now.sizes.gather(1, now.source) == 1
    assert alone.any()
    torch.testing.assert_close(now.spread(now.tokens)[alone], first.tokens[alone])


def test_kmeans_lowers_its_cost_and_meets_its_own_fixed_point(generator: torch.Generator) -> None:
    centers, sizes = torch.randn(4, 40, 3, generator=generator), torch.ones(4, 40)

    def cost(iterations: int) -> Tensor:
        target = cluster(centers, 5, iterations=iterations, sizes=sizes)
        means = merge(centers, target, 5, sizes)
        return (gather(means, target) - centers).square().sum(dim=(1, 2))

    costs = [cost(i) for i in range(4)]
    assert all(bool((b <= a + 1e-5).all()) for a, b in pairwise(costs))
    assert bool((costs[3] < costs[0]).any())
    done = cluster(centers, 5, iterations=50, sizes=sizes)
    means = merge(centers, done, 5, sizes)
    assert torch.equal(torch.cdist(centers, means).argmin(-1), done)


# ---------------------------------------------------------------- the model


@pytest.mark.parametrize("classed", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_every_token_gets_the_feature_of_its_row(
    method: str, classed: bool, teacher: Backbone, groups: Groups
) -> None:
    model = merged(with_class(teacher) if classed else teacher, method)
    found = model.reductions(groups)
    lengths = [6, 3, 3] if method != "patchmerger" else [12, 3, 3]
    for block, left in zip(found, lengths, strict=True):
        assert block.tokens.shape == block.positions.shape == (4, left, 24)
        assert block.sizes.sum(dim=1).tolist() == [12] * 4
        assert torch.equal(block.sizes, one_hot(block.source, left).sum(-1))
    tokens = model.encode(groups)
    used = (found[-1].sizes > 0).sum(1).tolist() if method != "patchmerger" else [3] * 4
    assert tokens.tokens_used.tolist() == used
    assert tokens.features.shape == (4, 12, model.output_dim)
    rows = model.encoder.norm(found[-1].tokens)
    for cloud in range(4):
        for token in range(12):
            row = int(tokens.assignment[cloud, token])
            assert torch.equal(tokens.features[cloud, token], rows[cloud, row])
    first, last = model.block_features(groups, [0, 2])
    torch.testing.assert_close(model.encoder.norm(last), tokens.features)
    if method == "patchmerger":  # it stands behind the first block
        assert torch.equal(first, model.backbone.block_features(groups, [0])[0])


@pytest.mark.parametrize("classed", [False, True])
@pytest.mark.parametrize("method", HOOKED)
def test_removing_nothing_is_the_backbone(
    method: str, classed: bool, teacher: Backbone, points: Tensor
) -> None:
    backbone = with_class(teacher) if classed else teacher
    model = merged(backbone, method, removed=(0, 0))
    assert torch.equal(model(points).features, backbone(points).features)
    assert model(points).assignment.tolist() == [list(range(12))] * 4
    groups = backbone.group(points)
    for a, b in zip(
        model.block_features(groups, [0, 1, 2]),
        backbone.block_features(groups, [0, 1, 2]),
        strict=True,
    ):
        assert torch.equal(a, b)


@pytest.mark.parametrize("classed", [False, True])
@pytest.mark.parametrize("method", ["tome", "kmeans", "fps"])
def test_merging_equal_tokens_changes_nothing(
    method: str, classed: bool, teacher: Backbone, groups: Groups
) -> None:
    """Proportional attention: a token of size 2 counts as much as its two equal halves."""
    backbone = with_class(teacher) if classed else teacher
    order = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3, 4, 5, 6, 7])  # four are there twice
    twice = Groups(*(part[:, order] for part in groups))
    found = merged(backbone, method, left=(8,)).encode(twice)
    expected = backbone.encode(twice).features
    torch.testing.assert_close(found.features, expected, atol=1e-5, rtol=1e-5)
    same = found.assignment[:, :, None] == found.assignment[:, None, :]
    assert torch.equal(same, (order[:, None] == order).expand(4, -1, -1))


def test_the_hook_hands_on_sizes_and_the_margin_of_the_block(generator: torch.Generator) -> None:
    sizes = torch.randint(1, 99, (3, 30), generator=generator).float()
    now, keys = (
        start(torch.randn(3, 30, 6, generator=generator), sizes),
        torch.randn(3, 12, 4, generator=generator),
    )
    by_margin = [energy_matching(keys, 7, margin) for margin in (0.9, 0.6, 0.3)]
    assert not any(torch.equal(a, b) for a, b in pairwise(by_margin))
    for layer, expected in enumerate(by_margin):  # 0.9 - 0.9 * layer / depth
        config = ReductionConfig(method="pitome", left=(7,))
        trace = Trace(config, (7, 7, 7), now, first=0, generator=None)
        assert torch.equal(trace.target(layer, keys, 7), expected)
    config = ReductionConfig(method="kmeans", left=(4,), iterations=3)
    found = Trace(config, (4,), now, first=0, generator=None).target(0, keys, 4)
    assert torch.equal(found, cluster(now.centers, 4, iterations=3, sizes=sizes))
    plain = cluster(now.centers, 4, iterations=3, sizes=torch.ones_like(sizes))
    assert not torch.equal(found, plain)


def test_the_class_token_takes_part_and_is_never_merged(teacher: Backbone, groups: Groups) -> None:
    backbone = with_class(teacher)
    changed = with_class(teacher)
    with torch.no_grad():
        changed.class_token[0] += 5
    for method in METHODS:
        one, other = merged(backbone, method), merged(changed, method)
        before, after = one.encode(groups), other.encode(groups)
        assert before.features.shape == (4, 12, 24)
        assert not torch.allclose(before.features, after.features)
        if method in ("kmeans", "fps", "random"):
            assert torch.equal(before.assignment, after.assignment)


@pytest.mark.parametrize("method", [m for m in METHODS if m != "random"])
def test_each_cloud_is_on_its_own(method: str, teacher: Backbone, points: Tensor) -> None:
    model = merged(teacher, method)
    together = model(points)
    for cloud in range(4):
        alone = model(points[cloud : cloud + 1])
        torch.testing.assert_close(
            alone.features[0], together.features[cloud], atol=1e-5, rtol=1e-5
        )
        assert torch.equal(alone.assignment[0], together.assignment[cloud])


@pytest.mark.parametrize("method", ["pitome", "patchmerger"])
def test_the_order_of_tokens_does_not_matter(
    method: str, teacher: Backbone, groups: Groups, generator: torch.Generator
) -> None:
    """ToMe (alternate halves) and farthest points (their start) depend on the order."""
    model, order = merged(teacher, method), torch.randperm(12, generator=generator)
    plain = model.encode(groups).features
    mixed = model.encode(Groups(*(part[:, order] for part in groups))).features
    torch.testing.assert_close(mixed, plain[:, order], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_students_get_gradients_and_the_teacher_stays(
    method: str, teacher: Backbone, points: Tensor, generator: torch.Generator
) -> None:
    reduction = ReductionConfig(method=method, reach=3)
    student = Merged.from_teacher(teacher, reduction, generator=generator)
    before, goal = teacher(points).features.detach(), torch.randn(4, 12, 24, generator=generator)
    student.train()
    output = student(points, generator=generator)
    nn.functional.smooth_l1_loss(output.features, goal).backward()
    silent = [n for n, p in student.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []
    assert all(p.grad is None for p in teacher.parameters())
    with torch.no_grad():
        for parameter in student.parameters():
            parameter -= 0.1 * parameter.grad
    assert torch.equal(teacher(points).features, before)
    assert not torch.equal(student.eval()(points).features, before)


def test_students_have_no_dropout(teacher: Backbone) -> None:
    rates = {"dropout": 0.1, "attention_dropout": 0.1, "drop_path": 0.1}
    noisy = Backbone(replace(TINY, **rates))
    student = Merged.from_teacher(noisy, ReductionConfig(reach=3))
    assert student.shape == TINY
    assert noisy.shape.dropout == 0.1


def test_random_draws_of_training_come_from_the_generator(teacher: Backbone, groups) -> None:
    model = merged(teacher, "random", left=(4,))
    assert torch.equal(model.encode(groups).assignment, model.encode(groups).assignment)
    model.train()
    one, same, other = (
        model.encode(groups, generator=torch.Generator().manual_seed(s)).assignment
        for s in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_costs_are_those_of_the_schedule(teacher: Backbone) -> None:
    whole, d = count(teacher, clouds=3), 24
    fewer = (0 + 6 + 9, 6 + 9 + 9)  # tokens that attention and MLP of the three blocks do not see
    macs = fewer[0] * 4 * d * d + fewer[1] * 8 * d * d
    flops = 2 * macs + 5 * d * fewer[0] + (5 + 4) * d * fewer[1] + 5 * d * 9
    for method in HOOKED:
        cost = count(merged(teacher, method), clouds=3)
        assert (whole.macs - cost.macs, whole.flops - cost.flops) == (3 * macs, 3 * flops)
        assert cost.params == whole.params
    cost = count(merged(teacher, "patchmerger"), clouds=3)
    a_block = 12 * 24 * 24  # MACs a token: 3 d^2 + d^2 + 8 d^2
    assert whole.macs - cost.macs == 3 * 2 * 9 * a_block
    assert cost.params - whole.params == 3 * 24 + 2 * 24


def test_learned_reducers_are_saved_and_loaded(
    teacher: Backbone, points: Tensor, tmp_path: Path
) -> None:
    prototypes = KMeansStudent.from_teacher(teacher, [points], supertokens=4)
    larger = FPSStudent.from_teacher(teacher, supertokens=4, points=96)
    for model in (merged(teacher, "patchmerger"), prototypes, larger):
        folder = checkpoint.save(model, tmp_path / type(model).__name__, provenance={})
        again = checkpoint.load(folder)
        assert type(again) is type(model)
        assert again.config == model.config
        assert torch.equal(again(points).features, model(points).features)


# ---------------------------------------------------------------- schedules


def test_schedules_of_the_paper() -> None:
    def of(**values: object) -> tuple[int, ...]:
        return ReductionConfig(**values).schedule(64, 12)

    tail = (16,) * 10
    assert of(removed=(32, 16)) == of(left=(32, 16)) == of(ratio=(0.5, 0.5)) == (32, *tail, 16)
    assert of(reach=16) == (32, *tail, 16)
    assert of(removed=(32, 16, 8, 4, 2, 1)) == of(reach=1) == (32, 16, 8, 4, 2, *(1,) * 7)
    assert ReductionConfig(reach=1).schedule(13, 5) == (7, 4, 2, 1, 1)
    assert of(reach=5) == (32, 16, 8, 5, *(5,) * 8)
    assert of(method="patchmerger", reach=16) == (64,) * 6 + (16,) * 6
    assert of(method="patchmerger", reach=16, after=2) == (64,) * 2 + (16,) * 10
    assert of(method="pitome", ratio=(0.9,))[0] == 58  # 57.6 rounded up
    assert of(method="kmeans", left=(4,)) == (4,) * 12
    assert MergedConfig().supertokens == 16


def test_schedules_that_cannot_be_are_refused(teacher: Backbone, groups: Groups) -> None:
    for values in (
        {},
        {"reach": 3, "left": (4,)},
        {"method": "nonsense", "reach": 3},
        {"reach": 0},
        {"ratio": (1.5,)},
        {"method": "patchmerger", "left": (4,)},
        {"reach": 3, "after": 1},
    ):
        with pytest.raises(InputError):
            ReductionConfig(**values)
    for values in (
        {"left": (5,)},
        {"left": (6, 8)},
        {"removed": (6, 6)},
        {"removed": (1, 1, 1, 1)},
        {"reach": 1},
        {"method": "patchmerger", "reach": 13},
        {"method": "patchmerger", "reach": 3, "after": 3},
    ):
        with pytest.raises(InputError):
            Merged.around(teacher, ReductionConfig(**values))
    few = Groups(*(part[:, :4] for part in groups))
    with pytest.raises(InputError, match="leave 1 to 4"):
        merged(teacher, "tome", removed=(6,)).encode(few)


# ---------------------------------------------------------------- fewer groups, static students


def test_random_sampling_keeps_groups_of_the_teacher(teacher: Backbone, points: Tensor) -> None:
    model, groups = RandomSampling(teacher, 5), teacher.group(points)
    kept = model.group(points)
    chosen = torch.cdist(kept.centers, groups.centers).argmin(-1)
    assert all(len(row.unique()) == 5 for row in chosen)
    assert torch.equal(gather(groups.centers, chosen), kept.centers)
    assert torch.equal(
        gather(groups.neighborhoods.flatten(2), chosen), kept.neighborhoods.flatten(2)
    )
    assert model.shape.groups == 5
    assert model.block_features(kept, [1])[0].shape == (4, 5, 24)


def test_larger_groups_cover_the_points_twice(teacher: Backbone, points: Tensor) -> None:
    same = LargerGroups(teacher, 24, points=96)
    assert same.group(points).neighborhoods.shape == (4, 24, 8, 3)
    model = LargerGroups(teacher, 4, points=96)
    assert model.group(points).neighborhoods.shape == (4, 4, 48, 3)
    assert torch.equal(model(points).features, teacher.encode(model.group(points)).features)
    assert count(model).macs < count(LargerGroups(teacher, 12, points=96)).macs
    assert LargerGroups(teacher, 1, points=96).shape.group_size == 96
    scaled = LargerGroups(Backbone(replace(TINY, radius=0.5)), 4, points=96).group(points)
    torch.testing.assert_close(scaled.neighborhoods, 2 * model.group(points).neighborhoods)
    with pytest.raises(InputError):
        LargerGroups(teacher, 0, points=96)


def test_fps_student_shares_centers_and_interpolates(teacher: Backbone, points: Tensor) -> None:
    student = FPSStudent.from_teacher(teacher, supertokens=4, points=96)
    groups, output = student.group(points), student(points)
    assert torch.equal(groups.centers, teacher.group(points).centers)
    assert torch.equal(groups.coarse.centers, groups.centers[:, :4])
    assert groups.coarse.neighborhoods.shape == (4, 4, 48, 3)
    assert teacher.encode(groups).features.shape == output.features.shape == (4, 12, 24)
    coarse = student.encode(groups.coarse).features
    torch.testing.assert_close(output.features[:, :4], coarse, atol=1e-4, rtol=1e-4)
    low, high = coarse.amin(1, keepdim=True), coarse.amax(1, keepdim=True)
    inside = (output.features >= low - 1e-5) & (output.features <= high + 1e-5)
    assert inside.all()
    assert torch.equal(output.assignment[:, :4], torch.arange(4).expand(4, -1))
    last = student.block_features(groups, [2])[0]
    alone = student.backbone.block_features(groups.coarse, [2])[0]
    torch.testing.assert_close(last[:, :4], alone, atol=1e-4, rtol=1e-4)
    scaled = FPSStudent.from_teacher(
        Backbone(replace(TINY, radius=0.5)), supertokens=4, points=96
    ).group(points)
    torch.testing.assert_close(scaled.coarse.neighborhoods, 2 * groups.coarse.neighborhoods)
    assert count(student) == count(Backbone(replace(TINY, groups=4, group_size=48)))
    with pytest.raises(InputError):
        FPSStudent.from_teacher(teacher, supertokens=13, points=96)


def test_prototypes_of_separate_tokens_are_the_tokens(teacher: Backbone, points: Tensor) -> None:
    """With as many prototypes as there are different tokens nothing is lost but the order."""
    cloud = points[:1]
    student = KMeansStudent.from_teacher(teacher, [cloud], supertokens=12)
    output, plain = student(cloud), teacher(cloud)
    assert sorted(output.assignment[0].tolist()) == list(range(12))
    torch.testing.assert_close(output.features, plain.features, atol=1e-4, rtol=1e-4)
    groups = teacher.group(cloud)
    torch.testing.assert_close(
        student.block_features(groups, [1])[0],
        teacher.block_features(groups, [1])[0],
        atol=1e-4,
        rtol=1e-4,
    )


@pytest.mark.parametrize("classed", [False, True])
def test_unused_prototypes_do_not_matter(teacher: Backbone, points: Tensor, classed: bool) -> None:
    backbone = with_class(teacher) if classed else teacher
    student = KMeansStudent.from_teacher(backbone, [points], supertokens=5)
    more = KMeansStudent(
        KMeansStudentConfig(backbone=student.config.backbone, supertokens=6)
    ).eval()
    more.backbone.load_state_dict(backbone.state_dict())
    more.prototypes = torch.cat([torch.full((1, 24), 1e3), student.prototypes])
    one, other = student(points), more(points)
    assert torch.equal(other.assignment, one.assignment + 1)
    assert torch.equal(other.tokens_used, one.tokens_used)
    torch.testing.assert_close(other.features, one.features, atol=1e-5, rtol=1e-5)


def test_prototypes_are_near_the_tokens_and_need_enough(teacher: Backbone, points: Tensor) -> None:
    rows = teacher.embed_groups(teacher.group(points))[0].detach().flatten(0, 1)
    spread = {}
    for s in (1, 8):
        found = fit_prototypes(teacher, points.split(2), s, seed=1)
        assert torch.equal(found, fit_prototypes(teacher, points.split(2), s, seed=1))
        spread[s] = float(torch.cdist(rows, found).amin(-1).square().sum())
    torch.testing.assert_close(
        fit_prototypes(teacher, [points], 1)[0], rows.mean(0), atol=1e-4, rtol=1e-4
    )
    assert spread[8] < 0.7 * spread[1]
    for batches in ([], [points[:1]]):
        with pytest.raises(InputError, match="prototypes need"):
            fit_prototypes(teacher, batches, 13)


@pytest.mark.parametrize("kind", ["tome", "patchmerger", "fps-student"])
def test_reducers_are_distilled_like_students(
    teacher: Backbone, points: Tensor, tmp_path: Path, kind: str
) -> None:
    data = tmp_path / "clouds.npz"
    np.savez(data, points=points.numpy(), labels=np.zeros(len(points), np.int16))
    config = DistillConfig(
        out=str(tmp_path / "run"),
        student=StudentOptions(kind=kind, supertokens=4),
        frozen="none",
        data=DataConfig(train=str(data), test=None, points=96, validation=0.0),
        train=TrainConfig(epochs=2, batch_size=2, warmup_epochs=0, accelerator="cpu"),
    )
    student = distill(config, teacher=teacher)
    loaded = checkpoint.load(tmp_path / "run" / "model")
    assert torch.equal(loaded(points).features, student(points).features)
    moved = [
        not torch.equal(new, old)
        for new, old in zip(student.encoder.parameters(), teacher.encoder.parameters(), strict=True)
    ]
    assert all(moved)
    with pytest.raises(InputError, match="gate"):
        StudentOptions(kind=kind, gate=True)
