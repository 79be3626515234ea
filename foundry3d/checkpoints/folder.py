"""Checkpoints: the package's own are folders that say what they hold, loaded strictly.

`config.json` (format, version, kind, sizes, provenance) beside `model.safetensors` (weights, no
code). Both appear complete or not at all.
"""

from __future__ import annotations

import ctypes
import glob
import json
import os
import shutil
import tempfile
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from foundry3d.baselines import FPSStudent, KMeansStudent, Merged
from foundry3d.checkpoints.finite import require_finite
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
from foundry3d.writing import held, synced

FORMAT, VERSION = "foundry3d", 1
ADVICE = "a training run diverged or the file is damaged; use an earlier model"


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
        InputError: the folder exists and is not a checkpoint, or the model is of no known kind,
            compiled, or has weights that are NaN or infinite.
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
    tensors = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    require_finite(tensors, f"the model for {folder}", "nothing was saved")
    texts = (files or {}) | {"config.json": json.dumps(content, indent=2) + "\n"}
    with held(folder, wait=True):
        repair(folder)
        for left in leftovers(folder):
            shutil.rmtree(left, ignore_errors=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            write(temporary / "new", tensors, texts)
            put(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder


def write(new: Path, tensors: dict[str, Tensor], texts: dict[str, str]) -> None:
    """Writes the files of a folder that is made, and waits until they are on the disk."""
    new.mkdir()
    for name, text in texts.items():
        (new / name).write_text(text)
    weights = new / "model.safetensors"
    try:
        save_file(tensors, weights)
    except SafetensorError as error:
        raise OSError(f"could not write {weights.name}: {error}") from None
    weights.chmod((new / "config.json").stat().st_mode)  # the library makes it private
    for path in (*new.iterdir(), new):
        synced(path)


def put(temporary: Path, folder: Path) -> None:
    """Moves `temporary/new` to `folder`; what was there goes to `temporary`.

    Where the system can exchange two names there is a folder at every moment; elsewhere `repair`
    closes the gap that a kill between two renames leaves.
    """
    if not (folder.exists() and exchange(temporary / "new", folder)):
        if folder.exists():
            os.rename(folder, temporary / "old")
        os.rename(temporary / "new", folder)
    synced(folder.parent)


def exchange(a: Path, b: Path) -> bool:
    """Exchanges two names at once; False where the system cannot."""
    try:
        call = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    here, both = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return call(here, os.fsencode(a), here, os.fsencode(b), both) == 0


def leftovers(folder: Path) -> list[Path]:
    """Temporary folders of processes that were killed while they saved to `folder`."""
    try:
        found = folder.parent.glob(f".{glob.escape(folder.name)}.????????")
        return sorted(path for path in found if path.is_dir())
    except OSError:
        return []


def repair(folder: Path) -> None:
    """Puts a complete model in place that a killed process had no more time to."""
    if folder.exists():
        return
    for left in leftovers(folder):
        for name in ("new", "old"):  # the old one is moved away when the new one is complete
            if (left / "old").exists() and (left / name / "config.json").is_file():
                with suppress(OSError):
                    os.rename(left / name, folder)
                    return


def read_config(folder: str | Path) -> dict[str, Any]:
    """The content of a checkpoint's config.json, its header checked.

    Raises:
        InputError: not a folder of this format, or of a newer version.
    """
    folder = Path(folder)
    repair(folder)
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
        path: a folder that `save` wrote, or a file of another project (see `load_foreign`).
        options: of `load_foreign`, for files alone. Its notices become warnings here.

    Raises:
        InputError: not a checkpoint, truncated, keys and shapes that do not fit its sizes, or
            weights that are NaN or infinite.
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
    weights = Path(path) / "model.safetensors"
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
    require_finite(tensors, weights, ADVICE)
    model.load_state_dict(tensors)
    return model.eval()


def load_backbone(path: str | Path) -> Inner:
    """The model of a checkpoint; of a fine-tuned one, what is under its head.

    Raises:
        InputError: as `load`.
    """
    model: Inner | Headed = load(path)
    return model.backbone if isinstance(model, Headed) else model
