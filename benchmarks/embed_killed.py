"""Embeds packed built-in shapes: memory over the run, and the same bytes after kills (Linux only).

    python benchmarks/embed_killed.py /tmp/killed 200000

One process embeds all shards. Then two do, and four times, after a random part, a random process is
killed (SIGKILL), a second later the others. Compares the parts; the memory of the first is orange.
"""

import os
import random
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from foundry3d.checkpoints.folder import save
from foundry3d.config import BackboneConfig, PackConfig
from foundry3d.data.packing import pack
from foundry3d.models.backbone import Backbone

PAGE = os.sysconf("SC_PAGE_SIZE")
root, clouds = Path(sys.argv[1]).resolve(), int(sys.argv[2])


def parts(name: str) -> list[Path]:
    return sorted((root / name).glob("part-*.parquet"))


def processes(name: str) -> dict[str, float]:
    """Resident MB of the command that writes this folder, and of the tasks that it started."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            if f"{root}/{name}".encode() in (entry / "cmdline").read_bytes():
                found[entry.name] = int((entry / "statm").read_text().split()[1]) * PAGE / 1e6
    return found


def embed(name: str, *options: str, kill_at: int = 10**9) -> list[tuple[int, float]]:
    """Parts done and MB of the largest process, twice a second."""
    words = f"-m foundry3d embed {root}/packed --model {root}/model --out {root}/{name}/".split()
    command, seen = subprocess.Popen([sys.executable, *words, "--batch_size", "64", *options]), []
    while command.poll() is None:
        if running := processes(name):
            seen.append((len(parts(name)), max(running.values())))
        if running and seen[-1][0] >= kill_at:
            print(f"{seen[-1][0]} parts: {len(running)} processes are killed", flush=True)
            time.sleep(random.uniform(0, 3))
            subprocess.run(["kill", "-9", random.choice(list(running))])
            time.sleep(1)
            while left := processes(name):
                subprocess.run(["kill", "-9", *left])
        time.sleep(0.5)
    return seen


if not (root / "packed" / "index.json").exists():
    size = {"clouds": clouds, "samples": 128, "shard_clouds": 2000}
    pack(PackConfig(source="procedural", out=f"{root}/packed", **size))
sizes = {"groups": 12, "group_size": 8, "dim": 24, "depth": 3, "heads": 3, "position_dim": 16}
tiny = BackboneConfig(point_widths=(8, 16, 32), **sizes)
model = Backbone(tiny, generator=torch.Generator().manual_seed(0)).eval()
save(model, root / "model", provenance={"normalise": True})
runs = [embed("whole")]
two = ("--cluster", "local", "--cluster.parallel", "2")
chosen = random.Random(0).sample(range(1, len(parts("whole"))), 4)
runs += [embed("tasks", *two, kill_at=done) for done in [*sorted(chosen), clouds]]
pairs = list(zip(parts("whole"), parts("tasks"), strict=True))
alike = sum(a.name == b.name and a.read_bytes() == b.read_bytes() for a, b in pairs)
print(f"{alike} of {len(pairs)} parts are the same after four kills")
plt.figure(figsize=(6, 3), layout="constrained")
for number, seen in enumerate(runs):
    plt.plot(*zip(*seen, strict=True), color="C0" if number else "C1", lw=0.8)
plt.gca().set(xlabel="parts done", ylabel="MB of the largest process", ylim=(0, 600))
plt.savefig(root / "memory.png", dpi=110)
