"""Triton twins of `geometry` for CUDA: the same indices, the loop over centers inside the kernel.

Importing this file imports Triton, so `geometry` imports it when points are on a GPU. Distances
are single multiplications and additions in the order of the torch form: launches switch off fused
multiply-add, which would round once instead of twice. Coordinates come as rows x, y, z of (3, N).

Shapes: B clouds, N points, M queries, k neighbours. Names in capitals are compile-time constants.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from foundry3d.geometry import reference

MOST_IN_REGISTERS = 8192
"""Clouds of up to this many points stay in registers while they are sampled; larger ones are read
again for every center, with the distances so far in global memory."""


@triton.jit
def _fps(points, start, chosen, size, count, BLOCK: tl.constexpr):
    """Farthest point sampling of one cloud, which fits into registers."""
    cloud = tl.program_id(0).to(tl.int64)
    points += cloud * 3 * size
    chosen += cloud * count
    lane = tl.arange(0, BLOCK)
    inside = lane < size
    x = tl.load(points + lane, mask=inside, other=0.0)
    y = tl.load(points + size + lane, mask=inside, other=0.0)
    z = tl.load(points + 2 * size + lane, mask=inside, other=0.0)
    nearest = tl.where(inside, float("inf"), -1.0)
    last = tl.load(start + cloud).to(tl.int32)
    for m in range(count):
        tl.store(chosen + m, last.to(tl.int64))
        dx = x - tl.load(points + last)
        dy = y - tl.load(points + size + last)
        dz = z - tl.load(points + 2 * size + last)
        squared = dx * dx + dy * dy + dz * dz
        nearest = tl.where(squared < nearest, squared, nearest)
        last = tl.argmax(nearest, axis=0)


@triton.jit
def _fps_blocks(points, start, chosen, nearest, size, count, BLOCK: tl.constexpr):
    """Farthest point sampling of one cloud, block by block; `nearest` (B, N) starts at infinity."""
    cloud = tl.program_id(0).to(tl.int64)
    points += cloud * 3 * size
    chosen += cloud * count
    nearest += cloud * size
    lane = tl.arange(0, BLOCK)
    last = tl.load(start + cloud).to(tl.int32)
    for m in range(count):
        tl.store(chosen + m, last.to(tl.int64))
        px = tl.load(points + last)
        py = tl.load(points + size + last)
        pz = tl.load(points + 2 * size + last)
        farthest = tl.full((BLOCK,), -1.0, tl.float32)
        where = lane
        for first in range(0, size, BLOCK):
            at = first + lane
            inside = at < size
            dx = tl.load(points + at, mask=inside, other=0.0) - px
            dy = tl.load(points + size + at, mask=inside, other=0.0) - py
            dz = tl.load(points + 2 * size + at, mask=inside, other=0.0) - pz
            squared = dx * dx + dy * dy + dz * dz
            before = tl.load(nearest + at, mask=inside, other=-1.0)
            squared = tl.where(squared < before, squared, before)
            tl.store(nearest + at, squared, mask=inside)
            where = tl.where(squared > farthest, at, where)
            farthest = tl.where(squared > farthest, squared, farthest)
        last = tl.min(tl.where(farthest == tl.max(farthest, axis=0), where, size), axis=0)
        tl.debug_barrier()  # the next round reads the distances that this one wrote


@triton.jit
def _knn(queries, points, found, queried, size, k, BLOCK: tl.constexpr, SLOTS: tl.constexpr):
    """The k nearest points of one query: a block's smallest keys replace the largest ones held."""
    row = tl.program_id(0).to(tl.int64)
    points += row // queried * 3 * size
    found += row * k
    px = tl.load(queries + 3 * row)
    py = tl.load(queries + 3 * row + 1)
    pz = tl.load(queries + 3 * row + 2)
    lane, slot = tl.arange(0, BLOCK), tl.arange(0, SLOTS)
    NONE: tl.constexpr = 0x7FFFFFFFFFFFFFFF
    held = tl.where(slot < k, NONE - slot.to(tl.int64), -1)  # above every key, each its own
    largest = tl.max(held, axis=0)
    for first in range(0, size, BLOCK):
        at = first + lane
        inside = at < size
        dx = px - tl.load(points + at, mask=inside, other=0.0)
        dy = py - tl.load(points + size + at, mask=inside, other=0.0)
        dz = pz - tl.load(points + 2 * size + at, mask=inside, other=0.0)
        squared = dx * dx + dy * dy + dz * dz
        # Non-negative floats sort like their bits, so (bits, index) is one unique integer key.
        key = (squared.to(tl.int32, bitcast=True).to(tl.int64) << 32) | at
        key = tl.where(inside, key, NONE)
        smallest = tl.min(key, axis=0)
        while smallest < largest:
            held = tl.where(held == largest, smallest, held)
            key = tl.where(key == smallest, NONE, key)
            largest = tl.max(held, axis=0)
            smallest = tl.min(key, axis=0)
    held = tl.where(slot < k, held, NONE)
    for j in range(k):
        smallest = tl.min(held, axis=0)
        tl.store(found + j, smallest & 0xFFFFFFFF)
        held = tl.where(held == smallest, NONE, held)


