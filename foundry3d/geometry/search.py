"""Exact sampling and neighbours on the tree of a cloud: the same indices as `geometry`.

A bucket is skipped when its box cannot matter. The distance to a box is rounded in the same order
as that to a point, so it never exceeds the distance to a point inside, and skipping changes
nothing, ties included.

Shapes: N points, L buckets in blocks of F, M queries, k neighbours.
"""

from __future__ import annotations

import numpy as np

from foundry3d.geometry.jit import compiled, compiled_part
from foundry3d.geometry.scan import Whole, distances, kth_bound, limits, lower, ranked, shrink
from foundry3d.geometry.threads import spread
from foundry3d.geometry.tree import Tree

BLOCK = 2048
"""Queries that a thread takes at a time."""


@compiled_part
def _box_distances(boxes: np.ndarray, x: float, y: float, z: float, reach: np.ndarray) -> None:
    """Squared distances from a point to boxes (6, n), rounded as those to points."""
    lx, ly, lz, hx, hy, hz = boxes[0], boxes[1], boxes[2], boxes[3], boxes[4], boxes[5]
    zero = np.float32(0)
    for j in range(reach.shape[0]):
        dx = lx[j] - x if lx[j] > x else x - hx[j]
        dy = ly[j] - y if ly[j] > y else y - hy[j]
        dz = lz[j] - z if lz[j] > z else z - hz[j]
        dx = dx if dx > zero else zero
        dy = dy if dy > zero else zero
        dz = dz if dz > zero else zero
        reach[j] = dx * dx + dy * dy + dz * dz


@compiled
def _sample(
    points: np.ndarray,
    xyz: np.ndarray,
    index: np.ndarray,
    edges: np.ndarray,
    boxes: np.ndarray,
    blocks: np.ndarray,
    start: Whole,
    chosen: np.ndarray,
) -> None:
    """Farthest point sampling. A key is (largest nearest distance, lowest index that has it)."""
    count, fold = boxes.shape[0], boxes.shape[2]
    xs, ys, zs = xyz[0], xyz[1], xyz[2]
    nearest = np.full(xs.shape[0], np.inf, np.float32)
    bits = nearest.view(np.int32)
    peaks = np.full((count, fold), np.inf, np.float32)
    peak_bits = peaks.view(np.int32)
    keys = np.empty((count, fold), np.int64)
    block_peaks = np.full(count, np.inf, np.float32)
    block_bits = block_peaks.view(np.int32)
    block_keys = np.empty(count, np.int64)
    block_reach = np.empty(count, np.float32)
    reach = np.empty(fold, np.float32)
    for block in range(count):
        for j in range(fold):
            first = 0x7FFFFFFF - index[edges[block * fold + j]]
            keys[block, j] = (np.int64(peak_bits[block, j]) << 32) | first
        block_keys[block] = _largest(keys[block])
    last: Whole = start
    for m in range(chosen.shape[0]):
        chosen[m] = last
        x, y, z = points[last, 0], points[last, 1], points[last, 2]
        _box_distances(blocks, x, y, z, block_reach)
        for block in range(count):
            if block_reach[block] >= block_peaks[block]:
                continue
            _box_distances(boxes[block], x, y, z, reach)
            for j in range(fold):
                if reach[j] >= peaks[block, j]:
                    continue
                low, high = edges[block * fold + j], edges[block * fold + j + 1]
                part = xs[low:high], ys[low:high], zs[low:high]
                top, at = lower(part, x, y, z, nearest[low:high], bits[low:high])
                peak_bits[block, j] = top
                keys[block, j] = (np.int64(top) << 32) | (0x7FFFFFFF - index[low + at])
            block_keys[block] = _largest(keys[block])
            block_bits[block] = np.int32(block_keys[block] >> 32)
        last = 0x7FFFFFFF - (_largest(block_keys) & 0xFFFFFFFF)


@compiled_part
def _largest(keys: np.ndarray) -> Whole:
    best = np.int64(0)
    for i in range(keys.shape[0]):
        best = max(best, keys[i])
    return best


@compiled_part
def _first_least(bits: np.ndarray) -> Whole:
    least, _ = limits(bits)
    at = np.int32(bits.shape[0])
    for i in range(np.int32(bits.shape[0])):
        at = min(at, np.int32(i) if bits[i] == least else at)
    return at


