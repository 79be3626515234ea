"""kill -9 at random moments of every command that writes, then the same command again.

Nothing half-written has a final name, no row of results is lost, and what can be resumed ends with
status 0 and the files of a run that nobody disturbed.
"""

from __future__ import annotations

import json
import signal
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
import yaml
from processes import start
from safetensors import safe_open

from chaos.report import Report
from chaos.victims import VICTIMS, prepare

MOST_SECONDS = 240
KILLS = 3
"""The most kills before a run may end."""


def broken(path: Path) -> str | None:
    """Why a file is not complete; None = it is, or it is of no kind that is checked."""
    try:
        match path.suffix:
            case ".npz" | ".npy":
                with open(path, "rb") as stream:
                    found = np.load(stream)
                    for name in getattr(found, "files", ()):
                        found[name]
            case ".safetensors":
                with safe_open(path, "pt") as file:
                    for name in file.keys():  # noqa: SIM118
                        file.get_tensor(name)
            case ".json":
                json.loads(path.read_text())
            case ".jsonl":
                lines = path.read_text().split("\n")[:-1]  # a last line may be cut off
                for line in lines:
                    json.loads(line)
            case ".yaml":
                text = path.read_text()
                if text and not isinstance(yaml.safe_load(text), dict):
                    return "holds no settings"
            case ".tar":
                with tarfile.open(path) as archive:
                    for member in archive:
                        archive.extractfile(member).read()  # type: ignore[union-attr]
            case ".ckpt":
                with zipfile.ZipFile(path) as archive:
                    return archive.testzip()
            case ".png":
                if not path.read_bytes().endswith(b"IEND\xaeB`\x82"):
                    return "has no end"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:120]}"
    return None


def half_written(out: Path) -> list[str]:
    """Files under their final names that are not complete; logs of metrics are none of them."""
    faults = []
    for path in out.rglob("*"):
        logs = {"metrics", "tensorboard"} & set(path.relative_to(out).parts)
        if path.is_file() and not logs and (why := broken(path)) is not None:
            faults.append(f"{path.relative_to(out)} {why}")
    return faults


def rows(path: Path) -> list[str]:
    """What the complete lines of a results file say, without what every run has anew."""
    text = path.read_text() if path.is_file() else ""
    anew = {"seconds", "run", "code", "timings"}
    found = [json.loads(line) for line in text.split("\n")[:-1]]
    return [json.dumps({k: v for k, v in row.items() if k not in anew}) for row in found]


class Attack:
    """One victim: its undisturbed run, and runs that are killed."""

    def __init__(self, name: str, folder: Path, made: Path, report: Report) -> None:
        self.name, self.victim = name, VICTIMS[name]
        self.folder, self.made, self.report = folder, made, report
        self.whole = folder / "whole"
        began = time.monotonic()
        status, said = self.run(self.whole, None, again=False)
        self.seconds = time.monotonic() - began
        self.works = status == 0
        if not self.works:
            report.faults.append(f"{name}: the undisturbed run ended {status}: {said[-300:]}")

    def run(self, out: Path, seconds: float | None, *, again: bool) -> tuple[int | None, str]:
        """The status of the command, negative after a kill, and what it said."""
        victim = self.victim
        words = f"{victim.words} {victim.again if again else ''}".split()
        words = [word.format(made=self.made, out=out) for word in words]
        out.mkdir(exist_ok=True, parents=True)
        said = out.with_suffix(".said")
        said.write_text("")
        process = start(words, said)
        process.join(MOST_SECONDS if seconds is None else seconds)
        if process.exitcode is None:
            process.kill()
        process.join()
        return process.exitcode, said.read_text()

    def fault(self, sentence: str) -> None:
        self.report.faults.append(f"{self.name}: {sentence}")

    def once(self, number: int, rng: np.random.Generator) -> None:
        """A run that is killed up to `KILLS` times and then left alone."""
        out, victim = self.folder / f"killed-{number}", self.victim
        starts, finished = 0, False
        for _ in range(int(rng.integers(1, KILLS + 1))):
            status, said = self.run(out, rng.uniform(0, self.seconds), again=starts > 0)
            starts += 1
            killed = status == -signal.SIGKILL
            self.report.counts["kills" if killed else "ended before the kill"] += 1
            for fault in half_written(out):
                self.fault(f"after start {starts} of run {number}: {fault}")
            finished = status == 0 or bool(victim.final and (out / victim.final).exists())
            if not killed and not finished:
                self.fault(f"start {starts} of run {number} ended {status}: {said[-300:]}")
            if finished:
                break
        if not finished:
            status, said = self.run(out, None, again=True)
            starts += 1
            if status != 0:
                self.fault(f"run {number}, left alone, ended {status}: {said[-300:]}")
                return
        self.report.counts["runs that went on to their end"] += 1
        self.compare(out, number, starts)

    def compare(self, out: Path, number: int, starts: int) -> None:
        """A run that was killed, beside the undisturbed one."""
        for fault in half_written(out):
            self.fault(f"at the end of run {number}: {fault}")
        for name in (*self.victim.same, *self.victim.close):
            mine, other = out / name, self.whole / name
            if not mine.is_file():
                self.fault(f"run {number} has no {name}")
            elif not (equal(mine, other) if name in self.victim.same else close(mine, other)):
                self.fault(f"run {number} has another {name}")
        if not self.victim.results:
            return
        found, expected = rows(out / self.victim.results), rows(self.whole / self.victim.results)
        if len(found) < len(expected):
            self.fault(f"run {number} has {len(found)} of {len(expected)} rows")
        most = len(expected) * (1 if self.victim.once else starts)
        if len(found) > most:
            self.fault(f"run {number} has {len(found)} rows, {most} at most")


def arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a .npz or .npy file."""
    found = np.load(path)
    return dict(found) if path.suffix == ".npz" else {"": found}


def equal(a: Path, b: Path) -> bool:
    """Whether files hold the same; of archives, whether their arrays do."""
    if a.suffix != ".npz":
        return a.read_bytes() == b.read_bytes()
    x, y = arrays(a), arrays(b)
    return x.keys() == y.keys() and all(np.array_equal(x[k], y[k]) for k in x)


def close(a: Path, b: Path) -> bool:
    """Whether the arrays of two files agree to 1e-2."""
    x, y = arrays(a), arrays(b)
    return x.keys() == y.keys() and all(
        np.allclose(x[k], y[k], atol=1e-2) if x[k].dtype.kind == "f" else np.array_equal(x[k], y[k])
        for k in x
    )


def attack(folder: Path, *, rounds: int, seed: int, names: tuple[str, ...] = ()) -> Report:
    """Kills `rounds` runs of each command, or of those that are named."""
    report, made = Report("kills"), folder / "made"
    made.mkdir(parents=True)
    prepare(made)
    for name in names or tuple(VICTIMS):
        one = Attack(name, folder / name.replace(" ", "-"), made, report)
        rng = np.random.default_rng([seed, *name.encode()])
        for number in range(rounds if one.works else 0):
            one.once(number, rng)
    return report
