"""Sampling, neighbours and ordering in plain torch: the definition, on any device.

The compiled forms (`cpu`, `cuda`) return the same indices, ties included. Distances are direct
differences, never the matrix product, which returns wrong neighbours far from the origin. On an
accelerator nothing here waits for a result.

Shapes: B clouds, N points, M queries, c centers, k neighbours.
"""

from __future__ import annotations

import torch
from torch import Tensor


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances (B, M, N) between a (B, M, 3) and b (B, N, 3), by direct differences."""
    dx = a[:, :, None, 0] - b[:, None, :, 0]
    dy = a[:, :, None, 1] - b[:, None, :, 1]
    dz = a[:, :, None, 2] - b[:, None, :, 2]
    return dx * dx + dy * dy + dz * dz


def gather(values: Tensor, index: Tensor) -> Tensor:
    """Rows of values (B, N, C) at index (B, ...): (B, ..., C)."""
    flat = index.flatten(1).unsqueeze(-1).expand(-1, -1, values.shape[-1])
    found = values.gather(1, flat)
    return found if index.ndim == 2 else found.reshape(*index.shape, values.shape[-1])


def farthest_point_sample(points: Tensor, count: int, start: Tensor) -> Tensor:
    """(B, count) int64 indices into points (B, N, 3), from start (B,); ties go to the lowest."""
    x, y, z = points.unbind(-1)
    nearest = torch.full_like(x, float("inf"))
    chosen = torch.empty(len(points), count, dtype=torch.int64, device=points.device)
    last = start[:, None]
    for i in range(count):
        chosen[:, i] = last[:, 0]
        dx, dy, dz = (v - v.gather(1, last) for v in (x, y, z))
        nearest = torch.minimum(nearest, dx * dx + dy * dy + dz * dz)
        last = nearest.argmax(dim=1, keepdim=True)
    return chosen


def nearest_neighbors(queries: Tensor, points: Tensor, k: int) -> Tensor:
    """(B, M, k) int64 indices into points (B, N, 3), nearest first; ties go to the lowest."""
    size = points.shape[1]
    chunk = max(1, 2**26 // (size * points.shape[0]))
    order = torch.arange(size, device=points.device)
    found = []
    for part in queries.split(chunk, dim=1):
        distance = squared_distances(part, points).float()
        # Non-negative floats sort like their bits, so (bits, index) is one unique integer key.
        key = (distance.view(torch.int32).to(torch.int64) << 32) | order
        found.append(key.topk(k, dim=-1, largest=False, sorted=True).values & 0xFFFFFFFF)
    return torch.cat(found, dim=1)


def greedy_order(centers: Tensor, first: Tensor) -> Tensor:
    """(B, c) int64 chain through centers (B, c, 3) from first (B,), each time to the nearest."""
    batch, count, _ = centers.shape
    most = torch.finfo(centers.dtype).max  # below the infinity that marks centers in the chain
    distance = squared_distances(centers, centers).nan_to_num_(nan=most, posinf=most)
    rows = torch.arange(batch, device=centers.device)
    order = torch.empty(batch, count, dtype=torch.int64, device=centers.device)
    last = first
    for i in range(count):
        order[:, i] = last
        distance[rows, :, last] = float("inf")
        last = distance[rows, last].argmin(dim=1)
    return order
