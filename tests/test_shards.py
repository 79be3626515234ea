import io
import json
import logging
import os
import tarfile
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY

from foundry3d import cli
from foundry3d.config import DataConfig, MaskedConfig, PackConfig, PretrainConfig, TrainConfig
from foundry3d.data import pack_progress, pack_source, packing
from foundry3d.data.archive import write_archive
from foundry3d.data.clouds import Clouds
from foundry3d.data.loading import load_splits, load_train
from foundry3d.data.packing import pack, write_shard
from foundry3d.data.shards import Index, read_index, samples, write_index
from foundry3d.data.streaming import Shards, share, shuffled
from foundry3d.errors import InputError, PartialFailure
from foundry3d.training.callbacks import KeepLast
from foundry3d.training.pretrain import pretrain

POINTS = 16
SHAPES = PackConfig(source="procedural", clouds=6, samples=32, shard_clouds=4)


def some(count: int, size: int = POINTS) -> np.ndarray:
    """Clouds (count, size, 3) float16 that are told apart by their first coordinate."""
    clouds = np.random.default_rng(0).normal(size=(count, size, 3))
    clouds[:, :, 0] = np.arange(count)[:, None]
    return clouds.astype(np.float16)


def numbers(batches: list[torch.Tensor]) -> list[int]:
    return [int(n) for batch in batches for n in batch[:, 0, 0]]


