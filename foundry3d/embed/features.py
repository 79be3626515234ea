"""Features that `foundry3d embed` wrote, read back: a folder of Parquet parts, or an archive.

Shapes: n clouds, d width of a feature.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from foundry3d.data.members import read_members
from foundry3d.embed.parts import Part, blocks_of, parts_in, read_part
from foundry3d.errors import InputError

log = logging.getLogger("foundry3d")


def _lists(column: Any) -> np.ndarray:
    """A column of lists of fixed size as an array (n, size)."""
    size = column.type.list_size
    chunks = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    return np.concatenate([c.reshape(-1, size) for c in chunks] or [np.zeros((0, size))])


class Features:
    """Features of clouds; columns are read when they are first used.

    Attributes:
        protocol: how the features were made.
    """

    protocol: dict[str, Any]

    def __init__(self, parts: list[Part]) -> None:
        self.parts, self.protocol = parts, parts[0].protocol

    def __len__(self) -> int:
        return sum(part.rows for part in self.parts)

    @cached_property
    def names(self) -> np.ndarray:
        """Name of each cloud, (n,): the file, and the cloud where a file holds several."""
        found = [t["name"].to_numpy() for p in self.parts for t in blocks_of(p.path, ["name"])]
        return np.concatenate(found).astype(str)

    @cached_property
    def points_used(self) -> np.ndarray:
        """Points of each cloud that were used, (n,)."""
        column = "points_used"
        found = [t[column].to_numpy() for p in self.parts for t in blocks_of(p.path, [column])]
        return np.concatenate(found)

    @cached_property
    def pooled(self) -> np.ndarray:
        """Features of the clouds, (n, 2d) float32: maximum and mean of their tokens."""
        return np.concatenate([rows for _, rows in self.blocks()])

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Names (m,) and features (m, 2d) of the clouds in order, one block in memory at a time.

        Raises:
            InputError: a part is damaged; names it.
        """
        for part in self.parts:
            for table in blocks_of(part.path, ["name", "pooled"]):
                yield table["name"].to_numpy().astype(str), _lists(table["pooled"])


class ArchivedFeatures(Features):
    """Features of an .npz archive, with the columns of `Features`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        found, _ = read_members(path, ("names", "pooled", "protocol"))
        if len(found) < 3:
            raise InputError(f"{path}: expected an archive that `foundry3d embed` wrote")
        self.protocol = json.loads(str(found["protocol"]))
        self.names, self.pooled = found["names"], found["pooled"]

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def points_used(self) -> np.ndarray:
        """Points of each cloud that were used, (n,)."""
        return read_members(self._path, ("points_used",))[0]["points_used"]

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """All names and features, which are in memory."""
        yield self.names, self.pooled


def read_features(path: str | Path) -> Features:
    """The features that `foundry3d embed` wrote.

    Args:
        path: a folder of Parquet parts, or an .npz archive.

    Returns:
        `names` (n,), `points_used` (n,) and `pooled` (n, 2d) float32, each read when it is first
        used; `blocks()` yields names and features with one block of clouds in memory.

    Raises:
        InputError: nothing of that kind, or a damaged part; names it.
    """
    path = Path(path)
    if path.is_file():
        return ArchivedFeatures(path)
    parts = [read_part(part) for part in parts_in(path)]
    if not parts:
        raise InputError(f"{path}: expected a folder of parts that `foundry3d embed` wrote")
    total = max(part.about["parts"] for part in parts)
    if len(parts) < total:
        log.warning(
            "%s has %d of %d parts; the command that wrote them makes the others",
            *(path, len(parts), total),
        )
    return Features(parts)
