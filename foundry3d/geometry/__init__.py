"""Sampling, neighbours, grouping and ordering of points: pure functions.

`reference` is the definition in plain torch. `ops` checks the input, `backends` picks the fastest
form that gives the same indices: `cpu` (compiled by numba through `jit`: `scan` for small clouds,
`tree` and `search` for large ones) or `cuda` (Triton). `opaque` hides all of it from compilers, and
`threads` spreads rows over threads.
"""

from foundry3d.geometry.ops import (
    Groups,
    Trees,
    build_trees,
    check_points,
    coordinates,
    draw_start,
    farthest_point_sample,
    greedy_order,
    group_at,
    group_points,
    nearest_neighbors,
    nearest_of,
)
from foundry3d.geometry.reference import gather, squared_distances

__all__ = [
    "Groups",
    "Trees",
    "build_trees",
    "check_points",
    "coordinates",
    "draw_start",
    "farthest_point_sample",
    "gather",
    "greedy_order",
    "group_at",
    "group_points",
    "nearest_neighbors",
    "nearest_of",
    "squared_distances",
]
