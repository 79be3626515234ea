"""Makes the exported files of `tests/data/web`, which the page in `edge/web` is tested with.

    python tests/data/make_web.py

Small untrained models, exported to ONNX, with their metadata and one cloud; for each, what torch
computes of the cloud as the page prepares it, so that the tests need neither torch nor ONNX.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from foundry3d.config import BackboneConfig, HeadConfig, PartHeadConfig
from foundry3d.data.procedural import generate
from foundry3d.export import onnx_file
from foundry3d.export.network import Network, example
from foundry3d.heads.classifier import Classifier
from foundry3d.heads.segmenter import Segmenter
from foundry3d.models.backbone import Backbone
from foundry3d.models.budget import Budget
from foundry3d.models.student import Student
from foundry3d.transforms import normalise

HERE = Path(__file__).parent / "web"
SHAPE = BackboneConfig(groups=16, group_size=8, point_widths=(8, 16, 32), dim=24, depth=2, heads=2)
CLASSES, PARTS = ("chair", "table", "lamp"), ("leg", "seat", "base", "shade")


def networks() -> dict[str, Network]:
    """Every kind of exported file that the page knows."""
    draws = torch.Generator().manual_seed(0)
    teacher = Backbone(SHAPE, generator=draws)
    student = Student.from_teacher(teacher, supertokens=4, generator=draws)
    gated = Student.from_teacher(teacher, supertokens=4, gate=True, generator=draws)
    classifier = Classifier.from_model(
        teacher, CLASSES, head=HeadConfig(hidden=(16,)), generator=draws
    )
    segmenter = Segmenter.from_model(
        teacher,
        parts=PARTS,
        categories=CLASSES[:2],
        owned=((0, 1), (2, 3)),
        head=PartHeadConfig(upsampling=(16,), hidden=(16, 16), label_dim=4),
        generator=draws,
    )
    return {
        "gated-4": Network(gated, Budget(token_budget=4), "inside"),
        "gated-10": Network(gated, Budget(token_budget=10), "inside"),
        "student-outside": Network(student, None, "outside"),
        "classifier": Network(classifier, None, "inside"),
        "segmenter-outside": Network(segmenter, None, "outside"),
    }


def metadata(name: str, network: Network) -> dict[str, Any]:
    """The description that an exported file carries."""
    headed = {"classifier": {"classes": CLASSES}, "segmenter": {"parts": PARTS}}
    kind = name.split("-")[0].replace("gated", "student")
    budget = {} if network.budget is None else {"token_budget": network.budget.token_budget}
    return {
        **{"format": "foundry3d-export", "version": 1, "foundry3d": "0.1.0"},
        **{"kind": kind, "geometry": network.geometry, "precision": "fp32"},
        **{"inputs": network.inputs, "outputs": network.outputs},
        **{"groups": SHAPE.groups, "group_size": SHAPE.group_size, "radius": None},
        **{"width": SHAPE.dim, "supertokens": 4 if kind == "student" else None, "budget": budget},
        "preparation": {"normalise": True, "up": "z", "points": 1024},
        **{"classes": None, "parts": None, **headed.get(kind, {})},
        "categories": CLASSES[:2] if kind == "segmenter" else None,
        **{"licence": None, "source": {}, "report": {}},
    }


def strip(path: Path) -> None:
    """Removes what the exporter notes about the origin of every operation."""
    model = onnx.load(path)
    for item in (*model.graph.node, *model.graph.value_info, *model.graph.input):
        del item.metadata_props[:]
    del model.graph.value_info[:], model.graph.metadata_props[:]
    onnx.save(model, path)


def main() -> None:
    HERE.mkdir(exist_ok=True)
    points = generate(26, points=200, seed=3).points[0] * 40 + np.float32([5, -3, 2])
    header = "ply\nformat binary_little_endian 1.0\nelement vertex 200\n"
    header += "".join(f"property float {axis}\n" for axis in "xyz") + "end_header\n"
    (HERE / "cloud.ply").write_bytes(header.encode() + points.astype("<f4").tobytes())
    read = normalise(torch.from_numpy(points).double()[None]).float()
    expected = {}
    for name, network in networks().items():
        network.eval()
        path = HERE / f"{name}.onnx"
        onnx_file.write(network, path, "fp32", ())
        strip(path)
        onnx_file.describe(path, metadata(name, network))
        with torch.no_grad():
            outputs = network(*example(network, read))
        expected[name] = {
            key: value[0].flatten().tolist()
            for key, value in zip(network.outputs, outputs, strict=True)
        }
    (HERE / "expected.json").write_text(json.dumps(expected) + "\n")


if __name__ == "__main__":
    main()
