"""Compiled CPU twins of `geometry`: the same indices, work spread over threads.

Small clouds are scanned whole (`scan`), large ones searched with a tree (`search`). Every tensor
here is float32 on the CPU and needs no gradient.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from foundry3d.geometry import scan, search
from foundry3d.geometry.threads import spread
from foundry3d.geometry.tree import Tree, build

LARGE, MANY = 4096, 256
"""A tree pays off from this many points in a cloud and this many samples or neighbourhoods."""


def tree_pays(points: int, count: int) -> bool:
    """Whether building a tree is faster than scanning a cloud count times."""
    return points >= LARGE and count >= MANY


def _array(tensor: Tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.numpy())


def build_trees(points: Tensor, bucket: int = 256) -> list[Tree]:
    """One tree for each cloud of points (B, N, 3)."""
    threads = torch.get_num_threads()
    return [build(cloud, bucket, threads=threads) for cloud in _array(points)]


def farthest_point_sample(
    points: Tensor, count: int, start: Tensor, trees: Sequence[Tree] | None
) -> Tensor:
    """See `geometry.farthest_point_sample`; points (B, N, 3)."""
    threads = torch.get_num_threads()
    chosen = np.empty((points.shape[0], count), np.int64)
    if trees is None and tree_pays(points.shape[1], count):
        trees = build_trees(points)
    if trees is None:
        spread(scan.sample, threads, _array(points), _array(start), chosen)
    else:
        rows = np.arange(len(chosen))

        def sample(rows: np.ndarray) -> None:
            for row in rows:
                search.farthest(trees[row], int(start[row]), chosen[row])

        spread(sample, threads, rows)
    return torch.from_numpy(chosen)


def nearest_neighbors(
    queries: Tensor, points: Tensor, k: int, trees: Sequence[Tree] | None
) -> Tensor:
    """See `geometry.nearest_neighbors`; both (B, ., 3)."""
    threads = torch.get_num_threads()
    found = np.empty((*queries.shape[:2], k), np.int64)
    q = _array(queries)
    if trees is None and tree_pays(points.shape[1], queries.shape[1]):
        trees = build_trees(points, max(64, 4 * k))
    if trees is not None:
        for tree, cloud, out in zip(trees, q, found, strict=True):
            search.nearest(tree, cloud, out, threads=threads)
        return torch.from_numpy(found)
    p = _array(points)
    if len(q) > 1:
        spread(scan.neighbors, threads, q, p, found)
    else:
        spread(lambda a, f: scan.neighbors(a[None], p, f[None]), threads, q[0], found[0])
    return torch.from_numpy(found)


def offsets(points: Tensor, centers: Tensor, index: Tensor) -> Tensor:
    """Points (B, N, 3) at index (B, c, k) relative to centers (B, c, 3): (B, c, k, 3)."""
    threads = torch.get_num_threads()
    out = np.empty((*index.shape, 3), np.float32)
    p, c, i = _array(points), _array(centers), _array(index)
    if len(out) > 1:
        spread(scan.offsets, threads, p, c, i, out)
    else:
        kernel = scan.offsets
        spread(lambda c, i, o: kernel(p, c[None], i[None], o[None]), threads, c[0], i[0], out[0])
    return torch.from_numpy(out)


def greedy_order(centers: Tensor, first: Tensor) -> Tensor:
    """See `geometry.greedy_order`; centers (B, c, 3)."""
    order = np.empty(centers.shape[:2], np.int64)
    spread(scan.greedy, torch.get_num_threads(), _array(centers), _array(first), order)
    return torch.from_numpy(order)
