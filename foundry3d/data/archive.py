"""Archives of labelled clouds: one .npz, read without executing anything in it.

Layout: `points` (n, N, 3) float; optionally `labels` (n,) int with -1 = none, `names` (classes),
`parts` (n, N) integers, `part_names`.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from foundry3d.data.clouds import Clouds
from foundry3d.errors import InputError
from foundry3d.writing import replacing

_ARRAYS = ("points", "labels", "names", "parts", "part_names")  # no other is unpacked


def read_archive(path: str | Path) -> Clouds:
    """The clouds of one archive; float16 coordinates stay float16 until they are used.

    Raises:
        InputError: missing, truncated, without `points`, or with content `Clouds` refuses.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such archive; expected an .npz file with an array 'points'")
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            present = archive.files
            found = {name: archive[name] for name in _ARRAYS if name in present}
    except MemoryError:
        raise InputError(
            f"{path}: expected arrays that fit into memory, got larger ones; use a smaller archive"
        ) from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, AttributeError) as error:
        raise InputError(
            f"{path}: not a readable .npz archive of plain arrays ({error}); write it anew"
        ) from None
    if "points" not in found:
        raise InputError(f"{path}: expected an array 'points', found {sorted(present)[:20]}")
    points = found["points"]
    if points.dtype.kind not in "fiu":
        raise InputError(f"{path}: 'points' must be numbers, found {points.dtype}")
    if points.dtype not in (np.float16, np.float32):
        points = points.astype(np.float32)
    names = tuple(str(name) for name in found.get("names", ()))
    labels = found.get("labels", np.full(len(points), -1)).astype(np.int64)
    if not names and labels.size and labels.max() >= 0:
        names = tuple(f"class {i}" for i in range(int(labels.max()) + 1))
    parts = found.get("parts")
    part_names = tuple(str(name) for name in found.get("part_names", ()))
    if parts is not None and not part_names:
        part_names = tuple(f"part {i}" for i in range(int(parts.max()) + 1))
    return Clouds(
        points=points,
        labels=labels,
        class_names=names,
        parts=parts,
        part_names=part_names,
        name=path.stem,
    )


def write_archive(path: str | Path, clouds: Clouds) -> None:
    """Writes clouds for `read_archive`; the file appears complete or not at all."""
    arrays = {"points": clouds.points, "labels": clouds.labels.astype(np.int16)}
    if clouds.class_names:
        arrays["names"] = np.array(clouds.class_names)
    if clouds.parts is not None:
        arrays["parts"] = clouds.parts
        arrays["part_names"] = np.array(clouds.part_names)
    with replacing(path) as partial, open(partial, "wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
