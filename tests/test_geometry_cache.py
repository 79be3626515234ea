"""Compiled kernels where their cache cannot be written, or holds something else."""

import errno
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import foundry3d

numba = pytest.importorskip("numba")
from numba.core import caching  # noqa: E402

from foundry3d.geometry import jit  # noqa: E402

SAMPLE = """
import logging, sys, torch
logging.basicConfig(stream=sys.stderr, format="%(message)s")
from foundry3d import geometry
points = torch.rand(3, 50, 3, generator=torch.Generator().manual_seed(0))
found = geometry.farthest_point_sample(points, 9)
order = geometry.greedy_order(points)
assert torch.equal(found, geometry.farthest_point_sample(points, 9, backend="torch"))
assert torch.equal(order, geometry.greedy_order(points, backend="torch"))
"""
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


@pytest.fixture
def copy() -> Iterator[Path]:
    """A copy of the package that everyone can read, none can write, without compiled kernels."""
    root = Path(tempfile.mkdtemp(prefix="foundry3d-"))
    package = Path(foundry3d.__file__).parent
    shutil.copytree(package, root / "foundry3d", ignore=shutil.ignore_patterns("__pycache__"))
    folders = [root, *(path for path in root.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    yield root
    for folder in folders:
        folder.chmod(0o755)
    shutil.rmtree(root)


def as_another_user() -> list[str] | None:
    """What to put before a command so that permissions bind it; None = this is not possible."""
    if os.name != "posix":
        return None
    if os.getuid() != 0:
        return []
    if shutil.which(NOBODY[0]) is None:
        return None
    probe = [*NOBODY, sys.executable, "-c", "import numba"]
    done = subprocess.run(probe, cwd="/", capture_output=True, check=False)
    return NOBODY if done.returncode == 0 else None


@pytest.mark.parametrize("folder", [None, "closed"])
def test_a_read_only_installation_compiles_without_a_cache(copy: Path, folder: str | None) -> None:
    prefix = as_another_user()
    if prefix is None:
        pytest.skip("permissions do not bind this user")
    changed = {"PYTHONPATH": str(copy), "HOME": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    changed |= {"NUMBA_CACHE_DIR": str(copy / folder) if folder else "", "XDG_CACHE_HOME": ""}
    done = subprocess.run(
        [*prefix, sys.executable, "-c", SAMPLE],
        env=os.environ | changed,
        cwd=copy,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("set NUMBA_CACHE_DIR to a folder that can be written") == 1
    assert done.stderr.count("\n") == 1


def double(values: np.ndarray) -> int:
    """A small kernel."""
    total = 0
    for i in range(values.shape[0]):
        total += 2 * values[i]
    return total


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Compiles the kernel as a new process would, in a cache of its own; how often it was found."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    jit._notice_once.cache_clear()

    def found() -> int:
        kernel: Any = jit.compiled(double)
        assert kernel(np.arange(5)) == 20
        return sum(kernel.stats.cache_hits.values())

    return found


def test_kernels_are_kept_where_they_can_be(fresh: Callable[[], int]) -> None:
    assert [fresh(), fresh(), fresh()] == [0, 1, 1]


def _flip(content: bytes) -> bytes:
    """Another byte in the middle: of a kernel, in its machine code."""
    at = len(content) // 2
    return content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "flipped": _flip,
    "foreign": lambda content: b"\x80\x04K\x01.",  # the number 1, pickled
}


@pytest.mark.parametrize("kind", [(".nbi",), (".nbc",), (".nbi", ".nbc")])
@pytest.mark.parametrize("how", DAMAGE)
def test_damaged_entries_are_built_again(
    fresh: Callable[[], int], tmp_path: Path, how: str, kind: tuple[str, ...], caplog
) -> None:
    fresh()
    entries = [path for path in tmp_path.rglob("*") if path.suffix in kind]
    assert len(entries) == len(kind)
    for path in entries:
        path.write_bytes(DAMAGE[how](path.read_bytes()))
    assert [fresh(), fresh()] == [0, 1]
    assert not caplog.text


def test_a_folder_in_the_place_of_an_entry_costs_the_cache_alone(
    fresh: Callable[[], int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fresh()
    for path in [path for path in tmp_path.rglob("*") if path.is_file()]:
        path.unlink()
        path.mkdir()
    assert [fresh(), fresh()] == [0, 0]
    assert caplog.text.count("NUMBA_CACHE_DIR") == 1


def test_a_full_disk_costs_the_cache_alone(
    fresh: Callable[[], int], tmp_path: Path, monkeypatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_space(path: str, mode: str) -> Any:
        if "w" in mode:
            raise OSError(errno.ENOSPC, "No space left on device", path)
        return open(path, mode)

    monkeypatch.setattr(caching, "open", no_space, raising=False)
    with caplog.at_level(logging.WARNING, logger="foundry3d"):
        assert [fresh(), fresh()] == [0, 0]
    assert caplog.text.count("NUMBA_CACHE_DIR") == 1
    monkeypatch.undo()
    assert not list(tmp_path.rglob("*.nbc"))
