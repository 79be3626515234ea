"""The package for the edge against this one: the same indices and preparation.

Its features are compared in `test_export`.
"""

import numpy as np
import pytest
import torch
from foundry3d_edge import geometry as edge
from foundry3d_edge.metadata import Preparation
from foundry3d_edge.preparation import prepare as edge_prepare

from foundry3d import geometry
from foundry3d.data.files import Points
from foundry3d.embed.clouds import Policy, prepare

KINDS = ["random", "clustered", "duplicated", "collinear", "one point", "far", "grid"]


def cloud(kind: str, seed: int, size: int = 300) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(3, size, 3, generator=g)
    return {
        "random": x,
        "clustered": x * 0.01 + torch.randint(0, 3, (3, size, 1), generator=g),
        "duplicated": x[:, torch.randint(0, size // 4, (size,), generator=g)],
        "collinear": x[..., :1] * torch.tensor([1.0, 2.0, -1.0]),
        "one point": torch.zeros(3, size, 3) + 0.3,
        "far": x + 1000.0,
        "grid": (x * 1.5).round() / 1.5,
    }[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_indices_are_those_of_the_definition(kind: str) -> None:
    for seed, size in enumerate((64, 65, 300, 301, 1024)):
        x = cloud(kind, seed, size)
        slow = geometry.farthest_point_sample(x, 64, backend="torch")
        np.testing.assert_array_equal(edge.farthest_point_sample(x.numpy(), 64), slow)
        for k in (1, 16, size):
            near = geometry.nearest_neighbors(x[:, :20], x, k, backend="torch")
            found = edge.nearest_neighbors(x[:, :20].numpy(), x.numpy(), k)
            np.testing.assert_array_equal(found, near)


@pytest.mark.parametrize("radius", [None, 0.3])
def test_groups_are_equal_to_the_last_bit(radius: float | None) -> None:
    x = cloud("random", 3)
    right = geometry.group_points(x, 32, 8, radius=radius)
    for ours, theirs in zip(edge.group_points(x.numpy(), 32, 8, radius), right, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("up", ["x", "y", "z"])
def test_preparation_is_that_of_embed(normalise: bool, up: str) -> None:
    points = cloud("far", 5)[0].double().numpy() * 3
    policy = Policy(normalise=normalise, turn=2 - "xyz".index(up), points=128, seed=4)
    right = prepare(Points(points=points, source="a"), policy, 1)
    how = Preparation(normalise=normalise, up="z", points=128)
    found = edge_prepare(points, how, up=up, seed=4, source="a")
    np.testing.assert_allclose(found.points, right.points, rtol=0, atol=1e-7)
    back = right.original(right.points[None])[0]
    np.testing.assert_allclose(found.original(found.points), back, atol=1e-4)
