"""`foundry3d cost`: what models cost, the cost rows of the paper, and its formulas."""

from __future__ import annotations

import csv
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from foundry3d import config as configs
from foundry3d.baselines.merged import Merged
from foundry3d.checkpoints.folder import load_backbone
from foundry3d.checkpoints.zoo import known, shipped
from foundry3d.config import BackboneConfig, CostConfig, ReductionConfig
from foundry3d.errors import InputError
from foundry3d.evaluation.rows import short_name
from foundry3d.heads.classifier import Inner
from foundry3d.inference.cost import Cost, count, encoder_cost
from foundry3d.models.backbone import Backbone, require_teacher
from foundry3d.models.gate import listing_count
from foundry3d.models.student import Student, student_config
from foundry3d.paper.formula_table import REMARKS, part_rows, whole_rows
from foundry3d.paper.implied import GateCosts, GateTokens
from foundry3d.report.rows import append, table

COST_COLUMNS = {"model": "model", "params_m": "params (M)", "macs_g": "GMACs", "flops_g": "GFLOPs"}

PART_COLUMNS = {
    "model": "model",
    "part": "part",
    "linear": "formula: linear layers",
    "products": "products",
    "other": "other",
    "counted": "counted, linear layers",
    "difference": "difference",
    "counted_products": "counted products",
    "maps": "map entries: Appendix C",
    "counted_maps": "counted",
}
WHOLE_COLUMNS = {
    "model": "model",
    "formula": "Appendix C",
    "counted": "counted",
    "whole": "with tokenizer",
    "by_order": "saves: Table 1",
    "by_formula": "Appendix C",
    "by_counted": "counted",
    "by_whole": "with tokenizer",
}


REMARKS_GATE = """
Rows of Foundry-Gate depend on weights and clouds that were not published. The implied tokens are
the only whole numbers that give both printed costs: tokens of each cloud that DSO and CAU read,
and rows of the encoder, padded to the largest of any cloud. They are solved for, not predicted; for
budgets Listing 1 gives the merged tokens. Table 14's rows without _cpu or _gpu are the same on
both. Without a gate the encoder would read 64 tokens; at r = 0.3 to 0.5 and as trained, it reads
more.
"""


def _show_formula(config: CostConfig) -> list[dict[str, Any]]:
    """Prints the closed forms next to the counts, for the sizes of a preset or a saved backbone."""
    if config.model in configs.PRESETS:
        sizes = configs.preset(config.model)
    else:
        sizes = require_teacher(load_backbone(config.model)).config
    sizes = replace(sizes, class_token=False)
    merged = sizes.groups // 2 if config.merged is None else config.merged
    if merged > sizes.groups or not config.supertokens:
        raise InputError(
            f"formulas need --supertokens, and --merged of at most the model's {sizes.groups} "
            f"tokens, got {config.supertokens} and {merged}"
        )
    parts = part_rows(sizes, supertokens=config.supertokens[0], merged=merged)
    whole = whole_rows(sizes, supertokens=config.supertokens, merged=merged)
    print(f"GFLOPs of one cloud, parts at S={config.supertokens[0]}\n")
    print(table(_digits(parts), PART_COLUMNS))
    print(f"\n{table(_digits(whole), WHOLE_COLUMNS)}\n{REMARKS}")
    return parts + whole


def _model_rows(config: CostConfig) -> list[dict[str, Any]]:
    if config.model in configs.PRESETS:
        sizes = configs.preset(config.model)
        with torch.device("meta"):
            models: list[tuple[str, Inner]] = [(config.model, Backbone(sizes))]
            models += [
                (f"{config.model}, s={s}", Student(student_config(sizes, supertokens=s)))
                for s in config.supertokens
            ]
    elif Path(config.model).exists() or shipped(config.model):
        models = [(short_name(config.model), load_backbone(config.model))]
    else:
        raise InputError(
            f"{config.model} is neither a saved model nor one of {', '.join(configs.PRESETS)} or a "
            f"model that ships ({known()})"
        )
    rows = []
    for name, model in models:
        cost = count(model, clouds=config.batch_size)
        figures = {"params_m": cost.params / 1e6, "macs_g": cost.macs / 1e9}
        rows.append(
            {"model": name, "clouds": config.batch_size} | figures | {"flops_g": cost.flops / 1e9}
        )
    return rows


