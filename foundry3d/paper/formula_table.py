"""The paper's closed forms next to the counts of the real modules, and where they differ.

All numbers are for one cloud. Symbols: see `formula`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from foundry3d.config import BackboneConfig
from foundry3d.inference.cost import Cost, count_parts
from foundry3d.models.backbone import Backbone
from foundry3d.models.student import Student, student_config
from foundry3d.paper import formula
from foundry3d.paper.formula import Terms

GATE_HIDDEN = 128

REMARKS = """
Linear layers: products with weights. The paper's tables (and ours) count only these, two FLOPs per
MAC; attention and assignment products are in its formulas but not in its tables.
- Encoder: the linear part of the formula equals the count.
- DSO: so does that of equation 12 for one cloud; for B clouds W_Q is applied once, not B times.
  Equation 11 is printed with a term 2 nh S hd D; only with 2 nh S hd N does it give equation 12.
- CAU: equation 14 counts an MLP of ratio 4 (16 N D^2); the paper's tables count ratio 1 (4 N D^2),
  like the modules: a quarter. They do not compute its softmax (4 nh S N) either, because every
  token takes one row.
- Maps: Appendix C has a one-hot map for each of the nh attention heads, nh S N entries. Equation 3
  and the tables fit one map, S N entries; assignment_heads = nh is Appendix C's student, which has
  the same products, because each map moves a slice of D / nh.
- Products of the DSO: equation 12 has two, logits and values. The third that is counted here gives
  every supertoken the mean position of its tokens (section 3.2), which no formula has.
- Gate: equation 15 turns 2 N D d + 2 N d d into 4 N D d, which holds only for d = D; the gate of
  the tables maps D to d to 1, 2 N D d + 2 N d.
