"""The way into the encoder with a gate: merged tokens as supertokens, the others as they are.

In training every token takes both ways and the gate's choice weighs them, for its gradients; at
inference a plan says which tokens are merged, and what enters has no holes (section 3.4).

Shapes: B clouds, c tokens, s supertokens, d width, m merged tokens of a cloud.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from foundry3d.errors import InputError
from foundry3d.geometry import gather
from foundry3d.models.budget import Budget
from foundry3d.models.gate import by_probability, fill_budget, relative, selection
from foundry3d.models.supertokens import CAU, DSO, key_bias


def merged_counts(probability: Tensor, budget: Budget, ratio: float) -> Tensor:
    """(B,) how many tokens of each cloud are merged; not for token budgets.

    Args:
        probability: (B, c) of the gate.
        budget: numbers themselves, or a ratio.
        ratio: where the budget has neither.
    """
    if budget.merged is not None:
        return budget.merged
    return (probability > (ratio if budget.ratio is None else budget.ratio)).sum(dim=1)


def enter_dense(
    dso: DSO,
    cau: CAU,
    tokens: Tensor,
    positions: Tensor,
    probability: Tensor,
    budget: Budget,
    *,
    ratio: float,
    through: bool,
    generator: torch.Generator | None,
) -> Entry:
    """Every token takes both ways and the gate's choice weighs them: for gradients.

    Merged tokens are hidden from the encoder's keys; as queries they get what they would have got
    beside the others, so that the loss can tell the gate what merging them costs.

    Args:
        dso: compresses.
        cau: reconstructs.
        tokens: (B, c, d).
        positions: (B, c, d).
        probability: (B, c) of the gate.
        budget: without a token budget.
        ratio: r where the budget has none.
        through: gradients reach the gate (`StudentConfig.gate_through`).
        generator: of the draws.

    Raises:
        InputError: a token budget.
    """
    if budget.token_budget is not None:
        raise InputError("a token_budget is for inference; call eval() on the student first")
    merged = merged_counts(probability, budget, ratio)
    drawn = budget.merged is not None
    chosen = selection(relative(probability) if drawn else probability, merged).to(tokens.dtype)
    if not through:
        chosen = chosen.detach()
    normed, cam = dso.choose(tokens, generator, budget.supertokens)
    packed = dso.merge(normed, positions, cam * chosen.unsqueeze(-1))
    inside = torch.cat([packed.used, chosen < 0.5], dim=1)
    count = cam.shape[-1]

    def restore(encoded: Tensor) -> Tensor:
        weight = chosen.unsqueeze(-1)
        there = cau(tokens, cam, encoded[:, :count])
        return weight * there + (1 - weight) * encoded[:, count:]

    return Entry(
        torch.cat([packed.supertokens, tokens], dim=1),
        torch.cat([packed.positions, positions], dim=1),
        key_bias(inside, tokens.dtype),
        restore,
        cam.argmax(dim=-1).masked_fill(chosen < 0.5, -1),
        inside.sum(dim=1),
        probability,
    )


def plan_merging(
    dso: DSO, tokens: Tensor, probability: Tensor, budget: Budget, *, ratio: float, count: int
) -> tuple[Plan, Tensor, Tensor]:
    """Which tokens are merged, with the layer-normed ones and their map, in that order.

    Args:
        dso: compresses.
        tokens: (B, c, d).
        probability: (B, c) of the gate.
        budget: a ratio, numbers of merged tokens, or a token budget.
        ratio: r where the budget has none.
        count: s', supertokens in use.

    Returns:
        The plan, normed tokens (B, m, d) and map (B, m, s'), m the plan's `rows`.
    """
    order, wanted, total = by_probability(probability), budget.token_budget, tokens.shape[1]
    if wanted is None:
        merged = merged_counts(probability, budget, ratio)
        rows = int(merged.max())
    else:
        rows = total - wanted + count if wanted < total else 0
    normed, cam = dso.choose(gather(tokens, order[:, :rows]), count=count)
    if wanted is not None:
        merged = fill_budget(cam, total, wanted)
    # A soft map can leave a supertoken without weight, so only its own count is certain.
    return Plan(order, merged, rows, None if dso.soft else wanted), normed, cam


def enter_planned(
    dso: DSO,
    cau: CAU,
    tokens: Tensor,
    positions: Tensor,
    probability: Tensor,
    plan: Plan,
    normed: Tensor,
    cam: Tensor,
    packed: bool = False,
) -> Entry:
    """The merged tokens as supertokens, beside those that are not merged, without holes.

    Args:
        dso: compresses.
        cau: reconstructs.
        tokens: (B, c, d).
        positions: (B, c, d).
        probability: (B, c).
        plan: which of them are merged; m is its `rows`, 0 included.
        normed: (B, m, d) layer-normed tokens in the order of the plan.
        cam: (B, m, s) their map.
        packed: no padding: clouds of equal length are encoded together.
    """
    total, rows, count = tokens.shape[1], plan.rows, cam.shape[-1]
    ranked, placed = gather(tokens, plan.order), gather(positions, plan.order)
    rank = torch.arange(total, device=tokens.device)
    taken = rank < plan.merged[:, None]
    choices = cam * taken[:, :rows, None]
    merged = dso.merge(normed, placed[:, :rows], choices)
    valid = torch.cat([merged.used, ~taken], dim=1)
    x = torch.cat([merged.supertokens, ranked], dim=1)
    at = torch.cat([merged.positions, placed], dim=1)
    used = valid.sum(dim=1)
    if plan.width is None:
        least, width = torch.stack(used.aminmax()).tolist()
    else:
        least = width = plan.width
    x, at, valid, index = compacted(x, at, valid, width)

    def restore(encoded: Tensor) -> Tensor:
        back = spread(encoded, index, count + total)
        kept = back[:, count:]
        there = cau(ranked[:, :rows], choices, back[:, :count])
        first = torch.where(taken[:, :rows, None], there, kept[:, :rows])
        return spread(torch.cat([first, kept[:, rows:]], dim=1), plan.order, total)

    chosen = cam.argmax(dim=-1).masked_fill(~taken[:, :rows], -1)
    assignment = torch.full_like(plan.order, -1).scatter(1, plan.order[:, :rows], chosen)
    bias = None if least == width else key_bias(valid, x.dtype)
    return Entry(x, at, bias, restore, assignment, used, probability, packed)


class Plan(NamedTuple):
    """Which tokens of each cloud are merged.

    Attributes:
        order: (B, c) int64, tokens by falling fusion probability.
        merged: (B,) int64, m: the first m of that order are merged.
        rows: at least the largest m of the batch.
        width: the number of tokens of every cloud that enter the encoder; None = counted, for
            which an accelerator is waited for.
    """

    order: Tensor
    merged: Tensor
    rows: int
    width: int | None = None


class Entry(NamedTuple):
    """What enters a student's encoder, and the way back.

    Attributes:
        tokens: (B, n, d).
        positions: (B, n, d).
        bias: (B, n), -inf hides a row; None = all are seen.
        restore: from encoded (B, n, d) to features (B, c, d).
        assignment: (B, c) int64, the supertoken of each token, -1 = not merged.
        used: (B,) int64, tokens of each cloud that count, n without the hidden rows.
        probability: (B, c) of the gate, None without one.
        packed: encode clouds of equal `used` together instead of all of them with hidden rows.
    """

    tokens: Tensor
    positions: Tensor
    bias: Tensor | None
    restore: Callable[[Tensor], Tensor]
    assignment: Tensor
    used: Tensor
    probability: Tensor | None = None
    packed: bool = False


def compacted(x: Tensor, positions: Tensor, valid: Tensor, width: int) -> tuple[Tensor, ...]:
    """Valid rows first, cut to `width`: what an encoder without holes reads.

    Args:
        x: (B, n, d) rows.
        positions: (B, n, d).
        valid: (B, n) bool.
        width: rows kept, at least the valid rows of any cloud.

    Returns:
        Rows (B, width, d), positions (B, width, d), valid (B, width) and index (B, width).
    """
    index = valid.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :width]
    return gather(x, index), gather(positions, index), valid.gather(1, index), index


def spread(rows: Tensor, index: Tensor, count: int) -> Tensor:
    """(B, count, d) with rows (B, n, d) at index (B, n), zero elsewhere."""
    target = rows.new_zeros(rows.shape[0], count, rows.shape[-1])
    return target.scatter(1, index.unsqueeze(-1).expand_as(rows), rows)


def by_length(lengths: Tensor) -> list[Tensor]:
    """Indices of the clouds of every distinct length (B,), shortest first."""
    return [torch.nonzero(lengths == length).flatten() for length in lengths.unique().tolist()]
