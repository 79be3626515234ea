"""`Model`: an exported file, loaded into onnxruntime.

Shapes: B clouds, N points of a cloud, c tokens, k points of a group.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from foundry3d_edge.errors import InputError
from foundry3d_edge.files import read_cloud
from foundry3d_edge.geometry import group_points
from foundry3d_edge.metadata import ENTRY, Metadata, parse
from foundry3d_edge.preparation import Prepared, as_they_are, check, prepare
from foundry3d_edge.result import Result, answer, together

MOST_CLOUDS, MOST_POINTS = 16, 2**20
"""Of one call of the runtime, unless a single cloud has more points."""


class Model:
    """A model that `foundry3d export MODEL --to onnx` wrote.

    Args:
        path: the file.
        threads: of the runtime; None = one per core.
        providers: of onnxruntime, in order of preference.

    Attributes:
        metadata: what the file records about itself.

    Raises:
        InputError: no such file, or not an export of foundry3d.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        threads: int | None = None,
        providers: Sequence[str] = ("CPUExecutionProvider",),
    ) -> None:
        self.path = Path(path)
        self.session = _session(self.path, threads or 0, providers)
        stored = self.session.get_modelmeta().custom_metadata_map
        self.metadata: Metadata = parse(stored.get(ENTRY), str(path))

    def __call__(
        self,
        points: Any,
        *,
        prepared: bool = False,
        up: str | None = None,
        seed: int = 0,
        categories: Any = None,
    ) -> Result:
        """Runs the model on one cloud or several.

        Args:
            points: (N, 3), or several clouds: (B, N, 3), or a list of arrays of any sizes. Not
                changed.
            prepared: the points are taken as they are; otherwise they are prepared as in the
                model's training.
            up: the axis that points up in the clouds, x, y or z; None = the model's.
            seed: of the random subset that is read of clouds with too many points.
            categories: for segmenters of several categories, a name or number for all clouds, or
                one for each.

        Raises:
            InputError: clouds that the model cannot read, or a category that it does not know.
        """
        clouds, single = _clouds(points)
        names = ["the cloud"] if single else [f"cloud {i}" for i in range(len(clouds))]
        ready = [
            self._ready(cloud, name, prepared=prepared, up=up, seed=seed)
            for cloud, name in zip(clouds, names, strict=True)
        ]
        return together(self._run(ready, self._numbers(categories, len(ready))), single=single)

    def embed(
        self,
        files: Iterable[str | Path],
        *,
        up: str | None = None,
        seed: int = 0,
        categories: Any = None,
    ) -> Result:
        """Runs the model on the clouds in npy, ply, xyz or txt files, one per file.

        Raises:
            InputError: a file, named, cannot be read or used.
        """
        paths = [files] if isinstance(files, str | Path) else list(files)
        if not paths:
            raise InputError("expected at least one file, got none")
        ready = [
            self._ready(read_cloud(path), str(path), prepared=False, up=up, seed=seed)
            for path in paths
        ]
        return together(self._run(ready, self._numbers(categories, len(ready))), single=False)

    def _ready(
        self, cloud: Any, source: str, *, prepared: bool, up: str | None, seed: int
    ) -> Prepared:
        points = check(cloud, self.metadata.least, source)
        if prepared:
            return as_they_are(points, source)
        return prepare(points, self.metadata.preparation, up=up, seed=seed, source=source)

    def _numbers(self, categories: Any, count: int) -> np.ndarray:
        """(B,) int64 categories by number."""
        known = self.metadata.categories
        if "categories" not in self.metadata.inputs:
            if categories is not None:
                raise InputError("this model takes no categories; leave them out")
            return np.zeros(count, np.int64)
        one = categories is None or np.ndim(categories) == 0
        given = [categories] * count if one else list(categories)
        numbers = [known.index(name) if name in known else name for name in given]
        right = [isinstance(n, int | np.integer) and 0 <= n < len(known) for n in numbers]
        if len(numbers) != count or not all(right):
            raise InputError(
                f"expected a category for each of {count} clouds, of {', '.join(known)}, "
                f"got {categories}"
            )
        return np.array(numbers, np.int64)

    def _run(self, clouds: list[Prepared], categories: np.ndarray) -> list[dict[str, Any]]:
        """The arrays of each cloud by name."""
        found: list[dict[str, Any]] = [{} for _ in clouds]
        for rows in _of_equal_size([len(cloud.points) for cloud in clouds]):
            points = np.stack([clouds[i].points for i in rows])
            arrays = self.run_prepared(points, categories[rows])
            for j, i in enumerate(rows):
                own = {name: array[j] for name, array in arrays.items()}
                if "centers" in own:
                    own["centers"] = clouds[i].original(own["centers"])
                if "logits" in own:
                    own |= answer(own["logits"], self.metadata, categories[i])
                found[i] = own | {"index": clouds[i].index}
        return found

    def run_prepared(
        self, points: np.ndarray, categories: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """The outputs of the file by name, without any checks.

        Args:
            points: (B, N, 3) float32, prepared.
            categories: (B,) int64; None = the first.
        """
        metadata = self.metadata
        given: dict[str, np.ndarray] = {"points": points}
        given["categories"] = np.zeros(len(points), np.int64) if categories is None else categories
        if metadata.outside:
            given["centers"], given["neighborhoods"] = group_points(
                points, metadata.groups, metadata.group_size, metadata.radius
            )
        outputs = self.session.run(None, {name: given[name] for name in metadata.inputs})
        found = dict(zip(metadata.outputs, outputs, strict=True))
        if metadata.outside and "features" in found:
            found["centers"] = given["centers"]
        return found


def _session(path: Path, threads: int, providers: Sequence[str]) -> Any:
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise InputError(
            "running a model needs onnxruntime; run: pip install onnxruntime"
        ) from None
    if not path.is_file():
        raise InputError(f"{path}: no such file; check the path")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=list(providers))
    except Exception as error:  # the runtime raises many types on files that it cannot read
        reason = " ".join(str(error).split())[:120]
        raise InputError(
            f"{path}: expected an ONNX file that foundry3d export wrote, but the runtime cannot "
            f"load it ({reason})"
        ) from None


def _clouds(points: Any) -> tuple[list[Any], bool]:
    """The clouds that were handed in, and whether it was a single one."""
    several = isinstance(points, list | tuple) and bool(points) and _rank(points[0]) != 1
    if several:
        return list(points), False
    rank = _rank(points)
    if rank == 3 and len(points):
        return list(points), False
    if rank != 2:
        raise InputError(
            "expected points of shape (N, 3) or (B, N, 3), or a list of arrays (N, 3), got "
            + (f"shape {np.shape(points)}" if rank >= 0 else type(points).__name__)
        )
    return [points], True


def _rank(value: Any) -> int:
    """The number of axes of an array; -1 for what is none."""
    try:
        return int(np.ndim(value))
    except (ValueError, TypeError, RuntimeError):
        return -1


def _of_equal_size(sizes: list[int]) -> Iterator[list[int]]:
    """Batches of clouds of equal size, by number."""
    for size in dict.fromkeys(sizes):
        rows = [i for i, other in enumerate(sizes) if other == size]
        most = max(1, min(MOST_CLOUDS, MOST_POINTS // size))
        for start in range(0, len(rows), most):
            yield rows[start : start + most]
