from pathlib import Path

import numpy as np
import pytest
import torch

from foundry3d.config import DataConfig
from foundry3d.data.archive import read_archive, write_archive
from foundry3d.data.batches import Batches, in_order
from foundry3d.data.clouds import Clouds
from foundry3d.data.loading import hold_out, load_splits
from foundry3d.errors import InputError


def some(n: int = 30, size: int = 16, classes: int = 3) -> Clouds:
    g = np.random.default_rng(0)
    return Clouds(
        points=g.normal(size=(n, size, 3)).astype(np.float32),
        labels=np.arange(n) % classes,
        class_names=tuple("abcdefgh"[:classes]),
        parts=(np.arange(n * size).reshape(n, size) % 2).astype(np.uint8),
        part_names=("top", "bottom"),
        name="some",
    )


def test_archives_come_back_as_written(tmp_path: Path) -> None:
    clouds = some()
    write_archive(tmp_path / "some.npz", clouds)
    again = read_archive(tmp_path / "some.npz")
    assert np.array_equal(again.points, clouds.points)
    assert np.array_equal(again.labels, clouds.labels)
    assert np.array_equal(again.parts, clouds.parts)
    assert (again.class_names, again.part_names) == (clouds.class_names, clouds.part_names)
    assert [p.name for p in tmp_path.iterdir()] == ["some.npz"]


def _spoil(path: Path, how: str) -> None:
    good = some()
    arrays = {"points": good.points, "labels": good.labels, "names": np.array(good.class_names)}
    match how:
        case "empty":
            arrays["points"], arrays["labels"] = good.points[:0], good.labels[:0]
        case "nan":
            arrays["points"] = np.where(good.points > 2, np.nan, good.points)
        case "infinite":
            arrays["points"] = np.where(good.points > 2, np.inf, good.points)
        case "flat":
            arrays["points"] = good.points[0]
        case "label high":
            arrays["labels"] = good.labels + 1
        case "label low":
            arrays["labels"] = good.labels - 2
        case "label count":
            arrays["labels"] = good.labels[:-1]
        case "no points":
            del arrays["points"]
        case "objects":
            arrays["points"] = np.array([{"a": 1}], dtype=object)
        case "text":
            arrays["points"] = np.array([["a"]])
    np.savez(path, **arrays, allow_pickle=True) if how == "objects" else np.savez(path, **arrays)
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:-300])
    if how == "not a zip":
        path.write_bytes(b"hello")
    if how == "missing":
        path.unlink()


@pytest.mark.parametrize(
    "how",
    [
        *("empty", "nan", "infinite", "flat", "label high", "label low", "label count"),
        *("no points", "objects", "text", "truncated", "not a zip", "missing"),
    ],
)
def test_bad_archives_are_one_sentence(tmp_path: Path, how: str) -> None:
    path = tmp_path / "bad.npz"
    _spoil(path, how)
    with pytest.raises(InputError) as caught:
        read_archive(path)
    assert "bad" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_held_out_clouds_are_stratified_and_apart() -> None:
    labels = np.repeat([0, 1, 2], [50, 30, 4])
    kept, held = hold_out(labels, 0.2, seed=1)
    assert sorted([*kept, *held]) == list(range(84))
    assert np.bincount(labels[held]).tolist() == [10, 6, 1]
    assert np.array_equal(held, hold_out(labels, 0.2, seed=1)[1])
    assert not np.array_equal(held, hold_out(labels, 0.2, seed=2)[1])
    assert len(hold_out(labels, 0.0, seed=1)[1]) == 0
    lonely = hold_out(np.array([0, 1]), 0.9, seed=0)
    assert len(lonely[0]) == 2  # a class is never held out whole


def test_batches_see_every_cloud_once_in_an_order_of_the_epoch() -> None:
    clouds = some(32)
    batches = Batches(clouds, 8, seed=4)
    first = torch.cat(list(batches))
    assert torch.equal(first, torch.cat(list(batches)))
    assert first.dtype == torch.float32
    rows = {tuple(c.flatten().tolist()) for c in first}
    assert rows == {tuple(c.flatten().tolist()) for c in torch.from_numpy(clouds.points)}
    batches.set_epoch(1)
    assert not torch.equal(first, torch.cat(list(batches)))
    assert len(Batches(clouds, 7, seed=0)) == 4
    with pytest.raises(InputError, match="batch_size"):
        Batches(clouds, 33, seed=0)


def test_processes_share_an_epoch_without_overlap() -> None:
    clouds = some(32)
    parts = [torch.cat(list(Batches(clouds, 4, seed=1, rank=r, world=2))) for r in (0, 1)]
    together = torch.cat(parts).flatten(1)
    assert len(together) == 32
    assert len(together.unique(dim=0)) == 32


def test_evaluation_reads_prefixes_in_order() -> None:
    clouds = some(10)
    found = torch.cat(list(in_order(clouds, 4, 5)))
    assert np.array_equal(found.numpy(), clouds.points[:, :5])


def test_splits_of_procedural_data_differ() -> None:
    config = DataConfig(
        train="procedural", test="procedural", train_clouds=60, test_clouds=30, points=32,
        validation=0.2,
    )  # fmt: skip
    splits = load_splits(config)
    assert splits.validation is not None
    assert splits.test is not None
    assert len(splits.train) + len(splits.validation) == 60
    assert len(splits.test) == 30
    train = {c.tobytes() for c in splits.train.points}
    assert not train & {c.tobytes() for c in splits.test.points}
    assert not train & {c.tobytes() for c in splits.validation.points}


def test_too_few_points_is_one_sentence(tmp_path: Path) -> None:
    write_archive(tmp_path / "some.npz", some())
    with pytest.raises(InputError, match=r"lower data\.points"):
        load_splits(DataConfig(train=str(tmp_path / "some.npz"), test=None, points=64))
