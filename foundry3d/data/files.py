"""The door for point clouds and meshes in files: any common format in, checked points out.

Nothing in a file is executed, fetched or trusted: sizes that a header declares are compared with
the bytes it has, and whatever is wrong raises one `InputError` that names the file.

Shape legend: N points.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from foundry3d.config import EmbedConfig, PackConfig
from foundry3d.config.reading import column_names
from foundry3d.data.attributes import checked_attribute
from foundry3d.data.formats.arrays import read_npy, read_npz
from foundry3d.data.formats.fields import normalised
from foundry3d.data.formats.glb import read_glb
from foundry3d.data.formats.las import read_las
from foundry3d.data.formats.meshes import read_obj, read_off, read_stl
from foundry3d.data.formats.parquet import read_parquet
from foundry3d.data.formats.pcd import read_pcd
from foundry3d.data.formats.ply import read_ply
from foundry3d.data.formats.raw import MAX_BYTES, Raw, listing
from foundry3d.data.formats.tables import read_table
from foundry3d.data.surface import Drawn, draw_surface
from foundry3d.errors import InputError

log = logging.getLogger("foundry3d")

_READERS: Final[dict[str, Callable[..., Raw]]] = {
    "ply": read_ply, "pcd": read_pcd, "obj": read_obj, "off": read_off, "stl": read_stl,
    "glb": read_glb, "xyz": read_table, "txt": read_table, "csv": read_table, "pts": read_table,
    "las": read_las, "laz": read_las, "npy": read_npy, "npz": read_npz, "parquet": read_parquet,
}  # fmt: skip
EXTENSIONS: Final = tuple(_READERS)
"""Endings of the files that `read_points` and `read_clouds` understand."""

Invalid = Literal["drop", "refuse"]
"""What becomes of points with NaN or infinite coordinates."""

Normals = Literal["estimate"]
"""Where normals come from that a file does not have."""

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_FAR: Final = 64.0
"""Clouds further from zero than this many times their size are moved if float32 needs it."""


@dataclass(frozen=True, kw_only=True)
class Points:
    """One point cloud from a file.

    Attributes:
        points: (N, 3) float32, finite, N at least 1.
        source: the file, and the number of the cloud where the file holds several.
        origin: what to add to `points` for the file's own coordinates; zero unless the cloud
            lies so far from zero that float32 would have rounded it visibly.
        notices: what was left unread or changed, one sentence each.
        dropped: points with NaN or infinite coordinates that were left out.
        attributes: those asked for that the file has, by name: (N, channels) float32 in their
            units, NaN where a point has none (`docs/attributes.md`).
    """

    points: np.ndarray
    source: str
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    notices: tuple[str, ...] = ()
    dropped: int = 0
    attributes: Mapping[str, np.ndarray] = field(default_factory=dict)


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
    return _points(found[0], str(path), samples, seed, invalid, attributes, normals)


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
        lambda name: _points(found[name], name, samples, seed, invalid, attributes, normals), found
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


@contextmanager
def _naming(source: str) -> Iterator[None]:
    """Puts the file's name before every error; odd numbers are checked later, not warned about."""
    try:
        with np.errstate(all="ignore"):
            yield
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
    except MemoryError as error:
        raise InputError(
            f"{source}: expected a file whose contents fit into memory, got too large ones; "
            "cut it into parts"
        ) from error
    except Exception as error:  # what a library raises about a file, or a defect of a reader
        log.debug("%s", source, exc_info=True)
        kind = _ending(Path(source)) or "point-cloud"
        raise InputError(
            f"{source}: expected a {kind} file that its reader understands, got one on which it "
            f"fails ({type(error).__name__}: {listing([str(error)], width=80)}); export it again, "
            "or run with --debug to see where it fails"
        ) from error


def _load(
    path: str | Path, columns: Mapping[str, str] | None, attributes: Sequence[str]
) -> dict[str, Raw]:
    """The clouds of the file by their names, before any check of coordinates."""
    with _naming(str(path)):
        path = Path(path)
        ending = _ending(path)
        try:
            _check_file(path)
            if ending not in _READERS:
                raise InputError(
                    f"expected a file that ends in {', '.join(EXTENSIONS)}, got "
                    f"{ending!a}; convert it to one of these"
                )
            blob = path.read_bytes().removeprefix(_BYTE_ORDER_MARK)
            wanted: dict[str, Any] = {"attributes": attributes} if attributes else {}
            if _READERS[ending] is read_table:
                wanted["chosen"] = columns
            raw = _READERS[ending](blob, **wanted)
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


