"""Folders of examples, `EXAMPLES/class/file`, as rows of pooled features.

Shapes: n examples, m rows of examples and their augmented copies, d width.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from foundry3d.config import TeachConfig
from foundry3d.data.files import EXTENSIONS
from foundry3d.data.folder import files_below
from foundry3d.embed.clouds import AnyModel, PreparedCloud
from foundry3d.embed.pooled import copies_of, pooled
from foundry3d.embed.reading import Reading
from foundry3d.errors import InputError

log = logging.getLogger("foundry3d")

OWN, STILL, TURNED = 0, 1, 2


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Examples that could be used.

    Attributes:
        names: of the files.
        labels: (n,) int64.
        classes: names by label, each with an example.
        features: (m, 2d) float32 pooled features, an example's own row before its copies'.
        example: (m,) int64, the example of each row.
        copy: (m,) int64, what each row is: `OWN`, or a copy, `STILL` or `TURNED`.
    """

    names: tuple[str, ...]
    labels: np.ndarray
    classes: tuple[str, ...]
    features: np.ndarray
    example: np.ndarray
    copy: np.ndarray

    def variants(self) -> dict[bool, np.ndarray]:
        """Masks (m,) of the rows to teach with: with turned copies or not, what there is."""
        kinds = {False: STILL, True: TURNED}
        there = {turn: kind for turn, kind in kinds.items() if (self.copy == kind).any()}
        masks = {turn: np.isin(self.copy, (OWN, kind)) for turn, kind in there.items()}
        return masks or {False: self.copy == OWN}


def find_classes(folders: tuple[str, ...]) -> dict[str, list[Path]]:
    """The files of each class, sorted by its name; classes of several folders are joined by name.

    A class may come without files.

    Raises:
        InputError: not a folder, no class folders in it, a single class, or classes whose names
            differ only in case or white space.
    """
    found: dict[str, list[Path]] = {}
    for name in folders:
        for path in _class_folders(Path(name)):
            found.setdefault(path.name, []).extend(files_below(path))
    alike: dict[str, str] = {}
    for name in sorted(found):
        other = alike.setdefault(" ".join(name.casefold().split()), name)
        if other != name:
            raise InputError(
                f"{other!r} and {name!r} are two classes whose names are equal but for case or "
                "spaces; rename one of them, or put their files into one folder"
            )
    if len(found) == 1:
        raise InputError(
            f"expected examples of at least two classes, got one, {next(iter(found))!r}; add a "
            "folder with examples of something else"
        )
    return dict(sorted(found.items()))


def _class_folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        what = "a file" if folder.exists() else "nothing of that name"
        raise InputError(
            f"{folder}: expected a folder of examples, EXAMPLES/class/file, got {what}"
        )
    found = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    files = files_below(folder)
    if not found or not files:
        got = f"{len(files)} files without folders of classes" if files else "no file to read"
        raise InputError(f"{folder}: expected examples as {folder.name}/class/file, got {got}")
    if loose := [path for path in files if path.parent == folder]:
        log.warning("%s: %d files are in no class folder and not used", folder, len(loose))
    return found


def _each(
    reading: Reading, found: dict[str, list[Path]], config: TeachConfig
) -> Iterator[tuple[int, str, int, PreparedCloud]]:
    """Rows in order: the number of an example, its class, what the row is, and its cloud."""
    number, seen = 0, dict[bytes, tuple[str, str]]()
    kinds = [k for k, other in ((STILL, True), (TURNED, False)) if config.turn is not other]
    for name, files in found.items():
        if not files:
            error = InputError(f"class {name}: no file ends in {', '.join(EXTENSIONS)}")
            reading.fail(f"class {name}", error)
        for _, cloud, own in reading.each(files):
            key = hashlib.sha256(cloud.points.tobytes()).digest()
            first, of = seen.setdefault(key, (own.source, name))
            if first != own.source:
                log.warning("%s holds the same points as %s", own.source, first)
                if of == name:  # twice the same would judge itself
                    continue
            yield number, name, OWN, own
            drawn = torch.Generator().manual_seed(config.seed + number)
            for kind in kinds:
                for copy in copies_of(
                    cloud, reading, config.copies, turn=kind == TURNED, generator=drawn
                ):
                    yield number, name, kind, copy
            number += 1


def read_examples(model: AnyModel, reading: Reading, config: TeachConfig) -> Examples:
    """The features of all examples that can be used, and of their copies.

    Raises:
        InputError: the layout is another one, or fewer than two classes have an example that can
            be used.
    """
    found = find_classes(config.files)
    facts: list[tuple[int, str, int]] = []

    def clouds() -> Iterator[PreparedCloud]:
        for number, name, kind, cloud in _each(reading, found, config):
            facts.append((number, name, kind))
            yield cloud

    names, owners, rows = list[str](), list[str](), list[np.ndarray]()
    numbers, kinds = list[int](), list[int]()
    for i, (cloud, features) in enumerate(pooled(model, clouds(), config.batch_size)):
        number, name, kind = facts[i]
        if number not in numbers[-1:]:
            names.append(cloud.source)
            owners.append(name)
        numbers.append(number)
        kinds.append(kind)
        rows.append(features)
    classes = tuple(name for name in found if name in owners)
    if len(classes) < 2:
        got = f"only {classes[0]!r} has" if classes else "no class has"
        raise InputError(
            f"expected examples of at least two classes, {got} a file that can be used; "
            "nothing is written"
        )
    return Examples(
        names=tuple(names),
        labels=np.array([classes.index(name) for name in owners]),
        classes=classes,
        features=np.stack(rows),
        example=np.unique(numbers, return_inverse=True)[1],
        copy=np.array(kinds),
    )
