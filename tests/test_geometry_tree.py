import numpy as np
import pytest
import torch
from torch import Tensor

from foundry3d import geometry

pytest.importorskip("numba")
from foundry3d.geometry.search import farthest, nearest
from foundry3d.geometry.tree import Tree, build


def cloud(kind: str, size: int) -> Tensor:
    g = torch.Generator().manual_seed(size)
    x = torch.randn(size, 3, generator=g)
    side = round(size ** (1 / 3)) + 1
    cells = torch.arange(size)
    return {
        "random": x,
        "clustered": x * 0.001 + torch.randint(0, 3, (size, 1), generator=g),
        "collinear": x[:, :1] * torch.tensor([1.0, 2.0, -1.0]),
        "duplicated": x[torch.randint(0, 1 + size // 3, (size,), generator=g)],
        "one point": torch.zeros(size, 3) + 0.3,
        "grid": torch.stack([cells % side, cells // side % side, cells // side**2], 1).float(),
        "far": x + 1000.0,
        "signed zero": (x * 0.7).round() * -1.0,
        "huge": x * 1e20,
    }[kind]


KINDS = [
    *("random", "clustered", "collinear", "duplicated", "one point"),
    *("grid", "far", "signed zero", "huge"),
]
SIZES = [1, 2, 33, 64, 777, 3001]


def tree_of(x: Tensor, bucket: int = 32) -> Tree:
    return build(x.numpy(), bucket, threads=2)


def sampled(x: Tensor, count: int, start: int, bucket: int = 32) -> Tensor:
    chosen = np.empty(count, np.int64)
    farthest(tree_of(x, bucket), start, chosen)
    return torch.from_numpy(chosen)


def searched(q: Tensor, x: Tensor, k: int, bucket: int = 32) -> Tensor:
    found = np.empty((len(q), k), np.int64)
    nearest(tree_of(x, bucket), q.numpy(), found, threads=2)
    return torch.from_numpy(found)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_buckets_hold_every_point_once_inside_their_boxes(kind: str, size: int) -> None:
    x = cloud(kind, size)
    tree = tree_of(x)
    assert np.array_equal(np.sort(tree.order), np.arange(size))
    assert np.array_equal(tree.xyz.T, x.numpy()[tree.order])
    boxes = tree.boxes.transpose(1, 0, 2).reshape(6, -1)
    sizes = np.diff(tree.edges)
    assert sizes.max() <= min(size, 32)
    assert sizes.max() - sizes.min() <= 1
    for j, (low, high) in enumerate(zip(tree.edges[:-1], tree.edges[1:], strict=True)):
        assert (np.diff(tree.order[low:high]) > 0).all()
        assert np.array_equal(tree.xyz[:, low:high].min(1), boxes[:3, j])
        assert np.array_equal(tree.xyz[:, low:high].max(1), boxes[3:, j])
    assert (tree.blocks[:3] == tree.boxes[:, :3].min(2).T).all()
    assert (tree.blocks[3:] == tree.boxes[:, 3:].max(2).T).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_sampling_equals_the_definition(kind: str, size: int) -> None:
    x = cloud(kind, size)
    for start in {0, size // 3, size - 1}:
        count = max(1, size // 3)
        begin = torch.tensor([start])
        slow = geometry.farthest_point_sample(x[None], count, start=begin, backend="torch")[0]
        assert torch.equal(sampled(x, count, start), slow)
    everything = geometry.farthest_point_sample(x[None], size, backend="torch")[0]
    assert torch.equal(sampled(x, size, 0), everything)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_neighbours_equal_the_definition(kind: str, size: int) -> None:
    x = cloud(kind, size)
    off = cloud("random", 41) * x.std(0, correction=0).clamp_min(0.1) * 2 + x.mean(0)
    q = torch.cat([x[:60], off])
    for k in {1, min(3, size), min(33, size), size}:
        slow = geometry.nearest_neighbors(q[None], x[None], k, backend="torch")[0]
        assert torch.equal(searched(q, x, k), slow), k


@pytest.mark.parametrize("kind", KINDS)
def test_neighbours_equal_brute_force(kind: str) -> None:
    x = cloud(kind, 777)
    d = geometry.squared_distances(x[None, :50], x[None])[0]
    brute = d.sort(dim=1, stable=True).indices[:, :20]
    assert torch.equal(searched(x[:50], x, 20), brute)


@pytest.mark.parametrize("kind", KINDS)
def test_small_scans_equal_the_definition(kind: str) -> None:
    x = torch.stack([cloud(kind, 700), cloud(kind, 700).flip(0)])
    for k in (1, 3, 32, 100, 200, 700):
        slow = geometry.nearest_neighbors(x[:, ::9], x, k, backend="torch")
        assert torch.equal(geometry.nearest_neighbors(x[:, ::9], x, k, backend="compiled"), slow)


@pytest.mark.parametrize("bucket", [1, 8, 300, 5000])
def test_the_bucket_size_changes_nothing(bucket: int) -> None:
    x = cloud("grid", 1500)
    assert torch.equal(sampled(x, 300, 7, bucket), sampled(x, 300, 7))
    assert torch.equal(searched(x[:99], x, 9, bucket), searched(x[:99], x, 9))


def test_ties_do_not_depend_on_where_points_lie_in_the_tree() -> None:
    x = cloud("grid", 1000)
    flipped = x * torch.tensor([-1.0, 1.0, -1.0])  # other buckets, the same distances
    assert torch.equal(sampled(x, 200, 0), sampled(flipped, 200, 0))
    assert torch.equal(searched(x, x, 27), searched(flipped, flipped, 27))


def test_points_permuted_give_the_same_points() -> None:
    x = cloud("random", 2000)
    order = torch.randperm(2000, generator=torch.Generator().manual_seed(1))
    first = int((order == 0).nonzero())
    assert torch.equal(order[sampled(x[order], 500, first)], sampled(x, 500, 0))
    assert torch.equal(order[searched(x[:70], x[order], 12)], searched(x[:70], x, 12))


@pytest.mark.parametrize("kind", ["random", "duplicated", "grid", "far"])
def test_large_clouds_take_the_tree_and_stay_equal(kind: str) -> None:
    x = torch.stack([cloud(kind, 5000), cloud(kind, 5000).flip(0)])
    start = torch.tensor([3, 4999])
    trees = geometry.build_trees(x)
    assert trees is not None
    slow = geometry.farthest_point_sample(x, 300, start=start, backend="torch")
    off = torch.cat([geometry.gather(x, slow), x[:, :50] * 1.01 + 0.01], dim=1)
    near = geometry.nearest_neighbors(off, x, 17, backend="torch")
    for given in (None, trees):
        assert torch.equal(geometry.farthest_point_sample(x, 300, start=start, trees=given), slow)
        assert torch.equal(geometry.nearest_neighbors(off, x, 17, trees=given), near)
    plain = geometry.group_points(x, 300, 17, start=start, radius=0.5, backend="torch")
    groups = geometry.group_points(x, 300, 17, start=start, radius=0.5)
    assert torch.equal(groups.centers, plain.centers)
    assert torch.equal(groups.neighborhoods, plain.neighborhoods)


def test_groups_of_large_clouds_pass_gradients() -> None:
    x = cloud("random", 5000)[None].requires_grad_()
    groups = geometry.group_points(x, 256, 8)
    groups.neighborhoods.square().sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad.sum(1), torch.zeros(1, 3), atol=1e-2, rtol=0)
    assert torch.equal(groups.neighborhoods, geometry.group_points(x.detach(), 256, 8)[1])


def test_coordinates_that_are_no_numbers_give_indices_all_the_same() -> None:
    x = cloud("random", 777)
    x[::5, 0], x[1::7, 1], x[2::9] = float("nan"), float("inf"), -float("nan")
    assert np.array_equal(np.sort(tree_of(x).order), np.arange(777))
    for index in (sampled(x, 100, 0), searched(x[:50], x, 40)):
        assert ((index >= 0) & (index < 777)).all()


def test_trees_are_for_the_cpu_in_float32() -> None:
    x = cloud("random", 5000)[None]
    assert geometry.build_trees(x, backend="torch") is None
    assert geometry.build_trees(x.double()) is None
    assert geometry.build_trees(x[:, :1]) is not None
