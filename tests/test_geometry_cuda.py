"""The Triton kernels against the torch form: on a CUDA device, else in Triton's CPU interpreter."""

import importlib.util
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from foundry3d import geometry
from foundry3d.errors import InputError
from foundry3d.geometry import backends

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="needs Triton: pip install triton"
)
KINDS = ["random", "clustered", "collinear", "duplicated", "grid", "one point", "far", "minute"]
CLOUD = torch.device("cuda")


def clouds(kind: str, size: int) -> Tensor:
    """Three clouds (3, N, 3)."""
    g = torch.Generator().manual_seed(5)
    x = torch.randn(3, size, 3, generator=g)
    steps = torch.arange(float(size))
    return {
        "random": x,
        "clustered": x * 0.01 + torch.randint(0, 3, (3, size, 1), generator=g),
        "collinear": x[..., :1] * torch.tensor([1.0, 2.0, -1.0]),
        "duplicated": (x * 1.5).round() / 1.5,
        "grid": torch.stack([steps % 7, steps // 7 % 7, steps // 49], -1).expand(3, -1, -1) * 0.1,
        "one point": torch.zeros(3, size, 3) + 0.3,
        "far": x + 1000.0,
        "minute": x * 1e-20,  # squares are subnormal, which a kernel may not flush to zero
    }[kind].contiguous()


def compare(kind: str, device: str) -> dict[str, bool]:
    """Which kernels give the indices of the torch form."""
    from foundry3d.geometry import cuda

    same = {}
    start = torch.tensor([0, 3, 6], device=device)
    for size, count in ((7, 7), (300, 12)):
        x = clouds(kind, size).to(device)
        own = cuda.farthest_point_sample(x, count, start)
        torch_form = geometry.farthest_point_sample(x, count, start=start, backend="torch")
        same[f"sampling {count} of {size}"] = torch.equal(own, torch_form)
    limit = cuda.MOST_IN_REGISTERS
    for size, count in ((300, 20), (4500, 9)):
        cuda.MOST_IN_REGISTERS = size - 1
        x = clouds(kind, size).to(device)
        own = cuda.farthest_point_sample(x, count, start)
        torch_form = geometry.farthest_point_sample(x, count, start=start, backend="torch")
        same[f"sampling {count} of {size} by blocks"] = torch.equal(own, torch_form)
    cuda.MOST_IN_REGISTERS = limit
    for size, queried, k in ((7, 7, 7), (300, 3, 32), (1500, 2, 1), (1500, 2, 40)):
        x = clouds(kind, size).to(device)
        queries = x[:, 1 : queried + 1]
        own = cuda.nearest_neighbors(queries, x, k)
        torch_form = geometry.nearest_neighbors(queries, x, k, backend="torch")
        same[f"{k} neighbours of {size}"] = torch.equal(own, torch_form)
    x = clouds(kind, 50).to(device)
    own = cuda.greedy_order(x, (x[..., 0] + x[..., 1] + x[..., 2]).argmin(dim=1))
    same["greedy order"] = torch.equal(own, geometry.greedy_order(x, backend="torch"))
    x[1, 20, 2] = float("nan")  # indices stay in range, and the cloud's centers tell of it
    chosen = cuda.farthest_point_sample(x, 9, start)
    found = cuda.nearest_neighbors(x[:, :2], x, 9)
    inside = all(bool(((i >= 0) & (i < 50)).all()) for i in (chosen, found))
    same["not a number"] = inside and 20 in chosen[1]
    return same


@pytest.fixture(scope="module")
def compared() -> dict[str, dict[str, bool]]:
    """All comparisons, from a process of their own: whether Triton interprets is a process's."""
    found = torch.cuda.is_available()
    device, environment = ("cuda", {}) if found else ("cpu", {"TRITON_INTERPRET": "1"})
    code = (
        "import json; from test_geometry_cuda import KINDS, compare; "
        f"print(json.dumps({{kind: compare(kind, {device!r}) for kind in KINDS}}))"
    )
    root = Path(__file__).parent
    paths = os.pathsep.join([str(root), str(root.parent)])
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment | {"PYTHONPATH": paths},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@needs_triton
@pytest.mark.parametrize("kind", KINDS)
def test_kernels_give_the_indices_of_the_torch_form(
    compared: dict[str, dict[str, bool]], kind: str
) -> None:
    assert len(compared[kind]) == 10
    assert all(compared[kind].values()), compared[kind]


KERNELS = {
    "_fps": ("*fp32 *i64 *i64 i32 i32", {"BLOCK": 1024}),
    "_fps_blocks": ("*fp32 *i64 *i64 *fp32 i32 i32", {"BLOCK": 4096}),
    "_knn": ("*fp32 *fp32 *i64 i32 i32 i32", {"BLOCK": 1024, "SLOTS": 32}),
    "_greedy": ("*fp32 *i64 *i64 i32", {"BLOCK": 64}),
}


@needs_triton
@pytest.mark.parametrize("name", KERNELS)
def test_kernels_compile_without_fused_multiply_add(name: str) -> None:
    """Compiling needs no GPU. With fusion they do fuse, so its absence is the option's doing."""
    import triton
    from triton.backends.compiler import GPUTarget

    from foundry3d.geometry import cuda

    kernel = getattr(cuda, name)
    kinds, constants = KERNELS[name]
    kinds = [*kinds.split(), *["constexpr"] * len(constants)]
    source = triton.compiler.ASTSource(
        kernel, dict(zip(kernel.arg_names, kinds, strict=True)), constants
    )
    code = {
        fuse: triton.compile(
            source, GPUTarget("cuda", 80, 32), {"enable_fp_fusion": fuse, "num_warps": 4}
        ).asm["ptx"]
        for fuse in (False, True)
    }
    assert "fma.rn.f32" in code[True]
    assert "mul" in code[False]
    assert "fma" not in code[False]
    assert ".ftz" not in code[False]


@needs_triton
def test_launches_switch_fusion_off() -> None:
    from foundry3d.geometry import cuda

    given: dict[str, Any] = {}

    class Kernel:
        def __getitem__(self, grid: tuple[int]) -> Any:
            given["grid"] = grid
            return lambda *arguments, **options: given.update(options)

    cuda._launch(Kernel(), 3, torch.zeros(1), BLOCK=8, warps=2)
    assert given == {"grid": (3,), "BLOCK": 8, "num_warps": 2, "enable_fp_fusion": False}


def cuda_points(size: int = 100, dtype: torch.dtype = torch.float32) -> Any:
    """What the choice of a backend looks at, of points on CUDA."""
    return SimpleNamespace(device=CLOUD, dtype=dtype, shape=(1, size, 3))


def test_triton_is_taken_where_it_applies(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = ModuleType("kernels")
    monkeypatch.setattr(backends, "_triton", lambda device: kernels)
    for backend in ("auto", "triton"):
        assert backends.twin(cuda_points(), backend, triton=True) is kernels
    assert backends.twin(cuda_points(), "torch", triton=True) is None
    assert backends.twin(cuda_points(), "auto", triton=False) is None
    assert backends.twin(cuda_points(dtype=torch.float64), "auto", triton=True) is None
    assert backends.twin(torch.zeros(1, 4, 3, device="meta"), "auto", triton=True) is None
    for points, fits in ((cuda_points(), False), (cuda_points(dtype=torch.float64), True)):
        with pytest.raises(InputError, match=r"takes float32 points on CUDA.*use backend='torch'"):
            backends.twin(points, "triton", triton=fits)
    with pytest.raises(InputError, match="on the CPU"):
        backends.twin(cuda_points(), "compiled", triton=True)


def test_triton_is_refused_elsewhere() -> None:
    x = torch.ones(1, 10, 3)
    for call in (
        lambda: geometry.farthest_point_sample(x, 2, backend="triton"),
        lambda: geometry.nearest_neighbors(x, x, 2, backend="triton"),
        lambda: geometry.greedy_order(x, backend="triton"),
    ):
        with pytest.raises(InputError, match="takes float32 points on CUDA"):
            call()


def test_kernels_that_fail_or_err_are_not_taken(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kernels: Any = ModuleType("foundry3d.geometry.cuda")
    monkeypatch.setitem(sys.modules, "foundry3d.geometry.cuda", kernels)
    monkeypatch.setattr("foundry3d.geometry.cuda", kernels, raising=False)
    choose = backends._triton.__wrapped__

    def fails(device: torch.device) -> bool:
        raise RuntimeError("no C compiler")

    with caplog.at_level(logging.WARNING, logger="foundry3d"):
        for agrees, taken, says in (
            (lambda device: True, kernels, ""),
            (lambda device: False, None, "other indices"),
            (fails, None, "no C compiler"),
        ):
            caplog.clear()
            kernels.agrees = agrees
            assert choose(CLOUD) is taken
            assert says in caplog.text
            assert bool(caplog.text) == bool(says)
