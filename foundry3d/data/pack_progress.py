"""How far an unfinished `foundry3d data pack` has come: `packing.json` in the folder of the shards.

It is written before the first shard and after each one, and removed once the index is complete, so
a run that was stopped at any moment can continue with the next shard.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from foundry3d.config import PackConfig, to_dict
from foundry3d.data.pack_source import Sample, Source
from foundry3d.data.progress import with_progress
from foundry3d.data.shards import INDEX
from foundry3d.errors import InputError
from foundry3d.writing import write_text

PROGRESS = "packing.json"


@dataclass(kw_only=True)
class Packed:
    """What has been packed so far; it changes while packing goes on.

    Attributes:
        settings: what the shards depend on; a run with other settings cannot continue.
        shards: clouds of each finished shard, by file name.
        points: number of points of the smallest and the largest cloud.
        dtypes: types of the coordinates.
        piece: of the source, the one that was read last.
        done: samples and unreadable clouds of that piece that have been handled.
        left_out: clouds that could not be read.
        first_left_out: why the first of them could not be.
    """

    settings: dict[str, Any]
    shards: dict[str, int] = field(default_factory=dict)
    points: tuple[int, int] | None = None
    dtypes: list[str] = field(default_factory=list)
    piece: int = 0
    done: int = 0
    left_out: int = 0
    first_left_out: str = ""

    @property
    def count(self) -> int:
        """Clouds in all finished shards."""
        return sum(self.shards.values())

    def samples(self, source: Source) -> Iterator[Sample]:
        """The samples that were not packed yet; what cannot be read is counted."""
        piece, done = self.piece, self.done
        rest = range(piece, len(source.pieces))
        for self.piece in with_progress(rest, "packed", source.unit):
            self.done = 0
            for found in source.read(source.pieces[self.piece]):
                self.done += 1
                if self.piece == piece and self.done <= done:
                    continue
                if not isinstance(found, str):
                    yield found
                    continue
                self.left_out += 1
                self.first_left_out = self.first_left_out or found

    def add(self, name: str, written: list[tuple[int, str]]) -> None:
        """Notes a finished shard, given the points and type of each of its clouds."""
        self.shards[name] = len(written)
        sizes = [size for size, _ in written] + list(self.points or ())
        self.points = min(sizes), max(sizes)
        self.dtypes = sorted({*self.dtypes, *(kind for _, kind in written)})

    def write(self, folder: Path) -> None:
        """Saves the state; the file appears complete or not at all."""
        write_text(folder / PROGRESS, json.dumps(asdict(self), indent=1) + "\n")


def settings_of(config: PackConfig, source: Source) -> dict[str, Any]:
    """What the content of the shards depends on."""
    values = to_dict(config)
    del values["out"]
    if config.source != "procedural":
        values["source"] = str(Path(config.source).resolve())
    return values | {"pieces": len(source.pieces), "fingerprint": source.fingerprint}


def begin(out: Path, settings: dict[str, Any]) -> Packed:
    """The state to continue from: a new one, or that of an earlier run with the same settings.

    Raises:
        InputError: `out` holds something else, a finished collection, or an unfinished one that
            was packed with other settings or lacks a shard.
    """
    if not out.exists() or (out.is_dir() and all(map(_is_left_over, out.iterdir()))):
        out.mkdir(parents=True, exist_ok=True)
        _sweep(out, keep=())
        return Packed(settings=settings)
    if not (out / PROGRESS).is_file() or (out / INDEX).exists():
        raise InputError(f"{out} is not an empty folder; choose another --out or remove it")
    packed = _read(out)
    changed = [name for name, value in settings.items() if packed.settings.get(name) != value]
    if changed:
        raise InputError(
            f"{out} holds an unfinished collection with other {', '.join(changed)}; repeat the "
            "command that began it, choose another --out, or remove the folder"
        )
    missing = [name for name in packed.shards if not (out / name).is_file()]
    if missing:
        raise InputError(f"{out / missing[0]} is gone; remove {out} and pack the collection again")
    _sweep(out, keep=(PROGRESS, *packed.shards))
    return packed


def _is_ours(path: Path) -> bool:
    return path.is_file() and path.name.lstrip(".").startswith(("shard-", INDEX, PROGRESS))


def _is_left_over(path: Path) -> bool:
    """Whether a file is one that a killed run was writing under a temporary name."""
    return _is_ours(path) and path.suffix != ".tar" and path.name not in (INDEX, PROGRESS)


def _sweep(out: Path, *, keep: Sequence[str]) -> None:
    """Removes what a killed run left unfinished."""
    for path in out.iterdir():
        if _is_ours(path) and path.name not in keep:
            path.unlink()


def _read(out: Path) -> Packed:
    try:
        values = dict(json.loads((out / PROGRESS).read_text(encoding="utf-8")))
        packed = Packed(**values)
        numbers = [*packed.shards.values(), packed.piece, packed.done, packed.left_out]
        numbers += packed.points or ()
        if any(type(number) is not int or number < 0 for number in numbers):
            raise ValueError("a number is expected")
        packed.points = tuple(packed.points) if packed.points else None  # type: ignore[assignment]
        return packed
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{out / PROGRESS} is damaged ({type(error).__name__}); remove {out} and pack again"
        ) from None
