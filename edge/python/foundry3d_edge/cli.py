"""The command line: `foundry3d-edge run` and `foundry3d-edge bench`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from foundry3d_edge.errors import InputError
from foundry3d_edge.files import read_cloud
from foundry3d_edge.model import Model
from foundry3d_edge.result import Result

PERCENTILE = 95


def main(words: Sequence[str] | None = None) -> int:
    """Runs a command; 0 = done, 1 = some clouds could not be used, 2 = nothing could be done."""
    options = _parser().parse_args(words)
    try:
        return int(options.command(options))
    except InputError as error:
        print(f"foundry3d-edge: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="foundry3d-edge", description="Runs models that foundry3d export wrote to ONNX."
    )
    commands = parser.add_subparsers(required=True, metavar="run|bench")
    one = commands.add_parser("run", help="features, labels and times of clouds in files")
    one.add_argument("model", help="an .onnx file")
    one.add_argument("clouds", nargs="+", help="npy, ply, xyz or txt files")
    one.add_argument("--json", action="store_true", help="one line of JSON per cloud")
    one.add_argument("--out", help="also write the arrays of all clouds to this .npz file")
    one.add_argument("--up", choices="xyz", help="axis that points up in the clouds")
    one.add_argument("--seed", type=int, default=0, help="of the subset of too large clouds")
    one.add_argument("--category", help="of the clouds, for segmenters of several categories")
    one.add_argument("--threads", type=_positive, help="default: one per core")
    one.set_defaults(command=run)
    two = commands.add_parser("bench", help="median and p95 time at 1 and 2 threads")
    two.add_argument("model", help="an .onnx file")
    two.add_argument("--points", type=_positive, help="points of a cloud; default: the model's")
    two.add_argument("--batch", type=_positive, default=1, help="clouds per call")
    two.add_argument("--repeats", type=_positive, default=50)
    two.add_argument("--threads", type=_positive, nargs="+", default=[1, 2])
    two.add_argument("--json", action="store_true", help="one line of JSON per row")
    two.set_defaults(command=bench)
    return parser


def _positive(word: str) -> int:
    if not (word.isascii() and word.isdigit() and int(word)):
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got {word}")
    return int(word)


def run(options: argparse.Namespace) -> int:
    """Prints a row for each cloud; a cloud that cannot be used is named and the others go on."""
    if options.out and not options.out.endswith(".npz"):
        raise InputError(f"out must end in .npz, got {options.out}")
    model, failed = Model(options.model, threads=options.threads), 0
    used: list[tuple[str, Result]] = []
    for path in options.clouds:
        try:
            points = read_cloud(path)
            call = partial(
                model,
                points,
                up=options.up,
                seed=options.seed,
                categories=_category(options.category),
            )
            if not used:
                call()  # the first call of a runtime is slow
            began = time.perf_counter()
            found = call()
        except InputError as error:
            failed += 1
            text = " ".join(str(error).split()).removeprefix("the cloud: ")
            text = text if text.startswith(path) else f"{path}: {text}"
            print(f"foundry3d-edge: {text}", file=sys.stderr)
            continue
        took = 1000 * (time.perf_counter() - began)
        if not (used or options.json):
            print(f"{'cloud':32}{'points':>9}{'ms':>9}  {_heading(model)}")
        used.append((path, found))
        facts = {"cloud": path, "points": len(points), "milliseconds": round(took, 3)}
        if options.json:
            print(json.dumps(facts | _facts(found)), flush=True)
        else:
            print(f"{path[-31:]:32}{len(points):9}{took:9.2f}  {_summary(found)}", flush=True)
    if options.out and used:
        _write(Path(options.out), used)
    return 0 if not failed else 1 if used else 2


def _category(word: str | None) -> str | int | None:
    return int(word) if word is not None and word.isascii() and word.isdigit() else word


def _heading(model: Model) -> str:
    if "logits" not in model.metadata.outputs:
        return "features"
    return "label  confidence" if model.metadata.kind != "segmenter" else "parts"


def _summary(found: Result) -> str:
    if found.label is None:
        return " x ".join(str(length) for length in np.asarray(found.features).shape)
    if np.ndim(found.label) == 0:
        return f"{found.label}  {float(np.asarray(found.confidence)):.3f}"
    names, counts = np.unique(np.asarray(found.label), return_counts=True)
    return ", ".join(f"{name} {count}" for name, count in zip(names, counts, strict=True))


def _facts(found: Result) -> dict[str, Any]:
    """What a line of JSON says: label and confidence, or the pooled features."""
    if found.label is None:
        return {"pooled": np.asarray(found.pooled).tolist()}
    label, confidence = np.asarray(found.label), np.asarray(found.confidence)
    return {"label": label.tolist(), "confidence": np.round(confidence, 6).tolist()}


def _write(out: Path, used: list[tuple[str, Result]]) -> None:
    """One array per output, stacked over clouds, and their `names`; whole or not at all.

    Outputs that differ in size between clouds are written as `NAME_0`, `NAME_1` and so on.
    """
    arrays: dict[str, Any] = {"names": np.array([path for path, _ in used])}
    for name in vars(used[0][1]):
        own = [getattr(found, name) for _, found in used]
        if any(array is None for array in own) or len({np.shape(array) for array in own}) > 1:
            arrays |= {f"{name}_{i}": array for i, array in enumerate(own) if array is not None}
        else:
            arrays[name] = np.stack(own)
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as stream:
            np.savez_compressed(stream, **arrays)
        os.replace(partial, out)
    except OSError as error:
        raise InputError(f"{out}: {error.strerror}; choose another place") from None
    finally:
        partial.unlink(missing_ok=True)


def bench(options: argparse.Namespace) -> int:
    """Prints load time, median and p95 of calls on random clouds, at each number of threads."""
    rows = list(_measured(options))
    if options.json:
        print(*map(json.dumps, rows), sep="\n")
        return 0
    first = rows[0]
    print(
        f"{options.model}: {first['megabytes']:.1f} MB, {first['precision']}, "
        f"{first['batch']} x {first['points']} points, {first['repeats']} calls"
    )
    print("threads   load ms   median ms   p95 ms")
    for row in rows:
        print(f"{row['threads']:7}{row['load']:10.1f}{row['median']:12.2f}{row['p95']:9.2f}")
    return 0


def _measured(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for threads in options.threads:
        began = time.perf_counter()
        model = Model(options.model, threads=threads)
        load = 1000 * (time.perf_counter() - began)
        least = model.metadata.least
        size = options.points or max(model.metadata.preparation.points or 1024, least)
        if size < least:
            raise InputError(f"points must be at least {least} for this model, got {size}")
        clouds = np.random.default_rng(0).standard_normal((options.batch, size, 3), np.float32)
        taken = _times(partial(model.run_prepared, clouds), options.repeats)
        yield {
            "model": options.model,
            "megabytes": os.path.getsize(options.model) / 1e6,
            "precision": model.metadata.precision,
            "geometry": "outside" if model.metadata.outside else "inside",
            "batch": options.batch,
            "points": size,
            "repeats": options.repeats,
            "threads": threads,
            "load": load,
            "median": float(np.median(taken)),
            "p95": float(np.percentile(taken, PERCENTILE)),
        }


def _times(call: Callable[[], object], repeats: int, warm: int = 3) -> list[float]:
    """Milliseconds of each call, after `warm` calls that do not count."""
    taken = []
    for i in range(warm + repeats):
        began = time.perf_counter()
        call()
        if i >= warm:
            taken.append(1000 * (time.perf_counter() - began))
    return taken
