"""Work in the background changes no number, and leaves nothing behind."""

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from processes import ended, start, wait_for
from test_training import DATA, MASKED, TRAIN, metrics, same

from foundry3d.baselines import FPSStudent
from foundry3d.checkpoints.folder import load, save
from foundry3d.config import (
    AugmentConfig,
    DistillConfig,
    PackConfig,
    StudentOptions,
    TokenLossConfig,
    TrainConfig,
    to_dict,
)
from foundry3d.data.ahead import Loader, ahead
from foundry3d.data.batches import Batches, NumberedBatches
from foundry3d.data.clouds import Clouds
from foundry3d.data.packing import pack
from foundry3d.errors import InputError
from foundry3d.models.backbone import Backbone
from foundry3d.models.student import Student
from foundry3d.training.distill import DistillTask, distill
from foundry3d.training.pretrain import pretrain

STILL = AugmentConfig(scale=(1.0, 1.0), rotate=False)


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("foundry3d-ahead")]


@pytest.fixture
def saved(teacher: Backbone, tmp_path: Path) -> Path:
    return save(teacher, tmp_path / "teacher", provenance={})


@pytest.mark.parametrize("depth", [1, 2, 7])
def test_items_come_in_order_and_not_earlier_than_asked(depth: int) -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for i in range(5):
            made.append(i)
            yield i

    found = []
    for item in ahead(items(), depth):
        found.append(item)
        assert len(made) <= item + 1 + depth
    assert found == list(range(5))
    assert not threads()


def test_work_goes_on_while_a_step_runs() -> None:
    second = threading.Event()

    def items() -> Iterator[int]:
        yield 0
        second.set()
        yield 1

    source = ahead(items(), 1)
    assert next(source) == 0
    assert second.wait(10)
    source.close()
    assert not threads()


def test_errors_come_out_where_the_item_is_asked_for() -> None:
    def items() -> Iterator[int]:
        yield 0
        raise InputError("the second cloud is empty")

    source = ahead(items(), 2)
    assert next(source) == 0
    with pytest.raises(InputError, match="the second cloud is empty"):
        next(source)
    assert not threads()


def test_a_loader_starts_epochs_and_counts_waiting() -> None:
    clouds = Clouds(points=np.zeros((8, 4, 3), np.float32), labels=np.full(8, -1))
    batches, begun = NumberedBatches(clouds, 2, seed=3), []

    def begin():
        begun.append(batches.epoch)

        def ready(i, batch):
            time.sleep(0.05)
            return i, batch.which.tolist()

        return ready

    loader = Loader(batches, begin, depth=2)
    iter(loader)  # as Lightning does before it chooses the epoch
    orders = []
    for epoch in (4, 5):
        loader.sampler.set_epoch(epoch)
        found = list(loader)
        assert [i for i, _ in found] == list(range(4)) == list(range(len(loader)))
        orders.append([which for _, which in found])
    assert begun == [4, 5]
    assert orders[0] != orders[1]
    assert sorted(orders[0][0] + orders[0][1] + orders[0][2] + orders[0][3]) == list(range(8))
    assert loader.waited > 0.3
    loader.close()
    assert not threads()


def test_numbered_batches_are_the_same_batches() -> None:
    g = np.random.default_rng(0)
    clouds = Clouds(points=g.normal(size=(9, 4, 3)).astype(np.float16), labels=np.full(9, -1))
    for plain, (points, which) in zip(
        Batches(clouds, 2, seed=1), NumberedBatches(clouds, 2, seed=1), strict=True
    ):
        assert torch.equal(plain, points)
        assert torch.equal(points, torch.from_numpy(clouds.points[which.numpy()].astype("f4")))


@pytest.mark.parametrize("objective, streamed", [("masked", True), ("jepa", False)])
def test_pretraining_ahead_has_the_same_weights(
    tmp_path: Path, objective: str, streamed: bool
) -> None:
    data = replace(DATA, points=48)  # of 64: subsampling is drawn too
    if streamed:
        shards = str(tmp_path / "shards")
        pack(PackConfig(source="procedural", out=shards, clouds=48, samples=64, shard_clouds=20))
        data = replace(data, train=str(tmp_path / "shards"))
    else:
        g = np.random.default_rng(0)
        archive = tmp_path / "clouds.npz"
        np.savez(archive, points=g.normal(size=(48, 64, 3)).astype("f4"), labels=np.zeros(48, int))
        data = replace(data, train=str(archive))
    config = replace(MASKED, objective=objective, data=data)
    found = [
        pretrain(replace(config, out=str(tmp_path / str(n)), train=replace(TRAIN, ahead=n)))
        for n in (0, 2)
    ]
    assert same(*found)
    assert not threads()


DISTIL = DistillConfig(
    student=StudentOptions(supertokens=4),
    data=DATA,
    train=replace(TRAIN, epochs=3),
    unfreeze_epoch=1,
)
LIGHT = {"point_widths": (6, 10), "group_size": 4}


@pytest.mark.parametrize(
    "options",
    [
        {"student": {"gate": True}, "gate_lambda": 1e-3},
        {"student": {"kind": "fps-student"}},
        {"student": LIGHT, "token_loss": TokenLossConfig(epochs=1)},
    ],
)
def test_distilling_ahead_has_the_same_weights(saved: Path, tmp_path: Path, options: dict) -> None:
    student = replace(DISTIL.student, **options["student"])
    config = replace(DISTIL, teacher=str(saved), **options | {"student": student})
    found = [
        distill(replace(config, out=str(tmp_path / str(n)), train=replace(config.train, ahead=n)))
        for n in (0, 2)
    ]
    assert same(*found)


