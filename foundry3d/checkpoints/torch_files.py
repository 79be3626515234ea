"""Files that torch.save wrote, read without importing or running anything they name.

Lightning checkpoints hold more than tensors. What torch does not load by itself becomes an inert
stand-in; a file made to run something, or to unpack to more than it is, is refused.
"""

from __future__ import annotations

import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from foundry3d.errors import InputError

PICKLE_LIMIT = 16 * 2**20  # bytes of a file that are not tensors; real ones hold less than 1 MiB
HOSTILE = (  # a file that names one of these was made to run something, not to be loaded
    *("os.", "posix.", "nt.", "sys.", "subprocess.", "shutil.", "importlib.", "runpy.", "ctypes."),
    *("builtins.eval", "builtins.exec", "builtins.compile", "builtins.__import__"),
    *("builtins.open", "io.open", "_io.open"),
)
_SAFE_CLASSES = Lock()
"""Held while our stand-ins are in torch's list of safe classes, which the whole process shares."""
CONTAINERS = ("state_dict", "base_model", "model_state_dict", "model")


class Inert:
    """Stands for an object of an unknown class: keeps its state as plain data, does nothing."""

    state: Any = None

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state


class InertMapping:
    """Stands for an unknown class of dictionaries: makes an ordered dictionary instead."""

    def __new__(cls, *_: Any) -> Any:
        """An empty dictionary, whatever the arguments."""
        return OrderedDict()


def _check_archive(path: Path) -> None:
    """Refuses what torch.save cannot have written, before anything of it is unpacked."""
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        raise InputError(
            f"{path} is truncated, or not a file that torch.save (1.6 or later) wrote"
        ) from None
    packed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
    if packed or sum(member.file_size for member in members) > path.stat().st_size:
        raise InputError(f"{path} unpacks to more than its own size, which no checkpoint does")
    if any(m.filename.endswith(".pkl") and m.file_size > PICKLE_LIMIT for m in members):
        raise InputError(f"{path} holds more than {PICKLE_LIMIT} bytes that are not tensors")


def read_torch(path: str | Path) -> Any:
    """The content of a file that torch.save wrote; tensors stay on disk until they are used.

    Objects of classes that torch does not load by itself (hyper-parameters, callbacks, metrics)
    become `Inert` or, where the class is named a dict, dictionaries. Nothing is imported or run.

    Raises:
        InputError: no such file, truncated, inflated, not a checkpoint, or made to run something.
    """
    path = Path(path)
    _check_archive(path)
    try:
        with _SAFE_CLASSES:
            unknown = get_unsafe_globals_in_checkpoint(path)
            hostile = sorted(name for name in unknown if name.startswith(HOSTILE))
            stand_ins: list[Callable | tuple[Callable, str]] = [
                (InertMapping if name.lower().endswith("dict") else Inert, name) for name in unknown
            ]
            if not hostile:
                with safe_globals(stand_ins):
                    return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # damaged bytes fail in every way there is
        reason = str(error).split("Unpickler error: ")[-1].strip().split("\n")[0][:200]
        raise InputError(
            f"{path} cannot be read as a checkpoint ({type(error).__name__}: {reason})"
        ) from None
    raise InputError(f"{path} would run {hostile[0]} when loaded plainly; nothing of it was read")


def state_dict(content: Any, path: Path) -> dict[str, Any]:
    """The weights of a file, by the names they have without data parallelism and compilation.

    Raises:
        InputError: no weights by name, or two by the same one.
    """
    if isinstance(content, Mapping):
        held = (content.get(name) for name in CONTAINERS)
        content = next((weights for weights in held if isinstance(weights, Mapping)), content)
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        raise InputError(f"{path} holds no weights under {', '.join(CONTAINERS)}")
    names = {key: re.sub(r"(^|(?<=\.))_orig_mod\.", "", key) for key in content}
    if all(name.startswith("module.") for name in names.values()):
        names = {key: name.removeprefix("module.") for key, name in names.items()}
    if len(set(names.values())) < len(names):
        raise InputError(f"{path} holds weights twice, with and without '_orig_mod.'")
    return {name: content[key] for key, name in names.items()}


def hyper_parameters(content: Any) -> dict[str, Any]:
    """What a Lightning checkpoint stores of its model's sizes; empty for other containers."""
    stored = content.get("hyper_parameters") if isinstance(content, Mapping) else None
    stored = stored.state if isinstance(stored, Inert) else stored
    if not isinstance(stored, Mapping):
        return {}
    return {k: v for k, v in stored.items() if v is None or isinstance(v, int | float)}


def check_tensors(tensors: dict[str, Any], path: Path) -> None:
    """Refuses values that are no plain tensors of numbers, or that together outgrow the file."""
    for key, value in tensors.items():
        plain = isinstance(value, Tensor) and value.layout is torch.strided
        if not plain or value.is_meta or value.is_nested or value.is_complex():
            raise InputError(f"{path}: key {key!r} is not a plain tensor of real numbers")
    size = sum(value.numel() * value.element_size() for value in tensors.values())
    if size > path.stat().st_size:
        raise InputError(f"{path} unpacks to more than its own size, which no checkpoint does")
