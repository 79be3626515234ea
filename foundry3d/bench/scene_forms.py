"""What `foundry3d bench scene` runs: a scene through a model, in several forms.

Shapes: N points, c tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from foundry3d.bench.forms import formed, model_of
from foundry3d.bench.subjects import Subject, scene_points
from foundry3d.geometry import farthest_point_sample, gather, nearest_neighbors
from foundry3d.scenes.dense import dense_features
from foundry3d.scenes.scene import Scene, SceneModel, encode_scene, group_scene
from foundry3d.scenes.windows import encode_windows

FORMS = ("plain scene", "streamed", "windows", "dense", "geometry")
"""The forms that `runner` knows."""


def plain_scene(model: SceneModel, points: Tensor, points_per_token: int) -> Scene:
    """The result of `group_scene`, computed with whole-tensor operations."""
    chosen = farthest_point_sample(points, points.shape[1] // points_per_token, backend="torch")
    centers = gather(points, chosen)
    index = nearest_neighbors(centers, points, model.shape.group_size, backend="torch")
    return Scene(points=points, centers=centers, index=index, scale=1 / (model.shape.radius or 1.0))


def runner(subject: Subject) -> Callable[[], Any]:
    """A call that runs the scene in the form of the subject."""
    model: Any = formed(subject)
    points = scene_points(subject.points, subject.seed, subject.device)
    ratio = subject.points // (subject.groups or 1)

    @torch.inference_mode()
    def run() -> Any:
        if subject.form == "plain scene":
            scene = plain_scene(model, points, ratio)
        else:
            scene = group_scene(model, points, points_per_token=ratio)
        if subject.form == "geometry":
            return scene
        if subject.form == "windows":
            size = model_of(replace(subject, groups=None)).shape.groups
            return encode_windows(model, scene, size)[0]
        found = encode_scene(model, scene, budget=subject.budget)
        if subject.form == "dense":
            for _ in dense_features(points, found.centers, found.features):
                pass
        return found

    return run