def _ending(path: Path) -> str:
    return path.suffix.lower().removeprefix(".")


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


def _points(
    raw: Raw,
    source: str,
    samples: int,
    seed: int,
    invalid: Invalid | None,
    wanted: Sequence[str],
    normals: Normals | None,
) -> Points:
    """Check, move close to zero, sample, and round to float32."""
    with _naming(source):
        if samples < 1 or seed < 0:
            raise InputError(
                "expected samples of at least 1 and a seed of at least 0, got "
                f"{samples} and {seed}; choose other numbers"
            )
        before, size = len(raw.vertices), raw.vertices.shape[:1]
        own = {k: checked_attribute(k, v, size, k) for k, v in raw.attributes.items()}
        raw = _checked(replace(raw, attributes=own), invalid)
        found = dict(raw.attributes)
        dropped = before - len(raw.vertices)
        notices, vertices, origin = raw.notices, raw.vertices, _origin(raw.vertices)
        if any(origin):
            vertices = vertices - np.array(origin)
            notices += (f"moved by {origin}, its centre, so that float32 keeps its details",)
        if raw.faces is not None and len(raw.faces):
            corners = vertices
            vertices, drawn = draw_surface(
                vertices, raw.faces, samples, np.random.default_rng(seed)
            )
            found = _drawn_attributes(found, drawn, corners, wanted)
            notices += (f"{samples} points sampled from {len(raw.faces)} triangles",)
        points = np.array(vertices, dtype=np.float32, order="C")
        if "normal" in wanted and "normal" not in found and normals == "estimate":
            from foundry3d.geometry.normals import estimate_normals  # torch, only where needed

            found["normal"] = estimate_normals(points)
            notices += ("normals estimated from the points",)
    return Points(
        points=points,
        source=source,
        origin=origin,
        notices=notices,
        dropped=dropped,
        attributes=found,
    )


def _drawn_attributes(
    found: Mapping[str, np.ndarray], drawn: Drawn, vertices: np.ndarray, wanted: Sequence[str]
) -> dict[str, np.ndarray]:
    """Attributes of points drawn from a mesh: between its vertices, and normals of triangles."""
    made = {name: drawn.of(values).astype(np.float32) for name, values in found.items()}
    if "normal" in wanted:
        made.setdefault("normal", drawn.normals(vertices))
        made["normal"] = normalised("normal", made["normal"])
    return made


def _checked(raw: Raw, invalid: Invalid | None) -> Raw:
    """Finite coordinates and faces whose corners exist, or an error."""
    vertices, faces = raw.vertices, raw.faces
    if faces is not None and len(faces) and not 0 <= faces.min() <= faces.max() < len(vertices):
        raise InputError(
            f"expected faces of vertices 0 to {len(vertices) - 1}, got {faces.min()} to "
            f"{faces.max()}; export the file again"
        )
    valid = (np.abs(vertices) <= np.finfo(np.float32).max).all(axis=1)
    bad = len(valid) - int(valid.sum())
    if not bad:
        return raw
    drop = raw.from_sensor if invalid is None else invalid == "drop"
    if not drop or bad == len(valid):
        advice = "remove them" + ("" if drop else ", or leave them out with --invalid drop")
        raise InputError(
            f"expected finite coordinates, got {bad} of {len(valid)} points with NaN or infinite "
            f"ones; {advice}"
        )
    if faces is not None:
        faces = (np.cumsum(valid) - 1)[faces[valid[faces].all(axis=1)]]
    notices = (*raw.notices, f"{bad} points with NaN or infinite coordinates left out")
    kept = {name: values[valid] for name, values in raw.attributes.items()}
    return replace(raw, vertices=vertices[valid], faces=faces, notices=notices, attributes=kept)


def _origin(vertices: np.ndarray) -> tuple[float, float, float]:
    """The centre of a cloud that float32 cannot hold where it is; else zero."""
    low, high = vertices.min(axis=0).astype(np.float64), vertices.max(axis=0).astype(np.float64)
    far = np.maximum(np.abs(low), np.abs(high)).max() > _FAR * (high - low).max() > 0
    if not far or (vertices.astype(np.float32) == vertices).all():
        return (0.0, 0.0, 0.0)
    x, y, z = ((low + high) / 2).tolist()
    return (x, y, z)
