from typing import Any

import numpy as np
import pytest
import torch
from conftest import needs_numba

from foundry3d import geometry
from foundry3d.errors import InputError
from foundry3d.geometry import ops


def clouds(kind: str) -> torch.Tensor:
    g = torch.Generator().manual_seed(3)
    x = torch.randn(5, 300, 3, generator=g)
    return {
        "random": x,
        "clustered": x * 0.01 + torch.randint(0, 3, (5, 300, 1), generator=g),
        "collinear": x[..., :1] * torch.tensor([1.0, 2.0, -1.0]),
        "duplicated": (x * 1.5).round() / 1.5,
        "one point": torch.zeros(5, 300, 3) + 0.3,
        "far": x + 1000.0,
    }[kind]


BACKENDS = ["torch", pytest.param("compiled", marks=needs_numba)]
KINDS = ["random", "clustered", "collinear", "duplicated", "one point", "far"]


@needs_numba
@pytest.mark.parametrize("kind", KINDS)
def test_compiled_sampling_equals_the_definition(kind: str) -> None:
    x = clouds(kind)
    start = torch.tensor([0, 5, 299, 17, 100])
    for begin in (None, start):
        slow = geometry.farthest_point_sample(x, 64, start=begin, backend="torch")
        fast = geometry.farthest_point_sample(x, 64, start=begin, backend="compiled")
        assert torch.equal(slow, fast)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "start",
    [
        torch.tensor([0, 0, 0, 0, 300]),
        torch.tensor([-1, 0, 0, 0, 0]),
        torch.tensor([0, 0, 0, 0]),
        torch.zeros(5),
    ],
)
def test_starts_outside_the_cloud_are_refused(start: torch.Tensor, backend) -> None:
    with pytest.raises(InputError, match=r"expected 5 int64 starts in 0\.\.299"):
        geometry.farthest_point_sample(clouds("random"), 8, start=start, backend=backend)


@needs_numba
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [1, 16, 300])
def test_compiled_neighbours_equal_the_definition(kind: str, k: int) -> None:
    x = clouds(kind)
    slow = geometry.nearest_neighbors(x[:, :40], x, k, backend="torch")
    assert torch.equal(slow, geometry.nearest_neighbors(x[:, :40], x, k, backend="compiled"))
    one = geometry.nearest_neighbors(x[:1, :40], x[:1], k, backend="compiled")
    assert torch.equal(slow[:1], one)


@pytest.mark.parametrize("kind", KINDS)
def test_neighbours_are_the_nearest(kind: str) -> None:
    x = clouds(kind).double()
    index = geometry.nearest_neighbors(x[:, :9].float(), x.float(), 12)
    distance = (x[:, :9, None] - x[:, None]).square().sum(-1)
    nearest = distance.sort(dim=-1).values[..., :12]
    torch.testing.assert_close(distance.gather(-1, index), nearest, rtol=1e-3, atol=1e-6)


@needs_numba
@pytest.mark.parametrize("kind", KINDS)
def test_orders_are_permutations_and_agree(kind: str) -> None:
    x = clouds(kind)[:, :50]
    slow = geometry.greedy_order(x, backend="torch")
    assert torch.equal(slow, geometry.greedy_order(x, backend="compiled"))
    assert torch.equal(slow.sort(dim=1).values, torch.arange(50).expand(5, 50))


def test_sampling_covers_better_than_chance() -> None:
    x = clouds("random")
    chosen = geometry.gather(x, geometry.farthest_point_sample(x, 32))
    reach = geometry.squared_distances(x, chosen).amin(-1).amax(-1)
    chance = geometry.squared_distances(x, x[:, :32]).amin(-1).amax(-1)
    assert (reach < chance).all()


def test_groups_hold_their_center_and_ignore_translation() -> None:
    x = clouds("random")
    groups = geometry.group_points(x, 20, 8)
    assert torch.equal(groups.neighborhoods[:, :, 0], torch.zeros(5, 20, 3))
    moved = geometry.group_points(x + 4.0, 20, 8)  # 4 is exact to about 1e-6 here
    torch.testing.assert_close(moved.neighborhoods, groups.neighborhoods, atol=2e-6, rtol=0)
    scaled = geometry.group_points(x, 20, 8, radius=0.5)
    assert torch.equal(scaled.neighborhoods, groups.neighborhoods / 0.5)


def test_distances_hold_far_from_the_origin() -> None:
    x = clouds("random")
    index = geometry.nearest_neighbors(x, x, 2)
    far = ((x * 1024).round() / 1024) + 512.0  # exact in float32
    near = (x * 1024).round() / 1024
    assert torch.equal(
        geometry.nearest_neighbors(far, far, 2), geometry.nearest_neighbors(near, near, 2)
    )
    assert torch.equal(index[..., 0], torch.arange(300).expand(5, 300))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_fewer_samples_are_the_first_of_more(kind: str, backend) -> None:
    x = clouds(kind)
    most = geometry.farthest_point_sample(x, 200, backend=backend)
    for count in (1, 2, 63, 199):
        assert torch.equal(
            geometry.farthest_point_sample(x, count, backend=backend), most[:, :count]
        )


TURNS = {  # axes permuted, some mirrored: proper rotations without rounding
    "quarter turn": torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]),
    "half turn": torch.tensor([[-1.0, 0, 0], [0, 1, 0], [0, 0, -1]]),
    "third turn": torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]]),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("turn", TURNS)