@pytest.mark.parametrize("light", [False, True])
def test_remembered_and_computed_features_give_the_same_weights(
    saved: Path, tmp_path: Path, light: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Clouds of 48 come shuffled in batches of 16; the teacher reads each once, and at the end."""
    config = replace(DISTIL, teacher=str(saved), augment=STILL, starts="first")
    if light:
        config = replace(
            config,
            student=replace(config.student, **LIGHT),
            token_loss=TokenLossConfig(epochs=1, weight=0.5),
        )
    caplog.set_level(logging.INFO, "foundry3d")
    read, found = [], []
    for megabytes in (2048, 0):
        counted = load(saved)
        rows: list[int] = []
        counted.encoder.register_forward_hook(lambda _, i, o, rows=rows: rows.append(len(o)))
        out = str(tmp_path / str(megabytes))
        student = distill(replace(config, out=out, teacher_cache=megabytes), teacher=counted)
        read.append(sum(rows))
        found.append(student)
    assert read == [48 + 48, 48 * (2 if light else 3) + 48]
    assert same(*found)
    size = 48 * 12 * 4 * ((3 + 3 * 4 + 24 + 24) if light else (3 + 3 * 8 + 24)) / 1e6
    assert f"computed once and take {size:.0f} MB" in caplog.text
    assert "teacher_cache is 0" in caplog.text


def test_a_resumed_run_remembers_the_same(saved: Path, tmp_path: Path) -> None:
    config = replace(DISTIL, teacher=str(saved), augment=STILL, starts="first")
    whole = distill(replace(config, out=str(tmp_path / "whole")))

    class Stopped(Exception):
        pass

    def stop(self: DistillTask) -> None:
        if self.current_epoch == 2:
            raise Stopped

    part = replace(config, out=str(tmp_path / "part"), resume=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DistillTask, "on_train_epoch_start", stop)
        with pytest.raises(Stopped):
            distill(part)
    assert not threads()
    assert same(distill(part), whole)


@pytest.mark.parametrize(
    "change, says",
    [
        ({"teacher_cache": 0}, "teacher_cache is 0"),
        ({"data": replace(DATA, points=48)}, "add --data.subsample first"),
        ({"student": StudentOptions(kind="fps-student")}, "students that read its groups"),
        ({"starts": "random"}, None),
        ({"augment": replace(STILL, flip=True)}, None),
        ({"augment": replace(STILL, scale=(1.0, 1.1))}, None),
        ({"augment": replace(STILL, translate=0.1)}, None),
    ],
)
def test_nothing_is_remembered_of_what_is_drawn(
    teacher: Backbone, change: dict, says: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "foundry3d")
    clouds = Clouds(points=np.zeros((4, 64, 3), np.float32), labels=np.full(4, -1))
    config = replace(DISTIL, augment=STILL, starts="first")
    student = Student.from_teacher(teacher, supertokens=4)
    task = DistillTask(config, teacher, student)
    task.remember(clouds)
    assert task.numbered
    config = replace(config, **change)
    if config.student.kind != "supertokens":
        student = FPSStudent.from_teacher(teacher, supertokens=4, points=64)
    task = DistillTask(config, teacher, student)
    caplog.clear()
    task.remember(clouds)
    assert not task.numbered
    assert (says or "") in caplog.text
    assert bool(caplog.text) == (says is not None)


def test_speed_and_waiting_are_logged(tmp_path: Path) -> None:
    pretrain(replace(MASKED, out=str(tmp_path / "run")))
    rows = [r for r in metrics(tmp_path / "run") if r["clouds_per_second"]]
    assert len(rows) == 2
    for row in rows:
        assert float(row["clouds_per_second"]) > 0
        assert 0 <= float(row["data_wait"]) < 1


def test_bad_points_met_in_the_background_are_one_sentence(tmp_path: Path) -> None:
    """A cloud that augmentation blows up is met by the grouping thread."""
    g = np.random.default_rng(0)
    points = g.normal(size=(48, 64, 3)).astype(np.float32) * np.float32(1e37)
    np.savez(tmp_path / "c.npz", points=points, labels=np.zeros(48, int))
    config = replace(
        MASKED, out=str(tmp_path / "run"), data=replace(DATA, train=str(tmp_path / "c.npz")),
        augment=AugmentConfig(scale=(1e3, 1e3), normalise=False),
    )  # fmt: skip
    with pytest.raises(InputError, match="NaN or infinite"):
        pretrain(config)
    assert not threads()


def test_an_interrupted_run_ends(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    config = replace(MASKED, out=str(tmp_path / "r"), train=replace(TRAIN, epochs=5000))
    recipe.write_text(yaml.safe_dump(to_dict(config)))
    process = start(["pretrain", "--config", str(recipe)], tmp_path / "said")
    wait_for(tmp_path / "r" / "checkpoints" / "last.ckpt", process)
    os.kill(process.pid, signal.SIGINT)
    assert ended(process) == 130
    assert "Traceback" not in (tmp_path / "said").read_text()


def test_training_refuses_negative_depths() -> None:
    with pytest.raises(InputError, match="ahead must be >= 0, got -1"):
        TrainConfig(ahead=-1)
    with pytest.raises(InputError, match="teacher_cache must be >= 0, got"):
        DistillConfig(teacher_cache=-1)
