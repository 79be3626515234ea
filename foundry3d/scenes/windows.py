"""Windows of a scene: nearby tokens together, each window encoded as a separate cloud.

A teacher's attention is quadratic in the tokens of a scene; with windows it is linear. A window
scaled into the unit sphere also looks like the single objects that a model was trained on.

Shapes: c tokens, w tokens per window, k points per group, B windows, d width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from foundry3d.geometry import Groups
from foundry3d.models.backbone import Tokens
from foundry3d.models.budget import Budget
from foundry3d.scenes.grouping import Scene, SceneModel, Walk, quietly, rejoined, together
from foundry3d.scenes.grouping import split_windows as split_windows
from foundry3d.scenes.memory import MOST_ATTENTION, groups_at_once, require_attention
from foundry3d.scenes.scene import require_scene_model


def reach(centers: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (B, 1, 3) and radius (B, 1, 1) of centers (B, w, 3); 1 where they all coincide."""
    mean = centers.mean(dim=1, keepdim=True)
    radius = (centers - mean).norm(dim=-1).amax(dim=1)[:, None, None]
    return mean, torch.where(radius > 0, radius, torch.ones_like(radius))


def fitted(groups: Groups) -> Groups:
    """Groups moved and scaled into the unit sphere, each cloud by its own centers."""
    mean, radius = reach(groups.centers)
    near = groups.neighborhoods[..., :3] / radius[..., None]
    return Groups((groups.centers - mean) / radius, rejoined(near, groups.neighborhoods))


def zoom(centers: Tensor, groups: int) -> float:
    """The scale that makes a scene's neighbourhoods as large as those of a training cloud.

    A model was trained on clouds of `groups` tokens in the unit sphere. The same number of nearby
    tokens of a scene, with centers (1, c, 3), have a smaller radius; the scale is 1 over its median
    over all windows.
    """
    windows = split_windows(centers[0], groups)
    radii = [reach(centers[0][batch])[1].flatten() for batch in together(windows, 2**16)]
    return float(1 / torch.cat(radii).median())


@torch.no_grad()
def encode_windows(
    model: SceneModel,
    scene: Scene,
    size: int,
    *,
    fit: bool = True,
    budget: Budget | None = None,
    most_attention: int = MOST_ATTENTION,
    walk: Walk = quietly,
) -> tuple[Tokens, Tensor]:
    """Features of all c tokens of a scene, each window of at most `size` tokens encoded separately.

    Groups may cross the borders of windows; attention, supertokens and budgets do not.

    Args:
        model: in evaluation mode.
        scene: on the model's device.
        size: w; a model was trained on its own number of groups.
        fit: every window is moved and scaled into the unit sphere.
        budget: of every window, students only.
        most_attention: bytes that the attention weights of a block may take.
        walk: iterates over the windows.

    Returns:
        A batch of one, with `tokens_used` summed over the windows; the window of each token (1, c).

    Raises:
        InputError: the model is in training mode, is neither teacher nor student, or cannot keep
            the budget; or attention in a window needs more memory than allowed.
    """
    require_scene_model(model)
    count = scene.centers.shape[1]
    windows = split_windows(scene.centers[0], size)
    require_attention(model.shape, min(size, count), most_attention)
    features = scene.centers.new_empty(1, count, model.output_dim)
    window = torch.empty(1, count, dtype=torch.int64, device=features.device)
    assignment = torch.full_like(window, -1)
    probability, used = torch.zeros_like(features[..., 0]), 0
    for i, rows in enumerate(windows):
        window[0, rows] = i
    found = None
    for batch in walk(together(windows, groups_at_once(model.shape)), "encoded"):
        groups = scene.groups(batch)
        found = model.encode(fitted(groups) if fit else groups, budget=budget)
        features[0, batch] = found.features.float()
        used += int(found.tokens_used.sum())
        if found.assignment is not None:
            assignment[0, batch] = found.assignment
        if found.probability is not None:
            probability[0, batch] = found.probability.float()
    assert found is not None
    tokens = Tokens(
        features=features,
        centers=scene.centers,
        assignment=None if found.assignment is None else assignment,
        tokens_used=torch.tensor([used], device=features.device),
        probability=None if found.probability is None else probability,
    )
    return tokens, window
