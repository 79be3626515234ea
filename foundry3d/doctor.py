"""`foundry3d doctor`: what this machine has, and which backends the package would use."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import torch

from foundry3d.config import DoctorConfig
from foundry3d.extras import EXTRAS
from foundry3d.report.rows import code_version


def installed(name: str) -> str | None:
    """The version of an installed package."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def complete(extra: str) -> bool:
    """Whether everything that an extra brings is installed."""
    return all(find_spec(module) is not None for module in EXTRAS[extra])


def doctor(config: DoctorConfig) -> None:
    """Prints versions, threads, devices and the backends that would be used."""
    from foundry3d import geometry
    from foundry3d.geometry.backends import compiled_form
    from foundry3d.inference.kernels import PROBE, fastest

    points = torch.rand(1, 2048, 3)
    same = torch.equal(
        geometry.farthest_point_sample(points, 64, backend="torch"),
        geometry.farthest_point_sample(points, 64),
    )
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    rows, inputs, outputs = PROBE
    rates = {
        name: f"{kernel} ({2e-9 * rows * inputs * outputs / seconds:.0f} GFLOP/s)"
        for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))
        for kernel, seconds in [fastest(dtype)]
    }
    allocator = platform.libc_ver()[0] == "glibc"
    facts = {
        "foundry3d": code_version(),
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "torch": torch.__version__,
        "numba": installed("numba")
        or "not installed: the torch form, several times slower, is used",
        "extras": ", ".join(name for name in EXTRAS if complete(name)) or "none",
        "extras not installed": ", ".join(name for name in EXTRAS if not complete(name)) or "none",
        "threads": f"{torch.get_num_threads()} (of {os.cpu_count()} processors); "
        "OMP_NUM_THREADS sets them",
        "processor": torch.backends.cpu.get_cpu_capability(),
        "GPUs": ", ".join(gpus) or "none; training and inference run on the CPU",
        "sampling and neighbours": f"{'compiled' if compiled_form() else 'torch'} on the CPU; "
        + ("both agree here" if same else "THEY DISAGREE HERE, please report it"),
        "linear layers, compiled": ", ".join(f"{name} {text}" for name, text in rates.items()),
        "memory": "freed memory is kept (glibc)" if allocator else "the system's allocator",
        "bf16 on the GPU": "yes" if gpus and torch.cuda.is_bf16_supported() else "no",
    }
    width = max(map(len, facts))
    for name, text in facts.items():
        print(f"{name.ljust(width)}  {text}")
