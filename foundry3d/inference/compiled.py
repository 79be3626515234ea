"""The inference form of a model: the same function with fewer, fused and measured products.

The algebra is exact (`docs/method.md`, "Merged algebra at inference"): BatchNorm is folded into the
layer before it, activations are fused into the layers they follow, and the tokenizer's layers are
merged where nothing nonlinear stands between them. Groups go through the tokenizer, and clouds
through the encoder, in pieces whose temporaries stay within `MOST_BYTES`, so that they stay in the
processor's cache.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any, Literal, TypeVar, get_args

import torch
from torch import Tensor, nn

from foundry3d.errors import InputError
from foundry3d.heads.classifier import ClassHead
from foundry3d.heads.segmenter import PartHead
from foundry3d.inference.kernels import KERNELS, fastest, is_compiled
from foundry3d.inference.parts import (
    Builder,
    Factory,
    FastBlock,
    FastCAU,
    FastClassHead,
    FastEncoder,
    FastPartHead,
    FastUpsampling,
    fast_feature_mlp,
    fast_gate,
    fast_position,
)
from foundry3d.inference.tokenizers import FastSingleStage, FastTokenizer
from foundry3d.models.backbone import Tokens
from foundry3d.models.gate import Gate
from foundry3d.models.supertokens import CAU, FeatureMLP
from foundry3d.models.tokenizer import PointConv, Position, SingleStage, Tokenizer
from foundry3d.models.upsample import FeatureUpsampling
from foundry3d.models.vit import Block, Encoder

log = logging.getLogger("foundry3d")

Precision = Literal["fp32", "bf16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
MOST_BYTES = 4 * 2**20
"""Limit on a temporary of tokenizer or encoder on the CPU, unless one group or cloud needs more."""
MOST_BYTES_CUDA = 256 * 2**20

Model = TypeVar("Model", bound=nn.Module)

FACTORIES: dict[type[nn.Module], Factory] = {
    Tokenizer: FastTokenizer,
    SingleStage: FastSingleStage,
    Position: fast_position,
    Encoder: FastEncoder,
    Block: FastBlock,
    CAU: FastCAU,
    FeatureMLP: fast_feature_mlp,
    Gate: fast_gate,
    ClassHead: FastClassHead,
    PartHead: FastPartHead,
    FeatureUpsampling: FastUpsampling,
    PointConv: lambda conv, build: build.linear(conv),
    nn.Linear: lambda linear, build: build.linear(linear),
}
"""How each type of module is made fast; a copy of any other one holds the fast forms of its
children."""


def _as_float(model: nn.Module, inputs: Any, output: Any) -> Any:
    """A forward hook that returns the output of a model in float32."""
    if isinstance(output, Tokens):
        return replace(output, features=output.features.float())
    return output.float() if isinstance(output, Tensor) else output


def _cpu_kernel(dtype: torch.dtype) -> tuple[torch.dtype, str]:
    """The precision to compute in on this CPU, and its fastest kernel."""
    kernel, seconds = fastest(dtype)
    if dtype is torch.bfloat16 and seconds > fastest(torch.float32)[1]:
        log.warning("bfloat16 is slower than float32 on this processor, so float32 is used")
        return torch.float32, fastest(torch.float32)[0]
    return dtype, kernel


def compile(model: Model, precision: str = "fp32", *, kernel: str | None = None) -> Model:
    """The inference form of a model: same class, same calls, same outputs, faster.

    The result is a copy without gradients, in evaluation mode, on the device of the model. On the
    CPU its linear layers use the kernel that is fastest on this machine. `fp32` reproduces the
    model's features to 1e-5 relative, and the same assignments. `bf16` computes in bfloat16
    (except grouping, the first layer, which reads coordinates, and the gate's last one) and
    returns float32; on a CPU where bfloat16 is slower than float32 it logs a warning and computes
    in float32.

    Args:
        model: a backbone, student of any kind, reduced backbone, classifier or segmenter; not
            changed.
        precision: `fp32` or `bf16`.
        kernel: of the linear layers on the CPU, one of `KERNELS`; None = the fastest one here. The
            same kernel gives the same bytes on every run.

    Returns:
        The compiled model. It can be neither saved nor trained: keep the original for that.

    Raises:
        InputError: the precision or the kernel is unknown, or the model is compiled already.
    """
    if precision not in get_args(Precision):
        raise InputError(f"precision is one of {', '.join(DTYPES)}; got {precision!r}")
    if is_compiled(model):
        raise InputError("the model is compiled already; compile the one it was made of")
    if kernel not in (None, *KERNELS):
        raise InputError(f"kernel is one of {', '.join(KERNELS)}; got {kernel!r}")
    dtype, most_bytes = DTYPES[precision], MOST_BYTES_CUDA
    if next(model.parameters()).device.type != "cpu":
        kernel = "plain"
    else:
        most_bytes = MOST_BYTES
        if kernel is None:
            dtype, kernel = _cpu_kernel(dtype)
    build = Builder(dtype=dtype, kernel=kernel, most_bytes=most_bytes, factories=FACTORIES)
    with torch.no_grad():
        fast = build.inside(model).eval().requires_grad_(False)
    if dtype is torch.bfloat16:
        fast.register_forward_hook(_as_float)
    return fast
