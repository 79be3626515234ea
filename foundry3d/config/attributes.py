"""Attributes of points beyond coordinates: their names, channels and columns.

A cloud with attributes is one array (N, 3 + m): x, y, z, then the channels of each attribute in
order. An attribute that a point does not have is NaN there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from foundry3d.config.records import require

KNOWN = {"normal": 3, "color": 3, "intensity": 1}
"""Channels of the attributes that need no number; any other is written NAME:CHANNELS."""
MOST_CHANNELS = 1024
COORDINATES = 3

_OTHER = re.compile(r"([A-Za-z_][\w.-]{0,63}):([1-9]\d{0,3})")


def check_attributes(attributes: Sequence[str]) -> None:
    """Requires attributes that are known or written NAME:CHANNELS, each once.

    Raises:
        InputError: another form, a repeated name, or too many channels.
    """
    names = [name_of(attribute) for attribute in attributes]
    for attribute, name in zip(attributes, names, strict=True):
        found = _OTHER.fullmatch(attribute)
        require(
            attribute in KNOWN or (found is not None and name not in KNOWN),
            f"an attribute is one of {', '.join(KNOWN)}, or another one with its number of "
            f"channels, e.g. curvature:1; got {attribute!r}",
        )
    require(len(set(names)) == len(names), f"attributes are named once, got {list(attributes)}")
    require(
        sum(map(channels, attributes)) <= MOST_CHANNELS,
        f"attributes have at most {MOST_CHANNELS} channels together, got {list(attributes)}",
    )


def name_of(attribute: str) -> str:
    """The name of an attribute, without its number of channels."""
    return attribute.partition(":")[0]


def channels(attribute: str) -> int:
    """The number of channels of an attribute."""
    return KNOWN[attribute] if attribute in KNOWN else int(attribute.partition(":")[2])


def width_of(attributes: Sequence[str]) -> int:
    """3 + m, the columns of a cloud with these attributes."""
    return COORDINATES + sum(map(channels, attributes))


def columns_of(attributes: Sequence[str], *, presence: bool = False) -> dict[str, slice]:
    """The columns of each attribute in a cloud that has these.

    Args:
        attributes: of the cloud, in order.
        presence: each attribute is followed by one column that is 1 where it is present, as
            models read it; that column is part of the slice.
    """
    found, start = dict[str, slice](), COORDINATES
    for attribute in attributes:
        stop = start + channels(attribute) + presence
        found[attribute] = slice(start, stop)
        start = stop
    return found
