"""What a model costs: multiply-accumulates, operations and parameters, counted on real modules.

The conventions are those of the paper's tables (the `calflops` library). MACs: every linear layer
and 1x1 convolution, no attention or assignment products. FLOPs: two a MAC, plus one an output for
convolution biases, 2 an element for BatchNorm, 5 for LayerNorm, 1 for ReLU, GELU and sigmoid.
Counting runs on shapes alone (no arithmetic), so a million points cost nothing to account for.

Shapes: B clouds, c tokens, k points a group, s supertokens, d width.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from foundry3d.baselines.wrapped import Wrapped
from foundry3d.errors import InputError
from foundry3d.geometry import Groups
from foundry3d.inference.kernels import is_compiled
from foundry3d.models.budget import Budget
from foundry3d.models.student import Student
from foundry3d.models.tokenizer import PointConv, PointModel
from foundry3d.models.vit import Attention


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Parameters, MACs and FLOPs of one forward pass (not in millions or billions)."""

    params: int
    macs: int
    flops: int


class Layer(NamedTuple):
    """A linear layer of a forward pass: its name, and (rows, inputs) to (rows, outputs)."""

    name: str
    rows: int
    inputs: int
    outputs: int


class _Counter:
    """Adds up what the leaf modules of a model (a copy of its own) do while it runs."""

    def __init__(self, model: nn.Module, name: str = "") -> None:
        self.macs = self.flops = 0
        self.layers: list[Layer] = []
        for inner, part in model.named_modules(prefix=name):
            if not list(part.children()):
                part.register_forward_hook(partial(self.count, inner))
            if isinstance(part, nn.Linear | nn.BatchNorm1d | nn.LayerNorm | nn.GELU | nn.ReLU):
                part.forward = partial(_outline, part)  # type: ignore[method-assign]
            if isinstance(part, Attention):
                part.forward = partial(_attended, part)  # type: ignore[method-assign]

    def count(self, name: str, part: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        elements = output.numel()
        match part:
            case nn.Linear():
                rows = elements // part.out_features
                self.layers.append(Layer(name, rows, part.in_features, part.out_features))
                macs = elements * part.in_features
                self.macs += macs
                self.flops += 2 * macs
                if isinstance(part, PointConv) and part.bias is not None:
                    self.flops += elements
            case nn.BatchNorm1d():
                self.flops += 2 * elements
            case nn.LayerNorm():
                self.flops += 5 * elements
            case nn.ReLU() | nn.GELU() | nn.Sigmoid():
                self.flops += elements


def _shape(*sizes: int) -> Tensor:
    return torch.empty(sizes, device="meta")


def _outline(part: nn.Module, x: Tensor) -> Tensor:
    """A tensor of the shape of a layer's output (torch takes far longer to find it)."""
    if isinstance(part, nn.Linear):
        return x.new_empty((*x.shape[:-1], part.out_features), dtype=part.weight.dtype)
    return x


def _attended(part: Attention, x: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    """The shapes of what attention gives; its two linear layers run, its products do not count."""
    batch, tokens, dim = x.shape
    part.qkv(x)
    return part.proj(x), x.new_empty(batch, part.heads, tokens, dim // part.heads)


def count(
    model: PointModel | Wrapped,
    *,
    clouds: int = 1,
    tokens: int | None = None,
    merged: int | None = None,
    used: int | None = None,
    supertokens: int | None = None,
) -> Cost:
    """Cost of tokenising and encoding `clouds` clouds; grouping is not counted.

    Args:
        model: counted as it is; not changed.
        clouds: B.
        tokens: c; None = the model's own.
        merged: tokens of each cloud that a gated student merges; None = all.
        used: supertokens of each cloud that some token chose; None = all. Unused ones are dropped
            before the encoder, which sees `used + c - merged` tokens.
        supertokens: s', the first ones that a student uses; None = all.

    Raises:
        InputError: merged tokens without a gate, or a compiled model.
    """
    found = count_parts(
        model, clouds=clouds, tokens=tokens, merged=merged, used=used, supertokens=supertokens
    )
    parameters = sum(p.numel() for p in model.parameters())
    return Cost(
        params=parameters,
        macs=sum(part.macs for part in found.values()),
        flops=sum(part.flops for part in found.values()),
    )


def count_parts(model: PointModel | Wrapped, **counted: int | None) -> dict[str, Cost]:
    """What `count` adds up, by the model's parts: `tokenizer`, `position`, `encoder`, `dso`, ...

    Args:
        model: counted as it is; not changed.
        counted: arguments of `count`.

    Raises:
        InputError: merged tokens without a gate.
    """
    counters = _counters(model, **counted)
    sizes = {
        name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()
    }
    return {
        name: Cost(params=sizes[name], macs=counter.macs, flops=counter.flops)
        for name, counter in counters.items()
    }


def linear_layers(model: PointModel | Wrapped, **counted: int | None) -> list[Layer]:
    """Every linear layer of the forward pass that `count` accounts for, part by part.

    Args:
        model: counted as it is; not changed.
        counted: arguments of `count`.

    Raises:
        InputError: merged tokens without a gate.
    """
    return [layer for counter in _counters(model, **counted).values() for layer in counter.layers]


def _counters(
    model: PointModel | Wrapped,
    *,
    clouds: int | None = 1,
    tokens: int | None = None,
    merged: int | None = None,
    used: int | None = None,
    supertokens: int | None = None,
) -> dict[str, _Counter]:
    """A counter for each part of a model, after one pass of its shapes."""
    if is_compiled(model):
        raise InputError("a compiled model's layers are merged; count the one it was made of")
    shapes: Any = copy.deepcopy(model).to("meta").eval()
    clouds = clouds or 1
    rows, size = tokens or model.shape.groups, model.shape.group_size
    groups = Groups(_shape(clouds, rows, 3), _shape(clouds, rows, size, model.shape.point_channels))
    counters = {name: _Counter(part, name) for name, part in shapes.named_children()}
    with torch.no_grad():
        if isinstance(shapes, Student) and shapes.gate is not None:
            _run_gated(shapes, groups, rows if merged is None else merged, used, supertokens)
        elif merged is not None or used is not None:
            raise InputError("merged and used are for students with a gate")
        elif isinstance(shapes, Student):
            shapes.encode(groups, budget=Budget(supertokens=supertokens))
        else:
            shapes.encode(groups)
    return counters


def _run_gated(
    student: Student, groups: Groups, merged: int, used: int | None, supertokens: int | None
) -> None:
    """Runs a gated student on shapes: what depends on data is given as numbers."""
    compression, count = student.compression, groups.centers.shape[1]
    used = min(supertokens or student.config.supertokens, merged) if used is None else used
    tokens, positions = student.begin(groups)
    plan = compression.plan(tokens, Budget(merged=merged, supertokens=supertokens))
    plan = replace(plan, width=used + count - merged)
    entered = compression.enter(tokens, positions, plan)
    encoded = entered.encode(student.encoder, start=student.config.supertokens_after)
    residual = student.residual(tokens, positions)
    student.output(compression.restore(residual, plan, entered, encoded))


def encoder_cost(model: PointModel, *, clouds: int, tokens: int) -> Cost:
    """Cost of the encoder alone on `tokens` tokens of each cloud; parameters are left at 0."""
    encoder = copy.deepcopy(model.encoder).to("meta").eval()
    counter = _Counter(encoder)
    x = _shape(clouds, tokens, model.shape.dim)
    with torch.no_grad():
        encoder(x, x)
    return Cost(params=0, macs=counter.macs, flops=counter.flops)
