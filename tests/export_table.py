"""Exports small models of every kind to every format and prints what passes its verification.

    python tests/export_table.py

The table of `docs/edge.md`. The models are untrained and small, because what is verified does not
depend on their size, and those that ship. ExecuTorch has to be installed for its columns.
"""

import logging
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from shutil import copy
from tempfile import TemporaryDirectory
from typing import Any

import torch

from foundry3d.checkpoints.folder import load, save
from foundry3d.config import BackboneConfig, ExportConfig
from foundry3d.errors import InputError
from foundry3d.export import onnx_file
from foundry3d.export.delivery import calibration, deliver, network_of
from foundry3d.export.formats import FORMATS
from foundry3d.export.network import Network
from foundry3d.heads.classifier import Classifier
from foundry3d.heads.segmenter import Segmenter
from foundry3d.models.backbone import Backbone
from foundry3d.models.student import Student
from foundry3d.report.rows import table

SIZES = BackboneConfig(
    groups=64, group_size=16, point_widths=(16, 32, 64), dim=48, depth=2, heads=3, position_dim=16
)


def models() -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Name, model and budget of every kind."""
    generator = torch.Generator().manual_seed(0)
    teacher = Backbone(SIZES, generator=generator).train()
    teacher(torch.randn(8, 256, 3, generator=generator) / 3, generator=generator)
    teacher.eval()
    student = Student.from_teacher(teacher, supertokens=16, generator=generator)
    yield "teacher", teacher, {}
    yield "student, s=16", student, {}
    yield "student, s=1", Student.from_teacher(teacher, supertokens=1, generator=generator), {}
    gated = Student.from_teacher(teacher, supertokens=16, gate=True, generator=generator)
    with torch.no_grad():
        for weight in gated.gate.parameters():  # probabilities apart, as training makes them
            weight.mul_(30)
    yield "student, gated at 32", gated, {"token_budget": 32}
    names = ("chair", "table", "lamp")
    yield "classifier", Classifier.from_model(student, names, generator=generator), {}
    yield "segmenter", Segmenter.from_model(student, parts=names, generator=generator), {}
    for budget in (32, 16):
        yield f"mini at {budget}", load("mini"), {"token_budget": budget}
    yield "mini-teacher", load("mini-teacher"), {}


def recorded_once(folder: Path) -> None:
    """Records a network for the first file that needs it, and copies it for the others."""
    write, known, alive = onnx_file.write_float, dict[str, Path](), list[Network]()

    def cached(network: Network, path: Path) -> None:
        key = f"{id(network.model)}-{network.geometry}"
        if key not in known:
            known[key] = folder / f"{len(known)}.onnx"
            alive.append(network)  # so that no other one gets its id
            write(network, known[key])
        copy(known[key], path)

    onnx_file.write_float = cached


def main() -> None:
    """Prints a row for every combination; words after the name of the script choose models."""
    logging.getLogger("foundry3d").setLevel(logging.ERROR)
    rows = []
    with TemporaryDirectory() as name:
        folder = Path(name)
        recorded_once(folder)
        for label, model, budget in models():
            if sys.argv[1:] and not any(word in label for word in sys.argv[1:]):
                continue
            saved = save(model, folder / "model", provenance={"normalise": True, "up": "z"})
            config = ExportConfig(model=str(saved), calibration="procedural", clouds=16, **budget)
            inside, origin = network_of(config)
            outside = Network(inside.model, inside.budget, "outside").eval()
            for to in ("onnx", "openvino", "executorch"):
                for precision in ("fp32", "int8"):
                    options = replace(config, to=to, precision=precision)
                    network = outside if to == "executorch" else inside
                    row = {"model": label, "format": to, "precision": precision}
                    row["geometry"] = network.geometry
                    samples = calibration(network, origin, options) if precision == "int8" else ()
                    out = folder / f"file{FORMATS[to].suffix}"
                    try:
                        cases = deliver(network, origin, options, out, samples)["cases"]
                    except InputError as error:
                        rows.append(row | {"result": str(error)})
                        print(rows[-1], flush=True)
                        continue
                    shown = "features" if "features" in network.outputs else "logits"
                    agreed = [case["assignment"] for case in cases if "assignment" in case]
                    row["result"] = "passes" if precision == "fp32" else "runs"
                    row["error"] = max(case[shown] for case in cases)
                    row["same supertoken"] = sum(agreed) / len(agreed) if agreed else None
                    rows.append(row)
                    print(row, flush=True)
    print(table(rows, {name: name for name in rows[-2]} | {"result": "result"}))


if __name__ == "__main__":
    main()
