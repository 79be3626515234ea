"""Runs point-cloud models that `foundry3d export` wrote to ONNX, without torch.

    from foundry3d_edge import Model

    model = Model("student.onnx")
    result = model(points)              # points (N, 3), of any size and scale
    result.features                     # (c, d), result.centers (c, 3)

onnxruntime is imported when the first model is loaded.
"""

from foundry3d_edge.errors import InputError
from foundry3d_edge.files import read_cloud
from foundry3d_edge.model import Model
from foundry3d_edge.result import Result

__all__ = ["InputError", "Model", "Result", "read_cloud"]