def _digits(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows]


PAPER_COLUMNS = {
    "table": "table",
    "method": "method",
    "supertokens": "s",
    "params_m": "params (M)",
    "macs_g": "GMACs, one pass",
    "passes": "passes in paper",
    "macs_g_as_counted": "GMACs, paper's passes",
    "paper_macs_g": "paper",
    "flops_g": "GFLOPs, one pass",
    "flops_g_as_counted": "GFLOPs, paper's passes",
    "paper_flops_g": "paper",
    "percent": "deviation %",
    "merged": "implied merged",
    "encoded": "implied tokens",
}


def _show_paper(rows: list[dict[str, Any]]) -> None:
    shown = _digits(rows)
    for row, source in zip(shown, rows, strict=True):
        deviation = source["deviation"]
        row["percent"] = None if deviation is None else f"{100 * deviation:.5f}"
    print(table(shown, PAPER_COLUMNS))
    found = {(row["table"], row["method"], row["supertokens"]): row for row in rows}
    baseline, student = found[6, "baseline", None], found[6, "foundry_vit_s", 16]
    print(
        "\nThe paper's baseline and ToMe rows count the encoder twice. With one pass, 16 "
        f"supertokens save {baseline['macs_g'] / student['macs_g']:.2f}x in MACs, not "
        f"{baseline['paper_macs_g'] / student['paper_macs_g']:.2f}x."
    )
    print(REMARKS_GATE)
    for row in rows:
        if row["note"] and row["passes"] == 1:
            print(f"Table {row['table']}, {row['method']}: {row['note']}.")


def show_cost(config: CostConfig) -> list[dict[str, Any]]:
    """Prints the cost of models, or every cost row or formula of the paper next to our count.

    Raises:
        InputError: the model is neither a preset nor a saved model, or does not fit the options.
    """
    if config.formula:
        rows = _show_formula(config)
    elif config.paper:
        rows = paper_rows()
        _show_paper(rows)
    else:
        rows = _model_rows(config)
        print(table(_digits(rows), COST_COLUMNS | {"macs_g": f"GMACs, {config.batch_size} clouds"}))
    if config.results is not None:
        append(config.results, rows)
    return rows


TOME_SCHEDULES = {
    "tome_16": (32, 16),
    "tome_8": (32, 16, 8),
    "tome_4": (32, 16, 8, 4),
    "tome_2": (32, 16, 8, 4, 2),
    "tome_1": (32, 16, 8, 4, 2, 1),
}
"""Tokens removed in each block: 64 are halved block by block until this many are left."""

SCENE_TOME = tuple(2**power for power in range(13, 3, -1))
"""ToMe on the scene of Table 7: 16,384 tokens are halved in ten blocks until 16 are left. The paper
ran out of memory there and does not print its schedule."""


def _row_cost(line: dict[str, str]) -> tuple[Cost, GateTokens | None]:
    """Cost of a line of `paper_costs.csv`, and the tokens that it implies for a gate."""
    teacher, method = BackboneConfig(), line["method"]
    sizes = {"clouds": int(line["clouds"]), "tokens": int(line["tokens"])}
    if method == "baseline":
        return count(_meta(teacher), **sizes), None
    if not line["supertokens"]:
        teacher = replace(teacher, groups=sizes["tokens"])
        merging = ReductionConfig(removed=TOME_SCHEDULES.get(method, SCENE_TOME))
        return count(Merged.around(_meta(teacher), merging), **sizes), None
    supertokens = int(line["supertokens"])
    if not method.startswith("foundry_gate"):
        dim = 192 if method == "foundry_vit_t" else None
        with torch.device("meta"):
            student = Student(student_config(teacher, supertokens=supertokens, dim=dim))
        return count(student, **sizes), None
    budget = _whole(line["token_budget"])
    costs = _gate_costs(supertokens, **sizes)
    (taken,) = costs.implied(
        macs_g=float(line["macs_g"]),
        flops_g=float(line["flops_g"]),
        merged=None if budget is None else listing_count(sizes["tokens"], budget, supertokens),
    )
    return costs.of(taken), taken


