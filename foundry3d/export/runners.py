"""Exported files on the CPU, by the runtime of their format: arrays in, arrays out.

Nothing but the runtime itself is imported, so that memory and load time are those of the runtime.

Shapes: B clouds, N points.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Arrays = tuple[np.ndarray, ...]
Run = Callable[[Arrays], Arrays]
"""The inputs of a file in its order, to its outputs in their order."""


def run_onnx(path: Path, threads: int = 1) -> Run:
    """A file in onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]

    def run(arrays: Arrays) -> Arrays:
        return tuple(session.run(None, dict(zip(names, arrays, strict=True))))

    return run


OPENVINO_OPTIONS = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
"""Without the first, machines with bf16 instructions round coordinates, and other points are
chosen."""


def run_openvino(path: Path, threads: int = 1) -> Run:
    """A file in OpenVINO, in float32."""
    import openvino

    options: dict[str, Any] = {**OPENVINO_OPTIONS, "INFERENCE_NUM_THREADS": threads}
    compiled = openvino.Core().compile_model(str(path), "CPU", options)
    request = compiled.create_infer_request()

    def run(arrays: Arrays) -> Arrays:
        found = request.infer(list(arrays), share_inputs=True)
        return tuple(np.array(found[i]) for i in range(len(compiled.outputs)))

    return run


def run_executorch(path: Path, threads: int = 1) -> Run:
    """A file in ExecuTorch."""
    import torch
    from executorch.runtime import Runtime

    torch.set_num_threads(threads)
    method = Runtime.get().load_program(path).load_method("forward")
    assert method is not None

    def run(arrays: Arrays) -> Arrays:
        found = method.execute([torch.from_numpy(np.ascontiguousarray(a)) for a in arrays])
        return tuple(tensor.clone().numpy() for tensor in found)

    return run


def run_torch(path: Path, threads: int = 1) -> Run:
    """A program that `torch.export` saved, in torch."""
    import torch

    import foundry3d.geometry  # noqa: F401  (its operators)

    torch.set_num_threads(threads)
    module = torch.export.load(path).module()

    def run(arrays: Arrays) -> Arrays:
        with torch.inference_mode():
            found = module(*map(torch.from_numpy, arrays))
        return tuple(tensor.numpy() for tensor in found)

    return run
