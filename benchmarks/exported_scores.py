"""Scores of the shipped models' int8 files beside torch's, for the table of `docs/edge.md`.

    python benchmarks/exported_scores.py TRAIN.npz TEST.npz [MODEL[:BUDGET] ...]

Each model is calibrated on 64 training clouds. Rows are printed as soon as they are measured.
"""

import sys
from pathlib import Path
from shutil import copy
from tempfile import TemporaryDirectory
from typing import Any

import torch

from foundry3d.config import DataConfig, ExportConfig
from foundry3d.data.loading import Splits, load_splits
from foundry3d.evaluation.probe import probe
from foundry3d.export import onnx_file
from foundry3d.export.delivery import calibration, deliver, network_of
from foundry3d.export.formats import FORMATS
from foundry3d.export.network import Network, example
from foundry3d.export.runners import Run
from foundry3d.models.backbone import Tokens

MODELS = ("mini:32", "mini:16", "mini-teacher")
POINTS = 1024


def scored(network: Network, run: Run, splits: Splits) -> dict[str, float]:
    """The scores of a linear probe on the features that `run` returns."""

    def model(clouds: torch.Tensor) -> Tokens:
        arrays = run(tuple(tensor.numpy() for tensor in example(network, clouds)))
        features = torch.from_numpy(arrays[network.outputs.index("features")])
        used = torch.full((len(clouds),), features.shape[1])
        return Tokens(features=features, centers=features[..., :3], tokens_used=used)

    return probe(model, splits, points=POINTS)._asdict()


def rows(name: str, train: str, splits: Splits, folder: Path) -> None:
    """Prints the rows of one model: torch, and int8 in both formats with the worst error."""
    model, _, budget = name.partition(":")
    options: dict[str, Any] = {"model": model, "token_budget": int(budget) if budget else None}
    network, origin = network_of(ExportConfig(**options))
    recorded, write = folder / f"{model}-{budget}.onnx", onnx_file.write_float
    write(network, recorded)
    onnx_file.write_float = lambda network, path: copy(recorded, path)

    def in_torch(arrays: Any) -> Any:
        return tuple(t.numpy() for t in network(*map(torch.from_numpy, arrays)))

    show(name, "torch fp32", scored(network, in_torch, splits), {})
    for to in ("openvino", "onnx"):
        config = ExportConfig(**options, to=to, precision="int8", calibration=train)
        out = folder / f"{model}-{budget}{FORMATS[to].suffix}"
        out = out if to != "onnx" else out.with_stem(f"{out.stem}-int8")
        samples = calibration(network, origin, config)
        cases = deliver(network, origin, config, out, samples)["cases"]
        show(name, f"{to} int8", scored(network, FORMATS[to].run(out, 1), splits), cases[-1])
    onnx_file.write_float = write


def show(name: str, form: str, scores: dict[str, float], case: dict[str, Any]) -> None:
    """Prints one row; error and agreement are those of drawn points, unlike the calibration's."""
    more = [f"{case[key]:.2f}" for key in ("features", "assignment") if key in case]
    values = [f"{scores[key]:.1f}" for key in ("svm", "knn", "svm_c012")]
    print(f"| {' | '.join([name, form, *values, *more])} |", flush=True)


def main() -> None:
    """Measures the models of the command line, or all."""
    train, test, *names = sys.argv[1:]
    splits = load_splits(DataConfig(train=train, test=test, points=POINTS), seed=0)
    with TemporaryDirectory() as folder:
        for name in names or MODELS:
            rows(name, train, splits, Path(folder))


if __name__ == "__main__":
    main()