@cache
def _gate_costs(supertokens: int, *, clouds: int, tokens: int) -> GateCosts:
    with torch.device("meta"):
        student = Student(student_config(BackboneConfig(), supertokens=supertokens, gate=True))
    return GateCosts(student, clouds=clouds, tokens=tokens)


def _whole(text: str) -> int | None:
    return int(text) if text else None


def _decimal(text: str) -> float | None:
    return float(text) if text else None


def _meta(shape: BackboneConfig) -> Backbone:
    with torch.device("meta"):
        return Backbone(shape).eval()


def paper_rows() -> list[dict[str, Any]]:
    """Every cost row of Tables 6, 14 and 7, its numbers next to ours.

    Rows with a gate are not a prediction: the numbers of tokens depend on weights and clouds that
    were not published, and are the only whole numbers that give the printed MACs and FLOPs. For a
    token budget, Listing 1 gives the merged tokens, and only the encoded ones are solved for.

    Returns:
        Rows with `table, method, supertokens, token_budget, ratio` (None where the table has none),
        `params_m, macs_g, flops_g` (ours, one encoder pass), `paper_params_m, paper_macs_g,
        paper_flops_g` (None where the paper ran out of memory), `passes` (encoder passes in the
        paper's number), `macs_g_as_counted, flops_g_as_counted` (ours with that many passes),
        `deviation` (the larger relative difference of these two from the paper; None without
        numbers of the paper), `merged, encoded` (tokens of each cloud that the printed costs of a
        gate imply; None for other rows) and `note`.
    """
    text = files("foundry3d.paper").joinpath("paper_costs.csv").read_text()
    return [_paper_row(line) for line in csv.DictReader(text.splitlines())]


def _paper_row(line: dict[str, str]) -> dict[str, Any]:
    clouds, passes = int(line["clouds"]), int(line["encoder_passes_counted"])
    cost, taken = _row_cost(line)
    macs, flops = cost.macs, cost.flops
    if passes == 2:
        tokenizer = tokenizer_cost(clouds)
        macs, flops = 2 * macs - tokenizer.macs, 2 * flops - tokenizer.flops
    paper_macs, paper_flops = _decimal(line["macs_g"]), _decimal(line["flops_g"])
    macs_g, flops_g = macs / 1e9, flops / 1e9
    deviation = (
        None
        if paper_macs is None or paper_flops is None
        else max(abs(macs_g / paper_macs - 1), abs(flops_g / paper_flops - 1))
    )
    return {
        "table": int(line["table"]),
        "method": line["method"],
        "supertokens": _whole(line["supertokens"]),
        "token_budget": _whole(line["token_budget"]),
        "ratio": _decimal(line["ratio"]),
        "params_m": cost.params / 1e6,
        "macs_g": cost.macs / 1e9,
        "flops_g": cost.flops / 1e9,
        "paper_params_m": float(line["params_m"]),
        "paper_macs_g": paper_macs,
        "paper_flops_g": paper_flops,
        "passes": passes,
        "macs_g_as_counted": macs_g,
        "flops_g_as_counted": flops_g,
        "deviation": deviation,
        "merged": None if taken is None else taken.merged,
        "encoded": None if taken is None else taken.encoded,
        "note": line["note"],
    }


@cache
def tokenizer_cost(clouds: int) -> Cost:
    """Cost of the ViT-S tokenizer and positions, which rows with two encoder passes count once."""
    teacher = _meta(BackboneConfig())
    whole = count(teacher, clouds=clouds)
    encoder = encoder_cost(teacher, clouds=clouds, tokens=teacher.config.groups)
    return Cost(
        params=whole.params, macs=whole.macs - encoder.macs, flops=whole.flops - encoder.flops
    )
