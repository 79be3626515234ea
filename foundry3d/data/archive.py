"""Archives of labelled clouds: one .npz, read without executing anything in it.

Layout: `points` (n, N, 3) of numbers; optionally `labels` (n,) whole numbers with -1 = none,
`names` (classes), `parts` (n, N) whole numbers, `part_names`. Attributes of points, which are only
read where they are asked for: `normals` (n, N, 3), `colors` (n, N, 3), `intensity` (n, N), and any
other by its name (n, N, channels). Other arrays are not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from foundry3d.config.attributes import columns_of
from foundry3d.data.attributes import arrays_of, checked_attribute, joined
from foundry3d.data.clouds import Clouds
from foundry3d.data.formats.fields import archive_name
from foundry3d.data.members import made_up_names, read_members, texts, whole_numbers
from foundry3d.errors import InputError
from foundry3d.writing import replacing

_ARRAYS = ("points", "labels", "names", "parts", "part_names")


def read_archive(path: str | Path, attributes: Sequence[str] = ()) -> Clouds:
    """The clouds of one archive; float16 coordinates stay float16 until they are used.

    Args:
        path: of the archive.
        attributes: that the points are to have; they are NaN where the archive has no such array.

    Raises:
        InputError: missing, damaged, without `points`, arrays of the wrong kind, or content that
            `Clouds` refuses.
    """
    path = Path(path)
    found, present = read_members(path, _ARRAYS)
    stored = arrays_of(attributes, present)
    if "points" not in found:
        shown = ", ".join(ascii(name) for name in present[:8])
        raise InputError(f"{path}: expected an array 'points', found {shown or 'none'}")
    try:
        values = _checked(found)
        if attributes:
            arrays, _ = read_members(path, list(stored.values()))
            points = values["points"]
            read = {
                name: checked_attribute(name, arrays[array], points.shape[:2], array)
                for name, array in stored.items()
            }
            values["points"] = joined(points, read, attributes)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return Clouds(**values, name=path.stem, attributes=tuple(attributes))


def _checked(found: dict[str, np.ndarray]) -> dict[str, Any]:
    """The fields of `Clouds` from an archive's arrays, each of the right kind."""
    points = found["points"]
    if points.dtype.kind not in "fiu":
        raise InputError(f"'points' must be numbers, found {points.dtype}")
    if points.dtype not in (np.float16, np.float32):
        with np.errstate(over="ignore"):  # what float32 cannot hold is refused as not finite
            points = points.astype(np.float32)
    labels, parts = found.get("labels"), found.get("parts")
    labels = (
        np.full(len(points) if points.ndim else 0, -1)
        if labels is None
        else whole_numbers(labels, "'labels'")
    )
    class_names = texts(found["names"], "names") if "names" in found else ()
    part_names = texts(found["part_names"], "part_names") if "part_names" in found else ()
    if parts is not None and parts.dtype.kind not in "iu":
        parts = whole_numbers(parts, "'parts'")
    return {
        "points": points,
        "labels": labels,
        "class_names": class_names or made_up_names(labels, "class"),
        "parts": parts,
        "part_names": part_names or (() if parts is None else made_up_names(parts, "part")),
    }


def write_archive(path: str | Path, clouds: Clouds) -> None:
    """Writes clouds for `read_archive`; the file appears complete or not at all."""
    small = len(clouds.class_names) < 2**15
    labels = clouds.labels.astype(np.int16 if small else np.int64)
    arrays = {"points": clouds.points[..., :3], "labels": labels}
    for name, where in columns_of(clouds.attributes).items():
        arrays[archive_name(name)] = clouds.points[..., where]
    if clouds.class_names:
        arrays["names"] = np.array(clouds.class_names)
    if clouds.parts is not None:
        arrays["parts"] = clouds.parts
        arrays["part_names"] = np.array(clouds.part_names)
    with replacing(path) as partial, open(partial, "wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
