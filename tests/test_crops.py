"""Crops of large clouds: what they hold, how they are drawn, and training on them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from foundry3d.checkpoints.folder import save
from foundry3d.config import DataConfig, DistillConfig, StudentOptions, TrainConfig
from foundry3d.config.crops import crop_of
from foundry3d.data.crop_samples import Needs
from foundry3d.data.crop_stream import CropStream
from foundry3d.data.crops import draw_crop, squared, take
from foundry3d.data.loading import load_splits
from foundry3d.data.scenes import load_unlabelled
from foundry3d.errors import InputError
from foundry3d.models.backbone import Backbone
from foundry3d.models.student import Student
from foundry3d.scenes import group_scene
from foundry3d.scenes.dense import dense_features
from foundry3d.scenes.windows import encode_windows
from foundry3d.training.distill import distill

KINDS = [("sphere:0.8", (0, 1, 2)), ("column:0.5", (0, 1)), ("count:300", (0, 1, 2))]
DATA = DataConfig(points=24, crop="count:40", crops=3)


@pytest.fixture(scope="module")
def cloud() -> np.ndarray:
    """Points with many equal distances and some repeated points."""
    points = np.random.default_rng(0).normal(size=(4000, 3)).round(2)
    return np.concatenate([points, points[:50]]).astype(np.float32)


@pytest.mark.parametrize(("text", "axes"), KINDS)
def test_a_tree_finds_the_same_points(cloud: np.ndarray, text: str, axes: tuple[int, ...]) -> None:
    tree = pytest.importorskip("foundry3d.geometry.tree").build(cloud, 64)
    for middle in cloud[::331]:
        slow, fast = (take(cloud, middle, crop_of(text), axes, t) for t in (None, tree))
        assert np.array_equal(slow.rows, fast.rows)
        assert slow.reach == fast.reach


@pytest.mark.parametrize(("text", "axes"), KINDS)
def test_a_crop_is_what_its_name_says(cloud: np.ndarray, text: str, axes: tuple[int, ...]) -> None:
    crop = crop_of(text)
    found = draw_crop(cloud, crop, np.random.default_rng(3))
    distance = np.sqrt(squared(cloud, found.middle, axes))
    inside = np.zeros(len(cloud), bool)
    inside[found.rows] = True
    if crop.kind == "count":
        assert len(found.rows) == 300
        assert distance[inside].max() <= distance[~inside].min()
    else:
        assert np.array_equal(inside, distance <= np.float32(crop.size))
    assert found.holds(cloud)[inside].all()
    if crop.kind == "column":  # of any height
        heights = cloud[:, 2]
        far = cloud + np.float32([0, 0, 1]) * (heights > 0)[:, None] * np.float32(100)
        moved = take(far, found.middle, crop, axes)
        assert np.array_equal(moved.rows, found.rows)


def test_columns_stand_along_the_up_axis(cloud: np.ndarray) -> None:
    turned = np.roll(cloud, 1, axis=1)  # z is now x
    one = draw_crop(cloud, crop_of("column:0.5"), np.random.default_rng(1), up="z")
    other = draw_crop(turned, crop_of("column:0.5"), np.random.default_rng(1), up="x")
    assert np.array_equal(one.rows, other.rows)


def test_draws_come_from_the_generator_alone(cloud: np.ndarray) -> None:
    crop = crop_of("sphere:0.8")
    middles = [draw_crop(cloud, crop, np.random.default_rng(s)).middle for s in (1, 1, 2)]
    assert np.array_equal(middles[0], middles[1])
    assert not np.array_equal(middles[0], middles[2])


def test_small_crops_are_drawn_again() -> None:
    rng = np.random.default_rng(0)
    alone = 100 + 10 * np.arange(60)[:, None] * np.ones(3)
    points = np.concatenate([rng.normal(size=(40, 3)) / 100, alone]).astype(np.float32)
    for seed in range(20):
        found = draw_crop(points, crop_of("sphere:1"), np.random.default_rng(seed), at_least=30)
        assert np.array_equal(found.rows, np.arange(40))
    with pytest.raises(InputError, match=r"at least 41 points, got at most 40 points in 100 crops"):
        draw_crop(points, crop_of("sphere:1"), rng, at_least=41)
    places = points[:2]
    with pytest.raises(InputError, match="at least 1 points and 3 tokens"):
        draw_crop(points, crop_of("sphere:1"), rng, places=places, places_at_least=3)


@pytest.mark.parametrize("text", ["cube:1", "sphere", "sphere:-1", "count:1.5", "column:nan"])
def test_other_crops_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="crop"):
        DataConfig(crop=text)


def test_crops_are_not_what_labelled_data_is_read_with() -> None:
    with pytest.raises(InputError, match="for pretrain and distill"):
        load_splits(DataConfig(train="procedural", crop="sphere:1"))
    with pytest.raises(InputError, match=r"data\.subsample random or fps"):
        DataConfig(crop="sphere:1", subsample="first")


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Five scenes of different sizes in files of three kinds, and a damaged one."""
    folder = tmp_path / "scenes"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(3):
        np.save(folder / f"{i}.npy", rng.normal(size=(100 + 50 * i, 3)) + 10 * i)
    np.savetxt(folder / "3.xyz", rng.normal(size=(80, 3)))
    levels = rng.integers(-999, 999, (90, 3)).astype(np.int16)
    np.savez(folder / "4.npz", points_i16=levels, scale=np.ones(3) / 100, offset=np.ones(3) * 5e6)
    (folder / "5.ply").write_bytes(b"ply\nformat ascii 1.0\nelement vertex 9\n")
    return folder


