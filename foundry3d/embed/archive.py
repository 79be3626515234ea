"""The archive that `foundry3d embed` writes.

Shapes: n clouds, c tokens of a cloud, T tokens of all clouds, d width.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from foundry3d.config import EmbedConfig
from foundry3d.embed.clouds import Policy, PreparedCloud
from foundry3d.errors import InputError
from foundry3d.models.backbone import Tokens
from foundry3d.models.budget import Budget
from foundry3d.report.rows import code_version
from foundry3d.writing import held, replacing

PER_TOKEN = ("features", "centers", "assignment", "window")
"""Arrays of an archive with a row for every token; the others have one for every cloud."""


class Archive:
    """Collects what an archive will hold, one cloud after the other.

    Args:
        ragged: clouds differ in c, so the tokens of all clouds are stored one after the other, and
            `offsets` (n + 1,) says where each cloud starts; otherwise they are stacked (n, c, ...).
    """

    def __init__(self, *, ragged: bool = False) -> None:
        self.ragged = ragged
        self.names: list[str] = []
        self.points_used: list[int] = []
        self.parts: dict[str, list[Tensor]] = {}

    def add(self, cloud: PreparedCloud, tokens: Tokens, **more: Tensor) -> None:
        """Adds a cloud: its tokens, a batch of one, and further arrays with that batch axis."""
        self.names.append(cloud.source)
        self.points_used.append(len(cloud.points))
        found = {
            "pooled": tokens.pooled(),
            "features": tokens.features,
            "centers": tokens.centers,
            "assignment": tokens.assignment,
        }
        for name, part in (found | more).items():
            if part is not None:
                self.parts.setdefault(name, []).append(part)

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays of the archive by name; of a single cloud without a copy."""
        found = {"names": np.array(self.names), "points_used": np.array(self.points_used)}
        if self.ragged:
            found["offsets"] = np.cumsum([0, *(part.shape[1] for part in self.parts["features"])])
        for name, parts in self.parts.items():
            if self.ragged and name in PER_TOKEN:
                parts = [part.flatten(0, 1) for part in parts]
            found[name] = (parts[0] if len(parts) == 1 else torch.cat(parts)).numpy()
        return found

    def write(self, stream: BinaryIO, facts: np.ndarray) -> None:
        """Writes the archive, with `facts` as its `protocol`."""
        np.savez(stream, **self.arrays(), protocol=facts)  # type: ignore[arg-type]


def require_file(path: Path, option: str) -> None:
    """Refuses a folder in place of a file to write.

    Raises:
        InputError: the path is a folder.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder; --{option} names the file to write")


@contextmanager
def appearing(path: Path, option: str = "out") -> Iterator[BinaryIO]:
    """A file to write, which appears under its name only when everything has succeeded."""
    require_file(path, option)
    with held(path), replacing(path) as partial, open(partial, "wb") as stream:
        yield stream


def protocol(config: EmbedConfig, policy: Policy, budget: Budget | None) -> np.ndarray:
    """How the features were made, as JSON in an array without dimensions."""
    return np.array(json.dumps(facts_of(config, policy, budget)))


def facts_of(config: EmbedConfig, policy: Policy, budget: Budget | None) -> dict[str, Any]:
    """How the features were made."""
    facts: dict[str, Any] = {
        "model": config.model,
        "normalise": policy.normalise,
        "turn": policy.turn,
        "points": policy.points,
        "samples": config.samples,
        "budget": {} if budget is None else budget.asked(),
        "seed": config.seed,
        "compiled": config.compile,
        "precision": config.precision,
        "code": code_version(),
    }
    if config.points_per_token is not None:
        facts |= {"points_per_token": config.points_per_token, "windows": config.windows}
    return facts
