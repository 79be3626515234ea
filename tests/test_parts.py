"""Features in Parquet parts: the same bytes however they were made, nothing lost, nothing half."""

from __future__ import annotations

import json
import logging
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
import torch
from conftest import TINY
from test_embed import TRAINED, run, said  # noqa: F401

from foundry3d import cli, read_features
from foundry3d.checkpoints.folder import save
from foundry3d.config import EmbedConfig, PackConfig
from foundry3d.data.packing import pack
from foundry3d.data.shards import is_sharded
from foundry3d.embed import parts as parts_module
from foundry3d.embed.files import embed
from foundry3d.embed.parts import parts_in, read_part
from foundry3d.embed.units import units_of
from foundry3d.errors import InputError, PartialFailure
from foundry3d.models.backbone import Backbone


def clouds(folder: Path, count: int, seed: int = 0) -> Path:
    """A folder of `count` files with 40 to 59 points each, far from the origin."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for i in range(count):
        size = 40 + i % 3 * 9
        points = rng.normal(size=(size, 3)) * (3, 1, 0.5) + (1000, -20, 5)
        np.save(folder / f"{i:03d}.npy", points.astype(np.float32))
    return folder


@pytest.fixture(name="config")
def ten_files(tmp_path: Path, teacher: Backbone) -> EmbedConfig:
    """Ten files, three in a part."""
    save(teacher, tmp_path / "model", provenance=TRAINED)
    return EmbedConfig(
        files=(str(clouds(tmp_path / "clouds", 10)),),
        model=str(tmp_path / "model"),
        out=f"{tmp_path}/parts/",
        block=3,
    )


def contents(folder: str | Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in parts_in(Path(folder))}


def visible(folder: str | Path) -> set[str]:
    return {path.name for path in Path(folder).iterdir()}


# ---------------------------------------------------------------- what is in them


def test_parts_hold_what_the_archive_holds(config: EmbedConfig, tmp_path: Path) -> None:
    embed(replace(config, tokens=True))
    embed(replace(config, out=str(tmp_path / "all.npz")))
    found, archive = read_features(config.out), read_features(tmp_path / "all.npz")
    assert len(parts_in(Path(config.out))) == 4
    assert visible(config.out) == set(contents(config.out))  # no lock, no temporary file
    assert len(found) == len(archive) == 10
    assert np.array_equal(found.names, archive.names)
    assert np.array_equal(found.points_used, archive.points_used)
    assert found.pooled.dtype == np.float32
    np.testing.assert_allclose(found.pooled, archive.pooled, rtol=1e-4, atol=1e-5)
    assert found.protocol.items() >= archive.protocol.items()
    with np.load(tmp_path / "all.npz") as plain:
        features, centers = plain["features"], plain["centers"]
    rows = pyarrow.dataset.dataset(config.out).to_table().to_pydict()
    assert np.shape(rows["tokens"]) == (10, TINY.groups, TINY.dim)
    np.testing.assert_allclose(rows["tokens"], features, rtol=2e-3, atol=2e-3)
    scale, shift = np.array(rows["scale"])[:, None, None], np.array(rows["shift"])[:, None]
    places = np.array(rows["centers"], np.float64) * scale + shift
    np.testing.assert_allclose(places, centers, atol=2e-3 * float(scale.max()))
    assert json.loads(pq.read_schema(parts_in(Path(config.out))[0]).metadata[b"protocol"]) == (
        found.protocol
    )


def test_blocks_bound_what_is_in_memory(
    config: EmbedConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of many clouds is one part, written in row groups of `block` clouds."""
    held: list[int] = []
    table = parts_module.Rows.table
    monkeypatch.setattr(
        parts_module.Rows, "table", lambda rows: (held.append(len(rows)), table(rows))[1]
    )
    many = Path(config.files[0]).parent / "many.npy"
    np.save(many, np.random.default_rng(0).normal(size=(8, 40, 3)).astype(np.float32))
    embed(replace(config, files=(str(many),)))
    assert held == [3, 3, 2]
    (part,) = parts_in(Path(config.out))
    assert pq.read_metadata(part).num_row_groups == 3
    sizes = [len(names) for names, _ in read_features(config.out).blocks()]
    assert sizes == held


