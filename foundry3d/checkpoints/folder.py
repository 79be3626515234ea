"""Our own checkpoints: folders that describe themselves and are loaded strictly.

A folder has `config.json` (format, version, kind, sizes, provenance) and `model.safetensors`
(weights, no code). Both appear complete or not at all.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, overload

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from foundry3d.baselines import FPSStudent, KMeansStudent, Merged
from foundry3d.checkpoints.finite import require_finite
from foundry3d.checkpoints.foreign import load_foreign
from foundry3d.checkpoints.replace import WEIGHTS, repair, replace_folder
from foundry3d.checkpoints.sizes import checked_config, read_json, shown
from foundry3d.checkpoints.zoo import known, shipped
from foundry3d.config import (
    BackboneConfig,
    ClassifierConfig,
    FPSStudentConfig,
    KMeansStudentConfig,
    MergedConfig,
    SegmenterConfig,
    StudentConfig,
    TruncatedConfig,
    to_dict,
)
from foundry3d.errors import InputError
from foundry3d.heads.classifier import Classifier, Headed, Inner
from foundry3d.heads.segmenter import Segmenter
from foundry3d.inference.kernels import is_compiled
from foundry3d.models.backbone import Backbone
from foundry3d.models.student import Student
from foundry3d.models.truncated import Truncated

FORMAT, VERSION = "foundry3d", 1
ADVICE = "a training run diverged or the file is damaged; use an earlier model"

Model = Inner | Classifier | Segmenter
"""What a checkpoint can hold, see `KINDS`."""
Expected = TypeVar("Expected", bound=nn.Module)


class Kind(NamedTuple):
    """A module built from one record, which it keeps as `config`."""

    model: type[Model]
    config: type


KINDS = {
    "backbone": Kind(Backbone, BackboneConfig),
    "student": Kind(Student, StudentConfig),
    "truncated": Kind(Truncated, TruncatedConfig),
    "classifier": Kind(Classifier, ClassifierConfig),
    "segmenter": Kind(Segmenter, SegmenterConfig),
    "merged": Kind(Merged, MergedConfig),
    "fps_student": Kind(FPSStudent, FPSStudentConfig),
    "kmeans_student": Kind(KMeansStudent, KMeansStudentConfig),
}


def _is_ours(content: object) -> bool:
    """Whether the content of a config.json is that of one of our checkpoints."""
    return isinstance(content, dict) and content.get("format") == FORMAT


def _require_replaceable(folder: Path) -> None:
    """Refuses to save where something other than one of our checkpoints is."""
    try:
        ours = _is_ours(read_json(folder / "config.json"))
    except InputError:
        ours = False
    if not ours:
        raise InputError(
            f"{folder} exists and is not a checkpoint of {FORMAT}; choose another folder"
        )


def save(
    model: nn.Module,
    folder: str | Path,
    *,
    provenance: dict[str, Any],
    files: dict[str, str] | None = None,
    half: bool = False,
) -> Path:
    """Writes a model as a folder; an earlier one there is replaced only by a complete new one.

    Only `config.json`, `model.safetensors` and `files` are replaced: what else is in the folder
    of an earlier model, such as notes, stays.

    Args:
        model: of one of `KINDS`; its weights are written as they are.
        folder: to write; made where it is missing.
        provenance: where it comes from (data, protocol, seed, scores); JSON values.
        files: further text files to write, by name, e.g. a model card.
        half: write matrices in float16; vectors, such as biases and BatchNorm statistics, stay as
            they are. `load` returns float32 all the same.

    Returns:
        The folder.

    Raises:
        InputError: the folder exists and was not written by `save`, or the model is of no known
            kind, compiled, or has weights that are NaN or infinite.
        OSError: the disk refuses, e.g. it is full; nothing is left behind.
    """
    folder = Path(folder)
    if folder.exists():
        _require_replaceable(folder)
    if is_compiled(model):
        raise InputError("a compiled model is not saved; save the one it was made of")
    kind = next((name for name, kind in KINDS.items() if isinstance(model, kind.model)), None)
    if kind is None:
        raise InputError(f"expected a {', '.join(KINDS)} to save, got a {type(model).__name__}")
    content = {
        "format": FORMAT,
        "version": VERSION,
        "kind": kind,
        "config": to_dict(model.config),
        "provenance": provenance,
    }
    tensors = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    if half:
        tensors = {k: v.half() if v.ndim > 1 else v for k, v in tensors.items()}
    require_finite(tensors, f"the model for {folder}", "nothing was saved")
    texts = (files or {}) | {"config.json": json.dumps(content, indent=2) + "\n"}
    replace_folder(folder, tensors, texts)
    return folder


def model_folder(path: str | Path) -> Path:
    """The checkpoint folder that a path names: itself, or the `model/` that a run left in it.

    The name of a shipped model stands for its folder in the package, unless a path of that name
    exists.
    """
    path = shipped(path) or Path(path)
    inner = path / "model"
    named = (path / "config.json").is_file() or not (inner / "config.json").is_file()
    return path if named else inner


def read_config(folder: str | Path) -> dict[str, Any]:
    """The content of a checkpoint's config.json, its header checked.

    Args:
        folder: a checkpoint, a run folder that holds one as `model/`, or the name of a shipped
            model.

    Raises:
        InputError: not a folder of this format, one of a newer version, or an incomplete header.
    """
    for place in (Path(folder), Path(folder) / "model"):
        repair(place)
    folder = model_folder(folder)
    if not (folder / "config.json").is_file():
        raise InputError(
            f"{folder}: expected a checkpoint folder with config.json and model.safetensors, or "
            f"the name of a model that ships ({known()})"
        )
    content = read_json(folder / "config.json")
    if not _is_ours(content):
        raise InputError(f"{folder}/config.json was not written by {FORMAT}; nothing to load")
    number, kind = content.get("version"), content.get("kind")
    if type(number) is not int or number != VERSION or kind not in list(KINDS):
        raise InputError(
            f"{folder}: version {shown(number)} of kind {shown(kind)} is not known here "
            f"(version {VERSION}: {', '.join(KINDS)}); update {FORMAT}"
        )
    if not isinstance(content.get("provenance"), dict):
        raise InputError(f"{folder}/config.json has no provenance; save the model again")
    return content


@overload
def load(path: str | Path, *, kind: type[Expected], **options: Any) -> Expected: ...


@overload
def load(path: str | Path, *, kind: None = None, **options: Any) -> Model: ...


def load(
    path: str | Path, *, kind: type[Expected] | None = None, **options: Any
) -> Expected | Model:
    """The model of a checkpoint, of the class in `KINDS`, in evaluation mode, on the CPU.

    Types and sizes in its config.json are held against the weights before they take memory.

    Args:
        path: a folder that `save` wrote, a run folder that holds one as `model/`, a file of
            another project (see `load_foreign`), or the name of a shipped model (`zoo.names`).
        kind: the class that is expected, e.g. `foundry3d.Student`; None = any.
        options: of `load_foreign`, for files alone. Its notices become warnings here.

    Raises:
        InputError: not a checkpoint, truncated, values, keys or shapes that do not fit, weights
            that are NaN or infinite, or a model of another class than `kind`.
    """
    model = _load(Path(path), **options)
    if kind is not None and not isinstance(model, kind):
        raise InputError(f"{path}: expected a {kind.__name__}, it is a {type(model).__name__}")
    return model


def _load(path: Path, **options: Any) -> Model:
    if path.is_file():
        if path.name == WEIGHTS and (path.parent / "config.json").is_file():
            raise InputError(f"{path} is part of a checkpoint; load its folder, {path.parent}")
        backbone, provenance = load_foreign(path, **options)
        for notice in provenance["notices"]:
            warnings.warn(f"{path}: {notice}", stacklevel=3)
        return backbone
    if options:
        raise InputError(f"{path} is not a file; {', '.join(options)} are for foreign files alone")
    content = read_config(path)
    kind, weights = KINDS[content["kind"]], model_folder(path) / WEIGHTS
    record: Any = checked_config(kind.model, kind.config, content.get("config"), weights)
    try:
        tensors = load_file(weights)
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{weights} is truncated or not a safetensors file ({error}); copy it again"
        ) from None
    model: Model = kind.model(record)
    for name, own in model.state_dict().items():
        if tensors[name].is_floating_point() != own.is_floating_point():
            raise InputError(f"{weights}: {name} is {tensors[name].dtype}, expected {own.dtype}")
    require_finite(tensors, weights, ADVICE)
    model.load_state_dict(tensors)
    return model.eval()


def load_backbone(path: str | Path) -> Inner:
    """The model in a checkpoint; for a fine-tuned one, the model under its head.

    Raises:
        InputError: as `load`.
    """
    model = load(path)
    return model.backbone if isinstance(model, Headed) else model
