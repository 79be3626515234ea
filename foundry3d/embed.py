"""Features of point clouds from anywhere: files or arrays in, one feature a token out.

A cloud that cannot be used costs itself alone. Clouds may differ in size; those of equal size that
follow one another go through the model together, each normalised on its own, so what a cloud gives
does not depend on its neighbours.

Shapes: n clouds, N points of a cloud, c tokens, d width.
"""

from __future__ import annotations

import glob
import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from foundry3d.backbone import Backbone, Budgeted, Student, Tokens
from foundry3d.checkpoint import load_backbone, read_config
from foundry3d.config import EmbedConfig
from foundry3d.data.files import Points, read_clouds
from foundry3d.data.folder import files_below, find_files, is_supported
from foundry3d.data.progress import with_progress
from foundry3d.errors import InputError, PartialFailure
from foundry3d.heads import Inner
from foundry3d.results import code_version
from foundry3d.transforms import normalise as into_sphere
from foundry3d.writing import replacing

log = logging.getLogger("foundry3d")

AnyModel = Inner | Budgeted
MOST_POINTS = 2**20
"""Clouds go through the model together while they have no more points than this in all."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What happens to clouds before a model reads them.

    Attributes:
        normalise: the mean is moved to the origin, the cloud scaled into the unit sphere.
        turn: x, y, z become the axes this many places further on: a rotation that brings the up
            axis of the clouds to that of the model.
        points: a random subset of this many points; None, or more than there are: all of them.
        seed: of the subset.
    """

    normalise: bool = True
    turn: int = 0
    points: int | None = None
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class _Ready:
    """A cloud as the model reads it, and the way back: own = points * scale + shift, turned back.

    points (N, 3) float32; shift (3,) float64, the file's origin and the mean; source names it.
    """

    points: Tensor
    shift: Tensor
    scale: float
    turn: int
    source: str

    def own(self, centers: Tensor) -> Tensor:
        """Centers (1, c, 3) in the cloud's own coordinates, float64."""
        return (centers.double().cpu() * self.scale + self.shift).roll(-self.turn, dims=-1)


def _checked(points: np.ndarray, source: str, at_least: int) -> np.ndarray:
    """The points (N, 3), any real type, if a model can make something of them.

    Raises:
        InputError: not (N, 3) finite real numbers, fewer than `at_least`, or all the same.
    """
    if points.ndim != 2 or points.shape[1] != 3 or points.dtype.kind not in "fiu":
        raise InputError(
            f"{source}: expected real numbers of shape (N, 3), got {points.dtype} of shape "
            f"{points.shape}"
        )
    if not np.isfinite(points).all():
        raise InputError(f"{source}: expected finite coordinates, got NaN or infinite ones")
    if len(points) < at_least:
        raise InputError(
            f"{source}: expected at least {at_least} points, as many as the model has groups and "
            f"points of a group, got {len(points)}; add points, or raise samples for a mesh"
        )
    if (points == points[0]).all():
        raise InputError(f"{source}: expected points that differ, got {len(points)} times the same")
    return points


def _prepare(cloud: Points, policy: Policy, at_least: int) -> _Ready:
    """A cloud as the policy wants it.

    Raises:
        InputError: points that `_checked` refuses.
    """
    source = cloud.source
    points = _checked(np.asarray(cloud.points), source, at_least)
    if policy.points is not None and len(points) > policy.points:
        chosen = np.random.default_rng(policy.seed).permutation(len(points))[: policy.points]
        points = points[chosen]
    exact = torch.from_numpy(points.astype(np.float64)).roll(policy.turn, dims=1)
    shift = torch.tensor(cloud.origin, dtype=torch.float64).roll(policy.turn)
    scale = 1.0
    if policy.normalise:
        mean = exact.mean(dim=0)
        shift, scale = shift + mean, float((exact - mean).norm(dim=1).max())
        if not 0 < scale < float("inf"):
            raise InputError(f"{source}: expected differences that can be squared, got {scale}")
        exact = into_sphere(exact[None])[0]
    return _Ready(points=exact.float(), shift=shift, scale=scale, turn=policy.turn, source=source)


def _together(ready: Iterable[_Ready], batch: int) -> Iterator[list[_Ready]]:
    """Clouds of equal size that follow one another, at most `batch` and `MOST_POINTS`."""
    group: list[_Ready] = []
    for one in ready:
        size = len(one.points)
        full = len(group) == batch or (len(group) + 1) * size > MOST_POINTS
        if group and (full or len(group[0].points) != size):
            yield group
            group = []
        group.append(one)
    if group:
        yield group


