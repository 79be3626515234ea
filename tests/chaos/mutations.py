"""Damaged files of every format through the door of `foundry3d embed`.

Each is read or refused in one sentence, in bounded time and memory. A format is attacked in a child
process, so that one that crashes is found too.
"""

from __future__ import annotations

import logging
import resource
import signal
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from test_files import FUZZED, LEVELS, las, ply

from chaos.report import Report, live_within
from foundry3d.config import EmbedConfig
from foundry3d.embed.clouds import Policy
from foundry3d.embed.reading import Reading

SECONDS = 10
"""For one file of some kilobytes."""
MORE_BYTES = 2**31
MORE_RESIDENT = 2**29
SEEDS: dict[str, bytes] = {
    **FUZZED,
    "short.laz": las(LEVELS, 2, compress=True),
    "layers.laz": las(LEVELS, 4, compress=True),
    "empty.ply": ply("ascii", np.zeros((0, 3), np.float32)),
}
HOSTILE = (
    b"\xff" * 4,
    b"\x00" * 8,
    b"9" * 12,
    b"-1",
    b"nan",
    b"1e999",
    b"\x7f\xff\xff\xff",
    b"\n" * 99,
)


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """A copy with one to three pieces of damage."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        # half of the damage hits the header
        reach = max(1, len(out) if rng.random() < 0.5 else min(len(out), 300))
        at, size = int(rng.integers(reach)), int(rng.integers(1, 40))
        match int(rng.integers(7)):
            case 0:
                del out[at:]
            case 1:
                for byte in rng.integers(reach, size=int(rng.integers(1, 9))):
                    out[byte : byte + 1] = bytes([int(rng.integers(256))])
            case 2:
                out[at:at] = rng.bytes(size)
            case 3:
                del out[at : at + size]
            case 4:
                out[at:at] = out[at : at + size] * int(rng.integers(1, 20))
            case 5:
                piece = HOSTILE[int(rng.integers(len(HOSTILE)))]
                out[at : at + len(piece)] = piece
            case 6:
                bit = 1 << int(rng.integers(8))
                out[at : at + 1] = bytes([(out + b"\0")[at] ^ bit])
    return bytes(out)


def fault_of(reading: Reading, path: Path) -> str | None:
    """What goes wrong when a file is read as `foundry3d embed` does; None = nothing."""
    known = len(reading.failed)
    try:
        for ready in reading.clouds([path]):
            shape, points = ready.points.shape, ready.points
            if len(shape) != 2 or shape[1] != 3 or not bool(points.isfinite().all()):
                return f"points of shape {tuple(shape)} that are not all finite"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    return None if known <= len(reading.failed) else "refusals were lost"


def _late(*_: object) -> None:
    raise TimeoutError(f"more than {SECONDS} s")


def _attack_formats(
    names: tuple[str, ...], folder: Path, count: int, seed: int, said: Connection
) -> None:
    """Sends (name, number, what became of it, fault), the last two None before a file is read."""
    model = folder / "model"
    model.write_bytes(b"")
    log = logging.getLogger("foundry3d")
    log.handlers, log.propagate = [logging.NullHandler()], False
    config = EmbedConfig(files=("-",), model=str(model), samples=50)
    reading = Reading(config, Policy(), least=12)
    for name in names:  # everything is imported before memory is bounded
        (folder / name).write_bytes(SEEDS[name])
        fault_of(reading, folder / name)
    live_within(60 + count * len(names), MORE_BYTES)
    signal.signal(signal.SIGALRM, _late)
    for name in names:
        path, rng = folder / name, np.random.default_rng([seed, *name.encode()])
        for number in range(count):
            path.write_bytes(damaged(SEEDS[name], rng))
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            known = len(reading.failed)
            said.send((name, number, None, None))
            signal.alarm(SECONDS)
            fault = fault_of(reading, path)
            signal.alarm(0)
            grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
            if fault is None and grown > MORE_RESIDENT:
                fault = f"{grown / 2**20:.0f} MiB of memory"
            outcome = "refused" if len(reading.failed) > known else "read"
            said.send((name, number, outcome, fault))
    said.close()


def _heard(listening: Connection, limit: float) -> Iterator[tuple[str, int, Any, Any]]:
    end = time.monotonic() + limit
    try:
        while listening.poll(max(0.0, end - time.monotonic())):
            yield listening.recv()
    except EOFError:
        return


def attack(folder: Path, *, count: int, seed: int, names: Sequence[str] = ()) -> Report:
    """`count` damaged files of each format, or of those that are named."""
    from processes import FORKS  # starts a server, which the children must not do

    report, left = Report("damaged files"), tuple(names) or tuple(SEEDS)
    while left:
        listening, said = FORKS.Pipe(duplex=False)
        child = FORKS.Process(target=_attack_formats, args=(left, folder, count, seed, said))
        child.start()
        said.close()
        name, number = left[0], -1
        for name, number, outcome, fault in _heard(listening, 120 + count * len(left)):
            if outcome is not None:
                report.counts[outcome] += 1
            if fault is not None:
                report.faults.append(f"{name}, number {number} of seed {seed}: {fault}")
        child.join(10)
        if child.exitcode == 0:
            break
        report.faults.append(f"{name}, number {number}: the process ended {child.exitcode}")
        child.kill()
        left = left[left.index(name) + 1 :]
    return report
