"""The paper's closed forms next to the counts of the real modules, and where they differ.

All numbers are for one cloud. Symbols: see `formula`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

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
- Gate: equation 15 turns 2 N D d + 2 N d d into 4 N D d, which holds only for d = D; the gate of
  the tables maps D to d to 1, 2 N D d + 2 N d.
- Tokenizer and position: in no formula, but most of what the tables count.
- The baseline and ToMe rows of Tables 6 and 14 count the encoder twice (foundry3d cost --paper).
- Table 1 prints the wrapper of Foundry-Gate as cd + 2srd + cd^2; its total has srcd."""


def part_rows(sizes: BackboneConfig, *, supertokens: int, merged: int) -> list[dict[str, Any]]:
    """Every part of teacher, student and gated student: its formula, and the count of the module.

    Args:
        sizes: of the teacher.
        supertokens: S.
        merged: R, tokens that the gated student merges.

    Returns:
        Rows with `model, part`, GFLOPs `linear, products, other` of the formula (None where the
        paper has none), `counted` on the module, and `difference` = linear - counted.
    """
    N, D, L, nh, S = sizes.groups, sizes.dim, sizes.depth, sizes.heads, supertokens
    U = N - merged
    with torch.device("meta"):
        teacher = count_parts(Backbone(sizes))
        student = count_parts(Student(student_config(sizes, supertokens=S)))
        gated = count_parts(
            Student(student_config(sizes, supertokens=S, gate=True)), merged=merged, used=S
        )
    share = f"{merged} of {N} merged"
    listed: list[tuple[str, str, Terms | None, Cost]] = [
        ("all", "tokenizer", None, teacher["tokenizer"]),
        ("all", "position", None, teacher["position"]),
        ("teacher", f"encoder, {N} tokens", formula.transformer(L=L, N=N, D=D), teacher["encoder"]),
        ("student", f"encoder, {S} tokens", formula.transformer(L=L, N=S, D=D), student["encoder"]),
        ("student", "DSO", formula.dso(S=S, N=N, D=D), student["dso"]),
        ("student", "CAU", formula.cau(S=S, N=N, D=D, nh=nh), student["cau"]),
        ("gated", "gate", formula.gate(N=N, D=D, d=GATE_HIDDEN), gated["gate"]),
        (
            "gated",
            f"encoder, {S + U} tokens",
            formula.transformer(L=L, N=S + U, D=D),
            gated["encoder"],
        ),
        ("gated", f"DSO, {share}", formula.dso(S=S, N=merged, D=D), gated["dso"]),
        ("gated", f"CAU, {share}", formula.cau(S=S, N=merged, D=D, nh=nh), gated["cau"]),
    ]
    rows = []
    for model, part, terms, cost in listed:
        counted = 2 * cost.macs
        rows.append(
            {
                "model": model,
                "part": part,
                "linear": None if terms is None else terms.linear / 1e9,
                "products": None if terms is None else terms.products / 1e9,
                "other": None if terms is None else terms.other / 1e9,
                "counted": counted / 1e9,
                "difference": None if terms is None else (terms.linear - counted) / 1e9,
            }
        )
    return rows


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
