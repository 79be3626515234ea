"""A lower bound on a model's time: its matrix products alone, each with the fastest kernel.

For every linear layer of a forward pass, a product of the same shape is measured with all available
linear kernels (torch's own, which is MKL or oneDNN, and oneDNN's with packed weights), at once and
in pieces that fit into the cache; the shortest time counts. The tokenizer counts in the folded form
that inference computes (`docs/method.md`, "Merged algebra at inference"). Attention products,
norms, activations, sampling and grouping are not part of the floor, so a share of 1 cannot be
reached.

Shapes: R rows, i inputs, o outputs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial

import torch
from torch import Tensor

from foundry3d.bench.forms import arithmetic, counted, model_of
from foundry3d.bench.measure import Timed, waiting
from foundry3d.bench.subjects import Subject
from foundry3d.inference.cost import Layer, linear_layers
from foundry3d.inference.kernels import KERNELS

PIECES = (None, 2048)
"""Rows per piece of a product that are tried; None = all rows at once."""
MOST_ROWS = 2**14
"""Products of more rows are measured on this many, and the time is scaled."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def folded(layers: Iterable[Layer], group_size: int) -> Iterator[Layer]:
    """Layers, in running order, with those of the tokenizer as its folded form computes them.

    Half of the layer that reads the group's maximum runs once per group; the other half is folded
    into the preceding layer where that is cheaper.
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


def _timed(run: Callable[[], object], device: str) -> float:
    """The shortest time of three calls, after one to warm up."""
    wait, taken = waiting(device), []
    for _ in range(4):
        began = time.perf_counter()
        run()
        wait()
        taken.append(time.perf_counter() - began)
    return min(taken[1:])


def _pieces(apply: Callable[[Tensor], Tensor], x: Tensor, rows: int) -> None:
    for piece in x.split(rows):
        apply(piece)


@cache
def best(
    rows: int, inputs: int, outputs: int, precision: str, device: str, threads: int
) -> tuple[float, str]:
    """Seconds of the fastest way to multiply (R, i) with (i, o), and its name.

    Measured once per process and number of threads.
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
    """Seconds of the layers' products, each computed the fastest way."""
    threads = torch.get_num_threads()
    sizes = ((layer.rows, layer.inputs, layer.outputs) for layer in layers)
    return sum(best(*size, precision, device, threads)[0] for size in sizes)


def floor_columns(subject: Subject, timed: Timed) -> dict[str, float]:
    """The columns of a row that hold its floor, and the share of its time that the floor is."""
    model = model_of(subject)
    layers = linear_layers(model, clouds=subject.clouds, **counted(subject))
    products = folded(layers, model.shape.group_size)
    floor = floor_seconds(products, arithmetic(subject), subject.device)
    return {"floor_s": floor, "floor_share": floor / timed.median}