def test_shards_are_units(config: EmbedConfig, tmp_path: Path) -> None:
    """A shard gives the features of the files that were packed into it, and a part."""
    packed = str(tmp_path / "packed")
    pack(PackConfig(source=config.files[0], out=packed, shard_clouds=4))
    assert is_sharded(packed)
    embed(replace(config, files=(packed,)))
    embed(replace(config, out=f"{tmp_path}/files/"))
    found, expected = read_features(config.out), read_features(f"{tmp_path}/files/")
    assert len(found.parts) == 3
    assert found.names[0] == f"{packed}/shard-000000.tar/000000000"
    order = [np.lexsort(f.pooled.T[:2].round(3)) for f in (found, expected)]
    np.testing.assert_allclose(
        found.pooled[order[0]], expected.pooled[order[1]], rtol=1e-4, atol=1e-5
    )
    embed(replace(config, files=(f"{packed}/*.tar",), out=f"{tmp_path}/globbed/"))
    assert contents(f"{tmp_path}/globbed/") == contents(config.out)


def test_units_are_shards_and_blocks_of_files() -> None:
    words = [Path(w) for w in ("a.ply", "b.ply", "s.tar", "c.ply", "a.ply", "d.ply", "e.ply")]
    found = units_of(words, 2)
    assert [u.paths for u in found] == [
        ("a.ply", "b.ply"), ("s.tar",), ("c.ply", "d.ply"), ("e.ply",)
    ]  # fmt: skip
    assert [u.number for u in found] == [0, 1, 2, 3]
    assert len({u.mark for u in found}) == 4
    assert units_of(words, 2) == found


# ---------------------------------------------------------------- going on


