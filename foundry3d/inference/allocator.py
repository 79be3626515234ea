"""The memory allocator of the process."""

from __future__ import annotations

import ctypes
import platform


def retain_memory() -> None:
    """Lets the allocator keep freed memory; without it a CPU step spends half its time on pages.

    glibc only; elsewhere nothing happens.
    """
    if platform.libc_ver()[0] == "glibc":
        allocator = ctypes.CDLL(None)
        allocator.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        allocator.mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD
