"""Which columns of a table are coordinates: named by the user, by a header, or the first three.

Names that are known, in upper or lower case: x, `x [m]`, `pos_x`, `x_coord`, `field.x`, `Points:0`;
easting, northing and elevation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from foundry3d.data.formats.raw import listing
from foundry3d.errors import InputError

_UNIT = re.compile(r"\s*[\[(][^\])]*[\])]$")
_AXIS = re.compile(
    r"(?:(?:points?|pos|position|coords?|coordinates?|location|loc|xyz)[ _:-]?)?([xyz])"
    r"(?:[ _-]?(?:pos|position|coords?|coordinates?))?"
)
_NUMBERED = re.compile(r"(?:points?|pos|position|coords?|coordinates?|xyz)[ _:-]?([012])")
_GEODETIC = {"easting": "x", "northing": "y", "elevation": "z", "altitude": "z"}


def named_columns(header: Sequence[str], chosen: Mapping[str, str]) -> tuple[int, int, int]:
    """Positions of x, y and z in a row, as the user chose them: by name, or by number from 1.

    Raises:
        InputError: the header, which may be empty, has no such name.
    """
    known = [name.lower() for name in header]
    x, y, z = (_position(chosen[axis], known) for axis in "xyz")
    return x, y, z


def _position(name: str, known: list[str]) -> int:
    if name.lower() in known:
        return known.index(name.lower())
    if re.fullmatch(r"[1-9]\d{0,5}", name):
        return int(name) - 1
    raise InputError(
        f"expected a column '{listing([name])}' (--columns), got {listing(known) or 'no header'}; "
        "name one of these, or its number, counted from 1"
    )


def coordinate_columns(header: Sequence[str]) -> tuple[int, int, int] | None:
    """Positions of x, y and z in a header; None unless each is there exactly once."""
    known = [name.lower() for name in header]
    for names in (known, [_axis(name) for name in known]):
        if all(names.count(axis) == 1 for axis in "xyz"):
            return names.index("x"), names.index("y"), names.index("z")
    return None


def _axis(name: str) -> str:
    """`x`, `y` or `z` for a name that means it, else nothing."""
    name = _UNIT.sub("", name).rpartition(".")[2]
    if name in _GEODETIC:
        return _GEODETIC[name]
    if found := _AXIS.fullmatch(name):
        return found[1]
    found = _NUMBERED.fullmatch(name)
    return "xyz"[int(found[1])] if found else ""