def test_the_same_bytes_however_often_it_was_stopped(
    config: EmbedConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = replace(config, out=f"{tmp_path}/whole/")
    embed(whole)
    steps = []
    add = parts_module.Rows.add

    def stopping(self, cloud, tokens) -> None:
        steps.append(cloud.source)
        if len(steps) in (2, 6):
            raise KeyboardInterrupt
        add(self, cloud, tokens)

    monkeypatch.setattr(parts_module.Rows, "add", stopping)
    for left in (0, 1):
        with pytest.raises(KeyboardInterrupt):
            embed(config)
        assert len(contents(config.out)) == left
        assert visible(config.out) == set(contents(config.out))
    embed(config)
    assert contents(config.out) == contents(f"{tmp_path}/whole/")
    assert len(steps) == 2 + 4 + 7  # what was complete is not made again
    before = contents(config.out)
    monkeypatch.setattr(parts_module.Rows, "add", None)
    embed(config)
    assert contents(config.out) == before


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_damaged_part_is_named_and_made_again(
    config: EmbedConfig, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    embed(config)
    before = contents(config.out)
    part = parts_in(Path(config.out))[1]
    blob = bytearray(part.read_bytes())
    if damage == "flipped":
        values = np.array(read_features(config.out).pooled[3]).tobytes()
        blob[blob.index(values) + 5] ^= 16
    part.write_bytes({"cut": blob[: len(blob) // 2], "flipped": blob, "empty": b""}[damage])
    with pytest.raises(InputError, match=f"{part}.*damaged.*give the command") as error:
        _ = read_features(config.out).pooled
    assert "\n" not in str(error.value)
    with caplog.at_level(logging.INFO, "foundry3d"):
        embed(config)
    assert [m for m in caplog.messages if str(part) in m and "it is made again" in m]
    assert contents(config.out) == before


def test_clouds_that_cannot_be_used_cost_only_themselves(
    config: EmbedConfig, capsys: pytest.CaptureFixture
) -> None:
    """They are reported again when the command is given again and nothing has to be made."""
    bad = Path(config.files[0]) / "004.npy"
    bad.write_bytes(b"nonsense")
    words = (config.files[0], "--model", config.model, "--out", config.out, "--block", 3)
    for _ in range(2):
        status, last = run(capsys, *words)
        assert status == 1
        assert f"1 could not be used: {bad}; the other 9 are in {Path(config.out)}" in last
    assert str(bad) not in read_features(config.out).names


def test_a_damaged_shard_gives_its_first_clouds(config: EmbedConfig, tmp_path: Path) -> None:
    pack(PackConfig(source=config.files[0], out=str(tmp_path / "packed"), shard_clouds=5))
    shard = tmp_path / "packed" / "shard-000001.tar"
    with tarfile.open(shard) as archive:
        third = archive.getmembers()[2].offset
    shard.write_bytes(shard.read_bytes()[: third + 100])
    with pytest.raises(PartialFailure, match=rf"1 could not be used: {shard}; the other 7"):
        embed(replace(config, files=(str(tmp_path / "packed"),)))
    assert [part.rows for part in read_features(config.out).parts] == [5, 2]


def test_other_inputs_and_models_are_not_mixed(config: EmbedConfig, tmp_path: Path) -> None:
    embed(config)
    before = contents(config.out)
    with pytest.raises(InputError, match="settings of normalise; choose another --out"):
        embed(replace(config, normalise=False))
    with pytest.raises(InputError, match="settings of seed; choose another --out"):
        embed(replace(config, seed=1))
    with pytest.raises(InputError, match="made from other files, from files that have changed"):
        embed(replace(config, block=4))
    other = Backbone(TINY, generator=torch.Generator().manual_seed(5)).eval()
    save(other, config.model, provenance=TRAINED)
    with pytest.raises(InputError, match="settings of weights; choose another --out"):
        embed(config)
    assert contents(config.out) == before


def test_nothing_usable_leaves_nothing(config: EmbedConfig) -> None:
    for path in Path(config.files[0]).iterdir():
        path.write_bytes(b"nonsense")
    with pytest.raises(InputError, match="none of 10 could be used; nothing is written"):
        embed(config)
    assert not contents(config.out)


def test_an_incomplete_folder_is_said(
    config: EmbedConfig, caplog: pytest.LogCaptureFixture
) -> None:
    embed(config)
    parts_in(Path(config.out))[2].unlink()
    with caplog.at_level(logging.WARNING, "foundry3d"):
        assert len(read_features(config.out)) == 7
    assert "3 of 4 parts" in caplog.text


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--tokens"], "for parts end --out with a /"),
        (["--out", "x/", "--points_per_token", "16"], "name a file with --out"),
        (["--cluster", "local"], "end --out with a /"),
        (["--out", "x/", "--block", "0"], "block must be"),
        (["--format", "zip"], "zip"),
    ],
)
def test_bad_options_are_one_sentence(
    words: list[str], says: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["embed", "a.ply", "--model", "m", *words])
    assert stop.value.code == 2
    assert says in capsys.readouterr().err.splitlines()[-1]


def test_what_is_no_folder_of_parts_is_one_sentence(config: EmbedConfig, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file; name a folder"):
        embed(replace(config, out=str(tmp_path / "file"), format="parquet"))
    with pytest.raises(InputError, match="expected a folder of parts"):
        read_features(tmp_path / "clouds")
    part = tmp_path / "part-000000-x.parquet"
    pq.write_table(pyarrow.table({"a": [1]}), part)
    with pytest.raises(InputError, match="expected a whole part of features"):
        read_part(part)


def test_a_missing_pyarrow_is_one_sentence(
    config: EmbedConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(InputError, match=r'pip install "foundry3d\[parquet\]"'):
        embed(config)
