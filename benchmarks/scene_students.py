"""Students of one teacher on a scene of growing size: seconds, and how much of the teacher is lost.

    python benchmarks/scene_students.py --teacher FOLDER --students NAME=FOLDER ... \
        --scene FILE.npz --tokens 1024 4096 16384 --out rows.jsonl

The scene is cut to its nearest 16 points per token around its middle, so that its density stays.
Each model encodes it whole (`encode_scene`; blocks on all tokens see windows, but for the teacher),
after the same grouping, which is not timed. `unexplained` is measured on the same tokens, against
the teacher with attention over all tokens, and against the teacher in windows of the number of
tokens that it was trained on (students in windows there too).
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from foundry3d.checkpoints.folder import load_backbone
from foundry3d.scenes.scene import SceneModel, encode_scene, group_scene
from foundry3d.scenes.windows import encode_windows, zoom
from foundry3d.training.fidelity import unexplained

POINTS_PER_TOKEN = 16
MOST_ATTENTION = 2**34
REPEATS = 3


def middle(path: str, count: int) -> Tensor:
    """The `count` points (1, count, 3) nearest to the middle, centred, in a ball of radius 1."""
    file = np.load(path)
    points = torch.from_numpy(file["points_i16"].astype(np.float32) * float(file["scale"]))
    away = points - points.median(dim=0).values
    near = away.square().sum(1).topk(count, largest=False).indices.sort().values
    found = away[near] - away[near].mean(dim=0)
    return (found / found.square().sum(1).sqrt().max())[None]


def timed(call: Callable[[], Tensor]) -> tuple[float, Tensor]:
    """The shortest of `REPEATS` times in seconds, and what the call returns."""
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        found = call()
        times.append(time.perf_counter() - began)
    return min(times), found


def both_ways(model: SceneModel, points: Tensor) -> tuple[float, Tensor, float, Tensor]:
    """Seconds and features (1, c, d) of the whole scene, then the same in windows."""
    scene = group_scene(model, points, points_per_token=POINTS_PER_TOKEN)
    size = model.shape.groups
    fitted = replace(scene, scale=scene.scale * zoom(scene.centers, size))
    return (
        *timed(lambda: encode_scene(model, fitted, most_attention=MOST_ATTENTION).features),
        *timed(lambda: encode_windows(model, scene, size)[0].features),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--students", nargs="+", default=[])
    parser.add_argument("--scene", required=True)
    parser.add_argument("--tokens", nargs="+", type=int, default=[1024, 4096, 16384])
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    named = [("teacher", args.teacher), *(word.split("=", 1) for word in args.students)]
    for tokens in args.tokens:
        points = middle(args.scene, tokens * POINTS_PER_TOKEN)
        goals: tuple[Tensor, Tensor] | None = None
        for name, folder in named:
            model = load_backbone(folder)
            assert isinstance(model, SceneModel), f"{folder} holds no teacher or student"
            whole, features, cut, in_windows = both_ways(model, points)
            goals = goals or (features, in_windows)
            row = {
                "tokens": tokens,
                "model": name,
                "whole_s": round(whole, 3),
                "windows_s": round(cut, 3),
                "unexplained_whole": unexplained(features, goals[0]),
                "unexplained_windows": unexplained(in_windows, goals[1]),
            }
            print(row, flush=True)
            with open(args.out, "a") as file:
                file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
