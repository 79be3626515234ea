"""The card of a model that ships: what it was trained on, how, its scores and its limits.

Whoever ships a model writes the facts as JSON; the scores may come from result rows of `probe`,
`zeroshot` and `fewshot`. Facts are kept in the model's config.json, and as text in its README.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from foundry3d.checkpoints.hub import HEAD, section
from foundry3d.checkpoints.sizes import read_json
from foundry3d.config.records import from_dict, require
from foundry3d.errors import InputError
from foundry3d.report.rows import table

MEASURES = {
    ("linear probe", "svm"): "linear probe",
    ("linear probe", "knn"): "20 nearest neighbours",
    ("linear probe", "taught"): "{examples} examples per class",
    ("zero-shot classification", "class_mean"): "nearest class mean",
    ("few-shot classification", "oa"): "{way}-way {shot}-shot",
}
"""Columns of result rows, by task, that become scores of a card, and what they are called there."""
UNTRAINED = "untrained"
"""The model's name in rows of a network of the same sizes that was not trained."""
COLUMNS = {
    "data": "data",
    "measure": "measure",
    "score": "score",
    "deviation": "std",
    "untrained": "untrained network",
    "seeds": "seeds",
}


@dataclass(frozen=True, kw_only=True)
class Score:
    """A score on real data, in percent.

    Attributes:
        data: the data set; the model was not trained on it.
        measure: what was measured, e.g. linear probe.
        score: of the model; the mean over seeds.
        untrained: of the untrained network of the same sizes; None = not measured.
        deviation: sample standard deviation over seeds; None with one seed.
        seeds: how many seeds there were.
        protocol: how it was measured.
    """

    data: str
    measure: str
    score: float
    untrained: float | None = None
    deviation: float | None = None
    seeds: int = 1
    protocol: str = ""


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a card says.

    Attributes:
        summary: the model, in one sentence.
        data: what it was trained on.
        protocol: how it was trained.
        limits: what it is not good for, one sentence each.
        license: of the weights, as SPDX names it.
        scores: on real data.
    """

    summary: str
    data: str
    protocol: str
    limits: tuple[str, ...]
    license: str = "MIT"
    scores: tuple[Score, ...] = ()

    def __post_init__(self) -> None:
        for name in ("summary", "data", "protocol", "license"):
            require(
                isinstance(getattr(self, name), str) and bool(getattr(self, name).strip()),
                f"{name} of a card is a sentence, got {getattr(self, name)!r}",
            )
        require(len(self.limits) > 0, "a card names at least one limit of the model")


def card_from(values: object) -> Card:
    """The card with these values, nested as `to_dict` returns them.

    Raises:
        InputError: the values are no card.
    """
    if not isinstance(values, dict):
        raise InputError(f"expected the facts of a card as an object, got {type(values).__name__}")
    scores = values.get("scores", [])
    if not isinstance(scores, list) or not all(isinstance(score, dict) for score in scores):
        raise InputError("expected the scores of a card as a list of objects")
    found = tuple(from_dict(Score, score) for score in scores)
    return from_dict(Card, values | {"scores": found})


def read_card(path: str | Path) -> Card:
    """The card in a JSON file.

    Raises:
        InputError: the file is not JSON or its content is no card.
    """
    try:
        return card_from(read_json(Path(path)))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def scores_of(rows: Sequence[dict[str, Any]], name: str) -> tuple[Score, ...]:
    """The scores of a model in result rows, averaged over their seeds, by data and measure.

    Args:
        rows: of `MEASURES`; those of other tasks and models are left out.
        name: of the model in the rows. Its untrained network is called `UNTRAINED`.

    Raises:
        InputError: no row has a score of the model.
    """
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    protocols: dict[tuple[str, str], str] = {}
    for row in rows:
        for (task, column), words in MEASURES.items():
            if row.get("task") == task and isinstance(row.get(column), int | float):
                key = str(row.get("data")), words.format(**row)
                found.setdefault(key, {}).setdefault(str(row.get("model")), []).append(row[column])
                protocols.setdefault(key, str(row.get("protocol") or ""))
    made = [
        Score(
            data=data,
            measure=measure,
            score=round(fmean(values), 2),
            untrained=round(fmean(models[UNTRAINED]), 2) if UNTRAINED in models else None,
            deviation=round(stdev(values), 2) if len(values) > 1 else None,
            seeds=len(values),
            protocol=protocols[data, measure],
        )
        for (data, measure), models in found.items()
        if (values := models.get(name))
    ]
    if not made:
        raise InputError(f"none of {len(rows)} result rows has a score of a model named {name}")
    return tuple(made)


def render(card: Card, name: str, *, tokens: int, width: int, sizes: dict[str, Any]) -> str:
    """The card as Markdown, with the header that a hub reads.

    Args:
        card: what it says.
        name: of the model.
        tokens: that it returns for each cloud.
        width: of a token's features.
        sizes: a table of the model's size and cost.
    """
    head = HEAD.format(
        license=card.license.lower(),
        title=name,
        sentence=card.summary,
        columns=3,
        tokens=tokens,
        width=width,
    )
    columns = {key: title.replace("score", name) for key, title in COLUMNS.items()}
    rows = [vars(score) for score in card.scores]
    parts = {
        "Data": card.data,
        "Protocol": card.protocol,
        "Scores": _scores(table(rows, columns), card) if rows else "None measured yet.",
        "Limits": "\n".join(f"- {limit}" for limit in card.limits),
    }
    text = "".join(f"## {heading}\n\n{body}\n\n" for heading, body in parts.items())
    licence = f"## Licence\n\n{card.license}, code and weights. No data set was used in training.\n"
    return head + text + section("Size and cost", sizes) + licence


def _scores(shown: str, card: Card) -> str:
    """The table of scores, with how they were measured."""
    said = dict.fromkeys(f"{s.measure}: {s.protocol}." for s in card.scores if s.protocol)
    notes = "\n".join(f"- {line}" for line in said)
    text = f"In percent, on data that the model was not trained on.\n\n{shown}"
    return f"{text}\n\n{notes}" if notes else text
