"""How the loops of the programs run: compiled where numba is installed, interpreted elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import numpy as np

log = logging.getLogger("foundry3d")

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def _interpreted(kernel: Kernel) -> Kernel:
    return np.errstate(over="ignore")(kernel)  # random bits wrap around, as in compiled code


try:
    from foundry3d.geometry.jit import relaxed as relaxed
    from foundry3d.geometry.jit import relaxed_part as relaxed_part

    COMPILED = True
except ImportError:  # numba is missing, or does not fit numpy
    relaxed = relaxed_part = _interpreted
    COMPILED = False


@cache
def notice_once() -> None:
    """Warns where random shapes are drawn by interpreted loops."""
    if not COMPILED:
        log.warning(
            "numba cannot be imported; random shapes are drawn by interpreted loops, which give "
            "the same shapes and are over a hundred times slower"
        )
