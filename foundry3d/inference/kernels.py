"""Linear layers for inference, run by the CPU kernel that is measured to be fastest.

Shapes: R rows, i inputs, o outputs.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import cache
from threading import Lock
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foundry3d.errors import InputError

log = logging.getLogger("foundry3d")

Activation = Literal["none", "relu", "gelu"]
PROBE = (1024, 384, 384)
"""R, i, o of the product that kernels are timed on: the sizes of ViT-S."""
_MEASURING = Lock()
"""Held while kernels are timed, so that threads do not disturb each other's measurements."""


def _plain(x: Tensor, weight: Tensor, bias: Tensor, activation: Activation) -> Tensor:
    y = F.linear(x, weight, bias)
    match activation:
        case "relu":
            return y.relu_()
        case "gelu":
            return F.gelu(y)
        case "none":
            return y


def _onednn(x: Tensor, weight: Tensor, bias: Tensor, activation: Activation) -> Tensor:
    algorithm = "none" if activation == "gelu" else ""
    return torch.ops.mkldnn._linear_pointwise.default(x, weight, bias, activation, [], algorithm)


def _reordered(weight: Tensor) -> Tensor:
    return torch.ops.mkldnn._reorder_linear_weight.default(weight)


KERNELS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[..., Tensor]]] = {
    "plain": (lambda weight: weight, _plain),
    "onednn": (_reordered, _onednn),
}
"""For each kernel, how it stores a weight (o, i) and how it applies it. All compute the same."""


def seconds(name: str, dtype: torch.dtype, *, repeats: int = 7) -> float:
    """Shortest time of a kernel's product on the CPU; infinite if the kernel fails or is wrong.

    The oneDNN operators are private to torch, so a kernel that raises an error, or whose result
    differs from the plain product, is ruled out instead of trusted.
    """
    rows, inputs, outputs = PROBE
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(n, inputs, generator=generator).to(dtype) for n in (rows, outputs))
    bias = torch.zeros(outputs, dtype=dtype)
    lay, apply = KERNELS[name]
    taken = []
    try:
        with torch.inference_mode():
            laid = lay(weight)
            found = apply(x, laid, bias, "relu").float()
            wanted = _plain(x.float(), weight.float(), bias.float(), "relu")
            close = (found - wanted).norm() < 10 * torch.finfo(dtype).eps * wanted.norm()
            if not bool(close):
                return float("inf")
            for _ in range(repeats):
                began = time.perf_counter()
                apply(x, laid, bias, "relu")
                taken.append(time.perf_counter() - began)
    except (RuntimeError, AttributeError, NotImplementedError) as error:
        log.debug("kernel %s: %s", name, error)
        return float("inf")
    return min(taken)


@cache
def _fastest(dtype: torch.dtype, threads: int) -> tuple[str, float]:
    timed = {name: seconds(name, dtype) for name in KERNELS}
    name = min(timed, key=lambda known: timed[known])
    return name, timed[name]


def fastest(dtype: torch.dtype) -> tuple[str, float]:
    """The fastest kernel of `KERNELS` on this CPU for float32 or bfloat16, and its seconds.

    Measured once per process and number of torch threads: every later call, from any thread, gets
    the same answer.
    """
    with _MEASURING:
        return _fastest(dtype, torch.get_num_threads())


def steady() -> str:
    """A float32 kernel for this CPU, chosen without timing, so that results repeat exactly."""
    return "onednn" if seconds("onednn", torch.float32, repeats=1) < float("inf") else "plain"


class FastLinear(nn.Module):
    """A linear layer for inference, fused with its activation; it has no gradients.

    Args:
        weight: (o, i), copied once into the memory layout of the kernel.
        bias: (o,) or None.
        activation: applied to the result by the same kernel.
        kernel: a name in `KERNELS`.
    """

    weight: Tensor
    bias: Tensor

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        *,
        activation: Activation = "none",
        kernel: str = "plain",
    ) -> None:
        super().__init__()
        lay, self._apply_kernel = KERNELS[kernel]
        self.out_features, self.in_features = weight.shape
        self.activation: Activation = activation
        weight = weight.detach().clone()
        bias = weight.new_zeros(self.out_features) if bias is None else bias.detach().clone()
        self.register_buffer("weight", lay(weight), persistent=False)
        self.register_buffer("bias", bias, persistent=False)
        self.eval()

    def train(self, mode: bool = True) -> FastLinear:
        """Switches to evaluation mode, the only one there is.

        Raises:
            InputError: training mode is asked for.
        """
        if mode:
            raise InputError("a compiled model is for inference; train the one it was made of")
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        """Maps x (..., i) to (..., o), in the precision of the weights."""
        x = x.to(self.bias.dtype)
        return self._apply_kernel(x, self.weight, self.bias, self.activation)


def is_compiled(model: nn.Module) -> bool:
    """Whether a model was made by `compile`; such a model can be neither trained nor saved."""
    return any(isinstance(part, FastLinear) for part in model.modules())


def folded(linear: nn.Linear, norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    """One layer for a linear layer followed by BatchNorm in evaluation mode.

    Returns:
        Weight (o, i) and bias (o,), computed in float64 and rounded to the layer's precision.
    """
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None
    assert variance is not None
    scale = norm.weight.double() / (variance.double() + norm.eps).sqrt()
    bias = 0 if linear.bias is None else linear.bias.double()
    shift = norm.bias.double() + (bias - mean.double()) * scale
    dtype = linear.weight.dtype
    return (linear.weight.double() * scale[:, None]).to(dtype), shift.to(dtype)
