"""The columns that result rows share: what describes a model, and what describes its data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from foundry3d.baselines import LargerGroups, RandomSampling
from foundry3d.baselines.wrapped import Wrapped
from foundry3d.checkpoints.origin import Origin
from foundry3d.config.heads import encoded
from foundry3d.data.loading import Splits
from foundry3d.inference.cost import count
from foundry3d.models.student import Student
from foundry3d.models.tokenizer import PointModel
from foundry3d.report.rows import code_version


def short_name(path: str) -> str:
    """What tables call the model in a folder: the name of its run instead of `model`."""
    folder = Path(path)
    return folder.parent.name if folder.name == "model" else folder.name


def model_columns(name: str, model: Any, origin: Origin | None = None) -> dict[str, Any]:
    """Name, kind, parameters in millions, tokens, supertokens, encoded tokens and GMACs per cloud.

    GMACs include the tokenizer, not heads and grouping (`inference.cost`). `encoded` and `gmacs`
    are None where a gate decides them for every cloud; models of unknown kinds have neither. The
    origin of a saved model adds `pretrained_on`, `distilled_on` and `distill_frozen`.
    """
    parameters = sum(p.numel() for p in model.parameters())
    row: dict[str, Any] = {"model": name, "kind": type(model).__name__.lower()}
    row["params_m"] = round(parameters / 1e6, 3)
    whole = model.backbone if isinstance(model, Wrapped) else model
    if isinstance(whole, PointModel):
        row["tokens"] = whole.shape.groups
    if isinstance(model, Student):
        row["supertokens"] = model.config.supertokens
    if isinstance(model, RandomSampling | LargerGroups):
        row["encoded"] = model.shape.groups
    elif isinstance(model, PointModel | Wrapped):
        sizes: Any = model.config
        row["encoded"] = encoded(sizes)
    if isinstance(model, PointModel | Wrapped):
        gated = isinstance(model, Student) and model.gate is not None
        row["gmacs"] = None if gated else round(count(model).macs / 1e9, 4)
    return row if origin is None else row | origin._asdict()


def data_columns(splits: Splits, *, points: int, seed: int) -> dict[str, Any]:
    """Names and sizes of the splits, points per cloud, seed, and version of the code."""
    assert splits.test is not None
    held = 0 if splits.validation is None else len(splits.validation)
    return {
        "data": f"{splits.train.name} / {splits.test.name}",
        "sizes": [len(splits.train), held, len(splits.test)],
        "points": points,
        "seed": seed,
        "code": code_version(),
    }
