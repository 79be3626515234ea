"""Clouds and their attributes as one array: coordinates first, then the channels in order.

Shapes: N points, m channels of all attributes; a leading axis of n clouds is allowed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from foundry3d.config.attributes import channels
from foundry3d.data.formats.fields import array_of, normalised
from foundry3d.errors import InputError

log = logging.getLogger("foundry3d")

Absent = Literal["drop", "fill"]
"""What becomes of clouds that lack an attribute."""


def joined(
    points: np.ndarray, found: Mapping[str, np.ndarray], attributes: Sequence[str]
) -> np.ndarray:
    """Points (..., N, 3) with attributes, float32 (..., N, 3 + m); NaN where one is not found.

    Args:
        points: coordinates.
        found: attributes (..., N, channels) in their units, by name.
        attributes: in the order of the columns.
    """
    if not attributes:
        return points
    parts = [points.astype(np.float32)]
    for name in attributes:
        shape = (*points.shape[:-1], channels(name))
        values = found.get(name)
        parts.append(np.full(shape, np.nan, np.float32) if values is None else values)
    return np.concatenate(parts, axis=-1)


def checked_attribute(
    attribute: str, values: np.ndarray, points: tuple[int, ...], source: str
) -> np.ndarray:
    """An attribute of clouds in its units, (..., N, channels) float32.

    Args:
        attribute: its name.
        values: as stored: (..., N, channels), of one channel also (..., N); a fourth channel of a
            color is left out.
        points: (..., N), the shape of the clouds.
        source: name of the array in messages.

    Raises:
        InputError: another shape, or something else than real numbers.
    """
    count = channels(attribute)
    if values.shape == points and count == 1:
        values = values[..., None]
    if attribute == "color" and values.shape == (*points, 4):
        values = values[..., :3]
    if values.dtype.kind not in "iuf" or values.shape != (*points, count):
        raise InputError(
            f"'{source}': expected real numbers of shape {(*points, count)}, got {values.dtype} of "
            f"shape {values.shape}"
        )
    return normalised(attribute, values)


def arrays_of(attributes: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """The array of each attribute among the names of an archive's arrays, where there is one."""
    pairs = ((attribute, array_of(attribute, names)) for attribute in attributes)
    return {attribute: name for attribute, name in pairs if name is not None}


def lacking(points: np.ndarray, attributes: Sequence[str]) -> list[str]:
    """The attributes that no point of a cloud (N, 3 + m) has."""
    start, found = 3, []
    for name in attributes:
        stop = start + channels(name)
        if not np.isfinite(points[:, start:stop]).all(axis=1).any():
            found.append(name)
        start = stop
    return found


def report_lacking(source: str, absent: Mapping[str, Sequence[str]], action: Absent) -> None:
    """Logs one sentence that names the clouds that lack attributes.

    Args:
        source: the folder.
        absent: what each cloud lacks, by its name.
        action: what becomes of them.
    """
    if not absent:
        return
    what = ", ".join(sorted({name for names in absent.values() for name in names}))
    clouds = list(absent)
    more = f" and {len(clouds) - 5} more" if len(clouds) > 5 else ""
    done = "left out" if action == "drop" else "read without"
    log.warning("%s: no %s in %s%s, %s", source, what, ", ".join(clouds[:5]), more, done)
