"""The commands that are killed, and the tiny models, archives and scans they read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from foundry3d.checkpoints.folder import save
from foundry3d.config import BackboneConfig, HeadConfig
from foundry3d.data.archive import write_archive
from foundry3d.data.clouds import Clouds
from foundry3d.heads.classifier import Classifier
from foundry3d.models.backbone import Backbone
from foundry3d.models.student import Student

SIZES = BackboneConfig(
    groups=12, group_size=8, point_widths=(8, 16, 32), dim=24, depth=3, heads=3, position_dim=16
)


@dataclass(frozen=True)
class Victim:
    """A command and what its repetition promises.

    Attributes:
        words: with {made} for the folder of inputs and {out} for that of outputs.
        again: what is added when it is repeated.
        final: the file that appears last; a command that refuses to repeat itself is done with it.
        same: files that equal those of an undisturbed run, byte by byte.
        close: files whose arrays do, but for rounding: kernels are chosen by measuring.
        results: the file of result rows, if there is one.
        once: whether a repetition adds no row twice.
    """

    words: str
    again: str = ""
    final: str = ""
    same: tuple[str, ...] = ()
    close: tuple[str, ...] = ()
    results: str = ""
    once: bool = True


DATA = "--data.train {made}/train.npz --data.points 48 --data.validation 0.25"
TRAIN = " --train.epochs 4 --train.batch_size 8 --train.warmup_epochs 0 --train.accelerator cpu"
ROWS = " --results {out}/results.jsonl"
MODEL = ("run/model/model.safetensors",)
RESUMED = Victim(words="", again="--resume", same=MODEL)
SCORED = replace(RESUMED, results="results.jsonl")
TESTED = DATA + " --data.test {made}/test.npz"
VICTIMS = {
    "pretrain": replace(
        RESUMED,
        words=f"pretrain --out {{out}}/run --backbone.groups 12 --backbone.group_size 8 "
        "--backbone.dim 24 --backbone.heads 3 --backbone.depth 2 --backbone.point_widths 8 16 32 "
        f"--masked.decoder_depth 1 --masked.decoder_heads 3 {DATA}{TRAIN}",
    ),
    "distill": replace(
        RESUMED,
        words="distill --teacher {made}/teacher --student.supertokens 4 --out {out}/run "
        f"{DATA}{TRAIN}",
    ),
    "classify": replace(
        SCORED,
        words="classify --model {made}/teacher --head.hidden 8 --out {out}/run "
        f"{TESTED}{TRAIN}{ROWS}",
    ),
    "segment": replace(
        SCORED,
        words="segment --model {made}/teacher --head.hidden 8 --head.upsampling 8 --out {out}/run "
        f"{TESTED}{TRAIN}{ROWS}",
    ),
    "specialize": replace(
        SCORED,
        words="specialize --teacher {made}/classifier --student.supertokens 4 --out {out}/run "
        f"{TESTED}{TRAIN}{ROWS}",
    ),
    "fewshot": Victim(
        words=f"fewshot --model {{made}}/teacher --way 2 --shot 3 --folds 3 {DATA} "
        f"--out {{out}}/run{ROWS}",
        again="--resume",
        results="results.jsonl",
    ),
    "zeroshot": Victim(
        words=f"zeroshot --models {{made}}/teacher {{made}}/student {TESTED}{ROWS}",
        results="results.jsonl",
        once=False,
    ),
    "probe": Victim(
        words=f"probe --models {{made}}/teacher {{made}}/student {TESTED}{ROWS}",
        results="results.jsonl",
        once=False,
    ),
    "budgets": Victim(
        words=f"budgets --models {{made}}/student --supertokens 1 2 4 --out {{out}}/run {TESTED}",
        results="run/results.jsonl",
        final="run/budgets.png",
    ),
    "sweep gate": Victim(
        words="sweep gate --gate_lambdas 0 0.001 --frozen true --distill.teacher {made}/teacher "
        "--distill.student.gate --distill.student.supertokens 4 --out {out}/run "
        + f"{TESTED}{TRAIN}".replace("--", "--distill."),
        results="run/results.jsonl",
    ),
    "suite": Victim(
        words="suite table5 --teacher {made}/teacher --only s4 --unfreeze start "
        "--data mn40={made}/train.npz,{made}/test.npz --classify.head.hidden 8 --out {out}/run "
        + f"{DATA}{TRAIN} ".replace("--", "--distill.")
        + "--classify.data.points 48 --classify.data.validation 0.25"
        + TRAIN.replace("--", "--classify."),
        results="run/results.jsonl",
        final="run/table5.md",
    ),
    "embed": Victim(
        words="embed {made}/scans --model {made}/teacher --out {out}/f.npz",
        close=("f.npz",),
    ),
    "embed a scene": Victim(
        words="embed {made}/scans --model {made}/student --points_per_token 8 --out {out}/f.npz "
        "--dense {out}/d.npy --picture {out}/p.png",
        close=("f.npz", "d.npy"),
    ),
    "convert": Victim(
        words="convert {made}/teacher --out {out}/model",
        final="model/config.json",
        same=("model/model.safetensors",),
    ),
    "data pack": Victim(
        words="data pack {made}/scans --shard_clouds 2 --out {out}/shards",
        final="shards/index.json",
        same=tuple(f"shards/shard-{i:06d}.tar" for i in range(4)),
    ),
}


def prepare(made: Path) -> None:
    """Tiny models, archives and scans for all victims."""
    generator = torch.Generator().manual_seed(0)
    rng = np.random.default_rng(0)
    teacher = Backbone(SIZES, generator=generator).eval()
    save(teacher, made / "teacher", provenance={"normalise": True, "up": "z"})
    student = Student.from_teacher(teacher, supertokens=4, generator=generator).eval()
    save(student, made / "student", provenance={"normalise": True, "up": "z"})
    classifier = Classifier.from_model(
        teacher, classes=("a", "b"), head=HeadConfig(hidden=(8,)), generator=generator
    )
    save(classifier.eval(), made / "classifier", provenance={"normalise": True, "up": "z"})
    for name, count in {"train": 64, "test": 16}.items():
        points = rng.normal(size=(count, 64, 3)).astype("f4") * [1, 1, 0.2]
        labels = np.arange(count) % 2
        points[labels == 1] = points[labels == 1][..., ::-1]
        clouds = Clouds(
            points=points.astype("f4"),
            labels=labels,
            class_names=("a", "b"),
            parts=(points[..., 2] > 0).astype("u1"),
            part_names=("below", "above"),
        )
        write_archive(made / f"{name}.npz", clouds)
    (made / "scans").mkdir()
    for i in range(8):
        np.save(made / "scans" / f"{i}.npy", rng.normal(size=(400, 3)).astype("f4"))