@triton.jit
def _greedy(centers, start, order, size, BLOCK: tl.constexpr):
    """Nearest-neighbour chain through the centers of one cloud."""
    cloud = tl.program_id(0).to(tl.int64)
    centers += cloud * 3 * size
    order += cloud * size
    lane = tl.arange(0, BLOCK)
    free = lane < size
    x = tl.load(centers + lane, mask=free, other=0.0)
    y = tl.load(centers + size + lane, mask=free, other=0.0)
    z = tl.load(centers + 2 * size + lane, mask=free, other=0.0)
    last = tl.load(start + cloud).to(tl.int32)
    MOST: tl.constexpr = 3.4028234663852886e38
    for m in range(size):
        tl.store(order + m, last.to(tl.int64))
        free = free & (lane != last)
        dx = tl.load(centers + last) - x
        dy = tl.load(centers + size + last) - y
        dz = tl.load(centers + 2 * size + last) - z
        squared = dx * dx + dy * dy + dz * dz
        squared = tl.where(squared < MOST, squared, MOST)  # below the infinity of taken centers
        last = tl.argmin(tl.where(free, squared, float("inf")), axis=0)


def _rows(points: Tensor) -> Tensor:
    """(B, 3, N) contiguous: neighbouring lanes read neighbouring numbers."""
    return points.transpose(1, 2).contiguous()


def _launch(
    kernel: Any, programs: int, *arguments: Tensor | int, warps: int, **constants: int
) -> None:
    """Runs a kernel on the device of its first argument, without fused multiply-add."""
    with torch.cuda.device_of(arguments[0]):
        kernel[(programs,)](*arguments, **constants, num_warps=warps, enable_fp_fusion=False)


def farthest_point_sample(points: Tensor, count: int, start: Tensor) -> Tensor:
    """See `geometry.farthest_point_sample`; points (B, N, 3) float32 on CUDA."""
    batch, size, _ = points.shape
    chosen = torch.empty(batch, count, dtype=torch.int64, device=points.device)
    given = (_rows(points), start.contiguous(), chosen)
    if size <= MOST_IN_REGISTERS:
        block = triton.next_power_of_2(size)
        _launch(_fps, batch, *given, size, count, BLOCK=block, warps=min(16, max(1, block // 256)))
    else:
        nearest = torch.full((batch, size), float("inf"), device=points.device)
        _launch(_fps_blocks, batch, *given, nearest, size, count, BLOCK=4096, warps=16)
    return chosen


def nearest_neighbors(queries: Tensor, points: Tensor, k: int) -> Tensor:
    """See `geometry.nearest_neighbors`; both (B, ., 3) float32 on CUDA, k up to 64."""
    batch, queried, _ = queries.shape
    size = points.shape[1]
    found = torch.empty(batch, queried, k, dtype=torch.int64, device=points.device)
    block, slots = min(1024, triton.next_power_of_2(size)), triton.next_power_of_2(k)
    given = (queries.contiguous(), _rows(points), found)
    if found.numel():
        _launch(_knn, batch * queried, *given, queried, size, k, BLOCK=block, SLOTS=slots, warps=1)
    return found


def greedy_order(centers: Tensor, first: Tensor) -> Tensor:
    """See `geometry.greedy_order`; centers (B, c, 3) float32 on CUDA, c up to 8192."""
    batch, size, _ = centers.shape
    order = torch.empty(batch, size, dtype=torch.int64, device=centers.device)
    block = triton.next_power_of_2(size)
    given = (_rows(centers), first.contiguous(), order)
    _launch(_greedy, batch, *given, size, BLOCK=block, warps=min(16, max(1, block // 256)))
    return order


def agrees(device: torch.device) -> bool:
    """Whether the kernels run on this device and give the indices of the torch form.

    Tried on what decides: exact ties and a cloud far from the origin. Waits for the result.
    """
    g = torch.Generator("cpu").manual_seed(0)
    points = torch.randn(2, 1024, 3, generator=g, device="cpu")
    points = torch.stack([(points[0] * 4).round() / 3, points[1] + 100]).to(device)
    queries, start = points[:, :16], torch.tensor([0, 1], device=device)
    pairs = [
        (
            farthest_point_sample(points, 16, start),
            reference.farthest_point_sample(points, 16, start),
        ),
        (nearest_neighbors(queries, points, 32), reference.nearest_neighbors(queries, points, 32)),
    ]
    return all(torch.equal(own, torch_form) for own, torch_form in pairs)
