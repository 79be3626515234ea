"""A folder of point-cloud and mesh files as a data set: `class/file`, or files without classes.

Shape legend: n clouds, N points of each.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from foundry3d.data.attributes import Absent, joined, lacking, report_lacking
from foundry3d.data.clouds import Clouds
from foundry3d.data.files import EXTENSIONS, Invalid, Normals, Points, read_points
from foundry3d.data.progress import with_progress
from foundry3d.errors import InputError

log = logging.getLogger("foundry3d")


def is_supported(path: Path) -> bool:
    """Whether a path ends like a file that can be read, and is not hidden."""
    ending = path.suffix.lower().removeprefix(".")
    return ending in EXTENSIONS and not path.name.startswith(".")


def files_below(folder: Path) -> list[Path]:
    """Every file below a folder that can be read by its ending, sorted; none that is hidden."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if is_supported(path)
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]


def find_files(folder: str | Path) -> list[Path]:
    """What `files_below` finds.

    Raises:
        InputError: there is no such file.
    """
    found = files_below(Path(folder))
    if not found:
        raise InputError(f"{folder}: no file ends in {', '.join(EXTENSIONS)}")
    return found


def read_folder(
    folder: str | Path,
    *,
    points: int,
    seed: int = 0,
    class_names: tuple[str, ...] | None = None,
    columns: Mapping[str, str] | None = None,
    invalid: Invalid | None = None,
    attributes: Sequence[str] = (),
    absent: Absent = "drop",
    normals: Normals | None = None,
) -> Clouds:
    """One labelled cloud of every file `folder/class/file`, or unlabelled ones of `folder/file`.

    Points of a cloud are in random order. Every cloud gets as many as the smallest file has, at
    most twice `points`; meshes are sampled evenly by area.

    Args:
        folder: its sub-folders, sorted, are the classes.
        points: how many a cloud must have at the least.
        seed: of sampling and order; every file draws its own.
        class_names: classes by label that the sub-folders must be among; None = whatever they are.
        columns: of text tables, as in `read_points`.
        invalid: what becomes of points with NaN or infinite coordinates, as in `read_points`.
        attributes: that the points are to have.
        absent: what becomes of files without one of them; one sentence names them.
        normals: as in `read_points`.

    Raises:
        InputError: no files, another layout, an unknown class, a file that cannot be read or
            has too few points, or no file with the attributes where those without are dropped.
    """
    folder = Path(folder)
    names, files = _layout(folder)
    if class_names is not None and names:
        unknown = sorted(set(names) - set(class_names))
        if unknown:
            raise InputError(
                f"{folder}: no class {', '.join(unknown[:5])} in the training data, which has "
                f"{', '.join(class_names[:20]) or 'none'}; rename or remove it"
            )
        names = class_names
    label = {name: i for i, name in enumerate(names)}
    clouds, kept, dropped = list[np.ndarray](), list[Path](), 0
    lacks: dict[str, list[str]] = {}
    for i, path in enumerate(with_progress(files, f"{folder.name}: read")):
        rng = np.random.default_rng([seed, i])
        sampling = int(rng.integers(2**31))
        found = read_points(
            path,
            samples=2 * points,
            seed=sampling,
            columns=columns,
            invalid=invalid,
            attributes=attributes,
            normals=normals,
        )
        dropped += found.dropped
        cloud = _cloud(found, 2 * points, points, rng, attributes)
        if attributes and (missing := lacking(cloud, attributes)):
            lacks[str(path.relative_to(folder))] = missing
            if absent == "drop":
                continue
        clouds.append(cloud)
        kept.append(path)
    if dropped:
        log.info("%s: %d points with NaN or infinite coordinates left out", folder, dropped)
    report_lacking(str(folder), lacks, absent)
    if not clouds:
        raise InputError(f"{folder}: no file has all of {', '.join(attributes)}; nothing is left")
    size = min(map(len, clouds))
    return Clouds(
        points=np.stack([cloud[:size] for cloud in clouds]),
        labels=np.array([label.get(path.parent.name, -1) if names else -1 for path in kept]),
        class_names=names,
        name=folder.resolve().name,
        attributes=tuple(attributes),
    )


def _layout(folder: Path) -> tuple[tuple[str, ...], list[Path]]:
    """Class names (none without sub-folders) and files, both sorted; refuses other layouts."""
    entries = _visible(folder)
    classes = [path for path in entries if path.is_dir()]
    loose = _readable(path for path in entries if not path.is_dir())
    if classes and loose:
        raise InputError(
            f"{folder}: expected class folders or files, got both ({classes[0].name} and "
            f"{loose[0].name}); move one of them away"
        )
    files = loose
    for part in classes:
        inside = _visible(part)
        deeper = next((path for path in inside if path.is_dir()), None)
        if deeper is not None:
            raise InputError(f"{deeper}: expected files in a class folder, got a folder")
        own = _readable(inside)
        if not own:
            raise InputError(f"{part}: no file ends in {', '.join(EXTENSIONS)}")
        files += own
    if not files:
        raise InputError(f"{folder}: no file ends in {', '.join(EXTENSIONS)}")
    return tuple(path.name for path in classes), files


def _visible(folder: Path) -> list[Path]:
    """What a folder holds, sorted by name, without hidden entries."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _readable(paths: Iterable[Path]) -> list[Path]:
    """The paths whose ending is known; says how many are left out."""
    paths = list(paths)
    kept = [path for path in paths if is_supported(path)]
    if len(kept) < len(paths):
        log.info("%s: %d files of other kinds left out", paths[0].parent, len(paths) - len(kept))
    return kept


def _cloud(
    found: Points, most: int, least: int, rng: np.random.Generator, attributes: Sequence[str]
) -> np.ndarray:
    """At most `most` points of a file (N, 3 + m) float32, in random order."""
    points = found.points
    if len(points) < least:
        raise InputError(
            f"{found.source}: expected at least {least} points (data.points), got {len(points)}; "
            "lower data.points or remove the file"
        )
    if (points == points[0]).all():
        raise InputError(
            f"{found.source}: expected points that differ, got {len(points)} times the same"
        )
    whole = joined(points, found.attributes, attributes)
    return whole[rng.permutation(len(points))[:most]]
