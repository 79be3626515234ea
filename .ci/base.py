"""Features with the base installation; a command of an extra ends with its install line."""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import foundry3d
from foundry3d.config import BackboneConfig
from foundry3d.data import procedural


def command(*words: str) -> subprocess.CompletedProcess[str]:
    run = [sys.executable, "-m", "foundry3d", *words]
    return subprocess.run(run, capture_output=True, text=True)


folder = Path(tempfile.mkdtemp(prefix="scans "))
model = foundry3d.Backbone(BackboneConfig(dim=24, depth=2, heads=3)).eval()
foundry3d.save(model, folder / "model", provenance={})
np.save(folder / "scan.npy", procedural.generate(1, points=1024, seed=0).points[0])
out = folder / "features.npz"
done = command(
    "embed", str(folder / "scan.npy"), "--model", str(folder / "model"), "--out", str(out)
)
assert done.returncode == 0, done.stderr
assert np.load(out)["features"].shape == (1, 64, 24)
done = command("pretrain", "--data.train", "procedural", "--out", str(folder / "run"))
assert done.returncode == 2, done.stderr
assert 'pip install "foundry3d[train]"' in done.stderr, done.stderr
print("the base installation embeds, and names the extra that pretrain needs")
