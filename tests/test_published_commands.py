"""Few-shot episodes, pickles that must not run, and the commands for published data sets."""

import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_cli import run
from test_published import modelnet40, some

from foundry3d.config import PrepareConfig
from foundry3d.data.archive import read_archive
from foundry3d.data.clouds import Clouds
from foundry3d.data.published.commands import compare, prepare
from foundry3d.data.published.fewshot import MODELNET_FEWSHOT, QUERIES, episode, fold
from foundry3d.data.published.modelnet import MODELNET40_H5, MODELNET40_NORMAL
from foundry3d.data.published.pickles import numbers, read_pickle
from foundry3d.data.published.record import Split
from foundry3d.data.published.sources import read_published
from foundry3d.errors import InputError


def clouds_of(counts: dict[int, int]) -> Clouds:
    labels = np.random.default_rng(1).permutation(np.repeat(list(counts), list(counts.values())))
    names = tuple(f"class {i}" for i in range(max(counts) + 1))
    return Clouds(points=some(len(labels), 4, 3), labels=labels, class_names=names)


def test_episodes_are_balanced_disjoint_and_seeded() -> None:
    clouds = clouds_of({0: 40, 1: 33, 2: 40, 3: 15, 5: 31, 6: 10})
    found = episode(clouds.labels, 4, 10, 20, np.random.default_rng(3))
    again = episode(clouds.labels, 4, 10, 20, np.random.default_rng(3))
    assert np.array_equal(found.train, again.train) and np.array_equal(found.test, again.test)
    assert not set(found.train) & set(found.test)
    assert len(set(found.train)) == 40 and len(set(found.test)) == len(found.test)
    counts = np.bincount(clouds.labels)[found.classes]
    assert np.bincount(clouds.labels[found.train])[found.classes].tolist() == [10] * 4
    assert np.bincount(clouds.labels[found.test])[found.classes].tolist() == [
        min(20, count - 10) for count in counts
    ]
    assert found.lacking == 80 - len(found.test)
    assert 6 not in found.classes  # which has no test cloud left


def test_an_episode_renames_its_classes() -> None:
    clouds = clouds_of({2: 30, 4: 30, 7: 30})
    found = fold(clouds, way=2, shot=5, fold=1)
    train, test = found.split(clouds)
    assert set(train.labels) == set(test.labels) == {0, 1}
    for part, index in ((train, found.train), (test, found.test)):
        assert np.array_equal(part.points, clouds.points[index])
        names = [part.class_names[label] for label in part.labels]
        assert names == [clouds.class_names[label] for label in clouds.labels[index]]
    assert len(test) == 2 * QUERIES


def test_folds_differ_in_each_of_their_numbers() -> None:
    clouds = clouds_of(dict.fromkeys(range(12), 45))
    numbers = [(5, 10, 0, 0), (5, 10, 1, 0), (5, 10, 0, 1), (5, 20, 0, 0), (10, 10, 0, 0)]
    drawn = [
        tuple(fold(clouds, way=w, shot=s, fold=f, seed=seed).train) for w, s, f, seed in numbers
    ]
    assert len(set(drawn)) == len(numbers)
    chosen = [fold(clouds, way=5, shot=10, fold=f).classes for f in range(200)]
    share = np.bincount(np.concatenate(chosen), minlength=12) / 200  # 5 of 12, sd 0.035
    assert np.abs(share - 5 / 12).max() < 0.15


