"""Compiled CPU twins of `geometry`: the same indices, one cloud (or block of queries) per thread.

No fast-math, so no fused multiply-add and no reordering: distances equal the torch form bit for
bit. Non-negative floats are compared as their int32 bits, which lets the compiler vectorise the
maximum and the counting that a float comparison would not allow.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import torch
from numba import njit
from torch import Tensor


@njit(nogil=True, cache=True)
def _fps(points: np.ndarray, start: np.ndarray, chosen: np.ndarray) -> None:
    size = points.shape[1]
    nearest = np.empty(size, np.float32)
    bits = nearest.view(np.int32)
    for b in range(points.shape[0]):
        xyz = np.ascontiguousarray(points[b].T)
        x, y, z = xyz[0], xyz[1], xyz[2]
        nearest[:] = np.inf
        last = start[b]
        for m in range(chosen.shape[1]):
            chosen[b, m] = last
            px, py, pz = x[last], y[last], z[last]
            for i in range(size):
                dx, dy, dz = x[i] - px, y[i] - py, z[i] - pz
                d = dx * dx + dy * dy + dz * dz
                nearest[i] = d if d < nearest[i] else nearest[i]
            farthest = np.int32(-1)
            for i in range(size):
                farthest = max(farthest, bits[i])
            last = 0
            while bits[last] != farthest:
                last += 1


@njit(nogil=True, cache=True)
def _kth_smallest(bits: np.ndarray, k: int) -> np.int32:
    """The k-th smallest of non-negative int32 values, by bisection on the value."""
    low, high = np.int32(0), np.int32(0)
    for i in range(bits.shape[0]):
        high = max(high, bits[i])
    while low < high:
        middle = low + (high - low) // 2
        count = np.int32(0)
        for i in range(bits.shape[0]):
            count += np.int32(bits[i] <= middle)
        if count >= k:
            high = np.int32(middle)
        else:
            low = np.int32(middle + 1)
    return low


@njit(nogil=True, cache=True)
def _knn(queries: np.ndarray, points: np.ndarray, found: np.ndarray) -> None:
    size, k = points.shape[1], found.shape[2]
    distance = np.empty(size, np.float32)
    bits = distance.view(np.int32)
    keys = np.empty(k, np.int64)
    for b in range(points.shape[0]):
        xyz = np.ascontiguousarray(points[b].T)
        x, y, z = xyz[0], xyz[1], xyz[2]
        for m in range(queries.shape[1]):
            px, py, pz = queries[b, m, 0], queries[b, m, 1], queries[b, m, 2]
            for i in range(size):
                dx, dy, dz = px - x[i], py - y[i], pz - z[i]
                distance[i] = dx * dx + dy * dy + dz * dz
            limit = _kth_smallest(bits, k)
            ties = k
            for i in range(size):
                ties -= np.int32(bits[i] < limit)
            filled = 0
            for i in range(size):
                if bits[i] < limit or (bits[i] == limit and ties > 0):
                    ties -= bits[i] == limit
                    keys[filled] = (np.int64(bits[i]) << 32) | i
                    filled += 1
            keys.sort()
            for j in range(k):
                found[b, m, j] = keys[j] & 0xFFFFFFFF


@njit(nogil=True, cache=True)
def _greedy(centers: np.ndarray, first: np.ndarray, order: np.ndarray) -> None:
    size = centers.shape[1]
    free = np.empty(size, np.bool_)
    for b in range(centers.shape[0]):
        free[:] = True
        last = first[b]
        for m in range(size):
            order[b, m] = last
            free[last] = False
            best, closest = -1, np.float32(np.inf)
            for i in range(size):
                dx = centers[b, last, 0] - centers[b, i, 0]
                dy = centers[b, last, 1] - centers[b, i, 1]
                dz = centers[b, last, 2] - centers[b, i, 2]
                d = dx * dx + dy * dy + dz * dz
                if free[i] and d < closest:
                    best, closest = i, d
            last = best


def _spread(kernel: Callable[..., None], *arrays: np.ndarray) -> None:
    """Runs the kernel over slices of the arrays' first axis, one slice a thread."""
    count = arrays[0].shape[0]
    threads = min(torch.get_num_threads(), count)
    if threads <= 1:
        return kernel(*arrays)
    edges = np.linspace(0, count, threads + 1).astype(int)
    with ThreadPoolExecutor(threads) as pool:
        parts = [
            pool.submit(kernel, *(a[low:high] for a in arrays)) for low, high in pairwise(edges)
        ]
        for part in parts:
            part.result()
    return None


def _array(tensor: Tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.numpy())


def farthest_point_sample(points: Tensor, count: int, start: Tensor) -> Tensor:
    """See `geometry.farthest_point_sample`; points (B, N, 3) float32 on the CPU."""
    chosen = np.empty((points.shape[0], count), np.int64)
    _spread(_fps, _array(points), _array(start), chosen)
    return torch.from_numpy(chosen)


def nearest_neighbors(queries: Tensor, points: Tensor, k: int) -> Tensor:
    """See `geometry.nearest_neighbors`; both (B, ., 3) float32 on the CPU.

    A single cloud is split over its queries instead.
    """
    found = np.empty((*queries.shape[:2], k), np.int64)
    q, p = _array(queries), _array(points)
    if len(q) > 1:
        _spread(_knn, q, p, found)
    else:
        _spread(lambda a, f: _knn(a[None], p, f[None]), q[0], found[0])
    return torch.from_numpy(found)


def greedy_order(centers: Tensor, first: Tensor) -> Tensor:
    """See `geometry.greedy_order`; centers (B, c, 3) float32 on the CPU."""
    order = np.empty(centers.shape[:2], np.int64)
    _spread(_greedy, _array(centers), _array(first), order)
    return torch.from_numpy(order)
