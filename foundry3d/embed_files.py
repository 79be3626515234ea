"""`foundry3d embed`: the clouds of files through a model into one archive.

A file, or a cloud of it, that cannot be used is named in one sentence and the others go on.

Shapes: n clouds, c tokens, d width.
"""

from __future__ import annotations

import glob
import json
import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from foundry3d.backbone import Tokens
from foundry3d.checkpoint import load_backbone
from foundry3d.config import EmbedConfig
from foundry3d.data.files import Points, read_clouds
from foundry3d.data.folder import files_below, find_files, is_supported
from foundry3d.data.progress import with_progress
from foundry3d.embed import (
    AnyModel,
    Policy,
    Ready,
    fewest,
    finite,
    in_batches,
    prepare,
    read_policy,
    stored_facts,
)
from foundry3d.errors import InputError, PartialFailure
from foundry3d.heads import Inner
from foundry3d.results import code_version
from foundry3d.student import Budgeted, Student
from foundry3d.writing import replacing

log = logging.getLogger("foundry3d")


class _Reading:
    """Walks over files; keeps what failed and what was left unread on the way.

    Attributes:
        failed: names of what could not be used, in order.
        unread: by kind, a sentence, the file it was first true of, and all such files.
    """

    def __init__(self, config: EmbedConfig, policy: Policy, least: int) -> None:
        self.config, self.policy, self.least = config, policy, least
        trained = stored_facts(config.model).get("points")
        self.trained = trained if isinstance(trained, int) and trained > 0 else None
        self.failed: list[str] = []
        self.unread: dict[str, tuple[str, list[str]]] = {}

    def fail(self, name: str, error: InputError) -> None:
        """Says at once, in one line, why something cannot be used."""
        self.failed.append(name)
        log.error("%s", " ".join(str(error).split()))

    def files(self) -> list[Path]:
        """The files behind the words of the command: as named, below folders, matching globs."""
        found: list[Path] = []
        out = os.path.realpath(self.config.out)
        for word in self.config.files:
            try:
                if os.path.realpath(word) == out:
                    raise InputError(f"{word}: is also --out; choose another file to write")
                found += [path for path in _behind(word) if os.path.realpath(path) != out]
            except InputError as error:
                self.fail(word, error)
            except OSError as error:
                self.fail(word, InputError(f"{word}: {error.strerror}; check the path"))
        return found

    def clouds(self, files: Sequence[Path]) -> Iterator[Ready]:
        """Every cloud of the files that can be used, prepared."""
        for path in with_progress(files, "embedded"):
            try:
                clouds = read_clouds(path, samples=self.config.samples, seed=self.config.seed)
            except InputError as error:
                self.fail(str(path), error)
                continue
            yield from self._usable(str(path), clouds)

    def _usable(self, path: str, clouds: Iterator[Points]) -> Iterator[Ready]:
        for i in count():
            name = f"{path}[{i}]"
            try:
                cloud = next(clouds, None)
                if cloud is None:
                    return
                name = cloud.source
                ready = prepare(cloud, self.policy, self.least)
            except InputError as error:
                self.fail(name, error)
                continue
            for notice in (*cloud.notices, *self._unlike(len(ready.points))):
                self.note(path, notice)
            yield ready

    def _unlike(self, size: int) -> tuple[str, ...]:
        """A notice where a cloud has far more or fewer points than those of training had."""
        if self.trained is None or self.trained / 2 <= size <= 2 * self.trained:
            return ()
        return (
            f"{size} points, the model was trained on clouds of {self.trained}; --points "
            f"{self.trained} gives it what it knows, of clouds that have more",
        )

    def note(self, path: str, notice: str) -> None:
        """Keeps a notice; those that differ in numbers alone are of one kind."""
        kind = re.sub(r"-?\d[\d.]*(e[-+]?\d+)?", "#", notice)
        _, files = self.unread.setdefault(kind, (notice, []))
        if path not in files[-1:]:
            files.append(path)

    def tell(self) -> None:
        """Each kind of notice once, with the number of files it is about."""
        for notice, files in self.unread.values():
            more = f" (and so for {len(files) - 1} more files)" if len(files) > 1 else ""
            log.info("%s: %s%s", files[0], notice, more)


