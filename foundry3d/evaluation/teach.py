"""`foundry3d teach`: a classifier from a few labelled files, in seconds.

Shapes: n examples, D = 2d width of pooled features, C classes.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from foundry3d.checkpoints.folder import load_backbone, save
from foundry3d.checkpoints.origin import with_origin
from foundry3d.checkpoints.policy import stored_facts
from foundry3d.config import HeadConfig, TeachConfig
from foundry3d.config.paths import require_apart
from foundry3d.embed.pooled import reading_of, reference, up_of
from foundry3d.embed.reading import Reading
from foundry3d.evaluation.example_files import Examples, read_examples
from foundry3d.evaluation.teaching import (
    Chosen,
    Head,
    Limit,
    Rows,
    Scale,
    choose,
    limit_of,
    scale_of,
    wilson,
)
from foundry3d.heads.classifier import Classifier, Inner
from foundry3d.report.rows import code_version, table

log = logging.getLogger("foundry3d")

OPEN_SET = "open_set.json"
"""File of a taught model: what decides whether a cloud is unknown."""
MOST_SHOWN = 20
"""Confused examples in the table, at most; the model's config.json names all of them."""
DIGITS = 7
"""Decimal digits of the numbers in `OPEN_SET`."""


def classifier_of(model: Inner, classes: tuple[str, ...], head: Head) -> Classifier:
    """A classifier whose head is one linear layer with these weights (C, D) and biases (C,).

    Args:
        model: its weights are copied; not changed.
        classes: C names.
        head: for pooled features as the model returns them.
    """
    made = Classifier.from_model(model, classes, head=HeadConfig(hidden=(), dropout=0.0))
    with torch.no_grad():
        made.head.output.weight.copy_(torch.from_numpy(head.weight))
        made.head.output.bias.copy_(torch.from_numpy(head.bias))
    return made


class Learnt(NamedTuple):
    """A classifier for whitened features.

    Attributes:
        turned: whether the copies that it was taught with are turned about the up axis.
        chosen: the classifier.
        limit: for unknown shapes; None where nothing could be left out.
        tried: how many candidates there were.
    """

    turned: bool
    chosen: Chosen
    limit: Limit | None
    tried: int


def learn(examples: Examples, scale: Scale) -> Learnt:
    """The best classifier by leave-one-out, with turned copies or with others."""
    variants = {
        turned: Rows(
            features=scale.apply(examples.features[mask]),
            example=examples.example[mask],
            labels=examples.labels,
            classes=len(examples.classes),
        )
        for turned, mask in examples.variants().items()
    }
    found = {turned: choose(rows) for turned, rows in variants.items()}
    best = min(found, key=lambda turned: (found[turned].loss, turned))
    tried = sum(chosen.tried for chosen in found.values())
    return Learnt(best, found[best], limit_of(variants[best]), tried)


def judgement(examples: Examples, chosen: Chosen) -> dict[str, Any]:
    """What leave-one-out says about the classifier, JSON values.

    `accuracy` is None where nothing could be left out; `interval` is Wilson's, of 95 %.
    """
    judged = chosen.answers >= 0
    wrong = np.flatnonzero(judged & (chosen.answers != examples.labels))
    count, classes = int(judged.sum()), examples.classes
    right = count - len(wrong)
    return {
        "accuracy": right / count if count else None,
        "interval": list(wilson(right, count)) if count else None,
        "right": right,
        "judged": count,
        "confused": [
            {
                "file": examples.names[i],
                "label": classes[examples.labels[i]],
                "taken_for": classes[chosen.answers[i]],
            }
            for i in wrong
        ],
    }


def _open_set(scale: Scale, limit: Limit) -> str:
    """The content of `OPEN_SET`."""

    def short(values: np.ndarray) -> list[Any]:
        return np.vectorize(lambda v: float(f"{v:.{DIGITS}g}"))(values).tolist()

    content = {
        "limit": limit.distance,
        "mean": short(scale.mean),
        "matrix": short(scale.matrix),
        "means": short(limit.means),
    }
    return json.dumps(content) + "\n"


