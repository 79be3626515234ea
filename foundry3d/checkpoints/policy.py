"""How clouds are prepared for a saved model: as in its training, as far as it records that."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foundry3d.checkpoints.folder import read_config


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How clouds are prepared for a model.

    Attributes:
        normalise: move the mean to the origin and scale the cloud into the unit sphere.
        turn: how many places the axes x, y, z are rolled, which turns the up axis of the clouds
            into the up axis of the model.
        points: size of a random subset; None = all points, as for clouds with no more than that.
        seed: of the subset.
    """

    normalise: bool = True
    turn: int = 0
    points: int | None = None
    seed: int = 0


def stored_facts(path: str | Path) -> dict[str, Any]:
    """What a saved model records about its training; empty for files of other projects."""
    found = {} if Path(path).is_file() else read_config(path).get("provenance")
    return found if isinstance(found, dict) else {}


def read_policy(
    path: str | Path, *, up: str | None = None, normalise: bool | None = None
) -> tuple[Policy, str | None]:
    """How the clouds of a saved model's training were prepared.

    Args:
        path: a model folder, or a checkpoint file of another project, which records nothing.
        up: the axis that points up in the clouds to embed; None = as in training.
        normalise: overrides what is stored.

    Returns:
        The policy, and a sentence about what the model does not record (None if nothing is
        missing).

    Raises:
        InputError: not a checkpoint.
    """
    stored, missing = stored_facts(path), []
    if normalise is None:
        normalise = stored.get("normalise")
    if not isinstance(normalise, bool):
        normalise = True
        missing.append("whether clouds are centred and scaled (they are; see --normalise)")
    own_up, turn = stored.get("up"), 0
    if own_up not in ("x", "y", "z"):
        missing.append("which axis points up (axes are taken as they are)")
    elif up is not None:
        turn = "xyz".index(own_up) - "xyz".index(up)
    notice = f"{path} does not record " + " and ".join(missing) if missing else None
    return Policy(normalise=normalise, turn=turn), notice
