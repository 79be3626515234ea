"""Options of everything that reads point-cloud files."""

from __future__ import annotations

import re

from foundry3d.config.records import require


def column_names(text: str | None) -> dict[str, str] | None:
    """The columns of x, y and z that `--columns x=NAME,y=NAME,z=NAME` asks for; None for None.

    Raises:
        InputError: another form, or not each of x, y and z once.
    """
    if text is None:
        return None
    pairs = re.findall(r"(?:^|,)\s*([xyz])\s*=\s*(.*?)\s*(?=,\s*[xyz]\s*=|$)", text)
    found = dict(pairs)
    require(
        len(pairs) == len(found) == 3 and all(found.values()),
        f"columns are given as x=NAME,y=NAME,z=NAME, with names or numbers from 1; got {text!r}",
    )
    return found


def check_normals(normals: str | None) -> None:
    """Refuses another value than estimate and None.

    Raises:
        InputError: another value.
    """
    require(normals in (None, "estimate"), f"normals is estimate or null; got {normals!r}")


def check_reading(columns: str | None, invalid: str | None) -> None:
    """Refuses values that these two options cannot have.

    Raises:
        InputError: columns of another form, or `invalid` is not drop, refuse or None.
    """
    column_names(columns)
    require(invalid in (None, "drop", "refuse"), f"invalid is one of drop, refuse; got {invalid!r}")
