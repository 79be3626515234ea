"""`foundry3d embed --out FOLDER/`: features of any number of clouds, in Parquet parts.

Each unit (a shard, or a block of files) becomes one part. Parts that are there are kept, so the
same command goes on after it was stopped; the features of one block of clouds are in memory.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from foundry3d.checkpoints.folder import load_backbone
from foundry3d.cluster import Outcome, run_units
from foundry3d.config import EmbedConfig
from foundry3d.data.ahead import ahead
from foundry3d.data.progress import with_progress
from foundry3d.embed.archive import facts_of
from foundry3d.embed.clouds import AnyModel, Policy, PreparedCloud, fewest, finite, in_batches
from foundry3d.embed.form import in_form
from foundry3d.embed.parts import (
    Part,
    Shape,
    arrow,
    parts_in,
    read_part,
    require_whole,
    schema_of,
    write_part,
)
from foundry3d.embed.reading import (
    REPEATED,
    Reading,
    asked_budget,
    kind_of,
    listed,
    log_notice,
    policy_of,
)
from foundry3d.embed.units import Unit, clouds_in, units_of
from foundry3d.errors import InputError, PartialFailure
from foundry3d.inference.kernels import steady
from foundry3d.models.backbone import Tokens
from foundry3d.models.student import Budgeted, Student
from foundry3d.scenes.memory import in_bytes

log = logging.getLogger("foundry3d")

VARYING = ("code", "kernel")
"""Entries of the protocol that may differ between the parts of a folder."""
CLUSTER = ".cluster"
"""Folder of tasks' logs in the folder of parts; its dot hides it from readers of the parts."""


@dataclass(frozen=True, kw_only=True)
class Embedder:
    """The model of a command, and how it prepares clouds.

    Attributes:
        model: in its inference form, with its budget.
        shape: of the rows that it makes.
        policy: how clouds are prepared.
        protocol: how the features are made, as every part records it.
    """

    model: AnyModel
    shape: Shape
    policy: Policy
    protocol: dict[str, Any]


def weights_mark(model: torch.nn.Module) -> str:
    """A hash of a model's weights."""
    found = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        found.update(name.encode() + value.detach().cpu().contiguous().view(-1).numpy().tobytes())
    return found.hexdigest()[:16]


def open_embedder(config: EmbedConfig, kernel: str | None = None) -> Embedder:
    """Loads the model of a command.

    Args:
        config: of the command.
        kernel: of the inference form; None = a steady one. All parts have the same one, so that
            they do not depend on the process that makes them.

    Raises:
        InputError: the model cannot be loaded or cannot keep the budget, or too few points.
    """
    inner = load_backbone(config.model)
    budget, mark = asked_budget(config, inner), weights_mark(inner)
    kernel = kernel or steady()
    fast = in_form(inner, config, kernel)
    model = Budgeted(fast, budget) if budget and isinstance(fast, Student) else fast
    least = fewest(model)
    if config.points is not None and config.points < least:
        raise InputError(f"points must be at least {least} for this model, got {config.points}")
    policy = policy_of(config)
    facts = facts_of(config, policy, budget) | {"weights": mark, "kernel": kernel}
    shape = Shape(inner.output_dim, inner.shape.groups if config.tokens else None)
    return Embedder(model=model, shape=shape, policy=policy, protocol=facts)


def _encoded(
    own: Embedder, reading: Reading, unit: Unit, batch: int
) -> Iterator[tuple[PreparedCloud, Tokens]]:
    """The usable clouds of a unit with their tokens; clouds are read ahead in a thread."""
    found = chain.from_iterable(
        reading.usable(path, clouds_in(Path(path), reading.config, reading.attributes))
        for path in unit.paths
    )
    for cloud, tokens in in_batches(own.model, ahead(found, batch), batch):
        try:
            yield cloud, finite(cloud, tokens)
        except InputError as error:
            reading.fail(cloud.source, error)
            continue
        if len(tokens.centers[0].unique(dim=0)) < own.model.shape.groups:
            reading.note(cloud.source, REPEATED)


def make_part(own: Embedder, config: EmbedConfig, total: int, unit: Unit) -> None:
    """Makes the part of a unit, one of `total`, unless it is there."""
    reading = Reading(config, own.policy, fewest(own.model), own.model.shape)
    about: dict[str, Any] = {"parts": total}

    def clouds() -> Iterator[tuple[PreparedCloud, Tokens]]:
        yield from _encoded(own, reading, unit, config.batch_size)
        about["failed"] = sorted(zip(reading.failed, reading.reasons, strict=True))
        about["notices"] = sorted(
            (notice, files[0], len(files)) for notice, files in reading.notices.values()
        )

    write_part(
        Path(config.out) / unit.name,
        clouds(),
        about,
        schema=schema_of(own.shape, own.protocol),
        shape=own.shape,
        block=config.block,
    )


def open_parts(config: EmbedConfig, kernel: str, total: int) -> Callable[[Unit], None]:
    """What a task opens once: the function that makes the part of a unit."""
    return partial(make_part, open_embedder(config, kernel), config, total)


