"""Which tokens are merged: pure functions from keys or centers to a target for every token.

A target (B, n) int64 holds the row, 0 to m-1, that each of n tokens is merged into. Targets have
no gradients; those of the tokens flow through the means that `merge` takes.

Shapes: B clouds, n tokens before and m after, d width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from foundry3d.geometry import farthest_point_sample, gather, squared_distances


def merge(values: Tensor, target: Tensor, left: int, sizes: Tensor) -> Tensor:
    """Means (B, m, d) of values (B, n, d) over the tokens of each row, weighted by sizes (B, n).

    A row is zero if no token of positive size is merged into it.
    """
    weighted = values * sizes.unsqueeze(-1)  # in float32 at least, as sizes are
    rows = target.unsqueeze(-1).expand_as(values)
    total = weighted.new_zeros(values.shape[0], left, values.shape[-1])
    mass = merged_sizes(target, left, sizes)
    mass = mass.masked_fill(mass == 0, 1).unsqueeze(-1)
    return (total.scatter_add(1, rows, weighted) / mass).to(values.dtype)


def merged_sizes(target: Tensor, left: int, sizes: Tensor) -> Tensor:
    """Sizes (B, m) of the rows: each is the sum of the sizes (B, n) of its tokens."""
    return sizes.new_zeros(sizes.shape[0], left).scatter_add(1, target, sizes)


def soft_matching(keys: Tensor, left: int) -> Tensor:
    """Bipartite soft matching of ToMe (Section 3): merges the most similar pairs of two halves.

    Each token at an even index proposes to the most similar token at an odd index (by the cosine
    of their keys), and the n - m best proposals are accepted. In the result, the even tokens that
    were not merged come first, best proposal first, followed by the odd tokens in order.

    Args:
        keys: (B, n, d).
        left: m, at least n - n // 2, as only one half is merged into the other, and below n.

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
    """Energy score (B, n) of PiToMe (Section 3.2): high for tokens with many similar ones.

    The mean over all tokens of ELU(cosine - margin).
    """
    normed = F.normalize(keys, dim=-1)
    return F.elu(normed @ normed.mT - margin).mean(dim=-1)


def energy_matching(keys: Tensor, left: int, margin: float) -> Tensor:
    """Matching of PiToMe: tokens of high energy are merged, those of low energy are protected.

    The 2 (n - m) tokens of highest energy are dealt alternately to two halves, highest first. Each
    token of the first half is merged into the token of the second half with the most similar key.
    In the result, the protected tokens come first, then the second half, both by falling energy.

    Args:
        keys: (B, n, d).
        left: m, from n / 2 to n.
        margin: cosine above which tokens count as similar; lower in later blocks.

    Returns:
        (B, n) target.
    """
    batch, count, _ = keys.shape
    merging = count - left
    order = energy(keys, margin).argsort(dim=1, descending=True, stable=True)
    normed = gather(F.normalize(keys, dim=-1), order)
    senders, receivers = normed[:, : 2 * merging : 2], normed[:, 1 : 2 * merging : 2]
    rows = torch.empty(batch, count, dtype=torch.int64, device=keys.device)
    first = count - 2 * merging  # receivers follow the protected tokens
    rows[:, 1 : 2 * merging : 2] = first + torch.arange(merging, device=keys.device)
    rows[:, 2 * merging :] = torch.arange(first, device=keys.device)
    if merging:
        rows[:, : 2 * merging : 2] = first + (senders @ receivers.mT).argmax(dim=-1)
    return torch.empty_like(rows).scatter(1, order, rows)


def nearest_seed(centers: Tensor, seeds: Tensor) -> Tensor:
    """Target (B, n): the seed (B, m, 3) nearest to each center (B, n, 3), the first one on ties."""
    return squared_distances(centers, seeds).argmin(dim=-1)


def cluster(centers: Tensor, left: int, *, iterations: int, sizes: Tensor) -> Tensor:
    """K-means clusters of centers, started from a farthest point sample.

    Args:
        centers: (B, n, 3).
        left: m, the number of clusters; some may end up empty.
        iterations: Lloyd iterations; 0 = each center joins the nearest one of the sample.
        sizes: (B, n) weight of each center.

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
