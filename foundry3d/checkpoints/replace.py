"""Replacing a model folder: it always holds a complete model, and other files in it stay.

The new folder is written next to the old one, flushed, and exchanged with it in one step where the
system can; elsewhere two renames leave a gap that the next save or load repairs.
"""

from __future__ import annotations

import ctypes
import glob
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from foundry3d.writing import held, synced

WEIGHTS = "model.safetensors"


def replace_folder(folder: Path, tensors: dict[str, Tensor], texts: dict[str, str]) -> None:
    """Writes weights and text files as a folder, which takes the place of an earlier one.

    Texts are given by file name, `config.json` among them. Files of the earlier folder that are not
    written again are kept. Processes that write to the same folder wait for each other; what killed
    ones left is removed. Missing parents are created.

    Raises:
        OSError: the disk refuses, e.g. it is full; the earlier folder stays as it was.
    """
    with held(folder, wait=True):
        repair(folder)
        for left in _leftovers(folder):
            shutil.rmtree(left, ignore_errors=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            _write(temporary / "new", tensors, texts)
            if folder.exists():
                _keep_others(folder, temporary / "new")
            _put(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def repair(folder: Path) -> None:
    """Restores a folder that a killed process had moved away and not yet replaced."""
    if folder.exists():
        return
    for left in _leftovers(folder):
        for name in ("new", "old"):  # the old one is moved away when the new one is complete
            if (left / "old").exists() and (left / name / "config.json").is_file():
                with suppress(OSError):
                    os.rename(left / name, folder)
                    return


def _write(new: Path, tensors: dict[str, Tensor], texts: dict[str, str]) -> None:
    new.mkdir()
    for name, text in texts.items():
        (new / name).write_text(text)
    try:
        save_file(tensors, new / WEIGHTS)
    except SafetensorError as error:
        raise OSError(f"could not write {WEIGHTS}: {error}") from None
    mode = (new / "config.json").stat().st_mode
    (new / WEIGHTS).chmod(mode)  # safetensors creates files that only their owner can read
    for path in (*new.iterdir(), new):
        synced(path)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # a file system without links
        shutil.copy2(source, target, follow_symlinks=False)


def _keep_others(folder: Path, new: Path) -> None:
    """Links everything in a folder that the new one does not have into the new one."""
    for entry in folder.iterdir():
        kept = new / entry.name
        if kept.exists():
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.copytree(entry, kept, symlinks=True, copy_function=_link)
        else:
            _link(str(entry), str(kept))


def _put(temporary: Path, folder: Path) -> None:
    """Moves `temporary/new` to `folder`; what was there goes to `temporary`."""
    if not (folder.exists() and exchange(temporary / "new", folder)):
        if folder.exists():
            os.rename(folder, temporary / "old")
        os.rename(temporary / "new", folder)
    synced(folder.parent)


def exchange(a: Path, b: Path) -> bool:
    """Exchanges two names in one step; False if the system cannot."""
    try:
        call = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    here, both = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return call(here, os.fsencode(a), here, os.fsencode(b), both) == 0


def _leftovers(folder: Path) -> list[Path]:
    """Temporary folders of processes that were killed while they saved to `folder`."""
    try:
        found = folder.parent.glob(f".{glob.escape(folder.name)}.????????")
        return sorted(path for path in found if path.is_dir())
    except OSError:
        return []
