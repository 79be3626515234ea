"""A kd-tree of a cloud for exact sampling and neighbours.

Points are stored bucket after bucket, within each by ascending original index. Cells are halved at
the exact median, equal values falling on either side, so all buckets have the same size whatever
the points are.

Shapes: N points, L = 2^levels buckets, F = 2^ceil(levels / 2) buckets per block.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np

from foundry3d.geometry.jit import compiled, compiled_part
from foundry3d.geometry.scan import Whole, limits
from foundry3d.geometry.threads import spread

SUBTREE = 2**17
"""A subtree of up to this many points is split by one thread, within its caches."""


class Tree(NamedTuple):
    """A cloud in buckets of equal size (within one point), halved along its widest axis.

    Attributes:
        points: (N, 3) float32, as given.
        xyz: (3, N) the points bucket after bucket.
        order: (N,) int32 their original indices, ascending in each bucket.
        edges: (L + 1,) first point of each bucket, and N.
        boxes: (L / F, 6, F) lowest, then highest coordinates of each bucket, block by block.
        blocks: (6, L / F) those of the blocks of F consecutive buckets.
    """

    points: np.ndarray
    xyz: np.ndarray
    order: np.ndarray
    edges: np.ndarray
    boxes: np.ndarray
    blocks: np.ndarray


@compiled
def _ordered(values: np.ndarray) -> None:
    """In place: bits of floats to int32 that sort like them; its own inverse."""
    for i in range(values.shape[0]):
        values[i] ^= (values[i] >> 31) & np.int32(0x7FFFFFFF)


@compiled_part
def _float(value: Whole) -> np.float32:
    cell = np.empty(1, np.int32)
    cell[0] = value
    _ordered(cell)
    return cell.view(np.float32)[0]


@compiled_part
def _pivot(values: np.ndarray, left: int, low: Whole, high: Whole) -> tuple[Whole, Whole]:
    """A value with `left` values at or below it, and how many of these equal it."""
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


@compiled_part
def _halve(source: np.ndarray, target: np.ndarray, start: int, middle: int, end: int) -> None:
    """Columns start:end of source (4, N) to target, the lower along the widest axis first."""
    axis = 0
    least, most = limits(source[0][start:end])
    for a in range(1, 3):
        low, high = limits(source[a][start:end])
        if _float(high) - _float(low) > _float(most) - _float(least):
            axis, least, most = a, low, high
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


@compiled
def _split(a: np.ndarray, b: np.ndarray, edges: np.ndarray, levels: int, nodes: np.ndarray) -> None:
    """Splits nodes (n, 2), first and last bucket, by this many levels; from a to b and back."""
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


@compiled
def _close(keys: np.ndarray, edges: np.ndarray, boxes: np.ndarray) -> None:
    """Coordinates back to float bits, and the boxes of the buckets."""
    for j in range(edges.shape[0] - 1):
        for axis in range(3):
            low, high = limits(keys[axis][edges[j] : edges[j + 1]])
            boxes[axis, j], boxes[axis + 3, j] = _float(low), _float(high)
    for axis in range(3):
        _ordered(keys[axis])


def build(points: np.ndarray, bucket: int = 256, *, threads: int = 1) -> Tree:
    """The tree of points (N, 3) float32 in buckets of more than bucket / 2 points, or of all N."""
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
    done = 0
    while done < levels:
        nodes = 2**done
        step = levels - done if nodes >= threads and size <= SUBTREE * nodes else 1
        firsts = np.arange(nodes) * (count // nodes)
        spans = np.stack([firsts, firsts + count // nodes], axis=1)
        spread(partial(_split, a, b, edges, step), threads, spans)
        done += step
        if step % 2:
            a, b = b, a
    boxes = np.empty((6, count), np.float32)
    _close(a, edges, boxes)
    folds = boxes.reshape(6, 2 ** (levels // 2), -1)
    blocks = np.concatenate([folds[:3].min(2), folds[3:].max(2)])
    boxes = np.ascontiguousarray(folds.transpose(1, 0, 2))
    return Tree(points, a[:3].view(np.float32), a[3], edges, boxes, blocks)