def _behind(word: str) -> list[Path]:
    """The files that a word of the command line means."""
    path = Path(word)
    if path.is_dir():
        return find_files(path)
    if path.exists() or not glob.has_magic(word):
        return [path]
    found: dict[Path, None] = {}
    for name in sorted(glob.glob(word, recursive=True)):
        match = Path(name)
        if match.is_dir():
            found |= dict.fromkeys(files_below(match))
        elif is_supported(match):
            found[match] = None
    if not found:
        raise InputError(f"{word}: no file of a known kind matches; check the pattern")
    return list(found)


@contextmanager
def _appearing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that appears under its name when all went well, or not at all."""
    if path.is_dir():
        raise InputError(f"{path} is a folder; --out names the file to write")
    with replacing(path) as partial, open(partial, "wb") as stream:
        yield stream


@dataclass
class _Archive:
    """What goes into the archive, a list entry for each cloud."""

    names: list[str] = field(default_factory=list)
    points_used: list[int] = field(default_factory=list)
    tokens: list[Tokens] = field(default_factory=list)

    def add(self, one: Ready, tokens: Tokens) -> None:
        self.names.append(one.source)
        self.points_used.append(len(one.points))
        self.tokens.append(tokens)

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays of the archive, one row a cloud; see `embed`."""
        found = {
            "names": np.array(self.names),
            "pooled": torch.cat([t.pooled() for t in self.tokens]).numpy(),
            "features": torch.cat([t.features for t in self.tokens]).numpy(),
            "centers": torch.cat([t.centers for t in self.tokens]).numpy(),
            "points_used": np.array(self.points_used),
        }
        assigned = [t.assignment for t in self.tokens if t.assignment is not None]
        return found | {"assignment": torch.cat(assigned).numpy()} if assigned else found


def _protocol(config: EmbedConfig, policy: Policy) -> np.ndarray:
    """How the features came about, as JSON in an array without dimensions."""
    facts = {
        "model": config.model,
        "normalise": policy.normalise,
        "turn": policy.turn,
        "points": policy.points,
        "samples": config.samples,
        "budget": _budget(config),
        "seed": config.seed,
        "code": code_version(),
    }
    return np.array(json.dumps(facts))


def _budget(config: EmbedConfig) -> dict[str, Any]:
    asked = {name: getattr(config, name) for name in ("token_budget", "ratio", "supertokens")}
    return {name: value for name, value in asked.items() if value is not None}


def _within_budget(model: Inner, config: EmbedConfig) -> AnyModel:
    budget = _budget(config)
    if not budget:
        return model
    if not isinstance(model, Student):
        raise InputError(
            f"{', '.join(budget)}: budgets are for students, {config.model} is a teacher"
        )
    return Budgeted(model, **budget)


def embed(config: EmbedConfig) -> Path:
    """Writes the features of every cloud in the files: `foundry3d embed`.

    The archive holds `names` (n,), `pooled` (n, 2d), `features` (n, c, d), `centers` (n, c, 3)
    float64 in the file's own coordinates, `points_used` (n,), for students `assignment` (n, c),
    and `protocol`, JSON text.

    Returns:
        The archive.

    Raises:
        InputError: a model that cannot be loaded, or not one cloud that can be used; nothing is
            written.
        PartialFailure: some clouds cannot be used; the archive holds the others.
    """
    model = _within_budget(load_backbone(config.model), config)
    policy, notice = read_policy(config.model, up=config.up, normalise=config.normalise)
    policy = replace(policy, points=config.points, seed=config.seed)
    least, out, archive = fewest(model), Path(config.out), _Archive()
    if config.points is not None and config.points < least:
        raise InputError(f"points must be at least {least} for this model, got {config.points}")
    if notice is not None:
        log.warning("%s", notice)
    reading = _Reading(config, policy, least)
    files = reading.files()
    with _appearing(out) as stream:
        for one, tokens in in_batches(model, reading.clouds(files), config.batch):
            try:
                archive.add(one, finite(one, tokens))
            except InputError as error:
                reading.fail(one.source, error)
            if len(tokens.centers[0].unique(dim=0)) < model.shape.groups:
                reading.note(one.source, "fewer different points than tokens, so tokens repeat")
        reading.tell()
        if not archive.names:
            raise InputError(f"none of {len(reading.failed)} could be used; nothing is written")
        np.savez(stream, **archive.arrays(), protocol=_protocol(config, policy))  # type: ignore[arg-type]
    log.info("%s: %d clouds", out, len(archive.names))
    if reading.failed:
        raise PartialFailure(
            f"{len(reading.failed)} could not be used: {_listed(reading.failed)}; the other "
            f"{len(archive.names)} are in {out}"
        )
    return out


def _listed(names: Sequence[str], most: int = 20) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
