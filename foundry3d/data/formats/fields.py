"""Which fields of a file hold the attributes of its points.

A field is a column, a property or a dimension with a name; upper and lower case are the same.

Shapes: N points, m channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from foundry3d.config.attributes import channels, name_of

_FIELDS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "normal": (
        ("nx", "ny", "nz"),
        ("normal_x", "normal_y", "normal_z"),
        ("normalx", "normaly", "normalz"),
    ),
    "color": (
        ("red", "green", "blue"),
        ("r", "g", "b"),
        ("diffuse_red", "diffuse_green", "diffuse_blue"),
    ),
    "intensity": (("intensity",), ("scalar_intensity",), ("reflectance",), ("reflectivity",)),
}
_ARRAYS: Mapping[str, tuple[str, ...]] = {
    "normal": ("normals", "normal"),
    "color": ("colors", "color", "rgb"),
    "intensity": ("intensity", "intensities"),
}
_TOP = (255.0, 65535.0)


def fields_of(attribute: str, names: Iterable[str]) -> tuple[str, ...] | None:
    """The fields among `names` that hold an attribute, one per channel; None if there are none.

    An attribute of another name, e.g. `curvature:1` or `gradient:2`, is the field of its name, or
    its name with _0, _1 and so on.
    """
    known = {name.lower(): name for name in reversed(list(names))}
    name, count = name_of(attribute).lower(), channels(attribute)
    options = _FIELDS.get(name, (tuple(f"{name}_{i}" for i in range(count)),))
    if count == 1:
        options = ((name,), *options)
    for option in options:
        if known.keys() >= set(option):
            return tuple(known[field] for field in option)
    return None


def gathered(
    wanted: Sequence[str], names: Iterable[str], column: Callable[[str], np.ndarray]
) -> tuple[dict[str, np.ndarray], set[str]]:
    """The wanted attributes (N, m) that a file has, and the names of their fields.

    Args:
        wanted: attributes.
        names: of the file's fields.
        column: the values (N,) of a field.
    """
    found, used, names = dict[str, np.ndarray](), set[str](), list(names)
    for attribute in wanted:
        if fields := fields_of(attribute, names):
            found[attribute] = np.stack([column(field) for field in fields], axis=-1)
            used |= set(fields)
    return found, used


def array_of(attribute: str, names: Iterable[str]) -> str | None:
    """The array of an archive that holds an attribute; None if there is none.

    They are `normals`, `colors` and `intensity` (or `normal`, `color`, `rgb`, `intensities`); an
    attribute of another name is the array of its name.
    """
    known = set(names)
    options = _ARRAYS.get(attribute, (name_of(attribute),))
    return next((name for name in options if name in known), None)


def archive_name(attribute: str) -> str:
    """The name under which an archive is written with an attribute."""
    return _ARRAYS.get(attribute, (name_of(attribute),))[0]


def normalised(attribute: str, values: np.ndarray) -> np.ndarray:
    """Attribute values (..., m) of any real type in their units, float32; NaN where there are none.

    Normals have unit length. Colors and intensities lie in [0, 1]: whole numbers are divided by
    255, or by 65535 where they are larger than bytes hold; fractions are taken as they are up to
    1, else divided by 255 or 65535; anything larger by the largest value. Other attributes are
    taken as they are.
    """
    found = np.asarray(values).astype(np.float32)
    if attribute == "normal":
        length = np.linalg.norm(found, axis=-1, keepdims=True)
        usable = (length > 0) & np.isfinite(length)
        return np.where(usable, found / np.where(usable, length, 1), np.float32(np.nan))
    if attribute not in ("color", "intensity"):
        return found
    finite = found[np.isfinite(found)]
    largest = float(finite.max()) if finite.size else 0.0
    whole = values.dtype.kind in "iub"
    top = next((top for top in _TOP if largest <= top), largest)
    if not whole and largest <= 1:
        top = 1.0
    return np.clip(found / np.float32(top), 0, 1)
