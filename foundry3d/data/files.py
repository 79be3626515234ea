"""The door for point clouds and meshes in files: any common format in, checked points out.

Nothing in a file is executed, fetched or trusted: sizes that a header declares are compared with
the bytes it has, and whatever is wrong raises one `InputError` that names the file.

Shape legend: N points.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, Final

from foundry3d.config import EmbedConfig, PackConfig
from foundry3d.config.attributes import check_attributes
from foundry3d.config.reading import column_names
from foundry3d.data.formats.arrays import read_npy, read_npz
from foundry3d.data.formats.glb import read_glb
from foundry3d.data.formats.las import read_las
from foundry3d.data.formats.meshes import read_obj, read_off, read_stl
from foundry3d.data.formats.parquet import read_parquet
from foundry3d.data.formats.pcd import read_pcd
from foundry3d.data.formats.ply import read_ply
from foundry3d.data.formats.raw import MAX_BYTES, Raw
from foundry3d.data.formats.tables import read_table
from foundry3d.data.points import Invalid as Invalid
from foundry3d.data.points import Normals as Normals
from foundry3d.data.points import Points as Points
from foundry3d.data.points import ending, naming, points_of
from foundry3d.errors import InputError

_READERS: Final[dict[str, Callable[..., Raw]]] = {
    "ply": read_ply, "pcd": read_pcd, "obj": read_obj, "off": read_off, "stl": read_stl,
    "glb": read_glb, "xyz": read_table, "txt": read_table, "csv": read_table, "pts": read_table,
    "las": read_las, "laz": read_las, "npy": read_npy, "npz": read_npz, "parquet": read_parquet,
}  # fmt: skip
EXTENSIONS: Final = tuple(_READERS)
"""Endings of the files that `read_points` and `read_clouds` understand."""

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


def read_points(
    path: str | Path,
    *,
    samples: int = 16384,
    seed: int = 0,
    invalid: Invalid | None = None,
    columns: Mapping[str, str] | None = None,
    attributes: Sequence[str] = (),
    normals: Normals | None = None,
) -> Points:
    """Read the one cloud of a file; a mesh gives points drawn evenly from its surface.

    Args:
        path: a file with one of `EXTENSIONS`.
        samples: points drawn from a mesh; files without faces give all their points.
        seed: of that draw.
        invalid: what becomes of points with NaN or infinite coordinates: they are left out (drop),
            or the cloud is refused; None = drop in pcd files and in ply files without faces, as
            depth cameras write them, and refuse in all others.
        columns: of text tables: for each of x, y and z the name of a column, or its number from 1;
            None = by the header, else the first three.
        attributes: to read where the file has them: normal, color, intensity, or any other one with
            its number of channels, e.g. curvature:1. Points drawn from a mesh take those of its
            vertices, and the normals of its triangles where vertices have none.
        normals: estimate = where they are asked for and the file has none, they are estimated.

    Raises:
        InputError: the file is missing, unknown, damaged or empty, or holds more than one cloud.
    """
    found = list(_load(path, columns, attributes).values())
    if len(found) != 1:
        raise InputError(
            f"{path}: expected one cloud, got {len(found)}; read them with read_clouds"
        )
    return points_of(found[0], str(path), samples, seed, invalid, attributes, normals)


def read_clouds(
    path: str | Path,
    *,
    samples: int = 16384,
    seed: int = 0,
    invalid: Invalid | None = None,
    columns: Mapping[str, str] | None = None,
    attributes: Sequence[str] = (),
    normals: Normals | None = None,
) -> Iterator[Points]:
    """Read every cloud of a file, one after the other; most files hold one.

    The file is read at once; the coordinates of each cloud are checked when its turn comes, and
    the next one can be asked for after one that was refused.

    Args:
        path: a file with one of `EXTENSIONS`; an npy or npz array (n, N, 3) is n clouds.
        samples: as in `read_points`, like all that follow.
        seed: of the draw.
        invalid: drop or refuse.
        columns: of text tables.
        attributes: to read.
        normals: estimate those that are missing, or not.

    Returns:
        An iterator over at least one cloud.

    Raises:
        InputError: the file is missing, unknown, damaged or empty.
    """
    found = _load(path, columns, attributes)
    return map(  # which goes on after a cloud that is refused
        lambda name: points_of(found[name], name, samples, seed, invalid, attributes, normals),
        found,
    )


def try_clouds(
    path: Path,
    config: EmbedConfig | PackConfig,
    attributes: Sequence[str] = (),
    normals: Normals | None = None,
) -> Iterator[tuple[str, Points | InputError]]:
    """Each cloud of a file, read with the options of a command, or why not; after its name."""
    try:
        clouds = read_clouds(
            path,
            samples=config.samples,
            seed=config.seed,
            invalid=config.invalid,
            columns=column_names(config.columns),
            attributes=attributes,
            normals=normals,
        )
    except InputError as error:
        yield str(path), error
        return
    for i in count():
        try:
            cloud = next(clouds, None)
        except InputError as error:
            yield f"{path}[{i}]", error
            continue
        if cloud is None:
            return
        yield cloud.source, cloud


def _load(
    path: str | Path, columns: Mapping[str, str] | None, attributes: Sequence[str]
) -> dict[str, Raw]:
    """The clouds of the file by their names, before any check of coordinates."""
    with naming(str(path)):
        check_attributes(attributes)
        path = Path(path)
        kind = ending(path)
        try:
            _check_file(path)
            if kind not in _READERS:
                raise InputError(
                    f"expected a file that ends in {', '.join(EXTENSIONS)}, got "
                    f"{kind!a}; convert it to one of these"
                )
            blob = path.read_bytes().removeprefix(_BYTE_ORDER_MARK)
            wanted: dict[str, Any] = {"attributes": attributes} if attributes else {}
            if _READERS[kind] is read_table:
                wanted["chosen"] = columns
            raw = _READERS[kind](blob, **wanted)
        except OSError as error:
            raise InputError(
                f"expected a file that can be read, got '{error.strerror}'; check its permissions"
            ) from error
        if raw.vertices.size == 0:
            raise InputError("expected at least one point, got none; check how it was saved")
        if raw.vertices.ndim == 2:
            return {str(path): raw}
        return {f"{path}[{i}]": _one_of(raw, i) for i in range(len(raw.vertices))}


def _one_of(raw: Raw, number: int) -> Raw:
    """One cloud of a file of several."""
    count, parts = len(raw.vertices), raw.attributes.items()
    for name, values in parts:
        if len(values) != count:
            raise InputError(f"expected {count} arrays of {name}, one per cloud, got {len(values)}")
    own = {name: values[number] for name, values in parts}
    return replace(raw, vertices=raw.vertices[number], attributes=own)


def _check_file(path: Path) -> None:
    """Refuse what is no file, or none of a sensible size."""
    if path.is_dir():
        raise InputError("expected a file, got a directory; name one file in it")
    if not path.is_file():
        raise InputError("expected a file, got nothing of that name; check the path")
    size = path.stat().st_size
    if not 0 < size <= MAX_BYTES:
        raise InputError(
            f"expected a file of 1 to {MAX_BYTES} bytes, got {size}; "
            f"{'cut it into parts' if size else 'copy or export it again'}"
        )