- Tokenizer and position: in no formula, but most of what the tables count.
- The baseline and ToMe rows of Tables 6 and 14 count the encoder twice (foundry3d cost --paper).
- Table 1 prints the wrapper of Foundry-Gate as cd + 2srd + cd^2; its total has srcd."""


def part_rows(sizes: BackboneConfig, *, supertokens: int, merged: int) -> list[dict[str, Any]]:
    """Every part of teacher, student and gated student: its formula, and the count of the module.

    The student is counted with one map for the whole width, and with one for each attention head.

    Args:
        sizes: of the teacher.
        supertokens: S.
        merged: R, tokens that the gated student merges.

    Returns:
        Rows with `model, part`, GFLOPs `linear, products, other` of the formula (None where the
        paper has none), `counted` (linear layers) and `counted_products` of the module,
        `difference` = linear - counted, and the entries of assignment maps, `maps` by the formula
        and `counted_maps` in the module (None for other parts than DSO and CAU).
    """
    N, D, L, nh, S = sizes.groups, sizes.dim, sizes.depth, sizes.heads, supertokens
    U = N - merged
    with torch.device("meta"):
        teacher = Backbone(sizes)
        student, per_head, gated = (
            Student(student_config(sizes, supertokens=S, **changes))
            for changes in ({}, {"assignment_heads": nh}, {"gate": True})
        )
    dso, cau = formula.dso(S=S, N=N, D=D), formula.cau(S=S, N=N, D=D, nh=nh)
    maps = formula.map_entries(S=S, N=N, nh=nh)
    for made in (teacher, student, per_head, gated):
        made.eval().requires_grad_(False)
    parts = count_parts(teacher)
    rows = [
        _part_row("all", "tokenizer", None, parts["tokenizer"]),
        _part_row("all", "position", None, parts["position"]),
        _part_row(
            "teacher",
            f"encoder, {N} tokens",
            formula.transformer(L=L, N=N, D=D),
            parts["encoder"],
            _encoder_products(teacher, N),
        ),
    ]
    for name, model in (("student", student), (f"student, {nh} maps", per_head)):
        parts, found = count_parts(model), _assigned(model, N)
        terms = formula.transformer(L=L, N=S, D=D)
        products = _encoder_products(model, S)
        rows += [
            _part_row(name, f"encoder, {S} tokens", terms, parts["encoder"], products),
            _part_row(name, "DSO", dso, parts["dso"], found.dso, (maps, found.maps)),
            _part_row(name, "CAU", cau, parts["cau"], found.cau, (maps, found.maps)),
        ]
    parts, found = count_parts(gated, merged=merged, used=S), _assigned(gated, merged)
    share, encoded = f"{merged} of {N} merged", formula.transformer(L=L, N=S + U, D=D)
    dso, cau = formula.dso(S=S, N=merged, D=D), formula.cau(S=S, N=merged, D=D, nh=nh)
    merged_maps = formula.map_entries(S=S, N=merged, nh=nh), found.maps
    products = _encoder_products(gated, S + U)
    return [
        *rows,
        _part_row("gated", "gate", formula.gate(N=N, D=D, d=GATE_HIDDEN), parts["gate"]),
        _part_row("gated", f"encoder, {S + U} tokens", encoded, parts["encoder"], products),
        _part_row("gated", f"DSO, {share}", dso, parts["dso"], found.dso, merged_maps),
        _part_row("gated", f"CAU, {share}", cau, parts["cau"], found.cau, merged_maps),
    ]


def _part_row(
    model: str,
    part: str,
    terms: Terms | None,
    cost: Cost,
    products: int | None = None,
    maps: tuple[int, int] | None = None,
) -> dict[str, Any]:
    counted = 2 * cost.macs
    return {
        "model": model,
        "part": part,
        "linear": None if terms is None else terms.linear / 1e9,
        "products": None if terms is None else terms.products / 1e9,
        "other": None if terms is None else terms.other / 1e9,
        "counted": counted / 1e9,
        "difference": None if terms is None else (terms.linear - counted) / 1e9,
        "counted_products": None if products is None else products / 1e9,
        "maps": maps and maps[0],
        "counted_maps": maps and maps[1],
    }


class Assigned(NamedTuple):
    """What DSO and CAU of a cloud do besides linear layers.

    Attributes:
        dso: FLOPs of products of activations in the DSO.
        cau: the same in the CAU.
        maps: entries of the assignment maps.
    """

    dso: int
    cau: int
    maps: int


def _assigned(student: Student, tokens: int) -> Assigned:
    """Counted on the modules, for a cloud of `tokens` tokens that are all assigned."""
    x = torch.empty(1, tokens, student.config.backbone.dim, device="meta")
    dso, cau = student.dso, student.cau
    compressed = dso(x, x)
    return Assigned(
        dso=_products(dso, lambda: dso(x, x)),
        cau=_products(cau, lambda: cau(x, compressed.cam, compressed.supertokens)),
        maps=compressed.cam.numel(),
    )


def _encoder_products(model: Backbone | Student, tokens: int) -> int:
    x = torch.empty(1, tokens, model.shape.dim, device="meta")
    return _products(model.encoder, lambda: model.encoder(x, x))


def _products(part: nn.Module, run: Callable[[], object]) -> int:
    """FLOPs of the matrix products of a call that are not those of a linear layer of the part."""
    linear: list[int] = []

    def note(layer: nn.Module, _: object, output: Tensor) -> None:
        if isinstance(layer, nn.Linear):
            linear.append(output.numel() * layer.in_features)

    hooks = [layer.register_forward_hook(note) for layer in part.modules()]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    for hook in hooks:
        hook.remove()
    return counter.get_total_flops() - 2 * sum(linear)


def whole_rows(
    sizes: BackboneConfig, *, supertokens: Sequence[int], merged: int
) -> list[dict[str, Any]]:
    """How much a student saves compared to its teacher, by Table 1, Appendix C and the counts.

    Returns:
        Rows with `model, formula` (GFLOPs of Appendix C), `counted` (GFLOPs of the linear layers
        without tokenizer and position), `whole` (with them), and the teacher's number over the
        row's: `by_order` (Table 1 without constants), `by_formula`, `by_counted`, `by_whole`.
    """
    N, D, L, nh = sizes.groups, sizes.dim, sizes.depth, sizes.heads
    r = merged / N
    with torch.device("meta"):
        models: list[tuple[str, float, Terms, dict[str, Cost]]] = [
            (
                "teacher",
                formula.order_transformer(L=L, c=N, D=D),
                formula.transformer(L=L, N=N, D=D),
                count_parts(Backbone(sizes)),
            )
        ]
        for S in supertokens:
            plain = Student(student_config(sizes, supertokens=S))
            gated = Student(student_config(sizes, supertokens=S, gate=True))
            models += [
                (
                    f"S={S}",
                    formula.order_foundry(L=L, S=S, c=N, D=D),
                    formula.foundry(L=L, S=S, N=N, D=D, nh=nh),
                    count_parts(plain),
                ),
                (
                    f"S={S}, gate, R={merged}",
                    formula.order_foundry_gate(L=L, S=S, c=N, D=D, r=r),
                    formula.foundry_gate(L=L, S=S, N=N, D=D, nh=nh, d=GATE_HIDDEN, R=merged),
                    count_parts(gated, merged=merged, used=S),
                ),
            ]
    rows: list[dict[str, Any]] = []
    for name, order, terms, parts in models:
        whole = 2 * sum(part.macs for part in parts.values()) / 1e9
        front = 2 * (parts["tokenizer"].macs + parts["position"].macs) / 1e9
        rows.append(
            {
                "model": name,
                "formula": terms.total / 1e9,
                "counted": whole - front,
                "whole": whole,
                "order": order,
            }
        )
    first = dict(rows[0])
    for row in rows:
        row["by_order"] = first["order"] / row.pop("order")
        row |= {f"by_{key}": first[key] / row[key] for key in ("formula", "counted", "whole")}
    return rows
