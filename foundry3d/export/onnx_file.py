"""A network as an ONNX file, in float32, with weights in half precision, or in int8."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from foundry3d.export.network import Network, exported_program
from foundry3d.export.operators import OPSET, translations
from foundry3d.export.runners import Arrays
from foundry3d.writing import replacing

METADATA = "foundry3d"
"""Name of the entry in a file's metadata: JSON text."""


def write(network: Network, path: Path, precision: str, samples: Iterable[Arrays]) -> None:
    """Writes a network in fp32, fp16 (weights only) or int8 (calibrated on samples)."""
    write_float(network, path)
    if precision == "fp16":
        halve(path)
    if precision == "int8":
        quantise(path, network.inputs, samples)


def write_float(network: Network, path: Path) -> None:
    """Writes a network in float32."""
    program = torch.onnx.export(
        exported_program(network),
        dynamo=True,
        opset_version=OPSET,
        input_names=list(network.inputs),
        output_names=list(network.outputs),
        custom_translation_table=translations(),
        optimize=False,  # the optimiser takes small constants for zeros; runtimes have their own
        verbose=False,
    )
    assert program is not None
    with replacing(path) as partial:
        program.save(partial)


def halve(path: Path) -> None:
    """Stores the weights of a file in half precision; it still computes in float32."""
    model = onnx.load(path)
    graph, casts = model.graph, []
    for tensor in graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or np.prod(tensor.dims) < 64:
            continue
        name, values = tensor.name, onnx.numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, f"{name}/half"))
        casts.append(onnx.helper.make_node("Cast", [f"{name}/half"], [name], to=1))
    for node in reversed(casts):
        graph.node.insert(0, node)
    with replacing(path) as partial:
        onnx.save(model, partial)


class Calibration(CalibrationDataReader):
    """Inputs of a network, one by one.

    Args:
        names: of the inputs.
        samples: arrays in their order.
    """

    def __init__(self, names: tuple[str, ...], samples: Iterable[Arrays]) -> None:
        self.left: Iterator[dict[str, np.ndarray]] = (
            dict(zip(names, arrays, strict=True)) for arrays in samples
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next inputs, None at the end."""
        return next(self.left, None)


def quantise(path: Path, names: tuple[str, ...], samples: Iterable[Arrays]) -> None:
    """Brings the linear layers of a float32 file to int8, calibrated on samples.

    Geometry, attention products, norms and activations stay in float32.
    """
    with replacing(path) as partial:
        quantize_static(
            str(path),
            str(partial),
            Calibration(names, samples),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["MatMul", "Gemm"],
            nodes_to_exclude=kept(onnx.load(path)),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )


def kept(model: onnx.ModelProto) -> list[str]:
    """Names of the products that stay in float32.

    Those of two computed tensors (attention, assignment maps), which have no weights, and those
    that read coordinates, so that no coordinate is rounded.
    """
    rows = {tensor.name: tensor.dims[0] for tensor in model.graph.initializer if tensor.dims}
    products = [node for node in model.graph.node if node.op_type in ("MatMul", "Gemm")]
    return [n.name for n in products if not any(rows.get(name, 3) != 3 for name in n.input[:2])]


def describe(path: Path, metadata: dict[str, Any]) -> None:
    """Writes metadata into a file."""
    model = onnx.load(path)
    del model.metadata_props[:]
    model.metadata_props.add(key=METADATA, value=json.dumps(metadata))
    with replacing(path) as partial:
        onnx.save(model, partial)
