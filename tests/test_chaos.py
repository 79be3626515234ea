"""A short part of every attack of `make chaos`, and that the attacks see what does not hold."""

from pathlib import Path

import pytest
from chaos import configurations, kills, mutations, read_only
from chaos.report import Report, one_sentence

from foundry3d.config import EmbedConfig
from foundry3d.embed.clouds import Policy
from foundry3d.embed.reading import Reading


def test_damaged_files_are_read_or_refused(tmp_path: Path) -> None:
    report = mutations.attack(tmp_path, count=12, seed=1)
    assert report.faults == []
    assert report.counts.total() == 12 * len(mutations.SEEDS)
    assert min(report.counts["read"], report.counts["refused"]) > 50


def test_every_numeric_option_is_bounded() -> None:
    report = Report("")
    configurations.absurd_numbers(report)
    assert report.faults == []
    assert report.counts["absurd numbers"] > 2000


def test_hostile_options_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    report = Report("")
    for name in ("a bomb", "escapes", "points"):
        configurations.refused(report, name, configurations.WORDS[name], tmp_path / "work")
    assert report.faults == []


@pytest.mark.parametrize("name", ["embed", "data pack", "pretrain"])
def test_killed_commands_go_on(tmp_path: Path, name: str) -> None:
    report = kills.attack(tmp_path, rounds=1, seed=3, names=(name,))
    assert report.faults == []
    assert report.counts["runs that went on to their end"] == 1


def test_a_read_only_installation_embeds() -> None:
    assert read_only.attack(caches=("no cache",)).faults == []


def test_the_attacks_see_what_does_not_hold(tmp_path: Path, monkeypatch) -> None:
    model = tmp_path / "model"
    model.write_bytes(b"")
    reading = Reading(EmbedConfig(files=("-",), model=str(model)), Policy(), least=12)

    def fails(*_: object, **__: object) -> list[object]:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("foundry3d.data.files.read_clouds", fails)
    assert "ZeroDivisionError: oops" in str(mutations.fault_of(reading, tmp_path / "a.ply"))
    assert one_sentence("foundry3d: error: no") is None
    for said in ("", "Traceback\nfoundry3d: error: no", "foundry3d: error: \x1b[31m", "no"):
        assert one_sentence(said) is not None
    (tmp_path / "config.json").write_text("{")
    (tmp_path / "results.jsonl").write_text('{"a": 1}\n{"a"\n{"b": 2')
    (tmp_path / "shard.tar").write_bytes(b"x" * 700)
    assert len(kills.half_written(tmp_path)) == 3
