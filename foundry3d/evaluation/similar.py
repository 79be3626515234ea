"""`foundry3d similar`: the shapes most like a query, by the cosine of their features.

Pooled features are standardised with those of built-in shapes and of the files together.

Shapes: n clouds, D = 2d width of pooled features.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from foundry3d.checkpoints.folder import load_backbone
from foundry3d.config import SimilarConfig
from foundry3d.config.paths import require_apart
from foundry3d.data.files import try_clouds
from foundry3d.embed.archive import appearing
from foundry3d.embed.clouds import PreparedCloud, prepare
from foundry3d.embed.pooled import distinct_files, pooled, reading_of, reference, up_of
from foundry3d.embed.reading import Reading
from foundry3d.errors import InputError
from foundry3d.evaluation.rows import short_name
from foundry3d.evaluation.teaching import scale_of
from foundry3d.extras import require_extra
from foundry3d.report.contact_sheet import draw_sheet
from foundry3d.report.rows import table
from foundry3d.report.tables import write_table

DRAWN = 4096
"""Points of a cloud in the picture, at most."""
COLUMNS = {"rank": "rank", "file": "file", "cosine": "cosine"}


def cosines(query: np.ndarray, features: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Cosine (n,) of the standardised features (n, D) with those of a query (D,).

    Args:
        query: pooled features.
        features: of the clouds that are searched.
        reference: (m, D) of other clouds, which the scale is taken from too.
    """
    scale = scale_of(np.concatenate([reference, features]))
    asked, found = scale.apply(query), scale.apply(features)
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(asked)
    return found @ asked / np.maximum(lengths, 1e-12)


def read_query(reading: Reading, name: str) -> PreparedCloud:
    """The one cloud of the query's file, prepared.

    Raises:
        InputError: it is no file, cannot be read, or holds several clouds.
    """
    found = []
    for _, cloud in try_clouds(Path(name), reading.config, reading.attributes):
        if isinstance(cloud, InputError):
            raise cloud
        found.append(cloud)
    if len(found) != 1:
        raise InputError(f"{name}: the query is one cloud, got {len(found)}; name another file")
    return prepare(found[0], reading.policy, reading.least, reading.shape)


def _view(reading: Reading, path: Path, source: str, up: int) -> np.ndarray:
    """Points (N, 3) of a cloud to draw, z up, read again with more of them than were compared."""
    for name, cloud in try_clouds(path, reading.config):
        if name == source and not isinstance(cloud, InputError):
            more = replace(reading.policy, points=DRAWN)
            return prepare(cloud, more, reading.least).points.roll(2 - up, dims=-1).numpy()
    raise InputError(f"{source}: the file was changed while it was compared; try again")


def _draw(
    config: SimilarConfig, reading: Reading, shown: list[tuple[Path, str]], captions: list[str]
) -> None:
    """Draws the query and the nearest shapes."""
    up = "xyz".index(up_of(reading.config))
    query = Path(config.files[0]).name
    with appearing(Path(config.picture or ""), "picture") as stream:
        draw_sheet(
            stream,
            [_view(reading, path, source, up) for path, source in shown],
            captions,
            title=f"Most like {query}, by the features of {short_name(config.model)}",
        )


def similar(config: SimilarConfig) -> list[dict[str, Any]]:
    """Finds the shapes most like the first file among the others: `foundry3d similar`.

    Prints a table; the query itself is left out where it is among the files.

    Returns:
        A row for each of the nearest shapes, in order.

    Raises:
        InputError: the model cannot be loaded, the query is not one cloud, or none of the files
            can be used; nothing is written.
        PartialFailure: some files cannot be used; the others were searched.
    """
    if config.picture:
        require_extra("matplotlib")
    name, files = config.files[0], config.files[1:]
    model = load_backbone(config.model)
    reading = reading_of(config.reading(files=files), model)
    query = read_query(reading, name)
    asked = os.path.realpath(name)
    others = [path for path in distinct_files(reading) if os.path.realpath(path) != asked]
    require_apart({"out": config.out, "picture": config.picture}, [name, *others])
    _, asked_features = next(pooled(model, [query], 1))
    paths, names, found = dict[str, Path](), list[str](), list[np.ndarray]()

    def each() -> Iterator[PreparedCloud]:
        for path, _, cloud in reading.each(others):
            paths[cloud.source] = path
            yield cloud

    for cloud, features in pooled(model, each(), config.batch_size, reading):
        names.append(cloud.source)
        found.append(features)
    reading.require(len(found))
    up = up_of(reading.config)
    shapes = reference(model, reading.policy, up=up, batch=config.batch_size)
    near = cosines(asked_features, np.stack(found), shapes)
    order = np.argsort(-near, kind="stable")[: config.nearest]
    rows = [
        {"rank": i + 1, "file": names[k], "cosine": round(float(near[k]), 4)}
        for i, k in enumerate(order)
    ]
    if config.out is not None:
        write_table(config.out, rows)
    if config.picture is not None:
        texts = [f"{row['rank']}: {row['cosine']:.2f}\n{Path(row['file']).name}" for row in rows]
        shown = [(Path(name), query.source), *((paths[names[k]], names[k]) for k in order)]
        _draw(config, reading, shown, [f"query\n{Path(name).name}", *texts])
    print(f"{len(names)} shapes searched for those most like {name}")
    print(table(rows, COLUMNS))
    reading.require_all(f"the other {len(names)} were searched")
    return rows
