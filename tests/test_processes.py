"""Several processes train what one would; processes that are killed lose nothing that is kept."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import TINY
from processes import ended, freeze_batchnorm, frozen_batchnorm, start, two_ranks
from test_classify import ellipsoids
from test_parts import contents, ten_files, visible  # noqa: F401
from test_training import DATA, MASKED, TRAIN, metrics, same

from foundry3d.checkpoints.folder import load, load_backbone, save
from foundry3d.config import (
    AugmentConfig,
    BudgetDraws,
    ClassifyConfig,
    DataConfig,
    DistillConfig,
    EmbedConfig,
    HeadConfig,
    PackConfig,
    StudentOptions,
    TrainConfig,
    to_dict,
)
from foundry3d.data.archive import write_archive
from foundry3d.data.packing import pack
from foundry3d.embed.files import embed
from foundry3d.embed.units import units_of
from foundry3d.errors import InputError
from foundry3d.evaluation.classify import classify
from foundry3d.models.backbone import Backbone
from foundry3d.training.distill import distill
from foundry3d.training.pretrain import PretrainTask

STILL = AugmentConfig(scale=(1.0, 1.0), rotate=False)
EXACT = replace(TRAIN, epochs=3, precision="64-true")  # AdamW takes the sign of rounding


@pytest.fixture
def saved(teacher: Backbone, tmp_path: Path) -> Path:
    return save(teacher, tmp_path / "teacher", provenance={})


def recipe(path: Path, config: Any) -> str:
    path.write_text(yaml.safe_dump(to_dict(config)))
    return str(path)


def distilled(saved: Path, folder: Path) -> DistillConfig:
    """A student that draws how many of its supertokens a step uses."""
    return DistillConfig(
        teacher=str(saved), student=StudentOptions(supertokens=8, soft_assignment=True),
        starts="first", augment=STILL,
        budgets=BudgetDraws(nested=True), data=replace(DATA, subsample="first"), train=EXACT,
        unfreeze_epoch=1,
    )  # fmt: skip


def streamed(saved: Path, folder: Path) -> DistillConfig:
    """All clouds of two shards in each step: the order of a stream depends on the processes."""
    clouds = np.random.default_rng(0).normal(size=(32, 64, 3)).astype(np.float32)
    np.save(folder / "clouds.npy", clouds)
    pack(PackConfig(source=str(folder), out=str(folder / "packed"), shard_clouds=16))
    return replace(
        distilled(saved, folder),
        data=DataConfig(train=str(folder / "packed"), points=64, validation=0.0),
        train=replace(EXACT, batch_size=32),
        budgets=BudgetDraws(),
    )


def classified(saved: Path, folder: Path) -> ClassifyConfig:
    """Every point is a center, so that it does not matter which one is drawn first."""
    write_archive(folder / "a.npz", ellipsoids(48, 0))
    write_archive(folder / "b.npz", ellipsoids(20, 1))
    data = DataConfig(
        train=str(folder / "a.npz"), test=str(folder / "b.npz"), points=TINY.groups,
        validation=0.0,
        subsample="first",
    )  # fmt: skip
    head = HeadConfig(hidden=(8,), dropout=0.0)
    return ClassifyConfig(
        model=str(saved), data=data, train=EXACT, head=head, augment=STILL, results=None
    )


@pytest.mark.parametrize(
    ("command", "function", "made"),
    [
        ("distill", distill, distilled),
        ("distill", distill, streamed),
        ("classify", classify, classified),
    ],
    ids=["nested", "shards", "fine-tuned"],
)
def test_two_processes_have_the_losses_and_weights_of_one(
    command: str,
    function: Callable[[Any], Any],
    made: Callable[[Path, Path], Any],
    saved: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At the same global batch, with nothing drawn per cloud and BatchNorm frozen."""
    one = replace(made(saved, tmp_path), out=str(tmp_path / "one"))
    half = one.train.batch_size // 2
    train = replace(one.train, batch_size=half, devices=2, strategy="ddp")
    two = replace(one, out=str(tmp_path / "two"), train=train)
    words = [command, "--config", recipe(tmp_path / "recipe.yaml", two)]
    ranks = two_ranks(words, tmp_path / "said", first=freeze_batchnorm)
    monkeypatch.setattr(torch.nn.BatchNorm1d, "forward", frozen_batchnorm)
    function(one)
    for number, rank in enumerate(ranks):
        assert ended(rank) == 0, (tmp_path / f"said.{number}").read_text()
    curves = [
        [float(row["loss"]) for row in metrics(tmp_path / name) if row["loss"]]
        for name in ("one", "two")
    ]
    assert len(curves[0]) == 3 * (1 if made is streamed else 3)
    assert len(set(curves[0])) == len(curves[0])
    np.testing.assert_allclose(curves[1], curves[0], atol=1e-5, rtol=0)
    expected, found = (load(tmp_path / name / "model").state_dict() for name in ("one", "two"))
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, atol=1e-5, rtol=0, msg=f"{name}: {{}}".format
        )
    trained = load_backbone(tmp_path / "two" / "model")
    assert not same(trained, load_backbone(saved))


