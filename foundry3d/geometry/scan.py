"""Compiled loops over all points of a small cloud, and the steps that the tree search shares.

No fast-math, so no fused multiply-add and no reordering: distances equal the torch form bit for
bit. Non-negative floats are compared as their int32 bits, which lets the compiler vectorise the
maximum and the counting that a float comparison would not allow. Candidates for neighbours are
pairs of such bits and an index; ties go to the lowest index.
"""

from __future__ import annotations

import numpy as np

from foundry3d.geometry.jit import compiled, compiled_part

Axes = tuple[np.ndarray, np.ndarray, np.ndarray]
Whole = int | np.integer
MOST = np.finfo(np.float32).max
"""What a distance that overflows, or is no number, counts as in a chain."""


@compiled_part
def limits(values: np.ndarray) -> tuple[Whole, Whole]:
    """The least and the largest of int32 values."""
    low, high = values[0], values[0]
    for i in range(values.shape[0]):
        low = min(low, values[i])
        high = max(high, values[i])
    return low, high


@compiled_part
def distances(axes: Axes, x: float, y: float, z: float, out: np.ndarray) -> None:
    """Squared distances from one point to those of the axes."""
    xs, ys, zs = axes
    for i in range(out.shape[0]):
        dx, dy, dz = x - xs[i], y - ys[i], z - zs[i]
        out[i] = dx * dx + dy * dy + dz * dz


@compiled_part
def lower(
    axes: Axes, x: float, y: float, z: float, nearest: np.ndarray, bits: np.ndarray
) -> tuple[Whole, Whole]:
    """Lowers distances to those from a new sample; returns their maximum and its first index."""
    xs, ys, zs = axes
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


@compiled_part
def kth_bound(bits: np.ndarray, k: Whole) -> Whole:
    """A value with at least k of the values at or below it, and few more where no ties forbid."""
    least, most = limits(bits)
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


@compiled_part
def _keep(bits: np.ndarray, index: np.ndarray, bound: Whole, last: Whole) -> Whole:
    """Moves candidates below the bound, or at it up to last, to the front; returns how many."""
    kept = np.uint64(0)
    for i in range(np.uint64(bits.shape[0])):
        value, name = bits[i], index[i]
        bits[kept], index[kept] = value, name
        kept += np.uint64((value < bound) | ((value == bound) & (name <= last)))
    return np.int64(kept)


@compiled_part
def shrink(bits: np.ndarray, index: np.ndarray, size: Whole, k: int) -> tuple[Whole, Whole, Whole]:
    """Drops candidates that k others precede.

    Returns:
        How many stay, at most 2 k + 2, and a distance and an index that the k-th of them does not
        exceed.
    """
    last: Whole = np.int32(0x7FFFFFFF)
    bound = kth_bound(bits[:size], k)
    size = _keep(bits[:size], index[:size], bound, last)
    if size > 2 * k + 2:  # more ties than distances alone can separate
        ties = np.empty(size + 1, np.int32)
        some = np.uint64(0)
        for i in range(size):
            ties[some] = index[i]
            some += np.uint64(bits[i] == bound)
        count = np.int64(some)
        last = kth_bound(ties[:count], k - (size - count))
        size = _keep(bits[:size], index[:size], bound, last)
    return size, bound, last


