"""Putting a trained model into the package: `ship`, described in `docs/models.md`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from foundry3d.checkpoints import zoo
from foundry3d.checkpoints.card import Card, render, scores_of
from foundry3d.checkpoints.folder import load, read_config, save
from foundry3d.checkpoints.hub import sizes_of
from foundry3d.checkpoints.origin import Origin, origin_from
from foundry3d.config import to_dict
from foundry3d.errors import InputError
from foundry3d.models.backbone import Backbone
from foundry3d.models.student import Student
from foundry3d.models.truncated import Truncated

MOST_BYTES = 8_000_000
"""Of all models that ship, together."""
FREE = ("procedural", "programs")
"""How the names of data begin that this package makes itself."""
KEPT = (
    "made_by", "distill_extras", "data", "clouds", "points", "up", "normalise", "epochs",
    "batch_size", "seed", "code", *Origin._fields,
)  # fmt: skip
"""What a shipped model keeps of its provenance; folders and settings of its run are left out."""


def ship(source: str | Path, name: str, card: Card, *, rows: Sequence[dict[str, Any]] = ()) -> Path:
    """Puts a saved model into the package, where `foundry3d.load(name)` finds it.

    Matrices are stored in float16 and loaded in float32. The package must be a checkout; the
    model ships with its next wheel.

    Args:
        source: a saved backbone or student, or its run folder.
        name: lower-case letters, digits and hyphens.
        card: its facts; see `card.read_card`.
        rows: result rows in which the model is called `name`; their scores are added to the card.

    Returns:
        The model's folder in the package.

    Raises:
        InputError: a name that does not fit, a model of another kind, one that was trained on
            more than built-in shapes, rows without a score of it, or more than `MOST_BYTES` for
            all models.
    """
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise InputError(f"a name has lower-case letters, digits and hyphens, got {name!r}")
    model, facts = load(source), read_config(source)["provenance"]
    if not isinstance(model, Backbone | Student | Truncated):
        raise InputError(f"{source}: expected a backbone or student, got {type(model).__name__}")
    provenance = kept(facts)
    require_free(provenance, source)
    if rows:
        card = replace(card, scores=(*card.scores, *scores_of(rows, name)))
    size = sum(
        value.numel() * (2 if value.ndim > 1 else 4) for value in model.state_dict().values()
    )
    others = sum(size_of(other) for other in zoo.names() if other != name)
    if size + others > MOST_BYTES:
        raise InputError(
            f"{name} takes {size / 1e6:.1f} MB and the other models {others / 1e6:.1f}, but all "
            f"that ship have {MOST_BYTES / 1e6:.0f} MB together; make it smaller"
        )
    text = render(
        card, name, tokens=model.shape.groups, width=model.output_dim, sizes=sizes_of(model)
    )
    provenance |= {"card": to_dict(card)}
    return save(model, zoo.ZOO / name, provenance=provenance, files={"README.md": text}, half=True)


def size_of(name: str) -> int:
    """The bytes that a shipped model takes."""
    return sum(path.stat().st_size for path in (zoo.ZOO / name).iterdir())


def kept(facts: dict[str, Any]) -> dict[str, Any]:
    """The provenance of a shipped model: what its origin is, nothing about folders of its run."""
    whole = facts | origin_from(facts)._asdict()
    return {key: whole[key] for key in KEPT if whole.get(key) is not None}


def require_free(provenance: dict[str, Any], source: str | Path) -> None:
    """Refuses a model that was trained on data which this package does not make itself.

    Raises:
        InputError: other data is named, or none.
    """
    named = [provenance.get(key) for key in ("pretrained_on", "distilled_on")]
    parts = [part for text in named if text is not None for part in str(text).split(", then ")]
    if not parts or not all(part.startswith(FREE) for part in parts):
        raise InputError(
            f"{source} was trained on {', '.join(parts) or 'data that it does not record'}; only "
            f"models of built-in shapes ship ({', '.join(FREE)})"
        )