def stream_of(folder: Path, config: DataConfig = DATA, **options: int) -> CropStream:
    config = replace(config, train=str(folder), validation=0.0)
    stream = load_unlabelled(config, seed=0, needs=Needs(points=12))
    assert isinstance(stream, CropStream)
    if "memory" in options:
        again = CropStream(
            [path for path, _ in stream.items], stream.read, config,
            needs=Needs(points=12), name="again", memory=options["memory"],
        )  # fmt: skip
        return again
    return stream


def rows(stream: CropStream, epoch: int = 0, rank: int = 0, world: int = 1) -> torch.Tensor:
    batches = stream.batches(2, seed=4, rank=rank, world=world)
    batches.set_epoch(epoch)
    found = list(batches)
    assert len(found) == len(batches)
    return torch.stack(found)  # type: ignore[arg-type]


def test_scenes_are_read_and_what_cannot_be_is_named_once(
    scenes: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("WARNING", logger="foundry3d"):
        stream = stream_of(scenes)
    assert "1 clouds left out, the other 5 are used; the first:" in caplog.text
    assert "5.ply" in caplog.text and "Traceback" not in caplog.text
    assert len(stream) == 15
    epoch = rows(stream)
    assert epoch.shape == (7, 2, 24, 3)
    assert epoch.isfinite().all() and epoch.dtype == torch.float32
    assert torch.equal(epoch, rows(stream))
    assert not torch.equal(epoch, rows(stream, epoch=1))
    (scenes / "only").mkdir()
    (scenes / "5.ply").rename(scenes / "only" / "5.ply")
    with pytest.raises(InputError, match=r"no cloud can be used; the first: .*5\.ply"):
        stream_of(scenes / "only")


def test_processes_share_an_epoch_and_memory_does_not_change_it(scenes: Path) -> None:
    stream = stream_of(scenes)
    whole = rows(stream)[:6].reshape(3, 4, 24, 3)
    parts = [rows(stream, rank=rank, world=2) for rank in (0, 1)]
    assert torch.equal(whole[:, 0::2], parts[0]) and torch.equal(whole[:, 1::2], parts[1])
    little = stream_of(scenes, memory=0)
    assert not any(little.is_kept(i) for i in range(len(little.items)))
    many = rows(little).flatten(0, 1)  # the same draws, mixed within fewer clouds
    known = {part.numpy().tobytes() for part in rows(stream).flatten(0, 1)}
    assert sum(part.numpy().tobytes() in known for part in many) >= 13
    single = replace(DATA, crops=1)
    one, other = stream_of(scenes, single), stream_of(scenes, single, memory=0)
    assert torch.equal(rows(one), rows(other))


def test_crops_of_few_points_repeat_some(scenes: Path) -> None:
    stream = stream_of(scenes, replace(DATA, points=64))
    for cloud in rows(stream).flatten(0, 1):
        assert len(cloud.unique(dim=0)) == 40  # count:40
    for how in ("random", "fps"):
        stream = stream_of(scenes, replace(DATA, subsample=how))
        assert all(len(cloud.unique(dim=0)) == 24 for cloud in rows(stream).flatten(0, 1))


def test_measured_crops_are_always_the_same(scenes: Path) -> None:
    stream = stream_of(scenes)
    first, again = (torch.cat(list(stream.in_order(4, seed=0, most=7))) for _ in range(2))  # type: ignore[arg-type]
    assert first.shape == (7, 24, 3)
    assert torch.equal(first, again)
    little = stream_of(scenes, memory=0)
    assert torch.equal(torch.cat(list(little.in_order(4, seed=0, most=7))), first)  # type: ignore[arg-type]


def test_a_student_learns_from_crops_and_gives_features_of_every_point(
    teacher: Backbone, scenes: Path, tmp_path: Path
) -> None:
    save(teacher, tmp_path / "teacher", provenance={})
    config = DistillConfig(
        teacher=str(tmp_path / "teacher"), out=str(tmp_path / "run"),
        student=StudentOptions(supertokens=4), frozen="none",
        data=replace(DATA, train=str(scenes), validation=0.2),
        train=TrainConfig(epochs=1, batch_size=4, warmup_epochs=0, accelerator="cpu", lr=1e-3),
    )  # fmt: skip
    student = distill(config)
    assert isinstance(student, Student)
    before = Student.from_teacher(teacher, config.student)
    changed = [not torch.equal(a, b) for a, b in zip(
        student.parameters(), before.parameters(), strict=True)]  # fmt: skip
    assert any(changed)
    points = torch.from_numpy(np.load(scenes / "0.npy")).float()[None]
    scene = group_scene(student, points, points_per_token=4)
    tokens, _ = encode_windows(student, scene, 12)
    features = torch.cat(list(dense_features(points, tokens.centers, tokens.features)))
    assert features.shape == (100, 24)
    assert features.isfinite().all()
    with pytest.raises(InputError, match="expected files of point clouds"):
        load_unlabelled(
            replace(DATA, train=str(tmp_path / "run" / "tensorboard")), seed=0, needs=Needs()
        )
