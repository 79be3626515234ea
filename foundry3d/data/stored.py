"""Clouds with features that a model computed elsewhere: one npz or Parquet file for each cloud.

npz: `points` (N, 3), `features` (N, D), one row per point, or (c, D) with `centers` (c, 3), one row
per token. Parquet: one row per point with a list column `features`, and `points` as lists of three
numbers or columns `x`, `y`, `z`; or a single row of lists `points`, `features` and `centers`. A row
of features with NaN, or null in Parquet, means: the model has none there. `features.json` in the
folder may name the `model`.

Shapes: N points, c tokens, D width.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from foundry3d.data.members import read_members
from foundry3d.data.stored_parquet import read_parquet, write_parquet
from foundry3d.errors import InputError
from foundry3d.writing import replacing, write_text

FACTS = "features.json"
ENDINGS = (".npz", ".parquet")
ARRAYS = ("points", "features", "centers")
FAR = 64.0
"""Clouds further from zero than this many times their size are moved before they become float32."""


@dataclass(frozen=True, kw_only=True)
class FeatureCloud:
    """A cloud, and features of its points or of tokens in it.

    Attributes:
        points: (N, 3) float32, finite.
        features: (N, D) or, with centers, (c, D), float16 or float32; 0 where there are none.
        present: (N,) or (c,) bool, the rows that have features.
        centers: (c, 3) float32, finite; None = features of points.
    """

    points: np.ndarray
    features: np.ndarray
    present: np.ndarray
    centers: np.ndarray | None = None


def feature_files(folder: str | Path) -> list[Path]:
    """The files of stored features in a folder, sorted by name; none that is hidden.

    Raises:
        InputError: there is no such folder, or no such file in it.
    """
    folder = Path(folder)
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    found = [p for p in files if p.suffix.lower() in ENDINGS and not p.name.startswith(".")]
    if not found:
        raise InputError(
            f"{folder}: expected a folder of stored features, one .npz or .parquet per cloud, got "
            f"{'none' if folder.is_dir() else 'no such folder'}"
        )
    return found


def stored_facts(folder: str | Path) -> dict[str, Any]:
    """What `features.json` says about a folder of stored features; empty if there is none.

    Raises:
        InputError: a file that is no JSON object.
    """
    path = Path(folder) / FACTS
    if not path.exists():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path}: expected a JSON object ({error}); write it again") from None


def write_facts(folder: str | Path, facts: dict[str, Any]) -> None:
    """Writes `features.json`; `model` names the model in provenance."""
    write_text(Path(folder) / FACTS, json.dumps(facts, indent=1) + "\n")


def read_stored(path: str | Path) -> FeatureCloud:
    """One file of stored features.

    Raises:
        InputError: a missing or damaged file, arrays that do not belong together, coordinates that
            are not finite, or no features at all.
    """
    path = Path(path)
    parquet = path.suffix.lower() == ".parquet"
    found = read_parquet(path, ARRAYS) if parquet else read_members(path, ARRAYS)[0]
    try:
        return _checked(found)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _checked(found: dict[str, np.ndarray]) -> FeatureCloud:
    for name in ("points", "features"):
        if name not in found:
            raise InputError(f"expected an array '{name}', got {', '.join(found) or 'none'}")
    points, features, centers = found["points"], found["features"], found.get("centers")
    rows = ("points", points) if centers is None else ("centers", centers)
    for name, places in (("points", points), rows):
        if places.ndim != 2 or places.shape[1] != 3 or places.dtype.kind not in "fiu":
            raise InputError(
                f"expected {name} of shape (n, 3), got {places.dtype} of shape {places.shape}"
            )
        if not np.isfinite(places).all() or not len(places):
            raise InputError(f"expected finite {name}, at least one, got others")
    if features.ndim != 2 or 0 in features.shape or features.dtype.kind != "f":
        raise InputError(
            f"expected features of shape (n, D), got {features.dtype} of shape {features.shape}"
        )
    if len(features) != len(rows[1]):
        raise InputError(
            f"expected one row of features for each of {len(rows[1])} {rows[0]}, got "
            f"{len(features)}; write points, centers and features of one run"
        )
    return _ready(points, features, centers)


def _ready(points: np.ndarray, features: np.ndarray, centers: np.ndarray | None) -> FeatureCloud:
    with np.errstate(over="ignore"):
        kept = features if features.dtype == np.float16 else features.astype(np.float32)
    present = np.isfinite(kept).all(axis=1)
    if not present.any():
        raise InputError("expected features of some rows, got NaN or infinite numbers in all")
    if not present.all():
        kept = np.where(present[:, None], kept, kept.dtype.type(0))
    shift = _shift(points)
    return FeatureCloud(
        points=(points - shift).astype(np.float32),
        features=kept,
        present=present,
        centers=None if centers is None else (centers - shift).astype(np.float32),
    )


def _shift(points: np.ndarray) -> np.ndarray:
    """(3,) what to subtract so that float32 keeps the details of points (N, 3); 0 for most."""
    low, high = points.min(axis=0).astype(np.float64), points.max(axis=0).astype(np.float64)
    far = np.maximum(np.abs(low), np.abs(high)).max() > FAR * (high - low).max() > 0
    return (low + high) / 2 if far and points.dtype != np.float32 else np.zeros(3, points.dtype)


def write_stored(
    path: str | Path,
    *,
    points: np.ndarray,
    features: np.ndarray,
    centers: np.ndarray | None = None,
) -> None:
    """Writes one file of stored features, complete or not at all, in the format of its ending.

    Args:
        path: ends in .npz or .parquet.
        points: (N, 3).
        features: (N, D), or (c, D) with centers; a row with NaN = none there.
        centers: (c, 3).

    Raises:
        InputError: .parquet without pyarrow.
    """
    arrays = {"points": points, "features": features}
    if centers is not None:
        arrays["centers"] = centers
    with replacing(path) as partial, open(partial, "wb") as stream:
        if Path(path).suffix.lower() == ".parquet":
            write_parquet(stream, arrays)
        else:
            np.savez(stream, **arrays)  # type: ignore[arg-type]
