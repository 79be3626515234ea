"""Runs the Python and the commands of a README with the installed package, in the working folder.

Commands run with one epoch on a few built-in shapes. Those that name files which are not made here
are left out and listed.

    python -I readme.py README.md
"""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np

import foundry3d
from foundry3d.config import BackboneConfig
from foundry3d.data import procedural

SMALL = BackboneConfig(
    groups=16, group_size=8, point_widths=(8, 16, 32), dim=24, depth=2, heads=3, position_dim=16
)
TRAINING = {"pretrain", "distill"}
FEWER = ["--train.epochs", "1", "--train.warmup_epochs", "0"]
OUTPUTS = {"--out", "--results", "--dense", "--picture"}


def make_inputs() -> None:
    """Archives, a scan and a teacher under the names that the README uses."""
    for name, seed in (("train.npz", 0), ("test.npz", 1)):
        clouds = procedural.generate(32, points=256, seed=seed)
        np.savez(
            name, points=clouds.points, labels=clouds.labels, names=np.array(clouds.class_names)
        )
    head = "ply\nformat ascii 1.0\nelement vertex 256\n"
    head += "".join(f"property float {axis}\n" for axis in "xyz") + "end_header\n"
    np.savetxt("scan.ply", clouds.points[0], header=head.strip(), comments="")
    foundry3d.save(foundry3d.Backbone(SMALL).eval(), "runs/teacher/model", provenance={})


def missing(words: list[str]) -> list[str]:
    """Input files that a command names and that are not here."""
    inputs = [word for before, word in zip(words, words[1:]) if before not in OUTPUTS]
    files = [word for word in inputs if re.search(r"\.(npz|ply|las|pth|obj)$", word)]
    folders = [word for word in inputs if re.match(r"runs/", word)]
    return [word for word in (*files, *folders) if not Path(word).exists()]


def main(readme: str) -> None:
    assert "site-packages" in str(foundry3d.__file__), (
        f"not the installed one: {foundry3d.__file__}"
    )
    text = Path(readme).read_text().replace("\\\n", " ")
    make_inputs()
    exec("".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL)), {})
    lines = "".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL)).splitlines()
    ran = 0
    for line in (line for line in lines if line.startswith("foundry3d ")):
        words = shlex.split(line, comments=True)
        if words[1] not in TRAINING | {"embed", "probe"} or missing(words) or "*" in line:
            print("left out:", line)
            continue
        fewer = FEWER if words[1] in TRAINING else []
        print("running:", line, flush=True)
        subprocess.run([sys.executable, "-m", "foundry3d", *words[1:], *fewer], check=True)
        ran += 1
    assert ran >= 2, f"only {ran} commands of {readme} could be run"


main(sys.argv[1])