def test_indices_do_not_change_under_rigid_motion(turn: str, backend) -> None:
    """On a grid of 1/64 every square and sum is exact, so that equal distances stay equal."""
    x = (clouds("random") * 64).round().clamp(-255, 255) / 64
    rotation = TURNS[turn]
    assert torch.linalg.det(rotation) == 1
    moved = x @ rotation.T + torch.tensor([8.0, -16.0, 0.25])
    index = geometry.farthest_point_sample(x, 64, backend=backend)
    assert torch.equal(index, geometry.farthest_point_sample(moved, 64, backend=backend))
    near = [
        geometry.nearest_neighbors(geometry.gather(cloud, index), cloud, 16, backend=backend)
        for cloud in (x, moved)
    ]
    assert torch.equal(*near)


def test_gradients_reach_the_points() -> None:
    x = clouds("random").requires_grad_()
    groups = geometry.group_points(x, 20, 8)
    groups.neighborhoods.square().sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    torch.testing.assert_close(x.grad.sum(1), torch.zeros(5, 3), atol=1e-3, rtol=0)


def test_greedy_order_equals_the_reference(parity) -> None:
    import numpy as np

    found = np.load(parity / "sequencer.npz")
    order = geometry.greedy_order(torch.from_numpy(found["centers"]))
    assert (order.numpy() == found["greedy_min_start_order"]).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", [1e19, 1e30, float("nan")])
def test_orders_are_permutations_where_distances_overflow(backend, size: float) -> None:
    x = clouds("random")[:, :50] * size
    x[1, ::2] = 0.5  # some distances are finite, others not
    order = geometry.greedy_order(x, backend=backend)
    assert torch.equal(order.sort(dim=1).values, torch.arange(50).expand(5, 50))
    assert torch.equal(order, geometry.greedy_order(x, backend="torch"))


@pytest.mark.parametrize("backend", BACKENDS)
def test_indices_differ_where_distances_overflow(backend) -> None:
    x = clouds("random") * 1e30
    chosen = geometry.farthest_point_sample(x, 40, backend=backend)
    near = geometry.nearest_neighbors(x[:, :9], x, 40, backend=backend)
    for index in (chosen, near):
        assert ((index >= 0) & (index < 300)).all()
        assert (index.sort(dim=-1).values.diff(dim=-1) > 0).all()
    assert torch.equal(chosen, geometry.farthest_point_sample(x, 40, backend="torch"))
    assert torch.equal(near, geometry.nearest_neighbors(x[:, :9], x, 40, backend="torch"))


def test_the_largest_coordinates_that_are_let_in_have_finite_distances() -> None:
    corners = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])[None] * ops.FARTHEST
    geometry.check_points(corners)
    assert geometry.squared_distances(corners, corners).isfinite().all()
    with pytest.raises(InputError, match="scale the clouds"):
        geometry.check_points(corners * 1.001)


@needs_numba
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_is_sampled_as_the_same_points_in_float32(kind: torch.dtype) -> None:
    x = (clouds("random") * 100).to(kind)  # squares overflow in float16
    for backend in ("torch", "compiled"):
        half = geometry.group_points(x, 20, 8, backend=backend)
        full = geometry.group_points(x.float(), 20, 8)
        assert torch.equal(half.centers, full.centers.to(kind))
        index = geometry.nearest_neighbors(half.centers, x, 8, backend=backend)
        assert torch.equal(index, geometry.nearest_neighbors(full.centers, x.float(), 8))


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (np.zeros((1, 50, 3), np.float32), "got a ndarray; convert it"),
        ([[[0.0, 0.0, 0.0]] * 50], "got a list; convert it"),
        (torch.zeros(1, 50, 3).to_sparse(), "sparse or nested"),
        (
            torch.nested.nested_tensor(
                [torch.zeros(50, 3), torch.zeros(9, 3)], layout=torch.jagged
            ),
            "sparse or nested",
        ),
        (torch.zeros(1, 50, 3, dtype=torch.complex64), "floating"),
        (torch.zeros(4, 3), "shape"),
        (torch.zeros(1, 50, 4), "shape"),
        (torch.zeros(1, 50, 3, dtype=torch.int64), "floating"),
        (torch.zeros(0, 50, 3), "at least one cloud"),
        (torch.zeros(1, 10, 3), "at least 20 points"),
        (torch.full((1, 50, 3), float("nan")), "NaN"),
        (torch.full((1, 50, 3), float("inf")), "NaN"),
    ],
)
def test_bad_points_are_one_sentence(bad: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        geometry.group_points(bad, 20, 8)


@needs_numba
def test_bad_counts_are_refused() -> None:
    x = torch.ones(1, 10, 3)
    for call in (
        lambda: geometry.farthest_point_sample(x, 11),
        lambda: geometry.farthest_point_sample(x, 0),
        lambda: geometry.nearest_neighbors(x, x, 11),
        lambda: geometry.group_points(x, 2, 2, radius=0.0),
        lambda: geometry.farthest_point_sample(x.double(), 2, backend="compiled"),
        lambda: geometry.farthest_point_sample(x, 2, backend="fast"),
    ):
        with pytest.raises(InputError):
            call()
