"""What an exported file records about itself, checked when it is read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from foundry3d_edge.errors import InputError

ENTRY = "foundry3d"
"""Name of the entry in the metadata of an ONNX file."""
FORMAT, VERSION = "foundry3d-export", 1


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """How clouds are prepared for a model.

    Attributes:
        normalise: the mean is moved to the origin and the farthest point to a distance of 1.
        up: the axis that points up in the clouds of the training; None = not recorded.
        points: larger clouds are reduced to a random subset of this size; None = never.
    """

    normalise: bool
    up: str | None
    points: int | None


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What an exported file records.

    Attributes:
        kind: backbone, student, classifier, segmenter or another kind of model.
        outside: the file takes groups of points, which are made here.
        precision: fp32, fp16 or int8.
        inputs: names, in order.
        outputs: names, in order.
        groups: c, tokens of a cloud.
        group_size: k, points of a group.
        least: the fewest points that a cloud may have.
        radius: divides the coordinates of groups; None = they are taken as they are.
        preparation: of clouds.
        classes: names of the classes of a classifier.
        parts: names of the parts of a segmenter.
        categories: names of the categories of a segmenter.
        owned: the part numbers of each category; empty = all parts.
        everything: the whole record.
    """

    kind: str
    outside: bool
    precision: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    groups: int
    group_size: int
    least: int
    radius: float | None
    preparation: Preparation
    classes: tuple[str, ...]
    parts: tuple[str, ...]
    categories: tuple[str, ...]
    owned: tuple[tuple[int, ...], ...]
    everything: dict[str, Any]


def parse(text: str | None, source: str) -> Metadata:
    """The record of an exported file.

    Args:
        text: JSON; None = the file has no such entry.
        source: name of the file in messages.

    Raises:
        InputError: the file was not written by `foundry3d export`, or by a later version.
    """
    try:
        found = json.loads(text or "null")
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise InputError(
                f"{source}: expected a file that foundry3d export wrote, got one without its "
                "record; export the model with: foundry3d export MODEL --to onnx"
            )
        if found.get("version") != VERSION:
            raise InputError(
                f"{source}: expected version {VERSION} of the format, got {found.get('version')}; "
                "upgrade foundry3d-edge or export the model again"
            )
        return _record(found)
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise InputError(
            f"{source}: the record of the export is damaged ({type(error).__name__}: {error}); "
            "export the model again"
        ) from None


def _record(found: dict[str, Any]) -> Metadata:
    given = found["preparation"]
    return Metadata(
        kind=found["kind"],
        outside=found["geometry"] == "outside",
        precision=found["precision"],
        inputs=tuple(found["inputs"]),
        outputs=tuple(found["outputs"]),
        groups=found["groups"],
        group_size=found["group_size"],
        least=found.get("least_points") or max(found["groups"], found["group_size"]),
        radius=found.get("radius"),
        preparation=Preparation(
            normalise=given["normalise"], up=given.get("up"), points=given.get("points")
        ),
        classes=tuple(found.get("classes") or ()),
        parts=tuple(found.get("parts") or ()),
        categories=tuple(found.get("categories") or ()),
        owned=tuple(tuple(parts) for parts in found.get("owned") or ()),
        everything=found,
    )
