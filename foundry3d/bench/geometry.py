"""`foundry3d bench geometry`: sampling and neighbours, on a batch of clouds and on one scene.

Every form finds the same indices; `error` is the share of indices that differ from those of the
plain torch form, which is 0 unless something is wrong.

Shapes: B clouds, N points, c tokens, k points per group.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from foundry3d.bench.forms import model_of
from foundry3d.bench.measure import columns, timed, timings
from foundry3d.bench.subjects import cloud_points, scene_points, teacher_of
from foundry3d.config import BenchConfig
from foundry3d.geometry import farthest_point_sample, gather, group_points, nearest_neighbors
from foundry3d.geometry.backends import Backend

log = logging.getLogger("foundry3d")

COLUMNS = columns("name", "form", "median_s", "iqr_s", "repeats", "ratio", "error")
COLUMNS["error"] = "differing"
FORMS: dict[str, Backend] = {"plain torch": "torch", "as used": "auto"}


def works(
    points: Tensor, centers: int, size: int
) -> dict[str, Callable[[Backend], Callable[[], Any]]]:
    """What is timed on points (B, N, 3), by name; each makes a call for a backend."""
    chosen = gather(points, farthest_point_sample(points, centers))
    batch, count, _ = points.shape
    shape = f"{batch} x {count}"
    return {
        f"FPS, {shape} to {centers}": lambda backend: partial(
            farthest_point_sample, points, centers, backend=backend
        ),
        f"kNN, {centers} in {shape}, k={size}": lambda backend: partial(
            nearest_neighbors, chosen, points, size, backend=backend
        ),
        f"both, grouped, {shape}": lambda backend: partial(
            group_points, points, centers, size, backend=backend
        ),
    }


def differing(found: Any, wanted: Any) -> float:
    """Share of indices, or of the neighbours' coordinates, that differ."""
    if isinstance(found, Tensor):
        return float((found != wanted).double().mean())
    return differing(found.neighborhoods, wanted.neighborhoods)


def measure(config: BenchConfig) -> list[dict[str, Any]]:
    """A row for every operation and form, on clouds and on a scene.

    Raises:
        InputError: the model cannot be loaded, or has more groups than there are points.
    """
    sizes, shape = config.sizes, model_of(teacher_of(config)).shape
    clouds = cloud_points(sizes.batch_size, sizes.points, config.seed, config.device)
    scene = scene_points(sizes.scene_points, config.seed, config.device)
    warm = scene_points(2**15, config.seed, config.device)
    group_points(warm, 2**11, shape.group_size)  # compiles the kernels
    rows = []
    tokens = sizes.scene_points // config.points_per_token
    for points, centers in ((clouds, shape.groups), (scene, tokens)):
        for name, work in works(points, centers, shape.group_size).items():
            log.info("geometry: %s", name)
            calls = {form: work(backend) for form, backend in FORMS.items()}
            with torch.inference_mode():
                times = timed(calls, config, share=0.25)
                wrong = differing(calls["as used"](), calls["plain torch"]())
            for form in calls:
                rows.append(
                    {
                        "bench": "geometry",
                        "name": name,
                        "form": form,
                        "precision": "fp32",
                        "clouds": len(points),
                        "points": points.shape[1],
                        "tokens": centers,
                        "peak_mb": None,
                        "error": 0.0 if form == "plain torch" else wrong,
                    }
                    | timings(times[form], baseline=times["plain torch"].median)
                )
    return rows