def _tokens(
    model: AnyModel, ready: Iterable[_Ready], batch: int
) -> Iterator[tuple[_Ready, Tokens]]:
    """Each cloud with its tokens (a batch of one, on the CPU), in order."""
    device = next(model.parameters()).device
    for group in _together(ready, batch):
        with torch.no_grad():
            found = model(torch.stack([one.points for one in group]).to(device))
        for i, one in enumerate(group):
            this = slice(i, i + 1)
            yield (
                one,
                Tokens(
                    features=found.features[this].float().cpu(),
                    centers=one.own(found.centers[this]),
                    assignment=None if found.assignment is None else found.assignment[this].cpu(),
                    tokens_used=found.tokens_used[this].cpu(),
                ),
            )


def _fewest(model: AnyModel) -> int:
    return max(model.shape.groups, model.shape.group_size)


def _finite(one: _Ready, tokens: Tokens) -> Tokens:
    if not bool(tokens.features.isfinite().all()):
        raise InputError(
            f"{one.source}: expected finite features, the model gave others; normalise the "
            "cloud, or check the model's weights"
        )
    return tokens


def embed_clouds(
    model: Backbone | Student,
    clouds: Sequence[np.ndarray],
    *,
    policy: Policy | None = None,
    batch: int = 16,
) -> list[Tokens]:
    """Features of point clouds of any sizes.

    Args:
        model: in evaluation mode, on any device.
        clouds: n arrays (N_i, 3) of real numbers, at least as many points as the model has groups
            and points of a group; not changed.
        policy: how clouds are prepared; None = normalised. `read_policy` gives a saved model's.
        batch: clouds of equal size that go through the model together.

    Returns:
        For each cloud its `Tokens`, a batch of one on the CPU: features (1, c, d), centers
        (1, c, 3) float64 in the cloud's own coordinates.

    Raises:
        InputError: a model in training mode, or a cloud that cannot be used; it is named by its
            number.
    """
    if model.training:
        raise InputError("expected a model in evaluation mode; call model.eval() first")
    policy, least = policy or Policy(), _fewest(model)
    ready = (
        _prepare(Points(points=cloud, source=f"cloud {i}"), policy, least)
        for i, cloud in enumerate(clouds)
    )
    return [_finite(one, tokens) for one, tokens in _tokens(model, ready, batch)]


def _stored(path: str | Path) -> dict[str, Any]:
    """What a saved model says of its training; nothing for files of other projects."""
    found = {} if Path(path).is_file() else read_config(path).get("provenance")
    return found if isinstance(found, dict) else {}


def read_policy(
    path: str | Path, *, up: str | None = None, normalise: bool | None = None
) -> tuple[Policy, str | None]:
    """How the clouds of a saved model's training were prepared.

    Args:
        path: a model folder, or a checkpoint file of another project, which does not say.
        up: the axis that points up in the clouds to come; None = as in training.
        normalise: overrides what is stored.

    Returns:
        The policy, and a sentence about what the model does not say (None when it says all).

    Raises:
        InputError: not a checkpoint.
    """
    stored, missing = _stored(path), []
    if normalise is None:
        normalise = stored.get("normalise")
    if not isinstance(normalise, bool):
        normalise = True
        missing.append("whether clouds are centred and scaled (they are; see --normalise)")
    own_up, turn = stored.get("up"), 0
    if own_up not in ("x", "y", "z"):
        missing.append("which axis points up (axes are taken as they are)")
    elif up is not None:
        turn = "xyz".index(own_up) - "xyz".index(up)
    notice = f"{path} does not say " + " and ".join(missing) if missing else None
    return Policy(normalise=normalise, turn=turn), notice


class _Reading:
    """Walks over files; keeps what failed and what was left unread on the way.

    Attributes:
        failed: names of what could not be used, in order.
        unread: by kind, a sentence, the file it was first true of, and all such files.
    """

    def __init__(self, config: EmbedConfig, policy: Policy, least: int) -> None:
        self.config, self.policy, self.least = config, policy, least
        trained = _stored(config.model).get("points")
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

    def clouds(self, files: Sequence[Path]) -> Iterator[_Ready]:
        """Every cloud of the files that can be used, prepared."""
        for path in with_progress(files, "embedded"):
            try:
                clouds = read_clouds(path, samples=self.config.samples, seed=self.config.seed)
            except InputError as error:
                self.fail(str(path), error)
                continue
            yield from self._usable(str(path), clouds)

    def _usable(self, path: str, clouds: Iterator[Points]) -> Iterator[_Ready]:
        for i in count():
            name = f"{path}[{i}]"
            try:
                cloud = next(clouds, None)
                if cloud is None:
                    return
                name = cloud.source
                ready = _prepare(cloud, self.policy, self.least)
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

    def add(self, one: _Ready, tokens: Tokens) -> None:
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
    least, out, archive = _fewest(model), Path(config.out), _Archive()
    if config.points is not None and config.points < least:
        raise InputError(f"points must be at least {least} for this model, got {config.points}")
    if notice is not None:
        log.warning("%s", notice)
    reading = _Reading(config, policy, least)
    files = reading.files()
    with _appearing(out) as stream:
        for one, tokens in _tokens(model, reading.clouds(files), config.batch):
            try:
                archive.add(one, _finite(one, tokens))
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
