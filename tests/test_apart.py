"""No command writes over what it reads."""

import os
from pathlib import Path

import numpy as np
import pytest

from foundry3d import cli
from foundry3d.checkpoints.folder import save
from foundry3d.config import EmbedConfig
from foundry3d.config.paths import require_apart
from foundry3d.embed.files import embed
from foundry3d.errors import InputError
from foundry3d.models.backbone import Backbone


@pytest.fixture
def model(tmp_path: Path, teacher: Backbone) -> Path:
    return save(teacher, tmp_path / "model", provenance={})


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    points = np.random.default_rng(0).normal(size=(200, 3)).astype("f4")
    (tmp_path / "scans").mkdir()
    np.save(tmp_path / "scans" / "scan.npy", points)
    return tmp_path / "scans" / "scan.npy"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_one_file_under_two_names_is_seen(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("x")
    os.link(kept, tmp_path / "hard")
    os.symlink(kept, tmp_path / "soft")
    for name in ("kept", "hard", "soft", "../" + tmp_path.name + "/kept"):
        with pytest.raises(InputError, match="--dense would replace"):
            require_apart({"out": "new", "dense": tmp_path / name}, [tmp_path / "no", kept])
    with pytest.raises(InputError, match="--dense and --out name the same file"):
        require_apart({"out": tmp_path / "new", "dense": f"{tmp_path}/./new"}, [kept])
    require_apart({"out": tmp_path / "new", "dense": None, "picture": tmp_path / "p"}, [kept])


@pytest.mark.parametrize("link", [None, os.link, os.symlink])
@pytest.mark.parametrize("option", ["out", "dense", "picture"])
@pytest.mark.parametrize("word", ["scans", "scans/scan.npy", "scans/*.npy"])
def test_embed_never_replaces_its_input(
    capsys, tmp_path: Path, model: Path, scan: Path, link, option: str, word: str
) -> None:
    target = scan
    if link is not None:
        target = tmp_path / f"other.{option}"
        link(scan, target)
    before = contents(tmp_path)
    options = {"out": tmp_path / "f.npz"} | {option: target}
    words = [text for name, path in options.items() for text in (f"--{name}", str(path))]
    with pytest.raises(SystemExit) as stop:
        cli.main(
            [
                "embed",
                str(tmp_path / word),
                "--model",
                str(model),
                "--points_per_token",
                "16",
                *words,
            ]
        )
    assert stop.value.code == 2
    assert f"--{option} would replace" in capsys.readouterr().err
    assert contents(tmp_path) == before


def test_embed_never_replaces_its_model(tmp_path: Path, model: Path, scan: Path) -> None:
    before = contents(tmp_path)
    config = EmbedConfig(files=(str(scan),), model=str(model), out=str(model / "model.safetensors"))
    with pytest.raises(InputError, match="--out would replace"):
        embed(config)
    assert contents(tmp_path) == before


def test_an_earlier_archive_in_the_folder_is_replaced(
    tmp_path: Path, model: Path, scan: Path
) -> None:
    out = scan.parent / "features.npz"
    config = EmbedConfig(files=(str(scan.parent),), model=str(model), out=str(out))
    embed(config)
    embed(config)
    with np.load(out) as found:
        assert found["names"].tolist() == [str(scan)]
    np.savez(out, points=np.load(scan))  # now it is somebody's cloud
    before = out.read_bytes()
    with pytest.raises(InputError, match="--out would replace"):
        embed(config)
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    "words",
    [
        ["data", "pack", "DATA", "--out", "DATA"],
        ["data", "pack", "scans", "--out", "scans"],
        ["data", "prepare", "modelnet40", "scans", "--out", "scans"],
        ["convert", "model", "--out", "model"],
        ["convert", "model/model.safetensors", "--out", "model/model.safetensors"],
        ["probe", "--models", "model", "--data.train", "DATA", "--results", "DATA"],
        ["classify", "--model", "model", "--data.train", "DATA", "--results", "DATA"],
        ["zeroshot", "--models", "model", "--data.test", "DATA", "--results", "DATA"],
        ["pretrain", "--data.train", "DATA", "--out", "DATA"],
        ["distill", "--teacher", "model", "--out", "model"],
    ],
)
def test_other_commands_neither(
    capsys, monkeypatch, tmp_path: Path, model: Path, scan: Path, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("DATA.npz", points=np.load(scan)[None].repeat(4, axis=0), labels=np.arange(4) % 2)
    before = contents(tmp_path)
    with pytest.raises(SystemExit) as stop:
        cli.main([word.replace("DATA", "DATA.npz") for word in words])
    assert stop.value.code == 2
    assert "would replace" in capsys.readouterr().err
    assert contents(tmp_path) == before
