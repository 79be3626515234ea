"""A network as an ONNX file, in float32, with weights in half precision, or in int8."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from foundry3d.errors import InputError
from foundry3d.export.network import Network, exported_program, inner_of
from foundry3d.export.operators import OPSET, translations
from foundry3d.export.runners import Arrays
from foundry3d.models.student import Student
from foundry3d.writing import replacing

METADATA = "foundry3d"
"""Name of the entry in a file's metadata: JSON text."""


def write(network: Network, path: Path, precision: str, samples: Iterable[Arrays]) -> None:
    """Writes a network in fp32, fp16 (weights only) or int8 (calibrated on samples)."""
    write_float(network, path)
    if precision == "fp16":
        halve(path)
    if precision == "int8":
        quantise(path, network, samples)


def write_float(network: Network, path: Path) -> None:
    """Writes a network in float32.

    Raises:
        InputError: torch writes one of its operators to no ONNX file.
    """
    try:
        program = torch.onnx.export(
            exported_program(network),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(network.inputs),
            output_names=list(network.outputs),
            custom_translation_table=translations(),
            optimize=False,  # it takes small constants for zeros; runtimes have their own
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as error:
        cause = str(error.__cause__ or error).strip().splitlines()[0]
        raise InputError(f"torch cannot write this model to an ONNX file: {cause}") from error
    assert program is not None
    with replacing(path) as partial:
        program.save(partial)
    simplify(path)


def simplify(path: Path) -> None:
    """Computes what does not depend on the input, by onnxruntime; operators stay standard ones."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    with replacing(path) as partial:
        options.optimized_model_filepath = str(partial)
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


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


def quantise(path: Path, network: Network, samples: Iterable[Arrays]) -> None:
    """Brings the linear layers of a float32 file to int8, calibrated on samples.

    Geometry, attention products, norms and activations stay in float32. Weights have 7 bits:
    processors without VNNI add two products in 16 bits, which 8 bits overflow.
    """
    with replacing(path) as partial:
        quantize_static(
            str(path),
            str(partial),
            Calibration(network.inputs, samples),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["MatMul", "Gemm"],
            nodes_to_exclude=kept(onnx.load(path), network),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )


def kept(model: onnx.ModelProto, network: Network) -> list[str]:
    """Names of the products that stay in float32.

    Those of two computed tensors (attention, assignment maps), which have no weights; those that
    read coordinates; and those that decide which tokens are merged, and into which supertoken.
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    coordinates, deciding = {3, network.shape.dim + 3}, deciding_weights(network)
    found = []
    for node in model.graph.node:
        if node.op_type not in ("MatMul", "Gemm"):
            continue
        tensor = weights.get(node.input[1])
        if tensor is None or len(tensor.dims) != 2:
            found.append(node.name)
            continue
        turned = any(a.name == "transB" and a.i for a in node.attribute)
        weight = onnx.numpy_helper.to_array(tensor)
        weight = weight.T if turned else weight
        if weight.shape[0] in coordinates or any(same(weight, other) for other in deciding):
            found.append(node.name)
    return found


def deciding_weights(network: Network) -> list[np.ndarray]:
    """Weights (i, o) of the products that choose: of the gate, and of the supertokens' logits."""
    inner = inner_of(network.model)
    if not isinstance(inner, Student):
        return []
    dso, count = inner.dso, network.budget.supertokens if network.budget else None
    with torch.no_grad():
        made = [dso.key.weight.T, dso.query(dso.supertokens[:count]).T]
        if inner.gate is not None:
            made += [inner.gate.fc1.weight.T, inner.gate.fc2.weight.T]
    return [weight.detach().numpy() for weight in made]


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two weights are equal but for rounding."""
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=1e-4, atol=1e-6))


def describe(path: Path, metadata: dict[str, Any]) -> None:
    """Writes metadata into a file, in place of the exporter's notes on every operation."""
    model = onnx.load(path)
    for item in (*model.graph.node, *model.graph.value_info, *model.graph.input):
        del item.metadata_props[:]
    del model.metadata_props[:]
    model.metadata_props.add(key=METADATA, value=json.dumps(metadata))
    with replacing(path) as partial:
        onnx.save(model, partial)
