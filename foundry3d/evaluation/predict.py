"""`foundry3d predict`: classes of clouds in files, or parts of their points.

Shapes: n clouds, N points of a cloud, D = 2d width of pooled features, C classes.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from foundry3d.checkpoints.folder import load, model_folder
from foundry3d.checkpoints.policy import stored_facts
from foundry3d.checkpoints.sizes import read_json
from foundry3d.config import PredictConfig
from foundry3d.config.paths import require_apart
from foundry3d.embed.clouds import PreparedCloud
from foundry3d.embed.labelled import WRITE
from foundry3d.embed.point_parts import category_number, object_parts, scene_parts
from foundry3d.embed.pooled import distinct_files, pooled, reading_of
from foundry3d.embed.reading import Reading
from foundry3d.errors import InputError
from foundry3d.evaluation.teach import OPEN_SET
from foundry3d.evaluation.teaching import Scale, distances, softmax
from foundry3d.heads.classifier import Classifier, Headed
from foundry3d.heads.segmenter import Segmenter
from foundry3d.inference.compiled import compile as fast_form
from foundry3d.report.rows import table
from foundry3d.report.tables import write_table

UNKNOWN = "unknown"
CLASS_COLUMNS = {
    "file": "file",
    "label": "label",
    "confidence": "confidence",
    "runner_up": "runner-up",
    "second": "its confidence",
}
PART_COLUMNS = {
    "file": "file",
    "points": "points",
    "label": "most common part",
    "share": "share",
    "runner_up": "runner-up",
    "second": "its share",
    "written": "written",
}


class OpenSet(NamedTuple):
    """What a cloud must be close to, not to be unknown; see `teaching.Limit`."""

    scale: Scale
    means: np.ndarray
    limit: float
    sentence: str

    def distance(self, features: np.ndarray) -> float:
        """Of pooled features (D,), as a multiple of the limit."""
        row = self.scale.apply(features[None])
        return float(distances(row, self.means)[0]) / self.limit


def read_open_set(path: str, facts: dict[str, Any], width: int) -> OpenSet:
    """What `teach` has calibrated for a model folder with this provenance.

    Raises:
        InputError: it has calibrated nothing, or its file is missing or does not belong to the
            model.
    """
    found = facts.get("open_set")
    if facts.get("made_by") != "teach" or not isinstance(found, dict):
        raise InputError(
            f"{path}: --open_set needs a model from foundry3d teach, with two examples or more of "
            "some class, to know how far apart shapes of one class are"
        )
    file = model_folder(path) / OPEN_SET
    content = read_json(file)
    try:
        names = ("mean", "matrix", "means")
        mean, matrix, means = (np.array(content[name], float) for name in names)
        fits = mean.shape == means.shape[1:] == (width,) and means.size > 0
        fits = fits and matrix.shape == (width, width) and bool(np.isfinite(matrix).all())
        same = fits and content["limit"] == found["limit"] > 0
        said = f"{found['beyond']:d} of the {found['judged']:d} examples"
    except (KeyError, TypeError, ValueError):
        same = False
    if not same:
        raise InputError(f"{file} does not belong to this model; teach it again")
    sentence = f"so would be {said}, each left out of its class"
    return OpenSet(Scale(mean, matrix), means, found["limit"], sentence)


def class_row(
    source: str, shares: np.ndarray, classes: tuple[str, ...], distance: float | None
) -> dict[str, Any]:
    """The row of a cloud with these shares (C,) and this multiple of the limit."""
    first, second = np.argsort(-shares, kind="stable")[:2]
    row: dict[str, Any] = {
        "file": source,
        "label": classes[first],
        "confidence": round(float(shares[first]), 4),
        "runner_up": classes[second],
        "second": round(float(shares[second]), 4),
    }
    if distance is not None:
        if distance > 1:  # the nearest class is what it would have been
            row |= {"label": UNKNOWN, "runner_up": row["label"], "second": row["confidence"]}
            row["confidence"] = None
        row["distance"] = round(distance, 3)
    return row


def _classes(model: Classifier, reading: Reading, config: PredictConfig) -> list[dict[str, Any]]:
    """A row with the class of each cloud."""
    if config.labelled is not None or config.points_per_token is not None:
        raise InputError(
            f"{config.model} labels whole clouds; --labelled and --points_per_token are for "
            "segmenters"
        )
    width, opened = 2 * model.backbone.output_dim, None
    if config.open_set:
        opened = read_open_set(config.model, stored_facts(config.model), width)
    files, rows = _files(reading, config), []
    clouds = reading.clouds(files)
    for cloud, features in pooled(model.backbone, clouds, config.batch_size, reading):
        with torch.inference_mode():
            logits = model.head(torch.from_numpy(features)[None]).double().numpy()
        distance = None if opened is None else opened.distance(features)
        rows.append(class_row(cloud.source, softmax(logits)[0], model.config.classes, distance))
    if opened is not None and rows:
        unknown = sum(row["label"] == UNKNOWN for row in rows)
        print(f"{unknown} of {len(rows)} are {UNKNOWN}; {opened.sentence}.")
    return rows


def _files(reading: Reading, config: PredictConfig) -> list[Path]:
    """The files to read.

    Raises:
        InputError: one of them would be replaced, or lies where labelled points are written.
    """
    files = distinct_files(reading)
    require_apart({"out": config.out}, files)
    if config.labelled is not None:
        folder = Path(config.labelled)
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder} is a file; --labelled names a folder to write to")
        inside = [path for path in files if path.parent.resolve() == folder.resolve()]
        if inside:
            raise InputError(f"{folder} holds {inside[0].name}, which is read; name another folder")
    return files


def _written(cloud: PreparedCloud, config: PredictConfig, names: set[str]) -> tuple[Path, str]:
    """Where the labelled points of a cloud go, under a name that is new, and their format."""
    assert config.labelled is not None
    found = re.fullmatch(r"(.*?)(?:\.(\w+))?(\[\d+\])?", Path(cloud.source).name)
    assert found is not None
    ending = (found[2] or "").lower()
    kind = config.format or ("las" if ending in ("las", "laz") else "ply")
    stem = found[1] + (found[3] or "")
    name, number = f"{stem}.{kind}", 1
    while name in names:
        number += 1
        name = f"{stem}-{number}.{kind}"
    names.add(name)
    return Path(config.labelled) / name, kind


def part_row(source: str, parts: np.ndarray, names: tuple[str, ...]) -> dict[str, Any]:
    """The row of a cloud whose points have these parts (N,)."""
    shares = np.bincount(parts, minlength=len(names)) / len(parts)
    first, second = np.argsort(-shares, kind="stable")[:2]
    return {
        "file": source,
        "points": len(parts),
        "label": names[first],
        "share": round(float(shares[first]), 4),
        "runner_up": names[second],
        "second": round(float(shares[second]), 4),
    }


def _parts(model: Segmenter, reading: Reading, config: PredictConfig) -> list[dict[str, Any]]:
    """A row with the parts of each cloud, whose labelled points are written at once."""
    if config.open_set:
        raise InputError(f"{config.model} labels points; --open_set is for classifiers")
    category, names = category_number(model, config.category), model.config.parts
    fit, encoded = reading.policy.normalise, reading.policy.points
    assert encoded is not None
    reading.policy = replace(reading.policy, points=None)  # every point gets a label
    reading.trained = None
    if config.points_per_token is not None:
        reading.least = max(model.backbone.shape.group_size, config.points_per_token)
    fast, rows, taken = fast_form(model), [], set[str]()
    for cloud in reading.clouds(_files(reading, config)):
        if config.points_per_token is None:
            parts, _ = object_parts(fast, cloud, category, points=encoded, seed=config.seed)
        else:
            parts, _ = scene_parts(
                fast, cloud, category, points_per_token=config.points_per_token, fit=fit
            )
        row = part_row(cloud.source, parts.numpy(), names)
        if config.labelled is not None:
            path, kind = _written(cloud, config, taken)
            WRITE[kind](path, cloud.original(cloud.points).numpy(), parts.numpy(), names)
            row["written"] = str(path)
        rows.append(row)
    return rows


def _reading(model: Headed, config: PredictConfig) -> Reading:
    """Reads the files, whose up axis is that of the examples unless told otherwise."""
    up = config.up or stored_facts(config.model).get("files_up")
    plain = config.reading()
    return reading_of(plain if up is None else replace(plain, up=up), model.backbone)


def predict(config: PredictConfig) -> list[dict[str, Any]]:
    """Labels every cloud in the files: `foundry3d predict`; prints a table.

    Returns:
        The rows of the table.

    Raises:
        InputError: the model cannot be loaded or has no labels, an option is not for models of its
            kind, or none of the clouds can be used; nothing is written.
        PartialFailure: some clouds cannot be used; the others are labelled.
    """
    model = load(config.model)
    match model:
        case Classifier():
            reading, columns = _reading(model, config), CLASS_COLUMNS
            rows = _classes(model, reading, config)
        case Segmenter():
            reading, columns = _reading(model, config), PART_COLUMNS
            rows = _parts(model, reading, config)
        case _:
            raise InputError(
                f"{config.model} is a {type(model).__name__} and knows no labels; teach it some: "
                f"foundry3d teach EXAMPLES --model {config.model}"
            )
    reading.require(len(rows))
    if config.out is not None:
        write_table(config.out, rows)
    columns = {key: text for key, text in columns.items() if key in rows[0]}
    print(table(rows, columns))
    reading.require_all(f"the other {len(rows)} are labelled")
    return rows