def _report(facts: dict[str, Any], classes: dict[str, int]) -> None:
    """Prints how good the classifier is, and which examples it confuses."""
    counted = ", ".join(f"{name} {count}" for name, count in classes.items())
    turned = "turned copies" if facts["turned"] else "copies that are not turned"
    how = facts["head"] + (f", with {turned}" if facts["copies"] else "")
    print(f"{sum(classes.values())} examples of {len(classes)} classes ({counted}): {how}")
    if facts["accuracy"] is None:
        print("No accuracy can be estimated from one example per class; add a second one of each.")
        return
    low, high = facts["interval"]
    print(
        f"Estimated accuracy {facts['accuracy']:.0%}: {facts['right']} of {facts['judged']} "
        f"examples are recognised by a classifier taught without them "
        f"(95 % interval {low:.0%} to {high:.0%})."
    )
    alone = [name for name, count in classes.items() if count == 1]
    if alone:
        print(f"Not judged, because there is only one example: {', '.join(alone)}.")
    if confused := facts["confused"]:
        columns = {"file": "confused example", "label": "label", "taken_for": "taken for"}
        print(table(confused[:MOST_SHOWN], columns))
        if len(confused) > MOST_SHOWN:
            print(f"... and {len(confused) - MOST_SHOWN} more")


def _provenance(
    config: TeachConfig, reading: Reading, examples: Examples, learnt: Learnt
) -> dict[str, Any]:
    """Where the classifier comes from, how clouds are prepared for it, and how good it is."""
    counts = np.bincount(examples.labels).tolist()
    found = {
        "made_by": "teach",
        "model": config.model,
        "taught_on": list(config.files),
        "points": reading.policy.points,
        "normalise": reading.policy.normalise,
        "up": stored_facts(config.model).get("up"),
        "files_up": config.up,
        "seed": config.seed,
        "copies": config.copies,
        "code": code_version(),
        "turned": learnt.turned,
        "head": learnt.chosen.name,
        "tried": learnt.tried,
        "examples": dict(zip(examples.classes, counts, strict=True)),
        **judgement(examples, learnt.chosen),
        "open_set": None,
    }
    if (limit := learnt.limit) is not None:
        beyond = {"limit": limit.distance, "beyond": limit.beyond, "judged": limit.judged}
        found["open_set"] = beyond
    return with_origin(found)


def teach(config: TeachConfig) -> Path:
    """Writes a classifier that a few labelled files have taught: `foundry3d teach`.

    Features are whitened with those of random shapes, so that they do not depend on labels or on
    how few examples there are. The whitening is part of the weights of the head.
    Prints the accuracy that leave-one-out estimates.

    Returns:
        The model folder.

    Raises:
        InputError: the model cannot be loaded, the folder of examples has another layout, or fewer
            than two classes have an example that can be used; nothing is written.
        PartialFailure: some files or classes cannot be used; the model was taught by the others.
    """
    require_apart({"out": config.out}, [config.model, *config.files])
    model = load_backbone(config.model)
    reading = reading_of(config.reading(), model)
    examples = read_examples(model, reading, config)
    reading.require(len(examples.names))
    shapes = reference(model, reading.policy, up=up_of(reading.config), batch=config.batch_size)
    scale = scale_of(shapes)
    learnt = learn(examples, scale)
    facts = _provenance(config, reading, examples, learnt)
    made = classifier_of(model, examples.classes, learnt.chosen.head.folded(scale))
    files = {} if learnt.limit is None else {OPEN_SET: _open_set(scale, learnt.limit)}
    out = save(made, config.out, provenance=facts, files=files)
    _report(facts, facts["examples"])
    print(f"{out}: label your files with foundry3d predict FILES --model {out}")
    reading.require_all(f"{out} was taught by the other {len(examples.names)}")
    return out
