import json
import logging
import sys
import tracemalloc
from collections.abc import Iterator
from importlib.util import find_spec
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest
import torch

from foundry3d.config import BackboneConfig
from foundry3d.models.backbone import Backbone

SHARED = Path(__file__).parents[2] / "shared"
TINY = BackboneConfig(
    groups=12, group_size=8, point_widths=(8, 16, 32), dim=24, depth=3, heads=3, position_dim=16
)

needs_numba = pytest.mark.skipif(find_spec("numba") is None, reason="needs numba")
"""On tests of the compiled forms, which have another form to take over where numba is missing."""

LONG = ("programs", "notebooks", "geometry_traced", "foreign", "export", "processes", "chaos")
"""Files that take long for their few tests, `tests/test_*.py`."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files come first, so that two processes end at about the same time."""
    items.sort(key=lambda item: item.path.stem.removeprefix("test_") not in LONG)


def pytest_collection_finish() -> None:
    """Where commands will run in processes of their own, their server imports meanwhile."""
    if "processes" in sys.modules:
        forkserver.ensure_running()


@pytest.fixture(autouse=True)
def repeatable() -> None:
    """Weights that a test has drawn without a generator come out the same every time."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def same_log() -> Iterator[None]:
    """Takes back what a command that a test has run does to the log."""
    log = logging.getLogger("foundry3d")
    level, propagate, handlers = log.level, log.propagate, list(log.handlers)
    yield
    log.setLevel(level)
    log.propagate, log.handlers[:] = propagate, handlers


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


@pytest.fixture(scope="session", params=["small", "whole"])
def parity(request: pytest.FixtureRequest) -> Path:
    """Files of the reference implementations: those cut down by data/make_parity.py, and whole."""
    if request.param == "small":
        return Path(__file__).parent / "data" / "parity"
    return request.getfixturevalue("shared") / "parity"


@pytest.fixture
def sizes(parity: Path) -> dict[str, Any]:
    """Sizes of the models of `parity`."""
    default = {"point_widths": (128, 256, 512), "position_dim": 128, "predictor_dim": 24}
    return default | json.loads((parity / "meta.json").read_text())


@pytest.fixture
def bounded() -> Iterator[None]:
    """Fails a test that takes more than 64 MiB at any time."""
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**26
