"""Files in, prepared clouds out, for whatever embeds them: what fails is named, the others go on.

Shapes: N points of a cloud.
"""

from __future__ import annotations

import glob
import json
import logging
import os
import re
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import BinaryIO

import numpy as np

from foundry3d.config import EmbedConfig
from foundry3d.data.files import Points, read_clouds
from foundry3d.data.folder import files_below, find_files, is_supported
from foundry3d.data.progress import with_progress
from foundry3d.embed.clouds import Policy, Ready, prepare, stored_facts
from foundry3d.errors import InputError, PartialFailure
from foundry3d.models.budget import Budget
from foundry3d.models.student import Student
from foundry3d.report.rows import code_version
from foundry3d.writing import replacing, require_apart

log = logging.getLogger("foundry3d")


class Reading:
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
        """The files behind the words of the command: as named, below folders, matching globs.

        An earlier archive of this command in a folder is left out where it is replaced.

        Raises:
            InputError: one of the files, or a file of the model, would be replaced by an output.
        """
        found: list[Path] = []
        for word in self.config.files:
            try:
                found += _behind(word)
            except InputError as error:
                self.fail(word, error)
            except OSError as error:
                self.fail(word, InputError(f"{word}: {error.strerror}; check the path"))
        earlier = {path for path in found if self._is_earlier(path)}
        found = [path for path in found if path not in earlier]
        model = Path(self.config.model)
        outputs = {name: getattr(self.config, name) for name in ("out", "dense", "picture")}
        require_apart(outputs, [*found, *(model.iterdir() if model.is_dir() else [model])])
        return found

    def _is_earlier(self, path: Path) -> bool:
        """Whether a file that was not named itself is what an earlier command left at `out`."""
        named = str(path) in self.config.files
        if named or os.path.realpath(path) != os.path.realpath(self.config.out):
            return False
        try:
            with zipfile.ZipFile(path) as archive:
                return {"protocol.npy", "pooled.npy"} <= set(archive.namelist())
        except (OSError, zipfile.BadZipFile):
            return False

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
        if self.config.points_per_token is not None:
            return ()
        scene = "" if size < 8 * self.trained else ", and --points_per_token 16 all of a scene"
        return (
            f"{size} points, the model was trained on clouds of {self.trained}; --points "
            f"{self.trained} gives it what it knows, of clouds that have more{scene}",
        )

    def note(self, path: str, notice: str) -> None:
        """Keeps a notice; those that differ in numbers alone are of one kind."""
        kind = re.sub(r"-?\d[\d.]*(e[-+]?\d+)?", "#", notice)
        _, files = self.unread.setdefault(kind, (notice, []))
        if path not in files[-1:]:
            files.append(path)

    def _tell(self) -> None:
        """Each kind of notice once, with the number of files it is about."""
        for notice, files in self.unread.values():
            more = f" (and so for {len(files) - 1} more files)" if len(files) > 1 else ""
            log.info("%s: %s%s", files[0], notice, more)

    def require(self, used: int) -> None:
        """Tells what was noted.

        Raises:
            InputError: not one cloud could be used.
        """
        self._tell()
        if not used:
            raise InputError(f"none of {len(self.failed)} could be used; nothing is written")

    def finish(self, out: Path, used: int) -> Path:
        """The archive that holds what could be used.

        Raises:
            PartialFailure: something could not.
        """
        log.info("%s: %d clouds", out, used)
        if self.failed:
            raise PartialFailure(
                f"{len(self.failed)} could not be used: {_listed(self.failed)}; the other "
                f"{used} are in {out}"
            )
        return out


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


SCENE = ("points_per_token", "windows", "precision")
"""Options of scenes that the protocol keeps."""


def require_file(path: Path, option: str) -> None:
    """Refuses a folder where a file is to be written."""
    if path.is_dir():
        raise InputError(f"{path} is a folder; --{option} names the file to write")


@contextmanager
def appearing(path: Path, option: str = "out") -> Iterator[BinaryIO]:
    """A file to write that appears under its name when all went well, or not at all."""
    require_file(path, option)
    with replacing(path) as partial, open(partial, "wb") as stream:
        yield stream


def protocol(config: EmbedConfig, policy: Policy, budget: Budget | None) -> np.ndarray:
    """How the features came about, as JSON in an array without dimensions."""
    facts = {
        "model": config.model,
        "normalise": policy.normalise,
        "turn": policy.turn,
        "points": policy.points,
        "samples": config.samples,
        "budget": {} if budget is None else budget.asked(),
        "seed": config.seed,
        "code": code_version(),
    }
    if config.points_per_token is not None:
        facts |= {name: getattr(config, name) for name in SCENE}
    return np.array(json.dumps(facts))


def asked_budget(config: EmbedConfig, model: object) -> Budget | None:
    """The budget that the command sets, None if it sets none.

    Raises:
        InputError: it sets one, and the model is not a student.
    """
    budget = Budget(
        token_budget=config.token_budget, ratio=config.ratio, supertokens=config.supertokens
    )
    if budget.asked() and not isinstance(model, Student):
        raise InputError(
            f"{', '.join(budget.asked())}: budgets are for students, {config.model} is a teacher"
        )
    return budget if budget.asked() else None


def _listed(names: Sequence[str], most: int = 20) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
