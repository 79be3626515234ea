"""From what a file states to one checked cloud: finite, near zero, drawn from a mesh, in float32.

Shape legend: N points.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

import numpy as np

from foundry3d.data.attributes import checked_attribute
from foundry3d.data.formats.fields import normalised
from foundry3d.data.formats.raw import Raw, listing
from foundry3d.data.surface import Drawn, draw_surface
from foundry3d.errors import InputError

log = logging.getLogger("foundry3d")

Invalid = Literal["drop", "refuse"]
"""What becomes of points with NaN or infinite coordinates."""

Normals = Literal["estimate"]
"""Where normals come from that a file does not have."""

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


@contextmanager
def naming(source: str) -> Iterator[None]:
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
        kind = ending(Path(source)) or "point-cloud"
        raise InputError(
            f"{source}: expected a {kind} file that its reader understands, got one on which it "
            f"fails ({type(error).__name__}: {listing([str(error)], width=80)}); export it again, "
            "or run with --debug to see where it fails"
        ) from error


def ending(path: Path) -> str:
    """What a file's name ends in, in lower case and without the dot."""
    return path.suffix.lower().removeprefix(".")


def points_of(
    raw: Raw,
    source: str,
    samples: int,
    seed: int,
    invalid: Invalid | None,
    wanted: Sequence[str],
    normals: Normals | None,
) -> Points:
    """Check, move close to zero, sample, and round to float32."""
    with naming(source):
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
            found["normal"] = _estimated(points)
            notices += ("normals estimated from the points",)
    return Points(
        points=points,
        source=source,
        origin=origin,
        notices=notices,
        dropped=dropped,
        attributes=found,
    )


def _estimated(points: np.ndarray) -> np.ndarray:
    """Normals of points (N, 3) that face away from their mean."""
    from foundry3d.geometry.normals import NEIGHBORS, estimate_normals  # torch, where needed

    return estimate_normals(points, min(NEIGHBORS, len(points)))


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
