"""An installation that nobody may write to, used by somebody who has no home: `embed` works."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

import foundry3d
from chaos.report import Report
from foundry3d.checkpoints.folder import save
from foundry3d.config import BackboneConfig
from foundry3d.models.backbone import Backbone

NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
CACHES = {"no cache": "", "a closed cache": "{folder}/installed/cache", "a device": "/dev/full"}
SIZES = BackboneConfig(
    groups=12, group_size=8, point_widths=(8, 16, 32), dim=24, depth=2, heads=3, position_dim=16
)


def another_user() -> list[str] | None:
    """What to put before a command so that permissions bind it; None = this is not possible."""
    if os.getuid() != 0:
        return []
    if shutil.which(NOBODY[0]) is None:
        return None
    probe = [*NOBODY, sys.executable, "-c", "import numba"]
    done = subprocess.run(probe, cwd="/", capture_output=True, check=False)
    return NOBODY if done.returncode == 0 else None


def attack(caches: Iterable[str] = CACHES) -> Report:
    """`embed` from a read-only copy of the package, with caches that cannot be written."""
    report, prefix = Report("read-only installation"), another_user()
    if prefix is None:
        report.counts["skipped: permissions do not bind this user"] += 1
        return report
    with tempfile.TemporaryDirectory(prefix="foundry3d-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        install(folder)
        for kind in caches:
            embed(report, prefix, folder, kind, CACHES[kind].format(folder=folder))
        for path in folder.rglob("*"):
            path.chmod(0o755)
    return report


def install(folder: Path) -> None:
    """A copy of the package, a model and a scan that nobody may write to."""
    copy, out = folder / "installed", folder / "out"
    shutil.copytree(
        Path(foundry3d.__file__).parent,
        copy / "foundry3d",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    teacher = Backbone(SIZES, generator=torch.Generator().manual_seed(0)).eval()
    save(teacher, copy / "model", provenance={"normalise": True, "up": "z"})
    np.save(copy / "scan.npy", np.random.default_rng(0).normal(size=(200, 3)).astype("f4"))
    for path in [copy, *copy.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    out.mkdir()
    out.chmod(0o777)


def embed(report: Report, prefix: list[str], folder: Path, kind: str, cache: str) -> None:
    """Runs `foundry3d embed` as that user."""
    copy, target = folder / "installed", folder / "out" / f"{kind.replace(' ', '-')}.npz"
    changed = {"PYTHONPATH": str(copy), "HOME": "/nonexistent", "XDG_CACHE_HOME": ""}
    changed |= {"NUMBA_CACHE_DIR": cache, "PYTHONDONTWRITEBYTECODE": "1"}
    words = ["embed", copy / "scan.npy", "--model", copy / "model", "--out", target]
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "foundry3d", *map(str, words)],
        env=os.environ | changed,
        cwd=target.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    report.counts["commands"] += 1
    if done.returncode != 0 or not target.is_file() or "Traceback" in done.stderr:
        report.faults.append(f"{kind}: status {done.returncode}: {done.stderr[-300:]}")
