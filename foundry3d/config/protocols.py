"""Published protocols as data: the settings that a published number was measured with.

`settings` are options of the command that measures: `foundry3d classify --protocol NAME` takes
them as its defaults, and options that are given win. The other fields record what no option can
express: how the published number was selected and where this package differs. This package never
selects on test; compare a number that was selected on test only with the column "best on test".

A protocol never changes once it is published; a correction gets a new name (`...@point-jepa-2`).
Facts are from the cited files of Point-JEPA (c36b51c) and Point-MAE (7445a68).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from foundry3d.config import to_dict
from foundry3d.errors import InputError

TaskName = Literal["classify", "fewshot", "segment", "probe"]


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How a published number was measured.

    Attributes:
        task: the command that measures it.
        data: data set and file.
        source: the published files that the facts are from.
        pooling: of token features, as published.
        selection: how the published number was selected.
        votes: published test-time voting; empty = none.
        seeds: published runs that mean and deviation are taken over.
        differs: where this package differs whatever the options; empty = nowhere.
        settings: options of the command, nested as in a recipe.
    """

    task: TaskName
    data: str
    source: str
    pooling: str = "max and mean of the tokens after the final LayerNorm"
    selection: str = "best epoch on test"
    votes: str = ""
    seeds: str = "1-10"
    differs: str = "augmentation is drawn for each cloud, published once for each batch; 32-bit "
    "arithmetic, published 16-bit"
    settings: dict[str, Any]


