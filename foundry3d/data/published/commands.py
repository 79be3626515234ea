"""Commands for published data sets: compare a copy with published figures, write archives."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from foundry3d.config import CheckConfig, PrepareConfig
from foundry3d.data.archive import write_archive
from foundry3d.data.published.record import ASK, Published, Split
from foundry3d.data.published.sources import find, read_split
from foundry3d.errors import InputError
from foundry3d.report.rows import table

log = logging.getLogger("foundry3d")

_COLUMNS = {name: name for name in ("split", "what", "expected", "found", "state")}


class Row(NamedTuple):
    """One comparison of a published figure of a split with a copy of it."""

    split: str
    what: str
    expected: str
    found: str
    ok: bool


def compare(data: Published, root: Path) -> tuple[list[Row], list[str]]:
    """Compares the labels of a copy of a data set, not its points, with what was published.

    Returns:
        The comparisons, and one sentence for each split that is missing or cannot be read.
    """
    rows: list[Row] = []
    faults: list[str] = []
    for name, split in data.splits.items():
        try:
            labels = data.labels(root, name)
        except InputError as error:
            if not split.optional:
                rows.append(Row(name, "files", "there", "missing or damaged", False))
                faults.append(str(error).removesuffix(f"; {ASK}"))
            continue
        rows += _figures(name, split, labels, data.class_names)
    return rows, faults


def _figures(name: str, split: Split, labels: np.ndarray, names: tuple[str, ...]) -> Iterator[Row]:
    """Comparisons of the published figures of a split with those of its labels (n,)."""
    expected = "not published" if split.clouds is None else str(split.clouds)
    same = len(labels) == split.clouds if split.clouds is not None else len(labels) > 0
    yield Row(name, "clouds", expected, str(len(labels)), same)
    kinds = len(np.unique(labels[labels >= 0]))
    if split.classes is not None:
        yield Row(name, "classes", str(split.classes), str(kinds), kinds == split.classes)
    if split.per_class is not None:
        counts = [int((labels == label).sum()) for label in range(len(split.per_class))]
        pairs = list(zip(names, split.per_class, counts, strict=False))
        wrong = [f"{kind} {found} not {known}" for kind, known, found in pairs if found != known]
        ok = not wrong and sum(counts) == int((labels >= 0).sum())
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        found = "as published" if ok else (", ".join(wrong[:3]) + more or "another number")
        yield Row(name, "of each class", "as published", found, ok)


def check(config: CheckConfig) -> list[Row]:
    """Prints a table of what a copy of a data set should contain and what it contains.

    Compared are the number of clouds, of classes and, where known for certain, of clouds per class;
    the points themselves are read by `prepare` and by training.

    Raises:
        InputError: after the table is printed: something is missing or differs.
    """
    data = find(config.dataset[0])
    rows, faults = compare(data, Path(config.dataset[1]))
    shown: list[dict[str, Any]] = [
        row._asdict() | {"state": "ok" if row.ok else "DIFFERS"} for row in rows
    ]
    print(f"{data.title}: {data.layout}")
    print(table(shown, _COLUMNS))
    for fault in dict.fromkeys(faults):
        print(fault)
    wrong = sum(not row.ok for row in rows)
    if wrong:
        raise InputError(
            f"{config.dataset[1]}: {wrong} of {len(rows)} figures of {data.title} differ; missing "
            f"files are offered at {data.owner}"
        )
    return rows


def prepare(config: PrepareConfig) -> list[Path]:
    """Writes one archive for each split, which `--data.train` and `--data.test` read.

    Returns:
        The archives.

    Raises:
        InputError: an unknown split, an archive that already exists, files that cannot be used, or
            no split at all.
    """
    name, root, out = config.dataset[0], Path(config.dataset[1]), Path(config.out)
    data = find(name)
    paths = {
        split: out / f"{name}-{split.replace('/', '-')}.npz"
        for split in config.splits or _available(data, root)
    }
    for path in paths.values():
        if path.exists():
            raise InputError(f"{path} already exists; choose another --out or remove it")
    for split, path in paths.items():
        clouds = read_split(data, root, split)
        write_archive(path, clouds)
        log.info("%s: %d clouds of %d points", path, *clouds.points.shape[:2])
    return list(paths.values())


def _available(data: Published, root: Path) -> list[str]:
    """The splits whose files exist; logs which are missing."""
    faults: dict[str, str] = {}
    for split in data.splits:
        try:
            data.labels(root, split)
        except InputError as error:
            faults[split] = str(error)
    found = [split for split in data.splits if split not in faults]
    if not found:
        raise InputError(faults[split])
    if faults:
        log.info("%s: without %s, whose files are missing", data.title, ", ".join([*faults][:6]))
    return found
