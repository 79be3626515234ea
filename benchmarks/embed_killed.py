"""Embeds packed built-in shapes: memory over the run, and the same bytes after kills (Linux only).

    python benchmarks/embed_killed.py /tmp/killed 200000

One process embeds all shards undisturbed. Then two (`--cluster local`) do, of which four times at a
random moment one is killed (SIGKILL), a second later all others. Prints whether the parts of both
folders are the same, and draws the memory (orange: undisturbed).
"""

import os
import random
import signal
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

root, clouds = Path(sys.argv[1]).resolve(), int(sys.argv[2])


def parts(name: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (root / name).glob("part-*.parquet")}


def processes(name: str) -> dict[int, float]:
    """Resident MB of the command that writes this folder, and of the tasks that it started."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            if f"{root}/{name}".encode() in (entry / "cmdline").read_bytes():
                pages = int((entry / "statm").read_text().split()[1])
                found[int(entry.name)] = pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    return found


def embed(name: str, *options: str, kill_at: float = float("inf")) -> list[tuple[float, ...]]:
    """Seconds, parts done and MB of the largest process, twice a second."""
    words = f"-m foundry3d embed {root}/packed --model {root}/model --out {root}/{name}/".split()
    seen, began = [], time.monotonic()
    command = subprocess.Popen([sys.executable, *words, "--batch_size", "64", *options])
    while command.poll() is None:
        now, running = time.monotonic() - began, processes(name)
        done = len(list((root / name).glob("part-*.parquet")))
        if running:
            seen.append((now, done, max(running.values())))
        if running and now > kill_at:
            print(f"{now:.0f} s: {len(running)} processes are killed, {done} parts", flush=True)
            os.kill(random.choice(sorted(running)), signal.SIGKILL)
            time.sleep(1)
            while left := processes(name):
                os.kill(min(left), signal.SIGKILL)
        time.sleep(0.5)
    return seen


if not (root / "packed" / "index.json").exists():
    size = {"clouds": clouds, "samples": 128, "shard_clouds": 2000}
    pack(PackConfig(source="procedural", out=f"{root}/packed", **size))
sizes = {"groups": 12, "group_size": 8, "dim": 24, "depth": 3, "heads": 3, "position_dim": 16}
tiny = BackboneConfig(point_widths=(8, 16, 32), **sizes)
model = Backbone(tiny, generator=torch.Generator().manual_seed(0)).eval()
save(model, root / "model", provenance={"normalise": True, "up": "z"})
runs = [embed("whole")]
two = ("--cluster", "local", "--cluster.parallel", "2")
random.seed(0)
for share in (random.uniform(0.05, 0.35) for _ in range(4)):
    runs.append(embed("tasks", *two, kill_at=share * runs[0][-1][0]))
runs.append(embed("tasks", *two))
alike = parts("whole") == parts("tasks")
print(f"{runs[0][-1][0]:.0f} s, {len(parts('whole'))} parts; the same after kills: {alike}")
figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
for number, seen in enumerate(runs):
    axes.plot([s[1] for s in seen], [s[2] for s in seen], color="C0" if number else "C1", lw=0.8)
axes.set(xlabel="parts done", ylabel="MB, largest process", ylim=(0, None))
figure.savefig(root / "memory.png", dpi=110)