def over(base: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Nested settings with changes laid over them; dictionaries are joined key by key."""
    return base | {
        key: over(base.get(key, {}), **value) if isinstance(value, dict) else value
        for key, value in changes.items()
    }


TUNED: dict[str, Any] = {
    "head": {"hidden": (256, 256), "dropout": 0.5},
    "augment": {"rotate": False},
    "train": {"batch_size": 32, "lr": 1e-3, "weight_decay": 0.05, "clip": 10.0},
}
"""What all fine-tuned classification shares; episodes too."""

MODELNET = over(
    TUNED,
    groups=64,
    group_size=32,
    data={"points": 1024, "up": "y"},
    train={"warmup_epochs": 10},
)
"""ModelNet40, whole or in episodes."""

SCANOBJECTNN = over(
    TUNED,
    groups=128,
    group_size=32,
    unfreeze_encoder=100,
    label_smoothing=0.2,
    dropout=0.1,
    attention_dropout=0.05,
    drop_path=0.2,
    data={"points": 2048, "up": "y"},
    augment={"scale": (0.9, 1.1), "rotate": True},
    train={"epochs": 150, "warmup_epochs": 10},
)
"""Point-JEPA on ScanObjectNN; its variants change the length of the run."""

SHAPENETPART: dict[str, Any] = {
    "groups": 128,
    "group_size": 32,
    "drop_path": 0.1,
    "head": {"upsampling": (384, 384), "hidden": (512, 256), "dropout": 0.5, "label_dim": 64},
    "data": {"points": 2048, "up": "y"},
    "augment": {"scale": (0.8, 1.25), "rotate": False},
    "train": {"epochs": 300, "batch_size": 16, "lr": 2e-4, "warmup_epochs": 10,
              "weight_decay": 0.05, "clip": 10.0},
}  # fmt: skip
"""Part segmentation on ShapeNetPart."""

SHAPENETPART_DATA = (
    "ShapeNetPart, shapenetcore_partanno_segmentation_benchmark_v0_normal, train and validation "
    "lists together"
)

PROTOCOLS: dict[str, Protocol] = {
    "modelnet40@point-jepa": Protocol(
        task="classify",
        data="ModelNet40, ply_data_{train,test}*.h5, 2048 points",
        source="Point-JEPA classification/modelnet40.yaml, eval/voting.py",
        votes="10 passes that differ in the start of farthest point sampling, mean soft-max, "
        "repeated 300 times, best kept",
        settings=over(
            MODELNET,
            unfreeze_encoder=150,
            label_smoothing=0.1,
            drop_path=0.2,
            votes=10,
            data={"subsample": "fps"},
            augment={"scale": (0.6, 1.4)},
            train={"epochs": 200},
        ),
    ),
    "modelnet40@point-mae": Protocol(
        task="classify",
        data="ModelNet40 normal_resampled, 8192 points by farthest point sampling",
        source="Point-MAE cfgs/finetune_modelnet.yaml, tools/runner_finetune.py",
        pooling="class token, and max of the other tokens",
        votes="10 passes over 1024 random ones of 1200 points, scale and shift drawn, mean of "
        "logits, repeated 299 times, best kept",
        seeds="one, not set",
        differs="tokens are pooled by max and mean, there is no class token; 1024 points are drawn "
        "from all; clouds are centred after scaling; biases and norms decay too",
        settings=over(
            MODELNET,
            label_smoothing=0.0,
            drop_path=0.1,
            votes=10,
            augment={"scale": (2 / 3, 3 / 2), "translate": 0.2},
            train={"epochs": 300, "lr": 5e-4},
        ),
    ),
    "scanobjectnn-pb@point-jepa": Protocol(
        task="classify",
        data="ScanObjectNN PB-T50-RS, *_objectdataset_augmentedrot_scale75.h5",
        source="Point-JEPA classification/scanobjectnn.yaml",
        settings=SCANOBJECTNN,
    ),
    "scanobjectnn-obj-bg@point-jepa": Protocol(
        task="classify",
        data="ScanObjectNN OBJ-BG, main_split/*_objectdataset.h5",
        source="Point-JEPA classification/_scanobjectnn_obj_bg.yaml over scanobjectnn.yaml",
        settings=over(SCANOBJECTNN, unfreeze_encoder=200, train={"epochs": 300}),
    ),
    "scanobjectnn-obj-only@point-jepa": Protocol(
        task="classify",
        data="ScanObjectNN OBJ-ONLY, main_split_nobg/*_objectdataset.h5",
        source="Point-JEPA classification/_scanobjectnn_obj_only.yaml over scanobjectnn.yaml",
        settings=SCANOBJECTNN,
    ),
    "modelnet-fewshot@point-jepa": Protocol(
        task="fewshot",
        data="ModelNet few-shot, ModelNetFewshot/{way}way_{shot}shot/{fold}.pkl",
        source="Point-JEPA classification/modelnet_fewshot.yaml",
        selection="best epoch on the queries of each fold",
        seeds="folds 0-9, seed 0",
        differs="augmentation is drawn for each cloud; nothing can be held out of an episode, so "
        "the last epoch is reported",
        settings=over(
            MODELNET,
            mode="finetune",
            folds=10,
            label_smoothing=0.2,
            drop_path=0.2,
            data={"subsample": "fps"},
            augment={"scale": (0.6, 1.4)},
            train={"epochs": 150, "clip": None},
        ),
    ),
    "shapenetpart@point-jepa": Protocol(
        task="segment",
        data=SHAPENETPART_DATA,
        source="Point-JEPA segmentation/shapenetpart.yaml, models/part_segmentation.py",
        pooling="mean of blocks 3, 7, 11, each layer-normed; then max and mean",
        selection="epoch of the best category mIoU on test",
        seeds="0, the script 1-10",
        settings=SHAPENETPART,
    ),
    "shapenetpart@point-mae": Protocol(
        task="segment",
        data=SHAPENETPART_DATA,
        source="Point-MAE segmentation/main.py",
        pooling="blocks 3, 7, 11 side by side; then max and mean",
        selection="epoch of the best instance mIoU on test",
        seeds="one, not set",
        differs="blocks are averaged, published side by side; one optimiser step a batch, "
        "published two; two hidden layers, published 512 and 256 on 3392 features",
        settings=over(SHAPENETPART, head={"upsampling": (1536, 1024)}, augment={"translate": 0.1}),
    ),
    "modelnet40-svm@point-jepa": Protocol(
        task="probe",
        data="ModelNet40, ply_data_{train,test}*.h5, 2048 points",
        source="Point-JEPA models/point_jepa.py:404-437",
        selection="C = 0.012 fixed, no standardisation: the column svm_c012",
        seeds="1-10, which change the start of farthest point sampling alone",
        differs="the first 1024 points of each cloud are read, published a farthest point sample "
        "from a random start",
        settings={"data": {"points": 1024, "up": "y"}},
    ),
    "modelnet10-vox@foundry3d": Protocol(
        task="classify",
        data="ModelNet10 rebuilt from published voxel grids, 3980 / 907 clouds of 2048 points; "
        "comparable with itself alone",
        source="this package",
        selection="best epoch on held-out training clouds",
        seeds="0-2",
        differs="",
        settings=over(
            TUNED,
            label_smoothing=0.1,
            drop_path=0.1,
            eval_every=2,
            data={"points": 1024, "validation": 0.1, "up": "z"},
            augment={"scale": (0.8, 1.2)},
            train={"epochs": 30, "warmup_epochs": 2},
        ),
    ),
}

COLUMNS: dict[str, dict[str, str]] = {
    "classify": {
        "mn40": "modelnet40@point-jepa",
        "oo3d": "modelnet40@point-jepa",
        "sonn-obj-bg": "scanobjectnn-obj-bg@point-jepa",
        "sonn-obj-only": "scanobjectnn-obj-only@point-jepa",
        "sonn-pb": "scanobjectnn-pb@point-jepa",
        "sn55": "modelnet40@point-jepa",
    },
    "segment": {"snp": "shapenetpart@point-jepa"},
    "fewshot": {"mn40": "modelnet-fewshot@point-jepa"},
    "probe": dict.fromkeys(("mn40", "oo3d", "sonn-pb"), "modelnet40-svm@point-jepa"),
}
"""The protocols of the paper's columns, by task.

OmniObject3D (Appendix E), ShapeNet55 and the probes of Table 9 use those of ModelNet40.
"""


def find(name: str, task: str) -> Protocol:
    """The protocol with this name for a command.

    Raises:
        InputError: unknown protocol, or one for another command.
    """
    fitting = sorted(known for known, protocol in PROTOCOLS.items() if protocol.task == task)
    if name not in fitting:
        of = f"is for {PROTOCOLS[name].task}" if name in PROTOCOLS else "is unknown"
        raise InputError(f"protocol {name!r} {of}; {task} knows {', '.join(fitting) or 'none'}")
    return PROTOCOLS[name]


def dotted(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings as (`train.epochs`, value)."""
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from dotted(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def deviations(name: str | None, config: Any, task: str) -> dict[str, Any]:
    """The settings in which a run differs from its protocol, with the run's values.

    Without a protocol there are none.

    Raises:
        InputError: unknown protocol, or one for another command.
    """
    if name is None:
        return {}
    own = dict(dotted(to_dict(config)))
    wanted = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in dotted(find(name, task).settings)
    }
    return {key: own[key] for key, value in wanted.items() if own[key] != value}