@pytest.fixture(autouse=True)
def own_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages reach the test, whatever the command line has set before."""
    log = logging.getLogger("foundry3d")
    monkeypatch.setattr(log, "propagate", True)
    monkeypatch.setattr(log, "handlers", [])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """40 clouds of three classes in 4 shards, cloud i with key i."""
    labelled = [(cloud, i % 3) for i, cloud in enumerate(some(40))]
    out = tmp_path / "shards"
    out.mkdir()
    for shard in range(4):
        path = out / f"shard-{shard:06d}.tar"
        write_shard(path, labelled[10 * shard : 10 * shard + 10], 10 * shard)
    shards = {f"shard-{i:06d}.tar": 10 for i in range(4)}
    names = ("a", "b", "c")
    write_index(out, Index(shards=shards, count=40, points=(POINTS, POINTS), class_names=names))
    return out


def rewrite(path: Path, changes: dict[str, bytes | None]) -> None:
    """Replaces members of an archive; None takes one out."""
    with tarfile.open(path) as archive:
        files = {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]
    files |= changes
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            if content is not None:
                packing._add(archive, name, content)


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def test_an_archive_survives_packing(tmp_path: Path) -> None:
    labels = np.array([*range(3), -1] * 6)
    clouds = Clouds(points=some(24), labels=labels, class_names=("a", "b", "c"))
    write_archive(tmp_path / "some.npz", clouds)
    out = tmp_path / "out"
    index = pack(PackConfig(source=str(tmp_path / "some.npz"), out=str(out), shard_clouds=10))
    assert read_index(out) == index
    assert (index.count, index.points, index.dtype) == (24, (POINTS, POINTS), "float16")
    assert list(index.shards.values()) == [10, 10, 4]
    assert {p.name for p in out.iterdir()} == {*index.shards, "index.json"}
    found = {}
    for shard in index.shards:
        for _, files in samples(out / shard):
            cloud = np.load(io.BytesIO(files["npy"]))
            found[int(cloud[0, 0])] = cloud, int(files.get("cls", b"-1"))
    assert list(found) != sorted(found)  # neighbours in the archive are spread
    for i in range(24):
        assert np.array_equal(found[i][0], clouds.points[i])
        assert found[i][1] == labels[i]


def test_packing_is_refused_where_something_is(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"
    command = ["data", "pack", "procedural", "--out", str(out), "--clouds", "6", "--samples", "32"]
    cli.main([*command, "--shard_clouds", "4"])
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    assert set(before) == {"shard-000000.tar", "shard-000001.tar", "index.json"}
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        cli.main(command)
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert "not an empty folder" in error
    assert error.count("\n") == 1
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    pack(replace(SHAPES, out=str(tmp_path / "again")))
    assert {p.name: p.read_bytes() for p in (tmp_path / "again").iterdir()} == before


def test_shapes_are_made_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack_source, "_BLOCK", 4)
    source = pack_source.open_source(PackConfig(source="procedural", clouds=10, samples=16))
    found = [shape for piece in source.pieces for shape in source.read(piece)]
    clouds = [shape[0].tobytes() for shape in found if not isinstance(shape, str)]
    assert len(clouds) == len(set(clouds)) == 10


def test_folders_pack_what_can_be_read_and_say_what_cannot(tmp_path: Path) -> None:
    source = tmp_path / "files"
    for name, size in (("chair/one", 20), ("chair/deep/two", 30), ("cup/three", 40)):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(source / f"{name}.npy", np.ones((size, 3)))
    many = np.ones((3, 25, 3))
    many[1] = np.nan
    np.save(source / "many.npy", many)
    (source / "cup" / "bad.ply").write_bytes(b"ply nonsense")
    with pytest.raises(PartialFailure, match=r"2 clouds left out; the first: .*; the other 5 are"):
        pack(PackConfig(source=str(source), out=str(tmp_path / "out")))
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"shard-000000.tar", "index.json"}
    index = read_index(tmp_path / "out")
    assert index.class_names == ("chair", "cup")
    assert (index.count, index.points, index.dtype) == (5, (20, 40), "float32")
    sizes = {}
    for _, files in samples(tmp_path / "out" / "shard-000000.tar"):
        label = int(files.get("cls", b"-1"))
        sizes.setdefault(label, []).append(len(np.load(io.BytesIO(files["npy"]))))
    assert {label: sorted(found) for label, found in sizes.items()} == {
        0: [20, 30],
        1: [40],
        -1: [25, 25],
    }
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "bad.ply").write_bytes(b"ply nonsense")
    with pytest.raises(InputError, match="not one cloud"):
        pack(PackConfig(source=str(tmp_path / "none"), out=str(tmp_path / "x")))
    with pytest.raises(InputError, match="no such archive"):
        pack(PackConfig(source=str(tmp_path / "nothing"), out=str(tmp_path / "x")))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Seven files with 14 clouds, one of which cannot be read, beside a file that cannot be."""
    folder = tmp_path / "files"
    for i in range(6):
        path = folder / f"class {i % 2}" / f"{i}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, some(3)[:, : 8 + i] + i if i < 3 else some(1)[0] + i)
    broken = some(3).astype(np.float32)
    broken[1] = np.nan
    np.save(folder / "class 1" / "many.npy", broken)
    (folder / "class 0" / "bad.ply").write_bytes(b"ply nonsense")
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Killed(BaseException):
    pass


