"""Checkpoints: the package's own are folders that say what they hold, loaded strictly.

`config.json` (format, version, kind, sizes, provenance) beside `model.safetensors` (weights, no
code). Both appear complete or not at all.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from foundry3d.baselines import FPSStudent, KMeansStudent, Merged
from foundry3d.checkpoints.foreign import load_foreign
from foundry3d.config import (
    BackboneConfig,
    ClassifierConfig,
    FPSStudentConfig,
    KMeansStudentConfig,
    MergedConfig,
    SegmenterConfig,
    StudentConfig,
    from_dict,
    to_dict,
)
from foundry3d.errors import InputError
from foundry3d.heads.classifier import Classifier, Headed, Inner
from foundry3d.heads.segmenter import Segmenter
from foundry3d.inference.kernels import is_compiled
from foundry3d.models.backbone import Backbone
from foundry3d.models.student import Student

FORMAT, VERSION = "foundry3d", 1


class Kind(NamedTuple):
    """What a checkpoint can hold: a module built from one record, which it keeps as `config`."""

    model: type[nn.Module]
    config: type


KINDS = {
    "backbone": Kind(Backbone, BackboneConfig),
    "student": Kind(Student, StudentConfig),
    "classifier": Kind(Classifier, ClassifierConfig),
    "segmenter": Kind(Segmenter, SegmenterConfig),
    "merged": Kind(Merged, MergedConfig),
    "fps_student": Kind(FPSStudent, FPSStudentConfig),
    "kmeans_student": Kind(KMeansStudent, KMeansStudentConfig),
}


def save(
    model: nn.Module,
    folder: str | Path,
    *,
    provenance: dict[str, Any],
    files: dict[str, str] | None = None,
) -> Path:
    """Writes a model as a folder; an earlier one there is replaced only by a complete new one.

    Args:
        model: of one of `KINDS`; its weights are written as they are.
        folder: where to.
        provenance: where it comes from (data, protocol, seed, scores); JSON values.
        files: further text files of the folder by name, e.g. a model card.

    Returns:
        The folder.

    Raises:
        InputError: the folder exists and is not a checkpoint, or the model is of no known kind, or
            compiled.
        OSError: the disk refuses, e.g. it is full; nothing is left behind.
    """
    folder = Path(folder)
    if folder.exists() and not (folder / "config.json").is_file():
        raise InputError(f"{folder} exists and is not a checkpoint; choose another folder")
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
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        new = temporary / "new"
        new.mkdir()
        tensors = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
        try:
            save_file(tensors, new / "model.safetensors")
        except SafetensorError as error:
            raise OSError(f"could not write {folder}: {error}") from None
        for name, text in (files or {}).items():
            (new / name).write_text(text)
        (new / "config.json").write_text(json.dumps(content, indent=2) + "\n")
        if folder.exists():
            os.rename(folder, temporary / "old")
        os.rename(new, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def model_folder(path: str | Path) -> Path:
    """The checkpoint folder that a path names: itself, or the `model/` that a run left in it."""
    path = Path(path)
    inner = path / "model"
    named = (path / "config.json").is_file() or not (inner / "config.json").is_file()
    return path if named else inner


def read_config(folder: str | Path) -> dict[str, Any]:
    """The content of a checkpoint's config.json, its header checked.

    Args:
        folder: a checkpoint, or a run folder that holds one as `model/`.

    Raises:
        InputError: not a folder of this format, or of a newer version.
    """
    folder = model_folder(folder)
    if not (folder / "config.json").is_file():
        raise InputError(
            f"{folder}: expected a checkpoint folder with config.json and model.safetensors"
        )
    try:
        content = json.loads((folder / "config.json").read_text())
    except (ValueError, OSError) as error:
        raise InputError(f"{folder}/config.json is not readable JSON: {error}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"{folder}/config.json was not written by {FORMAT}; nothing to load")
    if content.get("version") != VERSION or content.get("kind") not in KINDS:
        raise InputError(
            f"{folder}: version {content.get('version')!r} of kind {content.get('kind')!r} is not "
            f"known here (version {VERSION}: {', '.join(KINDS)}); update {FORMAT}"
        )
    return content


def load(path: str | Path, **options: Any) -> Any:
    """The model of a checkpoint, of the class in `KINDS`, in evaluation mode, on the CPU.

    Args:
        path: a folder that `save` wrote, a run folder that holds one as `model/`, or a file of
            another project (see `load_foreign`).
        options: of `load_foreign`, for files alone. Its notices become warnings here.

    Raises:
        InputError: not a checkpoint, truncated, or keys and shapes that do not fit its sizes.
    """
    if Path(path).is_file():
        backbone, provenance = load_foreign(path, **options)
        for notice in provenance["notices"]:
            warnings.warn(f"{path}: {notice}", stacklevel=2)
        return backbone
    if options:
        raise InputError(f"{path} is not a file; {', '.join(options)} are for foreign files alone")
    content = read_config(path)
    kind = KINDS[content["kind"]]
    model = kind.model(from_dict(kind.config, content["config"]))
    weights = model_folder(path) / "model.safetensors"
    try:
        tensors = load_file(weights)
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{weights} is truncated or not a safetensors file ({error}); copy it again"
        ) from None
    own = model.state_dict()
    missing, surplus = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    shapes = [k for k in own.keys() & tensors.keys() if own[k].shape != tensors[k].shape]
    if missing or surplus or shapes:
        raise InputError(
            f"{weights} does not fit its config.json: missing {missing[:3]}, unknown "
            f"{surplus[:3]}, of another shape {sorted(shapes)[:3]}"
        )
    model.load_state_dict(tensors)
    return model.eval()


def load_backbone(path: str | Path) -> Inner:
    """The model of a checkpoint; of a fine-tuned one, what is under its head.

    Raises:
        InputError: as `load`.
    """
    model: Inner | Headed = load(path)
    return model.backbone if isinstance(model, Headed) else model