def test_impossible_episodes_are_refused() -> None:
    labels = np.array([0, 0, 0, 1, 1, -1, -1, -1])
    with pytest.raises(InputError, match="more than 2 clouds are needed, the data has 1"):
        episode(labels, 2, 2, 20, np.random.default_rng(0))
    with pytest.raises(InputError, match="must be positive"):
        episode(labels, 1, 0, 20, np.random.default_rng(0))
    with pytest.raises(InputError, match="must not be negative"):
        fold(clouds_of({0: 9}), way=1, shot=1, fold=-1)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_published_folds_come_back(tmp_path: Path, protocol: int) -> None:
    arrays = some(4, 10, 6).astype(np.float64)
    content = {
        "train": [(arrays[0], 0, 39), (arrays[1], np.int64(1), np.int32(0))],
        "test": [(arrays[2], 1, 0), (np.asfortranarray(arrays[3]), 0, 39)],
    }
    folder = tmp_path / "ModelNetFewshot" / "5way_10shot"
    folder.mkdir(parents=True)
    (folder / "3.pkl").write_bytes(pickle.dumps(content, protocol))
    train = read_published(f"modelnet-fewshot:{tmp_path}:5way_10shot/3/train", train=True)
    assert train.labels.tolist() == [0, 1] and train.class_names == ("xbox", "airplane")
    test = MODELNET_FEWSHOT.read(tmp_path, "5way_10shot/3/test")
    assert np.array_equal(test.points, arrays[2:, :, :3].astype(np.float32))
    assert test.labels.tolist() == [1, 0]


def test_the_cache_of_farthest_points_is_read(tmp_path: Path) -> None:
    arrays = some(3, 12, 6)
    path = tmp_path / "modelnet40_test_8192pts_fps.dat"
    path.write_bytes(pickle.dumps([list(arrays), [np.array([i], np.int32) for i in (3, 0, 9)]]))
    found = MODELNET40_NORMAL.read(tmp_path, "test")
    assert np.array_equal(found.points, arrays[..., :3].astype(np.float16))
    assert found.labels.tolist() == MODELNET40_NORMAL.labels(tmp_path, "test").tolist() == [3, 0, 9]
    path.write_bytes(pickle.dumps([list(arrays), [0]]))
    with pytest.raises(InputError, match="one label for each cloud"):
        MODELNET40_NORMAL.read(tmp_path, "test")


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "u1", "?", "<f2", "<i8"])
def test_arrays_survive_every_protocol(tmp_path: Path, protocol: int, dtype: str) -> None:
    array = (some(3, 5) * 9).astype(dtype)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps([array, array[1, 2]], protocol))
    found, scalar = read_pickle(tmp_path / "a.pkl")
    assert np.array_equal(numbers(found, tmp_path), array)
    assert scalar == array[1, 2]


class Hostile:
    def __init__(self, call: object, *arguments: object) -> None:
        self.reduced = call, arguments

    def __reduce__(self) -> object:
        return self.reduced


def test_a_hostile_pickle_is_refused_and_nothing_runs(tmp_path: Path) -> None:
    path, mark = tmp_path / "p.pkl", tmp_path / "ran"
    for call, arguments, says in [
        (os.system, (f"touch {mark}",), "system, which no data set needs; nothing of it was run"),
        (eval, (f"open({str(mark)!r}, 'w')",), r"builtins\.eval"),
        (getattr, ("text", "upper"), r"builtins\.getattr"),
        (np.save, (str(mark), 1), "no data set needs"),
    ]:
        path.write_bytes(pickle.dumps({"train": [(some(4, 6), 0, Hostile(call, *arguments))]}))
        with pytest.raises(InputError, match=says):
            read_pickle(path)
    assert list(tmp_path.iterdir()) == [path]


def test_damaged_pickles_are_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "p.pkl"
    good = pickle.dumps([some(20, 6), [1]])
    for content, says in [
        (good[:-80], "damaged"),
        (b"", "damaged"),
        (b"hello", "damaged"),
        (pickle.dumps(np.array(["a"], object)), "something else than numbers"),
        (pickle.dumps(np.array(["text"])), "something else than numbers"),
        (b"\x80\x04N\x8f\xff\xff\xff\x7f.", "damaged"),
        (b"\x80\x02Nr\xff\xff\xff\x7f.", "more memory than it can fill"),
        (b"\x80\x05\x96\x00\x00\x00\x00\x02\x00\x00\x00abc.", "damaged"),
        (good.replace(b"K\x14K\x06", b"K\x15K\x06"), "cut short"),
    ]:
        path.write_bytes(content)
        with pytest.raises(InputError, match=says) as caught:
            read_pickle(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="there is no such file"):
        read_pickle(tmp_path / "nothing.pkl")


