"""A network as an OpenVINO file: NAME.xml with NAME.bin, converted from the ONNX file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import openvino
from openvino import opset11 as opset

from foundry3d.errors import InputError
from foundry3d.export import onnx_file
from foundry3d.export.network import Network
from foundry3d.export.runners import OPENVINO_OPTIONS, Arrays

HINT = "INFERENCE_PRECISION_HINT"


def write(network: Network, path: Path, precision: str, samples: Iterable[Arrays]) -> None:
    """Writes a network in fp32, fp16 (weights only) or int8 (calibrated on samples).

    Raises:
        InputError: a budget of all tokens.
    """
    if network.budget is not None and network.budget.token_budget == network.shape.groups:
        raise InputError(
            "OpenVINO cannot load the empty sets of a token_budget of all "
            f"{network.shape.groups} tokens, which merges none; choose a smaller one"
        )
    with TemporaryDirectory(dir=path.parent) as folder:
        source = Path(folder) / "source.onnx"
        onnx_file.write(network, source, "int8" if precision == "int8" else "fp32", samples)
        model = openvino.Core().read_model(source)
        stabilise(model)
        model.set_rt_info(OPENVINO_OPTIONS[HINT], ["runtime_options", HINT])
        openvino.save_model(model, path, compress_to_fp16=precision == "fp16")


def stabilise(model: openvino.Model) -> None:
    """Makes equal values keep their order, and sums of several clouds right.

    OpenVINO promises no order of equal values unless it is asked to. A sum over
    an axis that is then compared with a row of numbers is fused with it, and the row is applied
    along the wrong axis, so that gated students merge other tokens from two clouds on.
    """
    for node in model.get_ordered_ops():
        given = node.get_attributes()
        inputs = [node.input_value(i) for i in range(node.get_input_size())]
        if node.get_type_name() == "TopK":
            ranked = stable_topk(inputs, given, node.input(0).get_partial_shape().rank)
            for output, other in zip(node.outputs(), ranked, strict=True):
                output.replace(other)
        elif node.get_type_name() == "ReduceSum" and not given["keep_dims"]:
            new = opset.squeeze(opset.reduce_sum(*inputs, keep_dims=True), inputs[1])
            new.set_friendly_name(node.get_friendly_name())
            openvino.utils.replace_node(node, new)


def stable_topk(inputs: list[Any], given: dict[str, Any], rank: Any) -> list[Any]:
    """Values and indices of the first ones along the last axis, where equal ones keep their order.

    OpenVINO does so three to five times faster along the second of three axes than along the last.
    """
    values, count = inputs
    axis, kind = given["axis"], given["index_element_type"]
    order = given["mode"], "value"
    if rank.is_dynamic or rank.get_length() != 3 or axis != 2:
        made = opset.topk(values, count, axis, *order, index_element_type=kind, stable=True)
        return list(made.outputs())
    turn = np.array([0, 2, 1])
    turned = opset.transpose(values, turn)
    made = opset.topk(turned, count, 1, *order, index_element_type=kind, stable=True)
    return [opset.transpose(output, turn).output(0) for output in made.outputs()]


def describe(path: Path, metadata: dict[str, Any]) -> None:
    """Writes metadata into a file that nobody reads yet."""
    model = openvino.Core().read_model(path)
    model.set_rt_info(json.dumps(metadata), onnx_file.METADATA)
    described = path.with_name(f"described-{path.name}")
    openvino.save_model(model, described, compress_to_fp16=False)
    del model  # it reads the weights from their file as long as it lives
    described.replace(path)
    described.with_suffix(".bin").replace(path.with_suffix(".bin"))
