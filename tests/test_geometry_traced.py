"""Compilers, exporters and fake tensors see one operator; what it computes is the eager result."""

import shutil
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from conftest import TINY
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from foundry3d import geometry
from foundry3d.config import StudentConfig
from foundry3d.models.student import Student

NAMES = ("farthest_point_sample", "nearest_neighbors", "greedy_order")
needs_compiler = pytest.mark.skipif(
    sys.platform == "win32" or not any(map(shutil.which, ("g++", "clang++", "c++"))),
    reason="torch.compile on the CPU needs a C++ compiler",
)


@pytest.fixture
def small(generator: torch.Generator) -> Student:
    config = StudentConfig(backbone=replace(TINY, depth=1), supertokens=4)
    return Student(config, generator=generator).eval()


@pytest.fixture
def clouds(generator: torch.Generator) -> Tensor:
    return torch.randn(16, 96, 3, generator=generator)


@needs_compiler
@pytest.mark.filterwarnings("ignore")  # of the compiler, which differ from version to version
def test_a_compiled_model_samples_the_points_of_the_eager_one(
    small: Student, clouds: Tensor
) -> None:
    with torch.no_grad():
        eager, compiled = small(clouds), torch.compile(small, fullgraph=True)(clouds)
    torch._dynamo.reset()
    assert torch.equal(compiled.centers, eager.centers)
    assert torch.equal(compiled.assignment, eager.assignment)
    torch.testing.assert_close(compiled.features, eager.features, rtol=1e-4, atol=1e-5)


class Chain(torch.nn.Module):
    """Everything that is opaque, in one module."""

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        groups = geometry.group_points(points, 12, 5)
        return groups.centers, groups.neighborhoods, geometry.greedy_order(groups.centers)


@pytest.mark.parametrize("strict", [True, False])
def test_an_exported_program_holds_the_operators(clouds: Tensor, strict: bool) -> None:
    program = torch.export.export(Chain(), (clouds,), strict=strict)
    held = [str(node.target) for node in program.graph.nodes]
    assert [sum(f"foundry3d.{name}" in target for target in held) for name in NAMES] == [1, 1, 1]
    other = clouds.flip(1)
    for own, eager in zip(program.module()(other), Chain()(other), strict=True):
        assert torch.equal(own, eager)


@pytest.mark.filterwarnings("ignore")  # torch prefers the export above
def test_a_traced_program_looks_at_other_points_too(clouds: Tensor) -> None:
    traced = torch.jit.trace(Chain(), (clouds,))
    other = clouds.flip(1)
    for own, eager in zip(traced(other), Chain()(other), strict=True):
        assert torch.equal(own, eager)


def test_models_run_on_fake_tensors(small: Student, clouds: Tensor) -> None:
    eager = small(clouds)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = small(mode.from_tensor(clouds))
    assert fake.features.shape == eager.features.shape
    assert fake.centers.device == clouds.device


def test_large_clouds_have_the_same_form_as_fake_tensors(generator: torch.Generator) -> None:
    """Where eager calls build trees, which fake tensors cannot."""
    points = torch.randn(1, 5000, 3, generator=generator)
    eager = geometry.group_points(points, 300, 9)
    with FakeTensorMode() as mode:
        fake = geometry.group_points(mode.from_tensor(points), 300, 9)
    for own, found in zip(fake, eager, strict=True):
        assert (own.shape, own.dtype) == (found.shape, found.dtype)


def operands(device: str) -> dict[str, Callable[[], Tensor]]:
    points = torch.rand(2, 20, 3, generator=torch.Generator().manual_seed(2)).to(device)
    start = torch.zeros(2, dtype=torch.int64, device=device)
    calls = [
        lambda: torch.ops.foundry3d.farthest_point_sample(points, 7, start, "auto"),
        lambda: torch.ops.foundry3d.nearest_neighbors(points[:, :4], points, 5, "torch"),
        lambda: torch.ops.foundry3d.greedy_order(points, "auto"),
    ]
    return dict(zip(NAMES, calls, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_operators_on_meta_tensors_have_the_shapes_of_the_real_ones(name: str) -> None:
    real, meta = operands("cpu")[name](), operands("meta")[name]()
    assert meta.is_meta
    assert (meta.shape, meta.dtype) == (real.shape, real.dtype)


def test_operators_keep_the_rules_of_torch() -> None:
    points = torch.rand(2, 20, 3, generator=torch.Generator().manual_seed(2))
    start = torch.tensor([0, 3])
    ops, checks = torch.ops.foundry3d, ("test_schema", "test_faketensor")
    for op, given in (
        (ops.farthest_point_sample, (points, 7, start, "auto")),
        (ops.nearest_neighbors, (points, points, 5, "auto")),
        (ops.greedy_order, (points, "auto")),
    ):
        torch.library.opcheck(op, given, test_utils=checks)