def die() -> None:
    """Has the second process killed in its second epoch."""
    step = PretrainTask.training_step

    def training_step(self: PretrainTask, batch: object, index: int) -> torch.Tensor:
        if self.global_step == 4 and os.environ["LOCAL_RANK"] == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, batch, index)

    PretrainTask.training_step = training_step  # type: ignore[method-assign]


def test_a_killed_process_ends_the_others_and_the_run_goes_on(tmp_path: Path) -> None:
    """The two processes that resume end with the weights of two that were never stopped."""
    train = replace(TRAIN, epochs=3, batch_size=8, devices=2)
    runs = {name: replace(MASKED, out=str(tmp_path / name), train=train) for name in ("a", "b")}
    words = {
        name: ["pretrain", "--config", recipe(tmp_path / f"{name}.yaml", run)]
        for name, run in runs.items()
    }
    killed = two_ranks(words["a"], tmp_path / "killed", first=die)
    whole = two_ranks(words["b"], tmp_path / "whole")
    assert ended(killed[1]) == -signal.SIGKILL
    assert ended(killed[0]) == 2
    said = (tmp_path / "killed.0").read_text().splitlines()[-1]
    out = tmp_path / "a"
    assert "another process of this run has ended" in said
    assert f"--config {out}/config.yaml --resume" in said
    assert torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 3
    resumed = two_ranks([*words["a"], "--resume"], tmp_path / "resumed")
    for rank in (*whole, *resumed):
        assert ended(rank) == 0, "\n".join(p.read_text() for p in tmp_path.glob("*.[01]"))
    assert same(load(out / "model"), load(tmp_path / "b" / "model"))


def test_a_part_whose_process_was_killed_is_the_same_in_the_end(
    config: EmbedConfig, tmp_path: Path
) -> None:
    """kill -9 in the middle of the second part."""
    rng = np.random.default_rng(0)
    files = []
    for name in ("a", "b"):
        files.append(str(tmp_path / f"{name}.npy"))
        np.save(files[-1], rng.normal(size=(500, 60, 3)).astype(np.float32))
    config = replace(config, files=tuple(files), block=1)
    embed(replace(config, out=f"{tmp_path}/whole/"))
    out = Path(config.out)
    words = ["embed", *files, "--model", config.model, "--out", config.out, "--block", "1"]
    process = start(words, tmp_path / "said")
    first, second = (unit.name for unit in units_of(map(Path, files), 1))
    limit = time.monotonic() + 120
    while not list(out.glob(f".{second}.*.partial")) and time.monotonic() < limit:
        time.sleep(0.005)
    process.kill()
    assert ended(process) == -signal.SIGKILL, "it ended before it could be killed"
    assert set(contents(out)) == {first}
    assert len(visible(out)) > 1  # what it was writing, and its lock
    embed(config)
    assert contents(out) == contents(f"{tmp_path}/whole/")
    assert visible(out) == {first, second}


def test_fsdp_is_refused_in_one_sentence() -> None:
    with pytest.raises(InputError, match="fsdp is not offered"):
        TrainConfig(strategy="fsdp")
    with pytest.raises(InputError, match="strategy is one of auto, ddp; got 'magic'"):
        TrainConfig(strategy="magic")
