"""What a model costs: multiply-accumulates, operations and parameters, counted on real modules.

The conventions are those of the paper's tables (the `calflops` library). MACs: every linear layer
and 1x1 convolution, no attention or assignment products. FLOPs: two a MAC, plus one an output for
convolution biases, 2 an element for BatchNorm, 5 for LayerNorm, 1 for ReLU, GELU and sigmoid.
Counting runs on shapes alone (no arithmetic), so a million points cost nothing to account for.

Shapes: B clouds, c tokens, k points a group, s supertokens, d width.
"""

from __future__ import annotations

import copy
import csv
from dataclasses import dataclass
from functools import cache, partial
from importlib.resources import files
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from foundry3d.backbone import Backbone
from foundry3d.config import BackboneConfig, ReductionConfig
from foundry3d.errors import InputError
from foundry3d.gate import Plan
from foundry3d.gated import enter_planned
from foundry3d.geometry import Groups, gather
from foundry3d.kernels import is_compiled
from foundry3d.reduce.merged import Merged
from foundry3d.reduce.wrapped import Wrapped
from foundry3d.student import Student, student_config
from foundry3d.tokenizer import PointConv


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


def count(
    model: Backbone | Student | Wrapped,
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


def count_parts(model: Backbone | Student | Wrapped, **counted: int | None) -> dict[str, Cost]:
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


def linear_layers(model: Backbone | Student | Wrapped, **counted: int | None) -> list[Layer]:
    """Every linear layer of the forward pass that `count` accounts for, part by part.

    Args:
        model: counted as it is; not changed.
        counted: arguments of `count`.

    Raises:
        InputError: merged tokens without a gate.
    """
    return [layer for counter in _counters(model, **counted).values() for layer in counter.layers]


def _counters(
    model: Backbone | Student | Wrapped,
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
    shapes = copy.deepcopy(model).to("meta").eval()
    clouds = clouds or 1
    rows, size = tokens or model.shape.groups, model.shape.group_size
    groups = Groups(_shape(clouds, rows, 3), _shape(clouds, rows, size, 3))
    counters = {name: _Counter(part, name) for name, part in shapes.named_children()}
    with torch.no_grad():
        if isinstance(shapes, Student) and shapes.gate is not None:
            _run_gated(shapes, groups, rows if merged is None else merged, used, supertokens)
        elif merged is not None or used is not None:
            raise InputError("merged and used are for students with a gate")
        elif isinstance(shapes, Student):
            shapes.encode(groups, supertokens=supertokens)
        else:
            shapes.encode(groups)
    return counters


def _run_gated(
    student: Student, groups: Groups, merged: int, used: int | None, supertokens: int | None
) -> None:
    """Runs a gated student on shapes: what depends on data is given as numbers."""
    used = min(supertokens or student.config.supertokens, merged) if used is None else used
    tokens, positions = student.tokens(groups)
    assert student.gate is not None
    probability = student.gate(tokens)
    clouds, count = probability.shape
    order = torch.empty(clouds, count, dtype=torch.int64, device="meta")
    plan = Plan(order, order[:, 0], merged, used + count - merged)
    normed, cam = student.dso.choose(gather(tokens, order[:, :merged]), count=supertokens)
    entry = enter_planned(
        student.dso, student.cau, tokens, positions, probability, plan, normed, cam
    )
    encoded = student.encoder(entry.tokens, entry.positions)
    student.output(entry.restore(encoded))


def encoder_cost(model: Backbone | Student, *, clouds: int, tokens: int) -> Cost:
    """Cost of the encoder alone on `tokens` tokens of each cloud; parameters are left at 0."""
    encoder = copy.deepcopy(model.encoder).to("meta").eval()
    counter = _Counter(encoder)
    x = _shape(clouds, tokens, model.shape.dim)
    with torch.no_grad():
        encoder(x, x)
    return Cost(params=0, macs=counter.macs, flops=counter.flops)


# Tokens removed in each block: 64 are halved block by block until so many are left.
TOME_SCHEDULES = {
    "tome_16": (32, 16),
    "tome_8": (32, 16, 8),
    "tome_4": (32, 16, 8, 4),
    "tome_2": (32, 16, 8, 4, 2),
    "tome_1": (32, 16, 8, 4, 2, 1),
}
GATE_ROWS = {
    "foundry_gate_cpu": (64, 16),
    "foundry_gate_gpu": (64, 15),
    "foundry_gate_r0.9": (0, 0),
    "foundry_gate_b32": (49, 15),
    "foundry_gate_b48_gpu": (33, 13),
    "foundry_gate_b48_cpu": (33, 14),
}


def _row_cost(method: str, supertokens: int | None, clouds: int, tokens: int) -> Cost:
    teacher = BackboneConfig()
    if method == "baseline":
        return count(_meta(teacher), clouds=clouds, tokens=tokens)
    if method in TOME_SCHEDULES:
        merging = ReductionConfig(removed=TOME_SCHEDULES[method])
        return count(Merged.around(_meta(teacher), merging), clouds=clouds, tokens=tokens)
    dim = 192 if method == "foundry_vit_t" else None
    gated = method in GATE_ROWS
    sizes = student_config(teacher, supertokens=supertokens or 16, dim=dim, gate=gated)
    with torch.device("meta"):
        student = Student(sizes).eval()
    merged, used = GATE_ROWS.get(method, (None, None))
    return count(student, clouds=clouds, tokens=tokens, merged=merged, used=used)


def _meta(shape: BackboneConfig) -> Backbone:
    with torch.device("meta"):
        return Backbone(shape).eval()


def paper_rows() -> list[dict[str, Any]]:
    """Every cost row of Tables 6, 7 and 14, the paper's figures beside ours, in its order.

    Returns:
        Rows with `table, method, supertokens, token_budget` (None where the table has none),
        `params_m, macs_g, flops_g` (ours, one encoder pass), `paper_params_m, paper_macs_g,
        paper_flops_g`, `passes` (encoder passes the paper's figure counts), `macs_g_as_counted,
        flops_g_as_counted` (ours with that many passes), `deviation` (the larger relative
        difference of these two from the paper) and `note`.
    """
    rows = []
    text = files("foundry3d").joinpath("paper_costs.csv").read_text()
    for line in csv.DictReader(text.splitlines()):
        supertokens = int(line["supertokens"]) if line["supertokens"] else None
        clouds, passes = int(line["clouds"]), int(line["encoder_passes_counted"])
        cost = _row_cost(line["method"], supertokens, clouds, int(line["tokens"]))
        macs, flops = cost.macs, cost.flops
        if passes == 2:
            tokenizer = tokenizer_cost(clouds)
            macs, flops = 2 * macs - tokenizer.macs, 2 * flops - tokenizer.flops
        paper_macs, paper_flops = float(line["macs_g"]), float(line["flops_g"])
        macs_g, flops_g = macs / 1e9, flops / 1e9
        rows.append(
            {
                "table": int(line["table"]),
                "method": line["method"],
                "supertokens": supertokens,
                "token_budget": int(line["token_budget"]) if line["token_budget"] else None,
                "params_m": cost.params / 1e6,
                "macs_g": cost.macs / 1e9,
                "flops_g": cost.flops / 1e9,
                "paper_params_m": float(line["params_m"]),
                "paper_macs_g": paper_macs,
                "paper_flops_g": paper_flops,
                "passes": passes,
                "macs_g_as_counted": macs_g,
                "flops_g_as_counted": flops_g,
                "deviation": max(abs(macs_g / paper_macs - 1), abs(flops_g / paper_flops - 1)),
                "note": line["note"],
            }
        )
    return rows


@cache
def tokenizer_cost(clouds: int) -> Cost:
    """Cost of the ViT-S tokenizer and position alone, which the paper's double rows count once."""
    teacher = _meta(BackboneConfig())
    whole = count(teacher, clouds=clouds)
    encoder = encoder_cost(teacher, clouds=clouds, tokens=teacher.config.groups)
    return Cost(
        params=whole.params, macs=whole.macs - encoder.macs, flops=whole.flops - encoder.flops
    )