@compiled_part
def _append(
    bits: np.ndarray, index: np.ndarray, kept: np.ndarray, names: np.ndarray, bound: Whole
) -> Whole:
    """Appends candidates at or below the bound to kept and names; returns how many."""
    count = np.uint64(0)
    size = bits.shape[0]
    for low in range(0, size, 16):
        high = min(low + 16, size)
        some = np.int32(0)
        for i in range(low, high):
            some += np.int32(bits[i] <= bound)
        if some:
            for i in range(low, high):
                kept[count], names[count] = bits[i], index[i]
                count += np.uint64(bits[i] <= bound)
    return np.int64(count)


@compiled_part
def _queue(
    boxes: np.ndarray,
    block_bits: np.ndarray,
    x: float,
    y: float,
    z: float,
    home: Whole,
    bound: Whole,
    reach: np.ndarray,
    waiting: np.ndarray,
) -> int:
    """Buckets that the bound does not exclude, but home, nearest first into waiting[1:count]."""
    fold, count = boxes.shape[2], 1
    bits = reach.view(np.int32)
    for block in range(boxes.shape[0]):
        if block_bits[block] > bound:
            continue
        _box_distances(boxes[block], x, y, z, reach)
        for j in range(fold):
            bucket = block * fold + j
            if bits[j] <= bound and bucket != home:
                waiting[count] = (np.int64(bits[j]) << 32) | bucket
                count += 1
    waiting[1:count].sort()
    return count


@compiled
def _neighbors(
    queries: np.ndarray,
    found: np.ndarray,
    xyz: np.ndarray,
    index: np.ndarray,
    edges: np.ndarray,
    boxes: np.ndarray,
    blocks: np.ndarray,
) -> None:
    """The nearest bucket first, then those whose boxes are nearer than the k-th found so far."""
    count, fold, k = boxes.shape[0], boxes.shape[2], found.shape[1]
    xs, ys, zs = xyz[0], xyz[1], xyz[2]
    largest = 0
    for j in range(edges.shape[0] - 1):
        largest = max(largest, edges[j + 1] - edges[j])
    distance = np.empty(largest, np.float32)
    bits = distance.view(np.int32)
    room = 2 * k + 2 + largest + 16
    kept, names = np.empty(room, np.int32), np.empty(room, np.int32)
    block_reach = np.empty(count, np.float32)
    block_bits = block_reach.view(np.int32)
    reach = np.empty(fold, np.float32)
    reach_bits = reach.view(np.int32)
    waiting = np.empty(count * fold, np.int64)
    for m in range(queries.shape[0]):
        x, y, z = queries[m, 0], queries[m, 1], queries[m, 2]
        _box_distances(blocks, x, y, z, block_reach)
        near = _first_least(block_bits)
        _box_distances(boxes[near], x, y, z, reach)
        home = near * fold + _first_least(reach_bits)
        waiting[0] = home
        todo, at = 1, 0
        size: Whole = 0
        bound: Whole = np.int32(0x7FFFFFFF)
        last: Whole = np.int32(0x7FFFFFFF)
        while at < todo:
            away, bucket = waiting[at] >> 32, waiting[at] & 0xFFFFFFFF
            low, high = edges[bucket], edges[bucket + 1]
            at += 1
            if away > bound:
                break
            if away == bound and index[low] > last:
                continue
            part, some = (xs[low:high], ys[low:high], zs[low:high]), high - low
            distances(part, x, y, z, distance[:some])
            if at == 1 and some >= k:
                bound = kth_bound(bits[:some], k)
            size += _append(bits[:some], index[low:high], kept[size:], names[size:], bound)
            if size > 2 * k + 2:
                size, bound, last = shrink(kept, names, size, k)
            if at == 1:
                todo = _queue(boxes, block_bits, x, y, z, home, bound, reach, waiting)
        ranked(kept, names, size, found[m])


def farthest(tree: Tree, start: int, chosen: np.ndarray) -> None:
    """See `geometry.farthest_point_sample`, into chosen (count,) int64."""
    _sample(*tree, start, chosen)


def nearest(tree: Tree, queries: np.ndarray, found: np.ndarray, *, threads: int = 1) -> None:
    """See `geometry.nearest_neighbors`, of queries (M, 3) into found (M, k) int64."""
    spread(lambda q, f: _neighbors(q, f, *tree[1:]), threads, queries, found, block=BLOCK)