def _present(config: EmbedConfig, units: list[Unit]) -> dict[str, Part]:
    """The whole parts that are there by name; damaged ones are removed, to be made again.

    Raises:
        InputError: the folder holds parts of other inputs.
    """
    known = {unit.name for unit in units}
    found: dict[str, Part] = {}
    for path in parts_in(Path(config.out)):
        if path.name not in known:
            raise InputError(
                f"{path} was made from other files, from files that have changed since, or with "
                "another --block; choose another --out, or remove it"
            )
        try:
            found[path.name] = require_whole(path)
        except InputError as error:
            log.warning("%s", str(error).partition("; remove")[0] + "; it is made again")
            path.unlink(missing_ok=True)
    return found


def _require_same(parts: dict[str, Part], protocol: dict[str, Any]) -> None:
    """Requires the parts that are there to be made in the same way.

    Raises:
        InputError: the model, or how clouds are prepared, is another one.
    """
    for part in parts.values():
        names = sorted(part.protocol.keys() | protocol.keys())
        changed = [n for n in names if part.protocol.get(n) != protocol.get(n)]
        if other := [name for name in changed if name not in VARYING]:
            raise InputError(
                f"{part.path} was made with other settings of {', '.join(other)}; choose another "
                "--out"
            )


def _say_size(config: EmbedConfig, own: Embedder, units: list[Unit], there: int) -> None:
    row = 8 * own.shape.width + 2 * (own.shape.tokens or 0) * (own.shape.width + 3)
    kept = f", {there} of them are there" if there else ""
    log.info(
        "%s: %d parts%s; in memory at a time, in addition to the model and the file being read: "
        "features of at most %d clouds (%s), and %d clouds read ahead",
        *(config.out, len(units), kept, config.block),
        *(in_bytes(config.block * row), 2 * config.batch_size),
    )


def _run(
    config: EmbedConfig, own: Embedder, units: list[Unit], total: int
) -> Iterator[Outcome[Unit]]:
    """Makes the parts of units in this process or in tasks; yields each as it is done."""
    if config.cluster.engine is None:
        for unit in units:
            make_part(own, config, total, unit)
            yield Outcome(unit, None)
        return
    make = partial(open_parts, config, own.protocol["kernel"], total)
    named = {unit.name: unit for unit in units}
    yield from run_units(make, named, config.cluster, Path(config.out) / CLUSTER)


def embed_parts(config: EmbedConfig) -> Path:
    """Writes the features of every cloud into a folder of Parquet parts.

    Returns:
        Path of the folder.

    Raises:
        InputError: the model cannot be loaded, the folder holds parts of other inputs or settings,
            or none of the clouds can be used.
        PartialFailure: some clouds cannot be used, or some parts could not be made; the others are
            there, and the same command makes what is missing.
    """
    arrow()
    out = Path(config.out)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; name a folder for the parts with --out")
    reading = Reading(config, Policy(), 1)
    units = units_of(reading.files(), config.block)
    there = _present(config, units)
    kernel = next((part.protocol.get("kernel") for part in there.values()), None)
    own = open_embedder(config, kernel)
    _require_same(there, own.protocol)
    out.mkdir(parents=True, exist_ok=True)
    _say_size(config, own, units, len(there))
    missing = [unit for unit in units if unit.name not in there]
    made = _run(config, own, missing, len(units))
    faults: dict[str, str] = {}
    for _, outcome in zip(with_progress(missing, "embedded", "parts"), made, strict=True):
        if outcome.fault:
            faults[outcome.unit.name] = outcome.fault
            log.error("%s failed: %s", outcome.unit.name, outcome.fault)
    return _finish(out, [u for u in units if u.name not in faults], faults, reading.failed)


def _finish(out: Path, units: list[Unit], faults: dict[str, str], failed: list[str]) -> Path:
    """Path of the folder, after what was noted of all its parts is reported."""
    parts = [read_part(out / unit.name) for unit in units]
    notices: dict[str, tuple[str, str, int]] = {}
    for notice, first, files in chain.from_iterable(part.about["notices"] for part in parts):
        earliest = notices.get(kind_of(notice), (notice, first, 0))
        notices[kind_of(notice)] = (*earliest[:2], earliest[2] + files)
    for notice in notices.values():
        log_notice(*notice)
    failed = failed + [name for part in parts for name, _ in part.about["failed"]]
    used = sum(part.rows for part in parts)
    log.info("%s: %d clouds in %d parts", out, used, len(parts))
    if faults:
        first = next(iter(faults))
        raise PartialFailure(
            f"{len(faults)} of {len(faults) + len(parts)} parts failed, {first} first: "
            f"{faults[first]}; the others are in {out}, and the same command makes what is missing"
        )
    if not used:
        for part in parts:
            part.path.unlink(missing_ok=True)
        raise InputError(f"none of {len(failed)} could be used; nothing is written")
    if failed:
        raise PartialFailure(
            f"{len(failed)} could not be used: {listed(failed)}; the other {used} are in {out}"
        )
    return out
