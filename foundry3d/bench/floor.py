"""The floor under a model's time: its matrix products alone, each by this machine's best kernel.

For every linear layer of a forward pass the product of just that shape is measured with all linear
kernels at hand (torch's own, which is MKL or oneDNN, and oneDNN's with packed weights), in one
piece and in pieces that fit the cache, and the least time is taken. The tokenizer counts with its
merged algebra (`docs/method.md`, "Merged algebra at inference"), which is what an inference form
has to compute. Attention products, norms, activations, sampling and grouping are no part of the
floor: a share of 1 cannot be reached.

Shapes: R rows, i inputs, o outputs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial

import torch
from torch import Tensor

from foundry3d.inference.cost import Layer
from foundry3d.inference.kernels import KERNELS

PIECES = (None, 2048)
"""Rows of a product that are tried: all of them at once, or pieces of so many."""
MOST_ROWS = 2**14
"""Products of more rows are measured on so many, and their time scaled."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def merged(layers: Iterable[Layer], group_size: int) -> Iterator[Layer]:
    """Layers with those of the tokenizer replaced by what its merged algebra leaves to compute.

    Of the layer that meets the group's maximum, one half runs once a group; the other is merged
    with the layer before it, where that is cheaper.

    Args:
        layers: in the order in which they run.
        group_size: k.
    """
    second: Layer | None = None
    for layer in layers:
        if layer.name.endswith("tokenizer.widen"):
            second = layer
        if not layer.name.endswith("tokenizer.mix") or second is None:
            yield layer
            continue
        half = layer.inputs // 2
        yield layer._replace(rows=layer.rows // group_size, inputs=half)
        yield layer._replace(inputs=min(second.inputs, half))


def total_macs(layers: Iterable[Layer]) -> int:
    """Multiply-accumulates of layers."""
    return sum(layer.rows * layer.inputs * layer.outputs for layer in layers)


def _timed(run: Callable[[], object], device: str, repeats: int = 3) -> float:
    taken = []
    for repeat in range(repeats + 1):
        began = time.perf_counter()
        run()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        if repeat:
            taken.append(time.perf_counter() - began)
    return min(taken)


def _pieces(apply: Callable[[Tensor], Tensor], x: Tensor, rows: int) -> None:
    for piece in x.split(rows):
        apply(piece)


@cache
def best(
    rows: int, inputs: int, outputs: int, precision: str, device: str, threads: int
) -> tuple[float, str]:
    """Seconds of the best way to multiply (R, i) with (i, o), and which way that was.

    Measured once a process; `threads` is part of the question alone.
    """
    dtype, measured = DTYPES[precision], min(rows, MOST_ROWS)
    generator = torch.Generator().manual_seed(0)
    shapes = ((measured, inputs), (outputs, inputs), (outputs,))
    x, weight, bias = (
        torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes
    )
    found = []
    with torch.inference_mode():
        for name, (lay, apply) in KERNELS.items():
            if name != "plain" and device != "cpu":
                continue
            try:
                call = partial(apply, weight=lay(weight), bias=bias, activation="none")
                call(x[:1])
            except (RuntimeError, AttributeError, NotImplementedError):
                continue  # a private kernel that this version of torch does not have
            for size in PIECES:
                if size is None or size < measured:
                    step = size or measured
                    seconds = _timed(partial(_pieces, call, x, step), device)
                    found.append((seconds * rows / measured, f"{name}, {step} rows"))
    return min(found)


def floor_seconds(layers: Iterable[Layer], precision: str, device: str = "cpu") -> float:
    """Seconds of the layers' products, each by its best way; measured now where it was not yet."""
    threads = torch.get_num_threads()
    return sum(
        best(layer.rows, layer.inputs, layer.outputs, precision, device, threads)[0]
        for layer in layers
    )
