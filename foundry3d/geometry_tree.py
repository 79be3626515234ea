"""Exact sampling and neighbours on one kd-tree of a cloud: the same indices as `geometry`.

Points lie bucket after bucket, in each by ascending original index. A bucket is skipped when its
box cannot matter; the distance to a box is rounded in the same order as that to a point, so it
never exceeds the distance to a point inside, and skipping changes nothing, ties included.

Shapes: N points, L = 2^levels buckets, F buckets a block, L / F blocks, M queries, k neighbours.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from foundry3d.threads import spread

SUBTREE = 2**17
"""Up to so many points a subtree is split by one thread, inside its caches."""


class Tree(NamedTuple):
    """A cloud in buckets of equal size (within one point), halved along its widest axis.

    Attributes:
        points: (N, 3) float32, as given.
        xyz: (3, N) the points bucket after bucket.
        index: (N,) int32 their original indices, ascending in each bucket.
        edges: (L + 1,) first point of each bucket, and N.
        boxes: (6, L) lowest, then highest coordinates of each bucket.
        blocks: (6, L / F) those of F consecutive buckets.
    """

    points: np.ndarray
    xyz: np.ndarray
    index: np.ndarray
    edges: np.ndarray
    boxes: np.ndarray
    blocks: np.ndarray


@njit(nogil=True, cache=True)
def _ordered(values: np.ndarray) -> None:
    """In place: bits of floats to int32 that sort like them; its own inverse."""
    for i in range(values.shape[0]):
        values[i] ^= (values[i] >> 31) & np.int32(0x7FFFFFFF)


@njit(nogil=True, cache=True)
def _limits(values: np.ndarray) -> tuple[np.int32, np.int32]:
    low, high = values[0], values[0]
    for i in range(values.shape[0]):
        low = min(low, values[i])
        high = max(high, values[i])
    return low, high


@njit(nogil=True, cache=True)
def _float(value: np.int32) -> np.float32:
    cell = np.empty(1, np.int32)
    cell[0] = value
    _ordered(cell)
    return cell.view(np.float32)[0]


@njit(nogil=True, cache=True)
def _pivot(values: np.ndarray, left: int, low: int, high: int) -> tuple[np.int32, int]:
    """A value with `left` of the values at or below it, so many of them equal to it."""
    while low < high:
        middle = (low + high) >> 1
        bound = np.int32(middle)
        count = np.int32(0)
        for i in range(values.shape[0]):
            count += np.int32(values[i] <= bound)
        if count == left:
            return bound, left
        if count > left:
            high = middle
        else:
            low = middle + 1
    bound = np.int32(low)
    below = np.int32(0)
    for i in range(values.shape[0]):
        below += np.int32(values[i] < bound)
    return bound, left - below


@njit(nogil=True, cache=True)
def _halve(source: np.ndarray, target: np.ndarray, start: int, middle: int, end: int) -> None:
    """Columns start:end of source (4, N) to target, the lower along the widest axis first."""
    axis, widest, least, most = 0, np.float32(-1), 0, 0
    for a in range(3):
        low, high = _limits(source[a][start:end])
        width = _float(high) - _float(low)
        if width > widest:
            axis, widest, least, most = a, width, low, high
    values = source[axis]
    bound, ties = _pivot(values[start:end], middle - start, least, most)
    x, y, z, index = source[0], source[1], source[2], source[3]
    tx, ty, tz, tindex = target[0], target[1], target[2], target[3]
    lower, upper = np.uint64(start), np.uint64(middle)
    for i in range(np.uint64(start), np.uint64(end)):
        equal = values[i] == bound
        goes = np.uint64((values[i] < bound) | (equal & (ties > 0)))
        ties -= equal
        mask = np.uint64(0) - goes  # no branch: it would be mispredicted half the time
        to = (lower & mask) | (upper & ~mask)
        lower += goes
        upper += np.uint64(1) - goes
        tx[to], ty[to], tz[to], tindex[to] = x[i], y[i], z[i], index[i]


@njit(nogil=True, cache=True)
def _split(nodes: np.ndarray, a: np.ndarray, b: np.ndarray, edges: np.ndarray, levels: int) -> None:
    """Splits nodes (n, 2), first and last bucket, so many levels down; from a to b and back."""
    for node in range(nodes.shape[0]):
        first, last = nodes[node, 0], nodes[node, 1]
        width = last - first
        for level in range(levels):
            for low in range(first, last, width):
                start, middle, end = edges[low], edges[low + width // 2], edges[low + width]
                if level % 2 == 0:
                    _halve(a, b, start, middle, end)
                else:
                    _halve(b, a, start, middle, end)
            width //= 2


@njit(nogil=True, cache=True)
def _close(keys: np.ndarray, edges: np.ndarray, boxes: np.ndarray) -> None:
    """Coordinates back to float bits, and the boxes of the buckets."""
    for j in range(edges.shape[0] - 1):
        for axis in range(3):
            low, high = _limits(keys[axis][edges[j] : edges[j + 1]])
            boxes[axis, j], boxes[axis + 3, j] = _float(low), _float(high)
    for axis in range(3):
        _ordered(keys[axis])


def build(points: np.ndarray, bucket: int = 256, *, threads: int = 1) -> Tree:
    """The tree of points (N, 3) float32 with buckets of more than bucket / 2 points or all N."""
    size = len(points)
    levels = max(0, int(np.ceil(np.log2(size / bucket))))
    count = 2**levels
    edges = np.arange(count + 1) * size // count
    a = np.empty((4, size), np.int32)
    a[:3] = points.view(np.int32).T
    a[3] = np.arange(size, dtype=np.int32)
    for axis in range(3):
        _ordered(a[axis])
    b = np.empty_like(a)
    done, step = 0, 1
    while done < levels:
        nodes = 2**done
        if nodes >= threads and size <= SUBTREE * nodes:
            step = levels - done
        firsts = np.arange(nodes) * (count // nodes)
        spans = np.stack([firsts, firsts + count // nodes], axis=1)
        spread(lambda part, s=step: _split(part, a, b, edges, s), threads, spans)
        done += step
        if step % 2:
            a, b = b, a
    boxes = np.empty((6, count), np.float32)
    _close(a, edges, boxes)
    folds = boxes.reshape(6, 2 ** (levels // 2), -1)
    blocks = np.concatenate([folds[:3].min(2), folds[3:].max(2)])
    boxes = np.ascontiguousarray(folds.transpose(1, 0, 2))
    return Tree(points, a[:3].view(np.float32), a[3], edges, boxes, blocks)


@njit(nogil=True, cache=True)
def _reach(boxes: np.ndarray, x: float, y: float, z: float, reach: np.ndarray) -> None:
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


@njit(nogil=True, cache=True)
def _lower(
    xs: np.ndarray,
    ys: np.ndarray,
    zs: np.ndarray,
    x: float,
    y: float,
    z: float,
    nearest: np.ndarray,
    bits: np.ndarray,
) -> tuple[np.int32, np.int32]:
    """Lowers the nearest distances to those to a new sample: their maximum, and where first."""
    size = np.int32(nearest.shape[0])
    for i in range(size):
        dx, dy, dz = xs[i] - x, ys[i] - y, zs[i] - z
        d = dx * dx + dy * dy + dz * dz
        nearest[i] = d if d < nearest[i] else nearest[i]
    top = np.int32(-1)
    for i in range(size):
        top = max(top, bits[i])
    at = size
    for i in range(size):
        at = min(at, np.int32(i) if bits[i] == top else size)
    return top, at


@njit(nogil=True, cache=True)
def _sample(
    points: np.ndarray,
    xyz: np.ndarray,
    index: np.ndarray,
    edges: np.ndarray,
    boxes: np.ndarray,
    blocks: np.ndarray,
    start: int,
    chosen: np.ndarray,
) -> None:
    """Farthest point sampling. A key is (largest nearest distance, lowest index that has it)."""
    count, fold = boxes.shape[0], boxes.shape[2]
    xs, ys, zs = xyz[0], xyz[1], xyz[2]
    nearest = np.full(xs.shape[0], np.inf, np.float32)
    bits = nearest.view(np.int32)
    peaks = np.full((count, fold), np.inf, np.float32)
    peak_bits = peaks.view(np.int32)
    keys = np.zeros((count, fold), np.int64)
    block_peaks = np.full(count, np.inf, np.float32)
    block_bits = block_peaks.view(np.int32)
    block_keys = np.zeros(count, np.int64)
    block_reach = np.empty(count, np.float32)
    reach = np.empty(fold, np.float32)
    last = start
    for m in range(chosen.shape[0]):
        chosen[m] = last
        x, y, z = points[last, 0], points[last, 1], points[last, 2]
        _reach(blocks, x, y, z, block_reach)
        for block in range(count):
            if block_reach[block] >= block_peaks[block]:
                continue
            _reach(boxes[block], x, y, z, reach)
            for j in range(fold):
                if reach[j] >= peaks[block, j]:
                    continue
                low, high = edges[block * fold + j], edges[block * fold + j + 1]
                top, at = _lower(
                    xs[low:high], ys[low:high], zs[low:high], x, y, z, nearest[low:high], bits[low:high]
                )
                peak_bits[block, j] = top
                keys[block, j] = (np.int64(top) << 32) | (0x7FFFFFFF - index[low + at])
            block_keys[block] = _largest(keys[block])
            block_bits[block] = np.int32(block_keys[block] >> 32)
        last = 0x7FFFFFFF - (_largest(block_keys) & 0xFFFFFFFF)


@njit(nogil=True, cache=True)
def _largest(keys: np.ndarray) -> np.int64:
    best = np.int64(0)
    for i in range(keys.shape[0]):
        best = max(best, keys[i])
    return best


def farthest(tree: Tree, count: int, start: int) -> np.ndarray:
    """See `geometry.farthest_point_sample`: (count,) int64."""
    chosen = np.empty(count, np.int64)
    _sample(*tree, start, chosen)
    return chosen


@njit(nogil=True, cache=True)
def _bound(bits: np.ndarray, k: int) -> np.int32:
    """A value with at least k of the values at or below it, and few more where no ties forbid."""
    least, most = _limits(bits)
    low, high = np.int64(least), np.int64(most)
    enough = k + k // 8 + 2
    while low < high:
        middle = (low + high) >> 1
        bound = np.int32(middle)
        count = np.int32(0)
        for i in range(bits.shape[0]):
            count += np.int32(bits[i] <= bound)
        if count < k:
            low = middle + 1
        else:
            high = middle
            if count <= enough:
                break
    return np.int32(high)


@njit(nogil=True, cache=True)
def _keep(bits: np.ndarray, index: np.ndarray, bound: np.int32) -> int:
    """Moves the candidates at or below the bound to the front: how many they are."""
    kept = np.uint64(0)
    for i in range(np.uint64(bits.shape[0])):
        value = bits[i]
        bits[kept], index[kept] = value, index[i]
        kept += np.uint64(value <= bound)
    return np.int64(kept)


@njit(nogil=True, cache=True)
def _ranked(bits: np.ndarray, index: np.ndarray, keys: np.ndarray, found: np.ndarray) -> None:
    """The found.shape[0] lowest candidates by (distance, index), in order."""
    size = bits.shape[0]
    for i in range(size):
        keys[i] = (np.int64(bits[i]) << 32) | index[i]
    if size > 128:
        keys[:size].sort()
        for j in range(found.shape[0]):
            found[j] = keys[j] & 0xFFFFFFFF
        return
    for i in range(size):
        key = keys[i]
        rank = 0
        for j in range(size):
            rank += np.int64(keys[j] < key)
        if rank < found.shape[0]:
            found[rank] = key & 0xFFFFFFFF


@njit(nogil=True, cache=True)
def _shrink(bits: np.ndarray, index: np.ndarray, size: int, k: int) -> tuple[int, np.int32]:
    """Drops candidates that k others precede: how many stay, and a bound on the k-th distance."""
    bound = _bound(bits[:size], k)
    size = _keep(bits[:size], index[:size], bound)
    if size > 2 * k + 2:  # ties beyond counting: by distance and index
        keys = np.empty(size, np.int64)
        for i in range(size):
            keys[i] = (np.int64(bits[i]) << 32) | index[i]
        keys.sort()
        size = k
        for i in range(k):
            bits[i], index[i] = np.int32(keys[i] >> 32), np.int32(keys[i] & 0xFFFFFFFF)
        bound = bits[k - 1]
    return size, bound


@njit(nogil=True, cache=True)
def _distances(
    xs: np.ndarray, ys: np.ndarray, zs: np.ndarray, x: float, y: float, z: float, out: np.ndarray
) -> None:
    for i in range(out.shape[0]):
        dx, dy, dz = x - xs[i], y - ys[i], z - zs[i]
        out[i] = dx * dx + dy * dy + dz * dz


@njit(nogil=True, cache=True)
def _append(
    bits: np.ndarray, index: np.ndarray, kept: np.ndarray, names: np.ndarray, bound: np.int32
) -> int:
    """Candidates at or below the bound behind kept and names: how many."""
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


@njit(nogil=True, cache=True)
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
    kept = np.empty(2 * k + 3 + largest, np.int32)
    names = np.empty(2 * k + 3 + largest, np.int32)
    keys = np.empty(2 * k + 3 + largest, np.int64)
    block_reach = np.empty(count, np.float32)
    block_bits = block_reach.view(np.int32)
    reach = np.empty(fold, np.float32)
    reach_bits = reach.view(np.int32)
    waiting = np.empty(count * fold, np.int64)
    for m in range(queries.shape[0]):
        x, y, z = queries[m, 0], queries[m, 1], queries[m, 2]
        _reach(blocks, x, y, z, block_reach)
        near = _first_least(block_bits)
        _reach(boxes[near], x, y, z, reach)
        home = near * fold + _first_least(reach_bits)
        waiting[0] = home
        todo, size, bound, at = 1, 0, np.int32(0x7FFFFFFF), 0
        while at < todo:
            bucket = waiting[at] & 0xFFFFFFFF
            if (waiting[at] >> 32) > bound:
                break
            low, high = edges[bucket], edges[bucket + 1]
            some = high - low
            _distances(xs[low:high], ys[low:high], zs[low:high], x, y, z, distance[:some])
            size += _append(bits[:some], index[low:high], kept[size:], names[size:], bound)
            if size > 2 * k or (at == 0 and size >= k):
                size, bound = _shrink(kept, names, size, k)
            at += 1
            if at == 1:
                for block in range(count):
                    if block_bits[block] > bound:
                        continue
                    _reach(boxes[block], x, y, z, reach)
                    for j in range(fold):
                        bucket = block * fold + j
                        if reach_bits[j] <= bound and bucket != home:
                            waiting[todo] = (np.int64(reach_bits[j]) << 32) | bucket
                            todo += 1
                waiting[1:todo].sort()
        _ranked(kept[:size], names[:size], keys, found[m])


@njit(nogil=True, cache=True)
def _first_least(bits: np.ndarray) -> int:
    least, _ = _limits(bits)
    at = np.int32(bits.shape[0])
    for i in range(np.int32(bits.shape[0])):
        at = min(at, np.int32(i) if bits[i] == least else at)
    return at


def nearest(tree: Tree, queries: np.ndarray, k: int, *, threads: int = 1) -> np.ndarray:
    """See `geometry.nearest_neighbors`: (M, k) int64 of queries (M, 3)."""
    found = np.empty((len(queries), k), np.int64)
    parts = -(-len(queries) // 4096)
    spread(lambda q, f: _neighbors(q, f, *tree[1:]), threads, queries, found, parts=parts)
    return found