@compiled_part
def ranked(bits: np.ndarray, index: np.ndarray, size: Whole, found: np.ndarray) -> None:
    """Writes the lowest of size candidates into found; 16 more places must be readable."""
    k = found.shape[0]
    if size > 128:
        keys = np.empty(size, np.int64)
        for i in range(size):
            keys[i] = (np.int64(bits[i]) << 32) | index[i]
        keys.sort()
        for i in range(k):
            found[i] = keys[i] & 0xFFFFFFFF
        return
    whole = -(-size // 16) * 16  # full vectors: ranks behind size mean nothing
    ranks = np.zeros(whole, np.int32)
    for j in range(size):
        value, name = bits[j], index[j]
        for i in range(whole):
            ranks[i] += np.int32((value < bits[i]) | ((value == bits[i]) & (name < index[i])))
    for i in range(size):
        if ranks[i] < k:
            found[ranks[i]] = index[i]


@compiled_part
def _axes(points: np.ndarray) -> Axes:
    xyz = np.ascontiguousarray(points.T)
    return xyz[0], xyz[1], xyz[2]


@compiled
def sample(points: np.ndarray, start: np.ndarray, chosen: np.ndarray) -> None:
    """Farthest points of each cloud (B, N, 3) from its start on, into chosen (B, count)."""
    nearest = np.empty(points.shape[1], np.float32)
    bits = nearest.view(np.int32)
    for b in range(points.shape[0]):
        axes = _axes(points[b])
        nearest[:] = np.inf
        last = start[b]
        for m in range(chosen.shape[1]):
            chosen[b, m] = last
            x, y, z = points[b, last, 0], points[b, last, 1], points[b, last, 2]
            last = np.int64(lower(axes, x, y, z, nearest, bits)[1])


@compiled
def neighbors(queries: np.ndarray, points: np.ndarray, found: np.ndarray) -> None:
    """Nearest points (B, N, 3) of each query (B, M, 3), into found (B, M, k).

    The k-th lowest of column minima bounds the k-th distance from above, and only columns with a
    minimum at or below it hold neighbours: a few times k points instead of N are looked at twice.
    """
    size, k = points.shape[1], found.shape[2]
    columns = max(64, 4 * k)
    rows = size // columns
    if rows < 2:
        columns, rows = size, 1
    distance = np.empty(size, np.float32)
    bits = distance.view(np.int32)
    minima = np.empty(columns, np.int32)
    near = np.empty(columns + 1, np.int32)
    kept, names = np.empty(size + 16, np.int32), np.empty(size + 16, np.int32)
    for b in range(points.shape[0]):
        axes = _axes(points[b])
        for m in range(queries.shape[1]):
            distances(axes, queries[b, m, 0], queries[b, m, 1], queries[b, m, 2], distance)
            minima[:] = bits[:columns]
            for row in range(1, rows):
                line = bits[row * columns : (row + 1) * columns]
                for i in range(columns):
                    minima[i] = min(minima[i], line[i])
            bound = kth_bound(minima, k)
            some = np.uint64(0)
            for i in range(np.uint64(columns)):
                near[some] = i
                some += np.uint64(minima[i] <= bound)
            count = np.uint64(0)
            for i in range(some):
                for at in range(np.uint64(near[i]), np.uint64(rows * columns), np.uint64(columns)):
                    kept[count], names[count] = bits[at], at
                    count += np.uint64(bits[at] <= bound)
            for at in range(np.uint64(rows * columns), np.uint64(size)):
                kept[count], names[count] = bits[at], at
                count += np.uint64(bits[at] <= bound)
            total: Whole = np.int64(count)
            if total > 2 * k + 2:
                total, _, _ = shrink(kept, names, total, k)
            ranked(kept, names, total, found[b, m])


@compiled
def greedy(centers: np.ndarray, first: np.ndarray, order: np.ndarray) -> None:
    """Chains of nearest free centers (B, c, 3) from the first on, into order (B, c)."""
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
                d = d if d < MOST else MOST
                if free[i] and d < closest:
                    best, closest = i, d
            last = best


@compiled
def offsets(points: np.ndarray, centers: np.ndarray, index: np.ndarray, out: np.ndarray) -> None:
    """Points (B, N, 3) at index (B, c, k) less their center (B, c, 3), into out (B, c, k, 3)."""
    for b in range(index.shape[0]):
        for c in range(index.shape[1]):
            for j in range(index.shape[2]):
                for axis in range(3):
                    out[b, c, j, axis] = points[b, index[b, c, j], axis] - centers[b, c, axis]
