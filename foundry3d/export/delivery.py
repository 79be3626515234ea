"""A saved model as a file for another runtime, verified before it appears."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from foundry3d.checkpoints.folder import load
from foundry3d.checkpoints.policy import read_policy
from foundry3d.config import DataConfig, ExportConfig
from foundry3d.data.batches import in_order
from foundry3d.data.loading import load_splits
from foundry3d.errors import InputError
from foundry3d.export.formats import FORMATS, writer
from foundry3d.export.metadata import Origin, metadata, origin_of
from foundry3d.export.network import Network, example
from foundry3d.export.runners import Arrays, Run
from foundry3d.export.verify import verify
from foundry3d.models.budget import Budget
from foundry3d.transforms import normalise

log = logging.getLogger("foundry3d")

POINTS = 1024
"""Points of a calibration cloud where the model does not record its own number."""


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
    network: Network,
    origin: Origin,
    config: ExportConfig,
    out: Path,
    samples: Iterable[Arrays],
    score: Callable[[Run], list[dict[str, Any]]] | None = None,
) -> dict[str, Any]:
    """Writes, verifies and describes a file in a folder beside `out`, and then moves it there.

    Args:
        network: what it computes.
        origin: of the model.
        config: format, precision, data and seed.
        out: where it appears.
        samples: for int8.
        score: measures what the file is worth, once it is verified; None = it is not measured.

    Returns:
        The report of the verification, with the rows of `score`.

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
        if score is not None:
            report["scores"] = score(loaded)
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
