"""Files that appear complete or not at all, and names held by one process at a time."""

import errno
import os
import stat
from pathlib import Path

import pytest
from processes import FORKS, ended

from foundry3d import writing
from foundry3d.report.rows import append, read_rows
from foundry3d.writing import held, replacing, write_text


def test_a_file_is_replaced_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.txt"
    write_text(path, "one")
    with pytest.raises(ValueError, match="stop"), replacing(path) as partial:
        partial.write_text("two")
        assert path.read_text() == "one" and partial.parent == path.parent
        raise ValueError("stop")
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"] and path.read_text() == "one"
    write_text(path, "Å")
    assert path.read_bytes() == "Å".encode()


def test_two_writers_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with replacing(path) as one, replacing(path) as two:
        assert one != two
        one.write_text("one")
        two.write_text("two")
    assert path.read_text() == "one"


def test_links_are_not_written_through(tmp_path: Path) -> None:
    precious, path = tmp_path / "precious", tmp_path / "a.txt"
    precious.write_text("mine")
    for link in (path, tmp_path / "a.txt.partial", tmp_path / ".a.txt.partial"):
        link.symlink_to(precious)
    write_text(path, "new")
    assert precious.read_text() == "mine"
    assert path.read_text() == "new" and not path.is_symlink()


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_files_have_the_mode_that_was_asked_for(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        write_text(tmp_path / "a.txt", "")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o666 & ~mask


def test_long_names_are_written(tmp_path: Path) -> None:
    write_text(tmp_path / ("n" * 250), "long")
    assert (tmp_path / ("n" * 250)).read_text() == "long"


@pytest.mark.parametrize("locks", [True, False], ids=["locks", "no locks"])
def test_a_name_is_held_by_one_at_a_time(locks: bool, tmp_path: Path, monkeypatch) -> None:
    if not locks:
        monkeypatch.setattr(writing, "fcntl", None)
    path = tmp_path / "out"
    with held(path):
        with pytest.raises(
            BlockingIOError, match=rf"out is being written by process {os.getpid()} on "
        ):
            held(path).__enter__()
        with held(tmp_path / "other"):
            pass
    with pytest.raises(KeyError), held(path):
        raise KeyError
    with held(path):
        assert (tmp_path / "out.lock").exists()
    assert not list(tmp_path.iterdir())


def test_disks_without_locks_are_used_without(tmp_path: Path, monkeypatch) -> None:
    def unknown(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(writing.fcntl, "flock", unknown)
    append(tmp_path / "rows", [{"a": 1}])
    assert read_rows(tmp_path / "rows") == [{"a": 1}]


def holding(path: Path, mark: Path) -> None:
    with held(path):
        mark.touch()
        while True:
            pass


def test_the_killed_hold_nothing(tmp_path: Path) -> None:
    process = FORKS.Process(target=holding, args=(tmp_path / "out", tmp_path / "mark"))
    process.start()
    while not (tmp_path / "mark").exists():
        assert process.is_alive()
    with pytest.raises(BlockingIOError, match=f"process {process.pid} on"):
        held(tmp_path / "out").__enter__()
    process.kill()
    assert ended(process) == -9
    assert (tmp_path / "out.lock").exists()
    with held(tmp_path / "out"):
        pass


def appending(path: Path, name: int, count: int) -> None:
    for i in range(count):
        append(path, [{"process": name, "number": i}])


def test_rows_of_several_processes_are_all_kept(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    processes = [FORKS.Process(target=appending, args=(path, i, 40)) for i in range(4)]
    for process in processes:
        process.start()
    assert [ended(process) for process in processes] == [0] * 4
    rows = read_rows(path)
    for i in range(4):
        assert [r["number"] for r in rows if r["process"] == i] == list(range(40))
    assert len(rows) == 160


def test_a_run_has_one_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    for run in ("a", "b", "a"):
        append(path, [{"run": run, "score": 1}])
    append(path, [{"score": 2}, {"run": "c"}])
    assert [row.get("run") for row in read_rows(path)] == ["a", "b", None, "c"]
    path.write_bytes(path.read_bytes() + b'{"run": "d", "sc')
    append(path, [{"run": "d", "score": 3}])
    assert read_rows(path)[-1] == {"run": "d", "score": 3}


def test_a_full_disk_leaves_the_rows_before(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "rows.jsonl"
    append(path, [{"a": 1}])
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        append(path, [{"a": 2}])
    assert path.read_bytes() == before
