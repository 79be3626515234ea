"""What an exported file says about itself: a JSON object, the same in every format."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from foundry3d.checkpoints.folder import KINDS, model_folder
from foundry3d.checkpoints.policy import Policy, stored_facts
from foundry3d.export.network import Network, inner_of
from foundry3d.heads.classifier import Classifier
from foundry3d.heads.segmenter import Segmenter
from foundry3d.models.student import Student
from foundry3d.report.rows import package_version

FORMAT, VERSION = "foundry3d-export", 1


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where an exported model comes from.

    Attributes:
        policy: how the clouds of its training were prepared.
        up: the axis that points up in them; None = not recorded.
        licence: of the weights; None = not recorded.
        facts: provenance of the checkpoint, JSON values.
    """

    policy: Policy = field(default_factory=Policy)
    up: str | None = None
    licence: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)


def origin_of(path: str | Path, policy: Policy) -> Origin:
    """What a saved model records about itself, and how its clouds are prepared."""
    facts = stored_facts(path)
    points = facts.get("points")
    return Origin(
        policy=Policy(
            normalise=policy.normalise,
            points=points if isinstance(points, int) and points > 0 else None,
        ),
        up=facts["up"] if facts.get("up") in ("x", "y", "z") else None,
        licence=_licence(model_folder(path) / "README.md"),
        facts=facts or {"file": Path(path).name},
    )


def _licence(card: Path) -> str | None:
    """The licence in the header of a model card."""
    if not card.is_file():
        return None
    found = re.match(
        r"---\n(?:.*\n)*?license: *(\S.*)\n(?:.*\n)*?---\n", card.read_text(errors="replace")
    )
    return found[1].strip() if found else None


def metadata(
    network: Network, origin: Origin, precision: str, report: dict[str, Any]
) -> dict[str, Any]:
    """The description of a file, JSON values.

    Args:
        network: what the file computes.
        origin: of the model.
        precision: of the file.
        report: of its verification.
    """
    model, inner = network.model, inner_of(network.model)
    kind = next(name for name, kind in KINDS.items() if isinstance(model, kind.model))
    supertokens = getattr(inner.config, "supertokens", None)
    budget = {} if network.budget is None else network.budget.asked()
    if isinstance(inner, Student):
        supertokens = budget.get("supertokens", supertokens)
    made = {
        "format": FORMAT,
        "version": VERSION,
        "foundry3d": package_version(),
        "kind": kind,
        "geometry": network.geometry,
        "precision": precision,
        "inputs": list(network.inputs),
        "outputs": list(network.outputs),
        "groups": network.shape.groups,
        "group_size": network.shape.group_size,
        "least_points": network.least,
        "radius": network.shape.radius,
        "width": inner.output_dim,
        "supertokens": supertokens,
        "budget": budget,
        "preparation": {
            "normalise": origin.policy.normalise,
            "up": origin.up,
            "points": origin.policy.points,
        },
        "classes": list(model.config.classes) if isinstance(model, Classifier) else None,
        "parts": list(model.config.parts) if isinstance(model, Segmenter) else None,
        "categories": list(model.config.categories) if isinstance(model, Segmenter) else None,
        "owned": [list(n) for n in model.config.owned] if isinstance(model, Segmenter) else None,
        "licence": origin.licence,
        "source": origin.facts,
        "report": report,
    }
    found: dict[str, Any] = json.loads(json.dumps(made, default=str), parse_constant=lambda _: None)
    return found
