"""Weights that are NaN or infinite are refused wherever a model is read or written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from foundry3d.errors import InputError


def require_finite(tensors: Mapping[str, Tensor], where: str | Path, advice: str) -> None:
    """Refuses weights that are not finite; the message begins with `where`, ends with `advice`.

    Raises:
        InputError: a tensor holds NaN or an infinite number.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise InputError(f"{where}: {name} holds NaN or infinite numbers; {advice}")
