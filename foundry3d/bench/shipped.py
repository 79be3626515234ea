"""`foundry3d models`: the models that ship, with size, cost, speed here, scores and licence."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import torch

from foundry3d.bench.measure import interleaved, machine
from foundry3d.bench.subjects import cloud_points
from foundry3d.checkpoints import zoo
from foundry3d.checkpoints.card import COLUMNS as SCORES
from foundry3d.checkpoints.card import Card, card_from
from foundry3d.checkpoints.folder import load_backbone, read_config
from foundry3d.checkpoints.policy import stored_facts
from foundry3d.config import ModelsConfig, to_dict
from foundry3d.errors import InputError
from foundry3d.evaluation.rows import short_name
from foundry3d.heads.classifier import Inner
from foundry3d.inference.allocator import retain_memory
from foundry3d.inference.compiled import compile as fast_form
from foundry3d.inference.cost import count
from foundry3d.models.student import Student
from foundry3d.report.rows import table

COLUMNS = {
    "name": "name",
    "kind": "kind",
    "tokens": "tokens",
    "params_m": "params (M)",
    "gmacs": "GMACs",
    "clouds_s": "clouds/s",
    "license": "licence",
}
BATCH = 16
REPEATS = 5
SECONDS = 3.0
"""The longest measurement of a model."""


def models(config: ModelsConfig) -> list[dict[str, Any]]:
    """Prints the models that ship, or those that are named: `foundry3d models`.

    Returns:
        A row for each, with its scores as a list.

    Raises:
        InputError: a model cannot be read, or none ships.
    """
    names = config.models or zoo.names()
    if not names:
        raise InputError("no model ships with this installation; name the folders of saved ones")
    rows = [row_of(name, speed=not config.no_speed) for name in names]
    print(json.dumps(rows, indent=2) if config.json else shown(rows))
    return rows


def row_of(name: str, *, speed: bool) -> dict[str, Any]:
    """What is known about a model, JSON values.

    GMACs are those of one cloud, the fewest and the most where a gate decides them.

    Args:
        name: of a shipped model, or the folder of a saved one.
        speed: also measure clouds per second here.
    """
    facts, card = stored_facts(name), card_of(name)
    model = load_backbone(name)
    least, most = count(model), count(model, merged=0) if gated(model) else None
    row: dict[str, Any] = {
        "name": short_name(name),
        "kind": read_config(name)["kind"],
        "tokens": model.shape.groups,
        "params_m": round(least.params / 1e6, 3),
        "gmacs_least": round(least.macs / 1e9, 4),
        "gmacs_most": round((most or least).macs / 1e9, 4),
    }
    if speed:
        points = facts.get("points")
        points = points if isinstance(points, int) and points >= model.shape.groups else 1024
        row |= speed_of(model, points)
    scores = [] if card is None else to_dict(card)["scores"]
    return row | {"license": None if card is None else card.license, "scores": scores}


def card_of(name: str) -> Card | None:
    """The facts of a model's card; None where it was not shipped."""
    values = stored_facts(name).get("card")
    return None if values is None else card_from(values)


def gated(model: Inner) -> bool:
    """Whether the model has a gate, so that its cost depends on the clouds or a budget."""
    return isinstance(model, Student) and model.gate is not None


def speed_of(model: Inner, points: int) -> dict[str, Any]:
    """Clouds per second of the compiled model on this processor, and how they were measured."""
    retain_memory()
    fast, clouds = fast_form(model), cloud_points(BATCH, points, seed=0)
    with torch.inference_mode():
        timed = interleaved({"": partial(fast, clouds)}, repeats=REPEATS, limit=SECONDS)[""]
    facts = machine("cpu")
    return {
        "clouds_s": round(BATCH / timed.median, 1),
        "speed": f"median of {timed.repeats} calls, batches of {BATCH} clouds of {points} points, "
        f"compiled, fp32, {facts['threads']} threads, {facts['processor']}",
    }


def shown(rows: list[dict[str, Any]]) -> str:
    """Tables of the models and of their scores."""
    lines = [row | {"gmacs": _span(row["gmacs_least"], row["gmacs_most"])} for row in rows]
    used = {k: v for k, v in COLUMNS.items() if any(line.get(k) is not None for line in lines)}
    parts = [table(lines, used)]
    scores = [{"name": row["name"]} | score for row in rows for score in row["scores"]]
    if scores:
        parts.append(table(scores, {"name": "name", **SCORES}))
    said = dict.fromkeys(f"clouds/s: {row['speed']}" for row in rows if "speed" in row)
    return "\n\n".join([*parts, *said])


def _span(least: float, most: float) -> str:
    return f"{least:.3g}" if least == most else f"{least:.3g} to {most:.3g}"
