"""Work spread over the threads that torch uses."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise

import numpy as np


@lru_cache(maxsize=2)
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Kept, because making one takes longer than a small kernel; a forked process makes its own."""
    return ThreadPoolExecutor(threads)


def spread(
    kernel: Callable[..., None], threads: int, *arrays: np.ndarray, block: int | None = None
) -> None:
    """Runs the kernel over slices of the arrays' first axis: one per thread, or `block` rows."""
    count = len(arrays[0])
    parts = min(count, max(threads, -(-count // block) if block else 1))
    if threads <= 1 or parts <= 1:
        return kernel(*arrays)
    edges = np.linspace(0, count, parts + 1).astype(int)
    run = _pool(threads, os.getpid()).submit
    waiting = [run(kernel, *(a[low:high] for a in arrays)) for low, high in pairwise(edges)]
    for part in waiting:
        part.result()
    return None
