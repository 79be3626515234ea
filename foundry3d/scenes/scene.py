"""One large cloud through a model, in chunks of groups: a bounded memory that is stated beforehand.

A student's supertokens are means over the tokens that chose them, and its maps are linear, so they
are summed chunk by chunk; its encoder sees the supertokens alone. What stays of a scene is its
index and one row a token. The numbers are those of `model.encode` on all groups at once.

Shapes: N points, c tokens, k points a group, s supertokens, d width, h assignment heads, n tokens
encoded, w tokens of a window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from foundry3d.errors import InputError
from foundry3d.geometry import (
    Groups,
    build_trees,
    check_points,
    farthest_point_sample,
    gather,
    nearest_neighbors,
)
from foundry3d.models.backbone import Backbone, Tokens
from foundry3d.models.budget import Budget
from foundry3d.models.gate import by_probability, fill_budget
from foundry3d.models.student import Student
from foundry3d.models.supertokens import Compressed
from foundry3d.scenes.memory import MOST_ATTENTION, groups_at_once, require_attention

SceneModel = Backbone | Student
Walk = Callable[[Sequence[Tensor], str], Iterator[Tensor]]
"""Walks over chunks of a stage that has a name, e.g. to tell of its progress."""


def quietly(chunks: Sequence[Tensor], doing: str) -> Iterator[Tensor]:
    """The walk that tells nothing."""
    return iter(chunks)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """The groups of one large cloud, as indices: neighbourhoods are gathered where they are used.

    Attributes:
        points: (1, N, 3).
        centers: (1, c, 3).
        index: (1, c, k) int64, the k nearest points of each center.
        scale: what neighbourhoods are multiplied by; see `scene_windows.zoom`.
    """

    points: Tensor
    centers: Tensor
    index: Tensor
    scale: float = 1.0

    def groups(self, rows: Tensor) -> Groups:
        """The groups of these tokens (B, n), as B clouds of n groups."""
        centers = self.centers[0][rows]
        neighborhoods = self.points[0][self.index[0][rows]] - centers[..., None, :]
        return Groups(centers, neighborhoods if self.scale == 1 else neighborhoods * self.scale)


def group_scene(model: SceneModel, points: Tensor, *, points_per_token: int = 16) -> Scene:
    """Centers by farthest point sampling and their neighbours, of a cloud of any size.

    Args:
        model: whose group size and radius are kept; its number of groups is not.
        points: (1, N, 3) floating point, N at least the group size and points_per_token.
        points_per_token: N / c; 16 is 64 tokens of 1024 points, and the paper's 16,384 of 2^18.

    Raises:
        InputError: points that `geometry.check_points` refuses, more than one cloud, or fewer
            points than a group or a token needs.
    """
    shape = model.shape
    if points_per_token < 1:
        raise InputError(f"points_per_token must be at least 1, got {points_per_token}")
    check_points(points, at_least=max(shape.group_size, points_per_token))
    if len(points) != 1:
        raise InputError(f"a scene is one cloud (1, N, 3), got {len(points)}; take them in turn")
    trees = build_trees(points)
    chosen = farthest_point_sample(points, points.shape[1] // points_per_token, trees=trees)
    centers = gather(points, chosen)
    index = nearest_neighbors(centers, points, shape.group_size, trees=trees)
    return Scene(points=points, centers=centers, index=index, scale=1 / (shape.radius or 1.0))


@torch.no_grad()
def encode_scene(
    model: SceneModel,
    scene: Scene,
    *,
    most_attention: int = MOST_ATTENTION,
    walk: Walk = quietly,
    **budget: Any,
) -> Tokens:
    """Features of all c tokens of a scene: `model.encode` on all groups, chunk by chunk.

    A student's encoder sees its supertokens, and the tokens that a gate does not merge; a
    teacher's sees all c tokens, which takes attention of c x c.

    Args:
        model: in evaluation mode.
        scene: on the model's device.
        most_attention: bytes that the attention weights of a block may take.
        walk: goes through the chunks of every stage.
        budget: fields of `models.Budget`, students only.

    Returns:
        A batch of one.

    Raises:
        InputError: a model in training mode or of another kind, a budget that it cannot keep, or
            attention over more tokens than `most_attention` allows (the sentence says how much
            memory and arithmetic it needs).
    """
    require_scene_model(model)
    if isinstance(model, Student):
        return _student(model, scene, Budget(**budget), most_attention, walk)
    if budget:
        raise InputError(f"{', '.join(budget)}: budgets are for students, this is a teacher")
    count = scene.centers.shape[1]
    require_attention(model.shape, count, most_attention)
    tokens, places = model.with_class(*_tokenised(model, scene, walk))
    return Tokens(
        features=model.encoder(tokens, places)[:, -count:].float(),
        centers=scene.centers,
        tokens_used=torch.tensor([tokens.shape[1]], device=tokens.device),
    )


def require_scene_model(model: object) -> None:
    """Refuses what scenes cannot be read by.

    Raises:
        InputError: neither teacher nor student, or in training mode.
    """
    if not isinstance(model, Backbone | Student):
        raise InputError(
            f"scenes are for teachers and students, got a {type(model).__name__}; name one of those"
        )
    if model.training:
        raise InputError("expected a model in evaluation mode; call model.eval() first")


def in_chunks(model: SceneModel, count: int, device: torch.device) -> list[Tensor]:
    """Rows (1, n) of `count` tokens, chunk by chunk."""
    return list(torch.arange(count, device=device)[None].split(groups_at_once(model.shape), dim=1))


def _tokenised(model: SceneModel, scene: Scene, walk: Walk) -> tuple[Tensor, Tensor]:
    """Tokens and positions (1, c, d) of a whole scene."""
    count = scene.centers.shape[1]
    tokens = _empty(model, count)
    places = torch.empty_like(tokens)
    for rows in walk(in_chunks(model, count, tokens.device), "tokenised"):
        tokens[:, rows[0]], places[:, rows[0]] = model.tokens(scene.groups(rows))
    return tokens, places


def _empty(model: SceneModel, count: int) -> Tensor:
    """Room for tokens (1, count, d) in the precision of the model."""
    return model.encoder.norm.weight.new_empty(1, count, model.shape.dim)


class _Choice(NamedTuple):
    """What a student's tokens chose.

    Attributes:
        tokens: (1, c, d).
        cam: (1, c, s) or (1, h, c, s), zero where a token is not merged.
        taken: (1, c) bool, which tokens are merged.
        probability: (1, c) of the gate, None without one.
    """

    tokens: Tensor
    cam: Tensor
    taken: Tensor
    probability: Tensor | None


def _student(model: Student, scene: Scene, budget: Budget, most: int, walk: Walk) -> Tokens:
    chunks = in_chunks(model, scene.centers.shape[1], scene.centers.device)
    choice = _choose(model, scene, budget, chunks, walk)
    packed = _merge(model, scene, choice, chunks, walk)
    used, kept = packed.used[0].nonzero()[:, 0], (~choice.taken[0]).nonzero()[:, 0]
    require_attention(model.shape, len(used) + len(kept), most)
    x = torch.cat([packed.supertokens[:, used], choice.tokens[:, kept]], dim=1)
    at = torch.cat([packed.positions[:, used], _places(model, scene.centers[:, kept])], dim=1)
    encoded = model.encoder(x, at)
    merged = torch.zeros_like(packed.supertokens)
    merged[:, used] = encoded[:, : len(used)]
    first = choice.cam if choice.cam.ndim == 3 else choice.cam[:, 0]
    assignment = first.argmax(dim=-1).masked_fill(~choice.taken, -1)
    return Tokens(
        features=_restore(model, choice, merged, encoded[:, len(used) :], chunks, walk),
        centers=scene.centers,
        assignment=assignment,
        tokens_used=torch.tensor([x.shape[1]], device=x.device),
        probability=choice.probability,
    )


def _choose(
    model: Student, scene: Scene, budget: Budget, chunks: Sequence[Tensor], walk: Walk
) -> _Choice:
    """Tokens, the supertokens that they choose, and which of them the gate merges.

    Raises:
        InputError: a budget that the student cannot keep, or one for training.
    """
    count, gate = scene.centers.shape[1], model.gate
    budget.check(gated=gate is not None, tokens=count, supertokens=model.config.supertokens)
    if budget.merged is not None:
        raise InputError("merged is for training; give a scene a ratio or a token_budget")
    supertokens = budget.supertokens or model.config.supertokens
    heads = () if model.dso.heads == 1 else (model.dso.heads,)
    tokens = _empty(model, count)  # all room is taken first: rows kept between would split the heap
    cam = tokens.new_empty(1, *heads, count, supertokens)
    probability = scene.centers.new_ones(1, count)
    for rows in walk(chunks, "tokenised"):
        tokens[:, rows[0]] = part = model.tokens(scene.groups(rows))[0]
        cam[..., rows[0], :] = model.dso.choose(part, count=supertokens)[1]
        if gate is not None:
            probability[:, rows[0]] = gate(part).to(probability.dtype)
    if gate is None:
        return _Choice(tokens, cam, probability > 0, None)
    taken = _taken(model, cam, probability, budget)
    return _Choice(tokens, cam * taken[..., None], taken, probability)


def _taken(model: Student, cam: Tensor, probability: Tensor, budget: Budget) -> Tensor:
    """(1, c) bool: the tokens that a gated student merges within a budget."""
    wanted, count = budget.token_budget, cam.shape[1]
    if wanted is None:
        return probability > (model.config.gate_ratio if budget.ratio is None else budget.ratio)
    order = by_probability(probability)
    rows = count - wanted + cam.shape[-1] if wanted < count else 0
    merged = fill_budget(gather(cam, order[:, :rows]), count, wanted)
    first = torch.arange(count, device=cam.device) < merged[:, None]
    return torch.zeros_like(first).scatter(1, order, first)


def _merge(
    model: Student, scene: Scene, choice: _Choice, chunks: Sequence[Tensor], walk: Walk
) -> Compressed:
    """What `DSO.merge` makes of all tokens: the merge of their means, each with its weight.

    Sums run over chunks in float64, for every assignment head its own, because a head sees its own
    slice of the value map's output: the mean of head i and supertoken j is a token that only head
    i sends, to j alone.
    """
    width, heads, count = model.shape.dim, model.dso.heads, choice.cam.shape[-1]
    weight = choice.cam.new_zeros(heads, count, dtype=torch.float64)
    tokens = weight.new_zeros(heads, count, width)
    places = torch.zeros_like(tokens)
    for rows in walk(chunks, "merged"):
        share = choice.cam[..., rows[0], :].view(heads, -1, count).mT.float()
        weight += share.sum(dim=-1)
        tokens += share @ model.dso.norm(choice.tokens[:, rows[0]]).float()
        places += share @ _places(model, scene.centers[:, rows[0]]).float()
    mean, dtype = weight.masked_fill(weight == 0, 1)[..., None], choice.tokens.dtype
    cam = weight.new_zeros(1, heads, heads, count, count)
    for head in range(heads):
        cam[0, head, head] = weight[head].diag()
    cam = cam.view(1, heads, heads * count, count)
    return model.dso.merge(
        (tokens / mean).view(1, -1, width).to(dtype),
        (places / mean).view(1, -1, width).to(dtype),
        (cam if heads > 1 else cam[:, 0]).to(dtype),
    )


def _restore(
    model: Student,
    choice: _Choice,
    merged: Tensor,
    kept: Tensor,
    chunks: Sequence[Tensor],
    walk: Walk,
) -> Tensor:
    """Features (1, c, output_dim) float32 from encoded supertokens (1, s, d) and kept tokens.

    They take the place of the tokens where width and precision are the same.
    """
    tokens, taken = choice.tokens, choice.taken[0]
    count, slot = len(taken), (~taken).cumsum(dim=0) - 1
    same = model.output_dim == tokens.shape[-1] and tokens.dtype == torch.float32
    features = tokens
    if not same:
        features = tokens.new_empty(1, count, model.output_dim, dtype=torch.float32)
    for rows in walk(chunks, "reconstructed"):
        found = model.cau(tokens[:, rows[0]], choice.cam[..., rows[0], :], merged)
        own = ~taken[rows[0]]
        found[:, own] = kept[:, slot[rows[0]][own]]
        features[:, rows[0]] = model.output(found).float()
    return features


def _places(model: Student, centers: Tensor) -> Tensor:
    """Positions (1, n, d) of centers (1, n, 3), those of `model.tokens`."""
    places: Tensor = model.position_bridge(model.position(centers))
    return places