def test_figures_of_a_whole_copy_hold_and_of_a_short_one_do_not(tmp_path: Path) -> None:
    modelnet40(tmp_path)
    small = replace(
        MODELNET40_H5,
        splits={
            "train": Split(clouds=4, classes=4, per_class=(1, 1, *[0] * 5, 1, *[0] * 31, 1)),
            "test": Split(clouds=1, classes=1),
        },
    )
    rows, faults = compare(small, tmp_path)
    assert len(rows) == 5 and all(row.ok for row in rows) and not faults
    short = Split(clouds=5, classes=3, per_class=(2, 1, *[0] * 5, 1, *[0] * 31, 1))
    rows, _ = compare(replace(small, splits={"train": short}), tmp_path)
    assert [row.ok for row in rows] == [False] * 3
    assert rows[2].found == "airplane 1 not 2"
    next(tmp_path.rglob("ply_data_test0.h5")).unlink()
    rows, faults = compare(small, tmp_path)
    assert [row.ok for row in rows] == [True] * 3 + [False]
    assert "ply_data_test*.h5" in faults[0]
    optional = {"test": replace(small.splits["test"], optional=True)}
    assert compare(replace(small, splits=optional), tmp_path) == ([], [])


def test_check_prints_the_table_and_where_to_get_the_rest(capsys, tmp_path: Path) -> None:
    modelnet40(tmp_path)
    status, out, err = run(capsys, "data", "check", "modelnet40", str(tmp_path))
    assert status == 2
    assert [line.split("|")[3].strip() for line in out.splitlines()[3:5]] == ["9840", "40"]
    assert "4 of 5" in err or "5 of 5" in err
    assert "modelnet.cs.princeton.edu" in err and err.count("\n") == 1
    status, out, err = run(capsys, "data", "check", "modelnet40", str(tmp_path / "none"))
    assert (status, out.count("missing")) == (2, 2) and out.count("no such folder") == 1
    assert "known are modelnet40, " in run(capsys, "data", "check", "nothing", ".")[2]
    assert "NAME FOLDER; got nothing" in run(capsys, "data", "check")[2]


def test_prepare_writes_safe_archives_and_overwrites_none(capsys, tmp_path: Path) -> None:
    clouds = modelnet40(tmp_path)
    out = tmp_path / "out"
    status, _, _ = run(capsys, "data", "prepare", "modelnet40", str(tmp_path), "--out", str(out))
    assert status == 0
    train = read_archive(out / "modelnet40-train.npz")
    source = read_published(f"modelnet40:{tmp_path}", train=True)
    assert np.array_equal(train.points, source.points)
    assert np.array_equal(train.labels, [0, 1, 7, 39]) and train.class_names[39] == "xbox"
    assert np.array_equal(np.sort(train.points[0], axis=0), np.sort(clouds[0], axis=0))
    before = {path: path.read_bytes() for path in out.iterdir()}
    config = PrepareConfig(dataset=("modelnet40", str(tmp_path)), out=str(out))
    with pytest.raises(InputError, match="already exists"):
        prepare(config)
    assert before == {path: path.read_bytes() for path in out.iterdir()}


def test_prepare_takes_what_is_there(tmp_path: Path) -> None:
    modelnet40(tmp_path)
    next(tmp_path.rglob("ply_data_train0.h5")).unlink()
    next(tmp_path.rglob("ply_data_train1.h5")).unlink()
    out = tmp_path / "out"
    config = PrepareConfig(dataset=("modelnet40", str(tmp_path)), out=str(out))
    assert [path.name for path in prepare(config)] == ["modelnet40-test.npz"]
    with pytest.raises(InputError, match="has no split 'val'"):
        prepare(replace(config, splits=("val",)))
    with pytest.raises(InputError, match=r"ply_data_train\*\.h5"):
        prepare(replace(config, splits=("train",)))
    next(tmp_path.rglob("ply_data_test0.h5")).unlink()
    with pytest.raises(InputError, match="no file is named"):
        prepare(config)
