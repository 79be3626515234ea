"""Hostile options and files of settings: each is refused in one sentence, in no time.

Numbers out of all proportion are given to every numeric option of every command; what a newcomer or
an attacker would write goes through the command line in a child process of bounded time and memory.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from dataclasses import is_dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_type_hints

import numpy as np

from chaos.report import Report, live_within, one_sentence
from foundry3d import cli
from foundry3d.config import from_dict
from foundry3d.errors import InputError

SECONDS = 20
MORE_BYTES = 2**32
NEEDED: dict[str, dict[str, Any]] = {
    "embed": {"files": ["a"], "model": "m", "points_per_token": 16},
    "teach": {"files": ["a"]},
    "predict": {"files": ["a"]},
    "similar": {"files": ["a", "b"]},
    "convert": {"model": "m"},
    "teacher-features": {"model": "m", "data": "d"},
    "probe": {"models": ["m"]},
    "zeroshot": {"models": ["m"]},
    "budgets": {"models": ["m"]},
    "figures": {"models": ["m"], "data": "d"},
    "suite": {"teacher": "m", "data": ["a=b"]},
    "export": {"model": "m"},
    "bench export": {"model": "m"},
    "view": {"files": ["m.onnx"]},
    "data pack": {"source": "a"},
    "data check": {"dataset": ["modelnet40", "folder"]},
    "data prepare": {"dataset": ["modelnet40", "folder"]},
}
"""What a command cannot do without."""
ABSURD = (10**20, -(10**20), 10**400, math.nan, math.inf, -math.inf)
BOMB = "\n".join(
    ["a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    + [f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in pairwise("abcdefghi")]
)
FILES: dict[str, bytes] = {
    "empty": b"",
    "only comments": b"# nothing\n\n---\n",
    "cut": b"train: {epochs: 3, batch",
    "cut in a quote": b"out: 'runs/a",
    "binary": bytes(range(256)) * 8,
    "NUL bytes": b"out: a\0b\n",
    "UTF-16": "out: a\n".encode("utf-16"),
    "Latin-1": "out: Müller\n".encode("latin-1"),
    "a list": b"- out: a\n- train: {epochs: 2}\n",
    "a number": b"17\n",
    "a word": b"distill\n",
    "names that are numbers": b"1: 2\n",
    "a name that is a list": b"? [a, b]\n: 1\n",
    "a Python object": b"out: !!python/object/apply:os.system ['touch hacked']\n",
    "a Python name": b"out: !!python/name:os.system\n",
    "an unknown tag": b"out: !mine a\n",
    "an alias bomb": BOMB.encode(),
    "an alias of itself": b"train: &a\n  epochs: *a\n",
    "an alias without anchor": b"out: *a\n",
    "a merge": b"a: &a {epochs: 2}\ntrain:\n  <<: *a\n",
    "nested lists": b"out: " + b"[" * 20000,
    "nested maps": b"train: " + b"{a: " * 5000,
    "2 MB": b"out: a\n" * 300000,
    "two documents": b"out: a\n---\nout: b\n",
    "an unknown option": b"trian: {epochs: 3}\n",
    "an unknown option below": b"train: {epoch: 3}\n",
    "a value where options are": b"train: 3\n",
    "nothing where options are": b"train: {epochs: null}\n",
    "options where a value is": b"out: {a: 1}\n",
    "a word for a number": b"train: {epochs: many}\n",
    "a list for a number": b"train: {epochs: [3]}\n",
    "a huge number": b"train: {epochs: 99999999999999999999}\n",
    "a huge exponent": b"train: {lr: 1.0e+999}\n",
    "not a number": b"train: {lr: .nan}\n",
    "JSON cut": b'{"out": "a", "train": {',
    "tabs": b"train:\n\tepochs: 3\n",
    "terminal escapes": b'"\\e[31mred": 1\n',
}
WORDS: dict[str, list[str]] = {
    "a width": ["pretrain", "--backbone.dim", "1000000000"],
    "a depth": ["pretrain", "--backbone.depth", "100000000"],
    "widths": ["pretrain", "--backbone.point_widths", "1", "2", "99999999999"],
    "weights in all": ["pretrain", "--backbone.dim", "65536", "--backbone.depth", "1000"],
    "points": ["pretrain", "--data.points", "1e14"],
    "clouds": ["pretrain", "--data.train", "procedural", "--data.train_clouds", "2000000000"],
    "a seed": ["pretrain", "--train.seed", str(10**20)],
    "a negative seed": ["pretrain", "--train.seed", "-1"],
    "digits": ["pretrain", "--train.seed", "9" * 5000],
    "devices": ["pretrain", "--train.devices", "-3"],
    "no devices": ["pretrain", "--train.devices", "0"],
    "a hexadecimal": ["pretrain", "--train.epochs", "0x10g"],
    "nothing": ["pretrain", "--train.epochs", ""],
    "no value": ["pretrain", "--train.epochs"],
    "a bomb": ["pretrain", "--data", "{" + BOMB.replace("\n", ", ") + "}"],
    "a nest": ["pretrain", "--data", "[" * 20000],
    "code": ["pretrain", "--data", "!!python/object/apply:os.system [touch hacked]"],
    "a long name": ["pretrain", "--config", "x" * 5000],
    "a folder": ["pretrain", "--config", "."],
    "a device": ["pretrain", "--config", "/dev/zero"],
    "escapes": ["embed", "a\x1b[2Jb.ply", "--model", "no\x1b]0;title\x07such"],
    "bytes": ["embed", "\udcff\udc80.ply", "--model", "\udcfe"],
    "lines": ["embed", "a\nb.ply", "--model", "a\r\nb"],
    "an unknown command": ["\x1b[31mtrain"],
    "an unknown option": ["pretrain", "--\x1b[31mout", "x"],
    "samples": ["embed", "a.ply", "--model", "m", "--samples", "99999999999"],
    "a budget": ["embed", "a.ply", "--model", "m", "--token_budget", str(10**20)],
    "tasks": ["suite", "table5", "--teacher", "m", "--data", "a=b", "--cluster.parallel", "100000"],
    "seeds": ["suite", "table5", "--teacher", "m", "--data", "a=b", "--seeds", str(10**20)],
    "heads": ["convert", "no/such.pth", "--num_heads", str(10**12)],
    "a batch": ["cost", "--batch_size", str(10**20)],
    "supertokens": ["cost", "--supertokens", "1", str(10**20)],
    "shards": ["data", "pack", "--clouds", str(10**20), "--out", "x"],
    "neighbours": ["zeroshot", "--models", "m", "--neighbors", str(10**20)],
}


Names = tuple[str, ...]


def numeric_options(kind: type, path: Names = ()) -> Iterator[tuple[Names, Any]]:
    """Every option that takes a number or numbers, with its type."""
    for name, hint in get_type_hints(kind).items():
        if is_dataclass(hint):
            yield from numeric_options(hint, (*path, name))  # type: ignore[arg-type]
            continue
        kinds = set(get_args(hint)) if isinstance(hint, UnionType) or get_args(hint) else {hint}
        kinds |= {part for one in kinds for part in get_args(one)}
        if kinds & {int, float}:
            yield (*path, name), hint


def nested(base: dict[str, Any], path: Names, value: Any) -> dict[str, Any]:
    """The base with one option set, a dictionary for each group."""
    if len(path) == 1:
        return base | {path[0]: value}
    return base | {path[0]: nested(base.get(path[0], {}), path[1:], value)}


def absurd_numbers(report: Report) -> None:
    """Every numeric option of every command refuses numbers out of all proportion."""
    for command, (kind, _, _) in cli.COMMANDS.items():
        base = NEEDED.get(command, {})
        from_dict(kind, base)
        for path, hint in numeric_options(kind):
            default: Any = from_dict(kind, base)
            for name in path:
                default = getattr(default, name)
            several = "tuple" in str(hint)
            count = len(default) if isinstance(default, tuple) and default else 1
            for value in ABSURD:
                given = [value] * count if several else value
                report.counts["absurd numbers"] += 1
                try:
                    from_dict(kind, nested(base, path, given))
                except InputError:
                    continue
                except Exception as error:
                    what = f"ends with {type(error).__name__}: {str(error)[:100]}"
                else:
                    what = "is taken"
                report.faults.append(f"{command} --{'.'.join(path)} {str(value)[:24]} {what}")


def _in(folder: Path) -> None:
    os.chdir(folder)
    live_within(SECONDS, MORE_BYTES)


def refused(report: Report, name: str, words: list[str], folder: Path) -> None:
    """Runs a command that must end with one sentence and status 2, and leave nothing behind."""
    from processes import start  # starts a server, which children must not do

    said = folder.parent / "said"
    before = sorted(folder.iterdir())
    began = time.monotonic()
    process = start(words, said, first=partial(_in, folder))
    process.join(3 * SECONDS)
    seconds = time.monotonic() - began
    if process.exitcode is None:
        process.kill()
        process.join()
    report.counts["commands"] += 1
    text = said.read_text(errors="replace")
    wrong = one_sentence(text)
    if process.exitcode != 2:
        wrong = f"status {process.exitcode} after {seconds:.0f} s: {text[-200:]!r}"
    elif wrong is None and sorted(folder.iterdir()) != before:
        wrong = "it left something behind"
    if wrong is not None:
        report.faults.append(f"{name}: {wrong}")


def attack(folder: Path, *, every: int = 1, seed: int = 0) -> Report:
    """Absurd numbers, and one in `every` of the commands and files of settings."""
    report = Report("hostile options")
    absurd_numbers(report)
    work = folder / "work"
    work.mkdir()
    cases: list[tuple[str, list[str]]] = [(f"option, {k}", v) for k, v in WORDS.items()]
    for number, (name, content) in enumerate(FILES.items()):
        (work / f"{number}.yaml").write_bytes(content)
        for option in ("--config", "--train")[: 1 if name == "a word" else 2]:
            words = ["pretrain", option, str(work / f"{number}.yaml"), "--train.epochs", "0"]
            cases.append((f"{option} {name}", words))
    order = np.random.default_rng(seed).permutation(len(cases))
    for i in sorted(order[::every]):
        refused(report, *cases[i], work)
    return report
