"""`foundry3d export`: a saved model as a file for another runtime, verified before it appears."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from foundry3d.checkpoints.folder import load
from foundry3d.config import DataConfig, ExportConfig
from foundry3d.data.loading import in_order, load_splits
from foundry3d.embed.clouds import read_policy
from foundry3d.errors import InputError
from foundry3d.export.formats import FORMATS, writer
from foundry3d.export.metadata import Origin, metadata, origin_of
from foundry3d.export.network import Network, example
from foundry3d.export.runners import Arrays, Run
from foundry3d.export.scores import scores
from foundry3d.export.verify import verify
from foundry3d.models.budget import Budget
from foundry3d.report.rows import table
from foundry3d.transforms import normalise

log = logging.getLogger("foundry3d")

POINTS = 1024
"""Points of a calibration cloud where the model does not record its own number."""


def export(config: ExportConfig) -> Path:
    """Writes a file that computes what the model does: `foundry3d export`.

    The file is verified before it appears; its report and what a runtime has to know are in its
    metadata. Prints the report and the size.

    Returns:
        Path of the file.

    Raises:
        InputError: the model or its budget cannot be exported, a package is missing, or the file
            differs from torch; nothing is written.
    """
    kind = FORMATS[config.to]
    writer(config.to, config.precision)  # what is missing is said before anything is loaded
    out = Path(config.out or Path(config.model).resolve().name + kind.suffix)
    if out.suffix != kind.suffix:
        raise InputError(f"{out}: {config.to} files end in {kind.suffix}")
    network, origin = network_of(config)
    samples = calibration(network, origin, config) if config.precision == "int8" else ()
    report = deliver(network, origin, config, out, samples)
    columns = {name: name for name in report["cases"][0]}
    print(table(report["cases"], columns))
    if "scores" in report:
        print(f"\n{table(report['scores'], {'form': 'form', 'svm': 'SVM', 'knn': '20-NN'})}")
    size = sum(path.stat().st_size for path in files_of(out))
    print(f"\n{out}: {size / 1e6:.1f} MB in {config.precision}, compared with torch as shown")
    return out


def network_of(config: ExportConfig) -> tuple[Network, Origin]:
    """The model of a configuration with its budget, and where it comes from.

    Raises:
        InputError: it cannot be loaded, or cannot be exported.
    """
    model = load(config.model)
    budget = Budget(token_budget=config.token_budget, supertokens=config.supertokens)
    network = Network(model, budget if budget.asked() else None, config.geometry).eval()
    policy, notice = read_policy(config.model)
    if notice is not None:
        log.warning("%s", notice)
    return network, origin_of(config.model, policy)


def calibration(network: Network, origin: Origin, config: ExportConfig) -> Iterator[Arrays]:
    """Inputs for int8, one cloud at a time, spread over the collection.

    Raises:
        InputError: the collection cannot be read.
    """
    points = max(origin.policy.points or POINTS, network.least)
    source = DataConfig(train=config.calibration or "", test=None, validation=0.0, points=points)
    clouds = load_splits(source, seed=config.seed).train
    chosen = np.linspace(0, len(clouds) - 1, min(config.clouds, len(clouds))).astype(int)
    return inputs(network, origin, clouds.take(chosen), points)


def inputs(network: Network, origin: Origin, clouds: Any, points: int) -> Iterator[Arrays]:
    """The inputs of a network for every cloud, prepared as in training."""
    for batch in in_order(clouds, 1, points):
        ready = normalise(batch) if origin.policy.normalise else batch
        with torch.no_grad():
            yield tuple(tensor.numpy() for tensor in example(network, ready))


def deliver(
    network: Network, origin: Origin, config: ExportConfig, out: Path, samples: Iterable[Arrays]
) -> dict[str, Any]:
    """Writes, verifies and describes a file in a folder beside `out`, and then moves it there.

    Args:
        network: what it computes.
        origin: of the model.
        config: format, precision, data and seed.
        out: where it appears.
        samples: for int8.

    Returns:
        The report of the verification, with the scores of a probe if data is given.

    Raises:
        InputError: the file differs from torch, or the data cannot be read.
    """
    write, describe = writer(config.to, config.precision)
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        made = Path(folder) / out.name
        with quiet():
            write(network, made, config.precision, samples)
        loaded = _loaded(made, config.to)
        report = verify(network, loaded, config.precision)
        if config.data:
            report["scores"] = scores(network, origin, loaded, config)
        describe(made, metadata(network, origin, config.precision, report))
        verify(network, _loaded(made, config.to), config.precision, seed=1)
        _move(made, out)
    return report


@contextmanager
def quiet() -> Iterator[None]:
    """Without warnings of the exporters, which say nothing about the model."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def files_of(path: Path) -> list[Path]:
    """A file and those that belong to it; the file itself comes last."""
    named = (path.with_suffix(".bin"), path.with_name(f"{path.name}.json"))
    beside = [other for other in named if other.is_file()]
    return [*(beside if path.suffix != ".onnx" else []), path]


def _loaded(path: Path, to: str) -> Run:
    """A file in its runtime.

    Raises:
        InputError: the runtime cannot load it.
    """
    try:
        return FORMATS[to].run(path, torch.get_num_threads())
    except Exception as error:  # whatever the runtime raises
        reason = next((line for line in str(error).splitlines() if line), type(error).__name__)
        raise InputError(f"{to} cannot load the exported file: {reason}") from error


def _move(made: Path, out: Path) -> None:
    """Moves a file and what belongs to it; the file appears when the others are complete."""
    files = files_of(made)
    if len(files) > 1:
        out.unlink(missing_ok=True)  # it must never be read with the weights of another one
    for path in files:
        path.replace(out.with_name(path.name))
