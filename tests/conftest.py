import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from foundry3d.config import BackboneConfig
from foundry3d.models.backbone import Backbone

SHARED = Path(__file__).parents[2] / "shared"
TINY = BackboneConfig(
    groups=12, group_size=8, point_widths=(8, 16, 32), dim=24, depth=3, heads=3, position_dim=16
)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


@pytest.fixture
def points(generator: torch.Generator) -> torch.Tensor:
    return torch.randn(4, 96, 3, generator=generator)


@pytest.fixture
def teacher(generator: torch.Generator, points: torch.Tensor) -> Backbone:
    """A tiny teacher whose BatchNorm statistics and weights are not the initial ones."""
    model = Backbone(TINY, generator=generator).train()
    model(points, generator=generator)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("bias", "norm.weight", "norm1.weight", "norm2.weight")):
                weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    return model.eval()


@pytest.fixture(scope="session")
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip("reference data is not here")
    return SHARED


@pytest.fixture
def bounded() -> Iterator[None]:
    """Fails a test that takes more than 64 MiB at any time."""
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**26
