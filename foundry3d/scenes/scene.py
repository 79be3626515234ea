"""One large cloud through a model in chunks of groups, within an amount of memory known beforehand.

A student's supertokens are means over the tokens that chose them, so they are summed chunk by
chunk, and only they and the tokens that are not merged enter its encoder. The index of the groups
and one row per token are kept for the whole scene. The result is that of `model.encode` on all
groups at once. Blocks that a student runs on all tokens (truncated, or before its supertokens) see
windows of as many tokens as its training clouds had; there the result is that of each window.

Shapes: N points, c tokens, k points per group, s supertokens, d width, h assignment heads, m merged
tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from foundry3d.errors import InputError
from foundry3d.geometry import gather
from foundry3d.models.backbone import Tokens
from foundry3d.models.budget import Budget, refuse_budget
from foundry3d.models.entry import Plan, side_by_side
from foundry3d.models.student import Student
from foundry3d.models.supertokens import Compressed
from foundry3d.models.truncated import Truncated
from foundry3d.scenes.grouping import Scene as Scene
from foundry3d.scenes.grouping import SceneModel as SceneModel
from foundry3d.scenes.grouping import Walk as Walk
from foundry3d.scenes.grouping import group_scene as group_scene
from foundry3d.scenes.grouping import quietly as quietly
from foundry3d.scenes.grouping import split_windows, together
from foundry3d.scenes.memory import MOST_ATTENTION, groups_at_once, require_attention


@torch.no_grad()
def encode_scene(
    model: SceneModel,
    scene: Scene,
    *,
    budget: Budget | None = None,
    most_attention: int = MOST_ATTENTION,
    walk: Walk = quietly,
) -> Tokens:
    """Features of all c tokens of a scene: `model.encode` on all groups, chunk by chunk.

    A student's encoder sees supertokens and the tokens that its gate does not merge, its blocks on
    all tokens see windows; a teacher's encoder sees all c tokens, with c x c attention.

    Args:
        model: in evaluation mode.
        scene: on the model's device.
        budget: students only; None = as the student was made.
        most_attention: bytes that the attention weights of a block may take.
        walk: iterates over the chunks of every stage.

    Returns:
        A batch of one.

    Raises:
        InputError: the model is in training mode, is neither teacher nor student, or cannot keep
            the budget; or attention needs more memory than allowed (the message gives its memory
            and arithmetic).
    """
    require_scene_model(model)
    if isinstance(model, Student):
        return _encode_student(model, scene, budget, most_attention, walk)
    refuse_budget(budget)
    if isinstance(model, Truncated):
        return _encode_truncated(model, scene, most_attention, walk)
    count = scene.centers.shape[1]
    require_attention(model.shape, count, most_attention)
    tokens, places = model.with_class(*_tokenised(model, scene, walk))
    return Tokens(
        features=model.encoder(tokens, places)[:, -count:].float(),
        centers=scene.centers,
        tokens_used=torch.tensor([tokens.shape[1]], device=tokens.device),
    )


def require_scene_model(model: object) -> None:
    """Refuses a model that cannot read scenes.

    Raises:
        InputError: the model is neither teacher nor student, or is in training mode.
    """
    if not isinstance(model, SceneModel):
        raise InputError(
            f"scenes are for teachers and students, got a {type(model).__name__}; name one of those"
        )
    if model.training:
        raise InputError("expected a model in evaluation mode; call model.eval() first")


def in_chunks(model: SceneModel, count: int, device: torch.device) -> list[Tensor]:
    """The rows of `count` tokens in chunks (1, n) that fit into memory."""
    return list(torch.arange(count, device=device)[None].split(groups_at_once(model.shape), dim=1))


def _tokenised(model: SceneModel, scene: Scene, walk: Walk) -> tuple[Tensor, Tensor]:
    """Tokens and positions (1, c, d) of a whole scene."""
    count = scene.centers.shape[1]
    tokens = _empty(model, count)
    places = torch.empty_like(tokens)
    for rows in walk(in_chunks(model, count, tokens.device), "tokenised"):
        tokens[:, rows[0]], places[:, rows[0]] = model.embed_groups(scene.groups(rows))
    return tokens, places


def _empty(model: SceneModel, count: int) -> Tensor:
    """Uninitialised tokens (1, count, d) in the precision of the model."""
    return model.some_weight.new_empty(1, count, model.shape.dim)


def _first_blocks(
    model: Student | Truncated,
    scene: Scene,
    tokens: Tensor,
    blocks: int,
    most_attention: int,
    walk: Walk,
) -> Iterator[Tensor]:
    """Fills tokens (1, c, d) with the output of the first blocks; yields rows (n,) that are final.

    The blocks see windows of at most `model.shape.groups` tokens. The tokenizer's output does not
    depend on windows and is computed in chunks.

    Raises:
        InputError: attention in a window needs more memory than allowed.
    """
    shape, count = model.shape, tokens.shape[1]
    if blocks:
        require_attention(shape, min(shape.groups, count), most_attention)
    for rows in walk(in_chunks(model, count, tokens.device), "tokenised"):
        tokens[:, rows[0]] = model.embed_groups(scene.groups(rows))[0]
        if not blocks:
            yield rows[0]
    if not blocks:
        return
    windows = split_windows(scene.centers[0], shape.groups)
    for batch in walk(together(windows, groups_at_once(shape)), "first blocks"):
        places = model.embed_centers(scene.centers[0][batch])
        tokens[0, batch] = model.encoder.begin(tokens[0][batch], places, blocks)
        yield batch.flatten()


def _encode_truncated(model: Truncated, scene: Scene, most_attention: int, walk: Walk) -> Tokens:
    """`Truncated.forward` after grouping, in chunks, and in windows where it has blocks."""
    count = scene.centers.shape[1]
    tokens = _empty(model, count)
    features = _features_like(model, tokens)
    depth = model.shape.depth
    for rows in _first_blocks(model, scene, tokens, depth, most_attention, walk):
        places = model.embed_centers(scene.centers[:, rows])
        features[:, rows] = model.features_of(tokens[:, rows], places).float()
    used = torch.tensor([count], device=tokens.device)
    return Tokens(features=features, centers=scene.centers, tokens_used=used)


def _features_like(model: Student | Truncated, tokens: Tensor) -> Tensor:
    """Where features (1, c, output_dim) float32 go: over the tokens (1, c, d), if they fit."""
    if model.output_dim == tokens.shape[-1] and tokens.dtype == torch.float32:
        return tokens
    return tokens.new_empty(1, tokens.shape[1], model.output_dim, dtype=torch.float32)


def _encode_student(
    model: Student, scene: Scene, budget: Budget | None, most_attention: int, walk: Walk
) -> Tokens:
    """`Student.forward` after grouping, with every step over all c tokens in chunks."""
    tokens, plan = _planned(model, scene, budget, most_attention, walk)
    compressed = _compressed(model, scene, tokens, plan, walk)
    stays = plan.staying()
    kept = stays[0].nonzero()[:, 0]
    require_attention(model.shape, int(compressed.used.sum()) + len(kept), most_attention)
    places = model.embed_centers(scene.centers[:, kept])
    entered = side_by_side(compressed, tokens[:, kept], places, stays[:, kept])
    after = model.config.supertokens_after
    supertokens, own = entered.split(entered.encode(model.encoder, start=after))
    return Tokens(
        features=_restored(model, scene, tokens, plan, supertokens, own, walk),
        centers=scene.centers,
        assignment=plan.assignment,
        tokens_used=entered.used,
        probability=plan.probability,
    )


def _planned(
    model: Student, scene: Scene, budget: Budget | None, most_attention: int, walk: Walk
) -> tuple[Tensor, Plan]:
    """All tokens (1, c, d), and which of them are merged into which supertokens.

    Raises:
        InputError: the student cannot keep the budget, or attention in a window of its first blocks
            needs more memory than allowed.
    """
    compression, count, dso = model.compression, scene.centers.shape[1], model.dso
    budget = compression.checked(budget, count)
    supertokens = budget.supertokens or len(dso.supertokens)
    heads = () if dso.heads == 1 else (dso.heads,)
    # All memory is allocated first: rows that are kept in between would fragment the heap.
    tokens = _empty(model, count)
    cam = tokens.new_empty(1, *heads, count, supertokens)
    probability = scene.centers.new_ones(1, count)
    after = model.config.supertokens_after
    for rows in _first_blocks(model, scene, tokens, after, most_attention, walk):
        part = tokens[:, rows]
        cam[..., rows, :] = dso.choose(part, count=supertokens)[1]
        if model.gate is not None:
            probability[:, rows] = model.gate(part).to(probability.dtype)
    if model.gate is None:
        return tokens, Plan(cam=cam)
    return tokens, compression.select(probability, budget, lambda rows: (None, gather(cam, rows)))


class _Chunk(NamedTuple):
    """Some merged tokens.

    Attributes:
        rows: (n,) int64, their indices.
        cam: (1, n, s) or (1, h, n, s), their assignment map.
    """

    rows: Tensor
    cam: Tensor


def _merged_rows(model: Student, plan: Plan, walk: Walk, doing: str) -> Iterator[_Chunk]:
    """The merged tokens of a plan in chunks."""
    cam, rows = plan.cam, plan.rows
    if plan.weight is not None:  # the merged tokens come first
        cam = cam[:, : int((plan.weight > 0.5).sum())]
    for here in walk(in_chunks(model, cam.shape[-2], cam.device), doing):
        yield _Chunk(here[0] if rows is None else rows[0, here[0]], cam[..., here[0], :])


def _compressed(model: Student, scene: Scene, tokens: Tensor, plan: Plan, walk: Walk) -> Compressed:
    """The DSO's merge of all tokens: of one mean token per supertoken, weighted by its count.

    The value map is linear, so the mean of its outputs is its output for the mean. Sums run over
    chunks in float64, separately for every assignment head, because a head reads its own slice of
    the value map's output: the mean of head i and supertoken j becomes a token that only head i
    assigns, to j alone.
    """
    width, heads, count = model.shape.dim, model.dso.heads, plan.cam.shape[-1]
    weight = plan.cam.new_zeros(heads, count, dtype=torch.float64)
    sums = weight.new_zeros(heads, count, width)
    places = torch.zeros_like(sums)
    for rows, cam in _merged_rows(model, plan, walk, "merged"):
        share = cam.view(heads, -1, count).mT.float()
        weight += share.sum(dim=-1)
        sums += share @ model.dso.norm(tokens[:, rows]).float()
        places += share @ model.embed_centers(scene.centers[:, rows]).float()
    mean, dtype = weight.masked_fill(weight == 0, 1)[..., None], tokens.dtype
    cam = weight.new_zeros(1, heads, heads, count, count)
    for head in range(heads):
        cam[0, head, head] = weight[head].diag()
    cam = cam.view(1, heads, heads * count, count)
    return model.dso.merge(
        (sums / mean).view(1, -1, width).to(dtype),
        (places / mean).view(1, -1, width).to(dtype),
        (cam if heads > 1 else cam[:, 0]).to(dtype),
    )


def _restored(
    model: Student,
    scene: Scene,
    tokens: Tensor,
    plan: Plan,
    supertokens: Tensor,
    own: Tensor,
    walk: Walk,
) -> Tensor:
    """Features (1, c, output_dim) float32, of merged tokens by the CAU, of others their own row.

    They are written over the tokens where width and precision are the same.

    Args:
        model: the student.
        scene: of the tokens.
        tokens: (1, c, d).
        plan: of the tokens.
        supertokens: (1, s, d) encoded.
        own: (1, c - m, d) encoded tokens that are not merged, in their order.
        walk: iterates over chunks.
    """
    features = _features_like(model, tokens)
    for rows, cam in _merged_rows(model, plan, walk, "reconstructed"):
        read = model.residual(tokens[:, rows], model.embed_centers(scene.centers[:, rows]))
        features[:, rows] = model.output(model.cau(read, cam, supertokens)).float()
    kept = plan.staying()[0].nonzero()[:, 0]
    for here in in_chunks(model, len(kept), kept.device):
        features[:, kept[here[0]]] = model.output(own[:, here[0]]).float()
    return features
