"""What a saved model was pre-trained and distilled on, from its and earlier provenance."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from foundry3d.checkpoints.folder import model_folder, read_config
from foundry3d.errors import InputError

PREDECESSORS = ("init", "teacher", "model")
"""Keys of provenance that name the saved model a run started from."""
LONGEST = 8
"""How many predecessors are followed; a chain of saved models may lead back to itself."""


class Origin(NamedTuple):
    """What shaped a model's weights before any labels.

    Attributes:
        pretrained_on: data of the pre-training, the teacher's for a student; None = not known.
        distilled_on: data of the distillation; None = not distilled.
        distill_frozen: what stayed frozen in it (`DistillConfig.frozen`); None = not known.
        unexplained: share of the variance of the teacher's token features that the student leaves
            unexplained at the end of the distillation; None = not measured, and for the others.
        cosine: mean cosine between the token features of student and teacher.
        cka: linear CKA of their pooled features.
        fidelity_on: the clouds that these three were measured on.
    """

    pretrained_on: str | None = None
    distilled_on: str | None = None
    distill_frozen: str | None = None
    unexplained: float | None = None
    cosine: float | None = None
    cka: float | None = None
    fidelity_on: str | None = None


FIDELITY = ("unexplained", "cosine", "cka", "fidelity_on")
"""The fields of `Origin` that describe how well a student reproduces its teacher."""


def origin_of(path: str | Path, *, longest: int = LONGEST) -> Origin:
    """The origin of a saved model.

    Args:
        path: a checkpoint or run folder, or a file of another project, which does not record it.
            Where there is neither, nothing is known.
        longest: how many predecessors are followed where provenance does not name both itself.
    """
    if longest == 0:
        return Origin()
    if Path(path).is_file():
        return Origin(f"data that {Path(path).name} does not name")
    try:
        facts = read_config(model_folder(path))["provenance"]
    except (InputError, OSError):
        return Origin()
    return origin_from(facts, longest=longest)


def origin_from(facts: dict[str, Any], *, longest: int = LONGEST) -> Origin:
    """The origin of a model with this provenance.

    Args:
        facts: the provenance. Models saved before it had the keys of `Origin` are traced through
            the runs that they started from.
        longest: as for `origin_of`.
    """
    if not {"pretrained_on", "distilled_on"}.isdisjoint(facts):
        return Origin(*(facts.get(name) for name in Origin._fields))
    before = next((facts[key] for key in PREDECESSORS if facts.get(key)), None)
    origin = Origin() if before is None else origin_of(str(before), longest=longest - 1)
    if "distill_frozen" in facts:
        origin = origin._replace(distill_frozen=facts["distill_frozen"])
    data, made_by = facts.get("data"), str(facts.get("made_by"))
    if "source" in facts:  # converted from a file of another project
        return Origin(f"data that {facts.get('file')} ({facts['source']}) does not name")
    if data is None:
        return origin
    if made_by.startswith("pretrain"):
        return origin._replace(pretrained_on=after(origin.pretrained_on, data))
    if made_by in ("distill", "k-means"):
        own = {name: facts.get(name) for name in FIDELITY}
        return origin._replace(distilled_on=after(origin.distilled_on, data), **own)
    return origin


def with_origin(facts: dict[str, Any]) -> dict[str, Any]:
    """Provenance, and the origin that follows from it."""
    return facts | origin_from(facts)._asdict()


def after(earlier: str | None, data: str) -> str:
    """Both names in their order, or one where they agree or there is no earlier one."""
    return data if earlier in (None, data) else f"{earlier}, then {data}"
