"""Which tokens become one: pure functions from keys or centers to a target for every token.

A target (B, n) int64 names the row, 0 to m-1, that each of n tokens is merged into. Nothing here
is differentiable; gradients flow through `merge`, the means.

Shapes: B clouds, n tokens before and m after, d width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from foundry3d.geometry import farthest_point_sample, gather, squared_distances


def merge(values: Tensor, target: Tensor, left: int, sizes: Tensor) -> Tensor:
    """Means (B, m, d) of values (B, n, d) over the tokens of each row, weighted by sizes (B, n).

    Rows that no token of positive size is merged into are zero.
    """
    weighted = values * sizes.unsqueeze(-1)  # in float32 at least, as sizes are
    rows = target.unsqueeze(-1).expand_as(values)
    total = weighted.new_zeros(len(values), left, values.shape[-1])
    mass = merged_sizes(target, left, sizes)
    mass = mass.masked_fill(mass == 0, 1).unsqueeze(-1)
    return (total.scatter_add(1, rows, weighted) / mass).to(values.dtype)


def merged_sizes(target: Tensor, left: int, sizes: Tensor) -> Tensor:
    """Sizes (B, m) of the rows that tokens of sizes (B, n) are merged into."""
    return sizes.new_zeros(len(sizes), left).scatter_add(1, target, sizes)


def soft_matching(keys: Tensor, left: int) -> Tensor:
    """Bipartite soft matching of ToMe (Section 3): the most similar pairs across two halves merge.

    Tokens at even places propose to the most similar token at an odd place (cosine of the keys);
    the n - m best proposals are merged. Unmerged even tokens come first in the result, the best
    proposal first, then the odd ones in order.

    Args:
        keys: (B, n, d).
        left: m, at least n - n // 2 (a half proposes) and below n.

    Returns:
        (B, n) target.
    """
    normed = F.normalize(keys, dim=-1)
    best, partner = (normed[:, ::2] @ normed[:, 1::2].mT).max(dim=-1)
    # rank[j]: how many proposals are better than that of even token j.
    rank = best.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    merging = keys.shape[1] - left
    first = best.shape[1] - merging
    odd = first + torch.arange(keys.shape[1] // 2, device=keys.device)
    target = torch.empty(keys.shape[:2], dtype=torch.int64, device=keys.device)
    target[:, ::2] = torch.where(rank < merging, first + partner, rank - merging)
    target[:, 1::2] = odd
    return target


def energy(keys: Tensor, margin: float) -> Tensor:
    """Energy score (B, n) of PiToMe (Section 3.2): high for tokens amid many similar ones.

    The mean over all tokens of ELU(cosine - margin).
    """
    normed = F.normalize(keys, dim=-1)
    return F.elu(normed @ normed.mT - margin).mean(dim=-1)


def energy_matching(keys: Tensor, left: int, margin: float) -> Tensor:
    """Matching of PiToMe: tokens of high energy merge, those of low energy are protected.

    The 2 (n - m) tokens of highest energy are split alternately, highest first, into a half that
    merges and a half it merges into (most similar key). Protected tokens come first in the
    result, then the second half, both by falling energy.

    Args:
        keys: (B, n, d).
        left: m, n / 2 to n.
        margin: similarity above which tokens count as alike; falls from block to block.

    Returns:
        (B, n) target.
    """
    batch, count, _ = keys.shape
    merging = count - left
    order = energy(keys, margin).argsort(dim=1, descending=True, stable=True)
    normed = gather(F.normalize(keys, dim=-1), order)
    senders, receivers = normed[:, : 2 * merging : 2], normed[:, 1 : 2 * merging : 2]
    rows = torch.empty(batch, count, dtype=torch.int64, device=keys.device)
    first = count - 2 * merging  # receivers stand behind the protected tokens
    rows[:, 1 : 2 * merging : 2] = first + torch.arange(merging, device=keys.device)
    rows[:, 2 * merging :] = torch.arange(first, device=keys.device)
    if merging:
        rows[:, : 2 * merging : 2] = first + (senders @ receivers.mT).argmax(dim=-1)
    return torch.empty_like(rows).scatter(1, order, rows)


def nearest_seed(centers: Tensor, seeds: Tensor) -> Tensor:
    """Target (B, n): the nearest of seeds (B, m, 3) for centers (B, n, 3), lowest index on ties."""
    return squared_distances(centers, seeds).argmin(dim=-1)


def cluster(centers: Tensor, left: int, *, iterations: int, sizes: Tensor) -> Tensor:
    """K-means of centers (B, n, 3) of sizes (B, n), started at a farthest point sample.

    Args:
        centers: (B, n, 3).
        left: m, clusters; some may end empty.
        iterations: of Lloyd; 0 = the cells of the farthest point sample.
        sizes: weight of each center.

    Returns:
        (B, n) target.
    """
    seeds = gather(centers, farthest_point_sample(centers, left))
    for _ in range(iterations):
        target = nearest_seed(centers, seeds)
        empty = merged_sizes(target, left, sizes) == 0
        moved = merge(centers, target, left, sizes)
        seeds = torch.where(empty.unsqueeze(-1), seeds, moved)
    return nearest_seed(centers, seeds)
