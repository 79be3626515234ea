"""From files to prepared clouds.

A file or cloud that cannot be used is reported in one sentence, and the others go on.

Shapes: N points of a cloud.
"""

from __future__ import annotations

import glob
import logging
import os
import re
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from foundry3d.checkpoints.zoo import shipped
from foundry3d.config import BackboneConfig, EmbedConfig
from foundry3d.config.paths import require_apart
from foundry3d.data.files import Points
from foundry3d.data.folder import files_below, find_files, is_supported
from foundry3d.data.progress import with_progress
from foundry3d.embed.clouds import Policy, PreparedCloud, prepare, read_policy, stored_facts
from foundry3d.embed.units import SHARD, clouds_in, shards_in
from foundry3d.errors import InputError, PartialFailure
from foundry3d.models.budget import Budget
from foundry3d.models.student import Student

log = logging.getLogger("foundry3d")

REPEATED = "fewer different points than tokens, so tokens repeat"


def policy_of(config: EmbedConfig) -> Policy:
    """How the command prepares clouds; logs what the model does not record about it."""
    policy, notice = read_policy(config.model, up=config.up, normalise=config.normalise)
    if notice is not None:
        log.warning("%s", notice)
    return replace(policy, points=config.points, seed=config.seed)


class Reading:
    """Reads files one by one and records which failed and what is worth a notice.

    Args:
        config: of the command.
        policy: how clouds are prepared.
        least: the fewest points of a cloud that the model reads.
        shape: sizes of the model; None = of one that reads coordinates alone.

    Attributes:
        failed: names of what could not be used, in order.
        reasons: why not, one sentence each.
        notices: by kind, the first notice and the files it is about.
    """

    def __init__(
        self,
        config: EmbedConfig,
        policy: Policy,
        least: int,
        shape: BackboneConfig | None = None,
    ) -> None:
        self.config, self.policy, self.least, self.shape = config, policy, least, shape
        self.attributes = shape.attributes if shape else ()
        trained = stored_facts(config.model).get("points")
        self.trained = trained if isinstance(trained, int) and trained > 0 else None
        self.failed: list[str] = []
        self.reasons: list[str] = []
        self.notices: dict[str, tuple[str, list[str]]] = {}

    def fail(self, name: str, error: InputError) -> None:
        """Logs at once, in one line, why something cannot be used."""
        self.failed.append(name)
        self.reasons.append(" ".join(str(error).split()))
        log.error("%s", self.reasons[-1])

    def files(self) -> list[Path]:
        """The files that the command names: single ones, those in folders, and matches of globs.

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
        earlier = {path for path in found if self._is_earlier(path) or self._is_part(path)}
        found = [path for path in found if path not in earlier]
        model = shipped(self.config.model) or Path(self.config.model)
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

    def _is_part(self, path: Path) -> bool:
        """Whether a file lies in the folder of parts that is written."""
        out = os.path.realpath(self.config.out)
        return self.config.in_parts and os.path.realpath(path).startswith(out + os.sep)

    def clouds(self, files: Sequence[Path]) -> Iterator[PreparedCloud]:
        """All clouds of the files that can be used, prepared."""
        return (prepared for _, _, prepared in self.each(files))

    def each(self, files: Sequence[Path]) -> Iterator[tuple[Path, Points, PreparedCloud]]:
        """The same, after their file and the cloud as it was read."""
        for path in with_progress(files, "embedded"):
            found = clouds_in(path, self.config, self.attributes)
            for cloud, prepared in self._checked(str(path), found):
                yield path, cloud, prepared

    def usable(
        self, path: str, clouds: Iterable[tuple[str, Points | InputError]]
    ) -> Iterator[PreparedCloud]:
        """The clouds of a file that can be used, prepared; the others are recorded."""
        return (prepared for _, prepared in self._checked(path, clouds))

    def _checked(
        self, path: str, clouds: Iterable[tuple[str, Points | InputError]]
    ) -> Iterator[tuple[Points, PreparedCloud]]:
        for name, cloud in clouds:
            try:
                if isinstance(cloud, InputError):
                    raise cloud
                prepared = prepare(cloud, self.policy, self.least, self.shape)
            except InputError as error:
                self.fail(name, error)
                continue
            lost = [name for name in self.attributes if name not in cloud.attributes]
            more = (f"no {', '.join(lost)}, read without",) if lost else ()
            for notice in (*cloud.notices, *more, *self._unlike(len(prepared.points))):
                self.note(path, notice)
            yield cloud, prepared

    def _unlike(self, size: int) -> tuple[str, ...]:
        """A notice where a cloud has far more or fewer points than the training clouds."""
        scenes = self.config.points_per_token is not None
        if scenes or self.trained is None or self.trained / 2 <= size <= 2 * self.trained:
            return ()
        scene = "" if size < 8 * self.trained else ", --points_per_token 16 reads a whole scene"
        return (
            f"{size} points, but the model was trained on clouds of {self.trained}; --points "
            f"{self.trained} takes that many of larger clouds{scene}",
        )

    def note(self, path: str, notice: str) -> None:
        """Keeps a notice; notices that differ only in numbers are of one kind."""
        _, files = self.notices.setdefault(kind_of(notice), (notice, []))
        if path not in files[-1:]:
            files.append(path)

    def require(self, used: int) -> None:
        """Logs each kind of notice once, with the number of files it is about.

        Raises:
            InputError: no cloud could be used.
        """
        for notice, files in self.notices.values():
            log_notice(notice, files[0], len(files))
        if not used:
            raise InputError(f"none of {len(self.failed)} could be used; nothing is written")

    def finish(self, out: Path, used: int) -> Path:
        """Path of the archive, which holds what could be used.

        Raises:
            PartialFailure: some files or clouds could not be used.
        """
        log.info("%s: %d clouds", out, used)
        self.require_all(f"the other {used} are in {out}")
        return out

    def require_all(self, kept: str) -> None:
        """Ends a command that has kept the results for what could be used.

        Args:
            kept: where they are, the end of the message.

        Raises:
            PartialFailure: some files or clouds could not be used.
        """
        if self.failed:
            raise PartialFailure(
                f"{len(self.failed)} could not be used: {listed(self.failed)}; {kept}"
            )


def kind_of(notice: str) -> str:
    """A notice without its numbers."""
    return re.sub(r"-?\d[\d.]*(e[-+]?\d+)?", "#", notice)


def log_notice(notice: str, first: str, files: int) -> None:
    """Logs a notice once, with the first file and the number of files that it is about."""
    more = f" (and {files - 1} more files like it)" if files > 1 else ""
    log.info("%s: %s%s", first, notice, more)


def _behind(word: str) -> list[Path]:
    """The files that one argument of the command stands for."""
    path = Path(word)
    if path.is_dir():
        return shards_in(path) or find_files(path)
    if path.exists() or not glob.has_magic(word):
        return [path]
    found: dict[Path, None] = {}
    for name in sorted(glob.glob(word, recursive=True)):
        match = Path(name)
        if match.is_dir():
            found |= dict.fromkeys(shards_in(match) or files_below(match))
        elif is_supported(match) or match.suffix == SHARD:
            found[match] = None
    if not found:
        raise InputError(f"{word}: no file of a known kind matches; check the pattern")
    return list(found)


def asked_budget(config: EmbedConfig, model: object) -> Budget | None:
    """The budget that the command sets, None if it sets none.

    Raises:
        InputError: a budget is set and the model has no supertokens.
    """
    budget = Budget(
        token_budget=config.token_budget, ratio=config.ratio, supertokens=config.supertokens
    )
    if budget.asked() and not isinstance(model, Student):
        raise InputError(
            f"{', '.join(budget.asked())}: budgets are for students with supertokens, "
            f"{config.model} has none"
        )
    return budget if budget.asked() else None


def listed(names: Sequence[str], most: int = 20) -> str:
    """The first names of many, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