@pytest.mark.parametrize("shards_done", [0, 1, 2, 3])
@pytest.mark.parametrize("kind", ["files", "archive", "procedural"])
def test_a_stopped_pack_continues_with_the_next_shard(
    tmp_path: Path, files: Path, monkeypatch: pytest.MonkeyPatch, kind: str, shards_done: int
) -> None:
    monkeypatch.setattr(pack_source, "_BLOCK", 5)
    if kind == "archive":
        clouds = Clouds(points=some(14), labels=np.zeros(14, int), class_names=("a",))
        write_archive(tmp_path / "some.npz", clouds)
    sources = {"files": str(files), "archive": str(tmp_path / "some.npz")}
    config = PackConfig(
        source=sources.get(kind, kind), out=str(tmp_path / "out"), shard_clouds=4, clouds=14,
        samples=32,
    )  # fmt: skip
    whole = replace(config, out=str(tmp_path / "whole"))
    outcome = pytest.raises(PartialFailure, match="2 clouds") if kind == "files" else nullcontext()
    with outcome:
        pack(whole)
    written: list[str] = []

    def stop(path: Path, *rest: Any) -> list[tuple[int, str]]:
        if len(written) == shards_done:
            (path.parent / f"{path.name}.partial").write_bytes(b"half")
            raise Killed
        written.append(path.name)
        return write_shard(path, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(packing, "write_shard", stop)
        with pytest.raises(Killed):
            pack(config)
    assert not (tmp_path / "out" / "index.json").exists()
    written.clear()
    with monkeypatch.context() as patch:
        patch.setattr(
            packing, "write_shard", lambda *a: written.append(a[0].name) or write_shard(*a)
        )
        with pytest.raises(PartialFailure, match="2 clouds") if kind == "files" else nullcontext():
            pack(config)
    assert written == [f"shard-{i:06d}.tar" for i in range(shards_done, 4)]
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_a_pack_that_was_stopped_before_its_index_only_writes_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(SHAPES, out=str(tmp_path / "out"))

    def stop(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(packing, "write_index", stop)
        with pytest.raises(Killed):
            pack(config)
    monkeypatch.setattr(packing, "write_shard", stop)
    assert pack(config).count == 6
    assert set(content(tmp_path / "out")) == {
        *("shard-000000.tar", "shard-000001.tar", "index.json"),
    }


def test_another_pack_does_not_continue_an_unfinished_one(
    tmp_path: Path, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = PackConfig(source=str(files), out=str(tmp_path / "out"), shard_clouds=4)

    def stop(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(packing, "write_index", stop)
        with pytest.raises(Killed):
            pack(config)
    before = content(tmp_path / "out")
    with pytest.raises(InputError, match="unfinished collection with other shard_clouds, seed; "):
        pack(replace(config, seed=1, shard_clouds=5))
    np.save(files / "class 0" / "new.npy", some(1)[0])
    with pytest.raises(InputError, match="unfinished collection with other pieces, fingerprint"):
        pack(config)
    (files / "class 0" / "new.npy").unlink()
    assert content(tmp_path / "out") == before
    shard = tmp_path / "out" / "shard-000001.tar"
    shard.unlink()
    with pytest.raises(InputError, match=r"shard-000001\.tar is gone; remove"):
        pack(config)
    shard.write_bytes(before[shard.name])
    for damaged in ("{", "[]", '{"settings": {}, "piece": -1}', '{"colour": 1}'):
        (tmp_path / "out" / pack_progress.PROGRESS).write_text(damaged)
        with pytest.raises(InputError, match=r"packing\.json is damaged"):
            pack(config)


def test_what_is_no_file_is_never_opened(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "shard-000000.tar").unlink()
    os.mkfifo(folder / "shard-000000.tar")
    (folder / "shard-000001.tar").unlink()
    (folder / "shard-000001.tar").symlink_to("/dev/zero")
    found = numbers(list(Shards(folder, points=POINTS).batches(8, seed=0)))
    assert set(found) == set(range(20, 40))
    assert "skipped 20 of 40" in caplog.text


def test_an_index_that_promises_too_much_is_refused(folder: Path) -> None:
    path = folder / "index.json"
    values = json.loads(path.read_text())
    values["shards"]["shard-000000.tar"] += 10**18
    path.write_text(json.dumps(values | {"count": 40 + 10**18}))
    with pytest.raises(InputError, match=r"index\.json: declares .* samples, but the shards have"):
        read_index(folder)
    with open(path, "wb") as stream:
        stream.truncate(2**28 + 1)
    with pytest.raises(InputError, match=r"index\.json: is larger than"):
        read_index(folder)


def test_a_broken_pack_leaves_no_part_of_a_shard(tmp_path: Path) -> None:
    def broken():
        yield some(1)[0], -1
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        write_shard(tmp_path / "shard-000000.tar", broken(), 0)
    assert not list(tmp_path.iterdir())


def test_other_readers_of_the_layout_agree(folder: Path) -> None:
    wds = pytest.importorskip("webdataset")
    found = {}
    for i in range(4):
        with open(folder / f"shard-{i:06d}.tar", "rb") as stream:
            source = [{"url": "shard", "stream": stream}]
            files = wds.tariterators.tar_file_expander(source)
            for sample in wds.tariterators.group_by_keys(files):
                found[int(sample["__key__"])] = sample["npy"], sample["cls"]
    ours = {int(k): (f["npy"], f["cls"]) for p in folder.glob("*.tar") for k, f in samples(p)}
    assert len(ours) == 40
    assert found == ours
    assert np.array_equal(np.load(io.BytesIO(found[7][0])), some(40)[7])


def test_what_other_writers_write_is_read(tmp_path: Path) -> None:
    wds = pytest.importorskip("webdataset")
    with wds.TarWriter(str(tmp_path / "shard.tar")) as sink:
        for i, cloud in enumerate(some(8)):
            sink.write({"__key__": f"some/{i}", "json": {"a": 1}, "npy": cloud, "cls": i % 2})
    index = Index(shards={"shard.tar": 8}, count=8, points=(16, 16), class_names=("a", "b"))
    write_index(tmp_path, index)
    found = list(Shards(tmp_path, points=16).batches(4, seed=0))
    assert sorted(numbers(found)) == list(range(8))


def test_an_epoch_has_every_cloud_once_in_an_order_of_its_own(folder: Path) -> None:
    batches = Shards(folder, points=POINTS, buffer=8).batches(8, seed=4)
    first = list(batches)
    assert len(first) == len(batches) == 5
    assert first[0].dtype == torch.float32
    assert first[0].shape == (8, POINTS, 3)
    order = numbers(first)
    assert sorted(order) == list(range(40))
    assert np.array_equal(torch.cat(first).numpy(), some(40)[order].astype(np.float32))
    again = Shards(folder, points=POINTS, buffer=8).batches(8, seed=4)
    assert numbers(list(again)) == order
    again.set_epoch(1)
    assert sorted(numbers(list(again))) == list(range(40))
    assert numbers(list(again)) != order
    other = Shards(folder, points=POINTS, buffer=8).batches(8, seed=5)
    assert numbers(list(other)) != order
    assert len({n // 10 for n in order[:10]}) > 1  # clouds of several shards in one place


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_an_epoch_without_overlap(folder: Path, world: int) -> None:
    shards = Shards(folder, points=POINTS)
    parts = [shards.batches(4, seed=1, rank=r, world=world) for r in range(world)]
    assert len({len(part) for part in parts}) == 1
    found = Counter(n for part in parts for n in numbers(list(part)))
    assert max(found.values()) == 1
    assert len(found) == len(parts[0]) * 4 * world
    with pytest.raises(InputError, match="batch_size"):
        shards.batches(41, seed=0)


def test_spans_cover_the_shards() -> None:
    counts = {f"{i}.tar": size for i, size in enumerate((5, 1, 7, 3, 8))}
    seen: Counter = Counter()
    for rank in range(4):
        parts = share(counts, np.random.default_rng(3), rank, 4)
        assert sum(p.last - p.first for p in parts) == 6
        seen.update((p.shard, i) for p in parts for i in range(p.first, p.last))
    assert len(seen) == 24
    assert set(seen.values()) == {1}


def test_shuffling_keeps_every_cloud() -> None:
    clouds = [np.full(1, i) for i in range(100)]
    found = [int(c[0]) for c in shuffled(clouds, 10, np.random.default_rng(0))]
    assert sorted(found) == list(range(100))
    assert found != sorted(found)
    assert [int(c[0]) for c in shuffled(clouds, 1, np.random.default_rng(0))] == list(range(100))


def test_clouds_are_cut_to_one_size(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clouds = [(np.full((size, 3), size, np.float32), -1) for size in (8, 20, 24, 40)]
    clouds[3][0][:, 1] = np.arange(40)
    write_shard(tmp_path / "shard-000000.tar", clouds, 0)
    write_index(tmp_path, Index(shards={"shard-000000.tar": 4}, count=4, points=(8, 40)))
    batches = Shards(tmp_path, points=16).batches(4, seed=0)
    with caplog.at_level(logging.WARNING, "foundry3d"):
        (found,) = list(batches)
    assert found.shape == (4, 16, 3)  # the epoch has its length: a cloud is read twice
    assert set(numbers([found])) == {20, 24, 40}
    (message,) = [r.getMessage() for r in caplog.records]
    assert "skipped 1 of 4" in message
    assert "000000000: expected at least 16 points, got 8" in message
    rows = found[found[:, 0, 0] == 40][0, :, 1]
    assert len(rows.unique()) == 16  # points are drawn without repetition
    assert not torch.equal(rows, torch.arange(16.0))
    assert Shards(tmp_path, points=4).points == 8
    with pytest.raises(InputError, match=r"lower data\.points"):
        Shards(tmp_path, points=41)


class Trap:
    def __reduce__(self) -> tuple[Callable, tuple]:
        return pytest.fail, ("a pickle was executed",)


BROKEN = {
    "no array": b"nonsense",
    "empty": b"",
    "cut": npy(some(1)[0])[:-7],
    "nan": npy(np.full((POINTS, 3), np.nan, np.float16)),
    "too large": npy(np.full((POINTS, 3), 1e300)),
    "pickle": npy(np.array([[Trap()] * 3] * POINTS, dtype=object)),
    "columns": npy(np.ones((POINTS, 2), np.float32)),
    "clouds": npy(np.ones((2, POINTS, 3), np.float32)),
    "no points": npy(np.ones((0, 3), np.float32)),
    "gone": None,
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_bad_sample_is_skipped_and_told(
    folder: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    rewrite(folder / "shard-000001.tar", {"000000013.npy": BROKEN[what]})
    batches = Shards(folder, points=POINTS).batches(8, seed=0)
    with caplog.at_level(logging.WARNING, "foundry3d"):
        found = numbers(list(batches))
    assert len(found) == 40
    assert set(found) == set(range(40)) - {13}
    (message,) = [r.getMessage() for r in caplog.records]
    assert "skipped 1 of 40 samples, the first in shard-000001.tar, 000000013: " in message


@pytest.mark.parametrize("label", [b"3", b"-1", b"chair", b"", b"1" * 5000])
def test_a_wrong_class_is_skipped(
    folder: Path, label: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    rewrite(folder / "shard-000002.tar", {"000000020.cls": label})
    found = numbers(list(Shards(folder, points=POINTS).batches(8, seed=0)))
    assert set(found) == set(range(40)) - {20}
    assert "expected a class below 3" in caplog.text


def cut_in_points(content: bytes) -> bytes:
    return content[: content.index(b"000000034.npy") + 600]


def cut_between(content: bytes) -> bytes:
    return content[: content.index(b"000000034.npy")]


def bad_header(content: bytes) -> bytes:
    place = content.index(b"000000034.npy") + 150
    return content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :]


def negative_size(content: bytes) -> bytes:
    info = tarfile.TarInfo("000000034.npy")
    info.size = -512
    place = content.index(b"000000034.npy")
    return content[:place] + info.tobuf(tarfile.GNU_FORMAT) + content[place + 512 :]


def huge_size(content: bytes) -> bytes:
    info = tarfile.TarInfo("000000034.npy")
    info.size = 2**60
    place = content.index(b"000000034.npy")
    return content[:place] + info.tobuf(tarfile.GNU_FORMAT) + content[place + 512 :]


@pytest.mark.parametrize(
    ("damage", "lost"),
    [
        (cut_in_points, 6),
        (cut_between, 6),
        (negative_size, 6),
        (huge_size, 6),
        (bad_header, 1),
        (lambda content: b"", 10),
        (lambda content: b"nonsense" * 200, 10),
    ],
)
def test_a_damaged_archive_is_skipped_and_told(
    folder: Path, damage: Callable, lost: int, caplog: pytest.LogCaptureFixture
) -> None:
    path = folder / "shard-000003.tar"
    path.write_bytes(damage(path.read_bytes()))
    found = numbers(list(Shards(folder, points=POINTS).batches(8, seed=0)))
    assert len(found) == 40
    gone = set(range(34, 34 + lost)) if lost < 10 else set(range(30, 40))
    assert set(found) == set(range(40)) - gone
    assert f"skipped {lost} of 40" in caplog.text
    assert "shard-000003.tar" in caplog.text


def test_a_member_cannot_grow_when_it_is_read(folder: Path) -> None:
    """A sparse member of a few bytes declares 4 GiB of zeros."""
    path = folder / "shard-000000.tar"
    info = tarfile.TarInfo("000000000.npy")
    info.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[386:410] = b"00000000000\0" + b"00000000000\0"
    header[483:495] = b"40000000000\0"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    content = path.read_bytes()
    path.write_bytes(bytes(header) + content[content.index(b"000000000.cls") :])
    with tarfile.open(path) as archive:
        assert next(iter(archive)).issparse()
    assert next(samples(path))[1]["npy"] is None


def test_no_usable_sample_is_one_sentence(folder: Path) -> None:
    for path in folder.glob("*.tar"):
        path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(InputError, match="not one of 40 samples"):
        list(Shards(folder, points=POINTS).batches(8, seed=0))
    with pytest.raises(InputError, match="not one of"):
        list(Shards(folder, points=POINTS).batches(8, seed=0, rank=1, world=2))


def test_a_process_whose_share_is_lost_reads_the_others(folder: Path) -> None:
    shards = Shards(folder, points=POINTS)
    mine = share(shards.index.shards, np.random.default_rng([1, 0]), 1, 2)
    for part in mine:
        (folder / part.shard).unlink()
    found = numbers(list(shards.batches(4, seed=1, rank=1, world=2)))
    assert len(found) == 20


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"format": "other"},
        {"count": 41},
        {"shards": {"../shard-000000.tar": 40}},
        {"shards": {"shard-000000.tar": "40"}},
        {"shards": ["shard-000000.tar"]},
        {"points": [16]},
        {"points": None},
        {"colour": "red"},
    ],
)
def test_a_bad_index_is_one_sentence(folder: Path, change: dict) -> None:
    path = folder / "index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=r"index\.json.*pack"):
        read_index(folder)
    path.write_text("{")
    with pytest.raises(InputError, match=r"index\.json.*pack"):
        read_index(folder)


def test_shards_train_and_are_not_probed(folder: Path) -> None:
    train = load_train(DataConfig(train=str(folder), points=8))
    assert isinstance(train, Shards)
    assert len(train) == 40
    for config in (
        DataConfig(train=str(folder), points=8),
        DataConfig(train="procedural", test=str(folder), train_clouds=4, points=8),
    ):
        with pytest.raises(
            InputError, match="holds shards, which can only be streamed for training"
        ):
            load_splits(config)


class Interrupted(Exception):
    pass


def test_resumed_equals_uninterrupted(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after an epoch of three; the resumed run ends with the same weights."""
    rewrite(folder / "shard-000001.tar", {"000000013.npy": b"nonsense"})
    config = PretrainConfig(
        out=str(tmp_path / "whole"),
        backbone=replace(TINY, drop_path=0.2, groups=4, group_size=4),
        masked=MaskedConfig(decoder_depth=1, decoder_heads=3),
        data=DataConfig(train=str(folder), points=12),
        train=TrainConfig(epochs=3, batch_size=8, warmup_epochs=1, accelerator="cpu"),
    )
    expected = pretrain(config)
    broken = replace(config, out=str(tmp_path / "broken"))
    keep = KeepLast.on_train_epoch_end

    def stop(self, trainer, module) -> None:
        keep(self, trainer, module)
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(KeepLast, "on_train_epoch_end", stop)
        with pytest.raises(Interrupted):
            pretrain(broken)
    resumed = pretrain(replace(broken, resume=True))
    other = pretrain(replace(config, out=str(tmp_path / "o"), train=replace(config.train, seed=1)))
    states = [model.state_dict() for model in (expected, resumed, other)]
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    assert not all(torch.equal(states[0][k], states[2][k]) for k in states[0])
