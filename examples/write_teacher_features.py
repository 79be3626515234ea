"""Store another model's features, one file per cloud, for `foundry3d distill --teacher_features`.

`ptv3` and `lifted_dinov2` are UNTESTED here: they follow the readme of Sonata, Concerto and Utonia,
and of DINOv2, and need their libraries, CUDA and weights. What `main` writes runs anywhere.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from foundry3d.data.stored import write_stored


def ptv3(model: Any, transform: Any, sample: dict[str, np.ndarray]) -> Tensor:
    """(N, D), e.g. of sonata.load("sonata").cuda().eval(), sonata.transform.default(). UNTESTED."""
    point = transform(sample)  # coord, color, normal, each (N, 3)
    point = model({k: v.cuda() if isinstance(v, Tensor) else v for k, v in point.items()})
    level = 0
    while "pooling_parent" in point:  # two levels next to each other, then back to the finest
        parent, below = point.pop("pooling_parent"), point.feat[point.pop("pooling_inverse")]
        parent.feat = torch.cat([parent.feat, below], dim=-1) if level < 2 else below
        point, level = parent, level + 1
    return point.feat[point.inverse]


def lifted_dinov2(model: Any, image: Tensor, points: Tensor, camera: Tensor) -> Tensor:
    """(N, D) of the pixels that points fall on, NaN for points that are not seen. UNTESTED.

    The model is torch.hub.load("facebookresearch/dinov2", "dinov2_vits14"), image (3, 14 h, 14 w),
    camera (3, 4) from points (N, 3) to pixels. Points hidden behind others count as seen.
    """
    height, width = image.shape[1:]
    patches = model.forward_features(image[None])["x_norm_patchtokens"].mT
    x, y, depth = (points @ camera[:, :3].T + camera[:, 3]).unbind(1)
    place = torch.stack([2 * x / depth / width - 1, 2 * y / depth / height - 1], dim=1)
    grid = patches.unflatten(2, (height // 14, width // 14))
    found = grid_sample(grid, place[None, None], align_corners=False)[0, :, 0].T
    return found.masked_fill(((place.abs() > 1).any(1) | (depth <= 0))[:, None], torch.nan)


def main() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 32), torch.nn.Tanh())  # stands for yours
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        for i in range(2):
            points = np.random.default_rng(i).random((5000, 3), np.float32)
            features = model(torch.from_numpy(points)).numpy().astype(np.float16)
            write_stored(f"{folder}/room{i}.npz", points=points, features=features)
        (Path(folder) / "features.json").write_text(json.dumps({"model": "stand-in"}))
        print("written:", *sorted(path.name for path in Path(folder).iterdir()))


if __name__ == "__main__":
    main()
