"""Checkpoints of a run, looked at before anything is taken from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from foundry3d.checkpoints.finite import require_finite
from foundry3d.errors import InputError
from foundry3d.training.run_folder import PREVIOUS

PARTS = {
    "state_dict": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
    "callbacks": dict,
    "loops": dict,
    "epoch": int,
    "global_step": int,
}
"""What a checkpoint of the trainer holds."""


def way_on(path: Path) -> str:
    """How to go on without a checkpoint."""
    if path.name != PREVIOUS and path.with_name(PREVIOUS).exists():
        return f"remove it, and --resume goes on from {PREVIOUS}, the one before it"
    return "no checkpoint before it is left, so start again in another --out"


def refuse(path: Path, reason: str) -> NoReturn:
    """Says why a checkpoint cannot be resumed from, and how to go on.

    Raises:
        InputError: always.
    """
    raise InputError(f"{path} {reason}; {way_on(path)}")


def check_resumable(path: Path, task: nn.Module) -> None:
    """Looks through a checkpoint, without running anything that it names.

    Args:
        path: of the checkpoint.
        task: what is to go on from it.

    Raises:
        InputError: it is damaged, of another object or another run, or its weights are not finite.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises what the damaged bytes happen to mean
        reason = " ".join(str(error).split()).split(". ")[0][:120]
        refuse(path, f"is damaged or not a checkpoint ({type(error).__name__}: {reason})")
    if not isinstance(content, dict):
        refuse(path, f"is not a checkpoint of a run but a {type(content).__name__}")
    lost = [name for name, kind in PARTS.items() if not isinstance(content.get(name), kind)]
    if lost:
        refuse(path, f"lacks {', '.join(lost)}")
    _check_weights(path, content["state_dict"], task)
    _check_optimizer(path, content["optimizer_states"], task)
    require_finite(content["state_dict"], path, way_on(path))


def _check_weights(path: Path, found: dict[str, Any], task: nn.Module) -> None:
    own = task.state_dict()
    missing, surplus = sorted(own.keys() - found.keys()), list(found.keys() - own.keys())
    shapes = [
        name
        for name in sorted(own.keys() & found.keys())
        if not isinstance(found[name], Tensor) or found[name].shape != own[name].shape
    ]
    if missing or surplus or shapes:
        refuse(
            path,
            f"does not fit this run: missing {missing[:3]}, unknown {surplus[:3]}, of another "
            f"shape {shapes[:3]}",
        )


def _check_optimizer(path: Path, found: list[Any], task: nn.Module) -> None:
    try:
        held = [len(group["params"]) for group in found[0]["param_groups"]]
        sizes = {n: state["exp_avg"].shape for n, state in found[0]["state"].items()}
    except (LookupError, TypeError, AttributeError):
        refuse(path, "has no usable state of the optimiser")
    if sum(held) != len(list(task.parameters())) or len(sizes) > sum(held):
        refuse(path, "has the optimiser's state of another model")
