import json
import os
import resource
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import foundry3d
from foundry3d import cli
from foundry3d.checkpoints import replace
from foundry3d.checkpoints.folder import load, save
from foundry3d.errors import InputError
from foundry3d.models.backbone import Backbone
from foundry3d.models.student import Student


@pytest.mark.parametrize("options", [None, {}, {"dim": 12, "heads": 2}, {"cau_norm": True}])
def test_round_trip_to_the_bit(teacher: Backbone, points, tmp_path: Path, options) -> None:
    model = teacher if options is None else Student.from_teacher(teacher, supertokens=4, **options)
    save(model, tmp_path / "m", provenance={"seed": 3})
    again = foundry3d.load(tmp_path / "m")
    assert type(again) is type(model)
    assert again.config == model.config
    assert not again.training
    assert torch.equal(again(points).features, model(points).features)
    content = json.loads((tmp_path / "m" / "config.json").read_text())
    assert content["provenance"] == {"seed": 3}
    assert sorted(os.listdir(tmp_path)) == ["m"]


def test_saving_again_replaces(teacher: Backbone, points, tmp_path: Path) -> None:
    save(teacher, tmp_path / "m", provenance={})
    student = Student.from_teacher(teacher, supertokens=4)
    save(student, tmp_path / "m", provenance={})
    assert isinstance(load(tmp_path / "m"), Student)
    assert sorted(os.listdir(tmp_path)) == ["m"]
    (tmp_path / "notes").mkdir()
    with pytest.raises(InputError, match="not a checkpoint"):
        save(student, tmp_path / "notes", provenance={})


def test_what_somebody_else_wrote_stays(teacher: Backbone, tmp_path: Path) -> None:
    """A folder with another program's config.json is refused and left as it is."""
    folder = tmp_path / "d"
    folder.mkdir()
    for text in ("{}", '{"format": "other"}', "[]", "not json", '{"format": ["foundry3d"]}'):
        (folder / "config.json").write_text(text)
        (folder / "thesis.txt").write_text("x")
        for write in (save, foundry3d.save_pretrained):
            with pytest.raises(InputError, match="not a checkpoint"):
                write(teacher, folder, provenance={})
        assert sorted(os.listdir(folder)) == ["config.json", "thesis.txt"]
        assert (folder / "config.json").read_text() == text
    with pytest.raises(InputError, match="not a checkpoint"):
        save(teacher, folder / "thesis.txt", provenance={})
    assert sorted(os.listdir(tmp_path)) == ["d"]


def test_notes_in_a_checkpoint_stay(teacher: Backbone, points, tmp_path: Path) -> None:
    folder = foundry3d.save_pretrained(teacher, tmp_path / "m")
    (folder / "notes.txt").write_text("mine")
    (folder / "logs" / "deep").mkdir(parents=True)
    (folder / "logs" / "deep" / "a.csv").write_text("1,2")
    (folder / "latest").symlink_to("logs")
    (folder / "gone").symlink_to("nowhere")
    (folder / "README.md").write_text("an old card")
    student = Student.from_teacher(teacher, supertokens=4)
    for _ in range(2):
        foundry3d.save_pretrained(student, folder)
        assert (folder / "notes.txt").read_text() == "mine"
        assert (folder / "latest" / "deep" / "a.csv").read_text() == "1,2"
        assert os.readlink(folder / "gone") == "nowhere"
        assert "4 supertokens" in (folder / "README.md").read_text()
    save(teacher, folder, provenance={})
    assert (folder / "notes.txt").read_text() == "mine"
    assert torch.equal(load(folder)(points).features, teacher(points).features)
    names = ["README.md", "config.json", "gone", "latest", "logs", "model.safetensors", "notes.txt"]
    assert sorted(os.listdir(folder)) == names
    assert sorted(os.listdir(tmp_path)) == ["m"]


def test_a_full_disk_leaves_the_old_one(teacher: Backbone, points, tmp_path: Path) -> None:
    save(teacher, tmp_path / "m", provenance={})
    before = teacher(points).features
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    import signal

    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError):
            save(Backbone(teacher.config), tmp_path / "m", provenance={})
        with pytest.raises(OSError):
            save(Backbone(teacher.config), tmp_path / "new", provenance={})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert torch.equal(load(tmp_path / "m")(points).features, before)
    assert sorted(os.listdir(tmp_path)) == ["m"]


def _broken(folder: Path, how: str) -> None:
    weights, config = folder / "model.safetensors", folder / "config.json"
    content = json.loads(config.read_text())
    match how:
        case "truncated":
            weights.write_bytes(weights.read_bytes()[:-100])
        case "header":
            weights.write_bytes(b"\xff" * 64)
        case "no weights":
            weights.unlink()
        case "not json":
            config.write_text("{")
        case "foreign":
            config.write_text('{"model_type": "bert"}')
        case "newer":
            config.write_text(json.dumps(content | {"version": 2}))
        case "unknown key":
            content["config"]["colour"] = 1
            config.write_text(json.dumps(content))
        case "bad value":
            content["config"]["heads"] = 7
            config.write_text(json.dumps(content))
        case "missing tensor" | "surplus tensor" | "other shape":
            tensors = load_file(weights)
            if how == "missing tensor":
                del tensors["encoder.norm.weight"]
            elif how == "surplus tensor":
                tensors["extra"] = torch.zeros(1)
            else:
                tensors["encoder.norm.weight"] = torch.zeros(3)
            save_file(tensors, weights)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("truncated", "truncated"),
        ("header", "truncated or not"),
        ("no weights", "safetensors"),
        ("not json", "JSON"),
        ("foreign", "not written by"),
        ("newer", "update"),
        ("unknown key", "colour"),
        ("bad value", "heads must divide"),
        ("missing tensor", "encoder.norm.weight"),
        ("surplus tensor", "extra"),
        ("other shape", "encoder.norm.weight"),
    ],
)
def test_broken_checkpoints_are_one_sentence(teacher, tmp_path: Path, how: str, says: str) -> None:
    save(teacher, tmp_path / "m", provenance={})
    _broken(tmp_path / "m", how)
    with pytest.raises(InputError, match=says):
        load(tmp_path / "m")


def test_missing_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a checkpoint folder"):
        load(tmp_path / "nothing")


def test_weights_that_are_not_finite_are_neither_saved_nor_loaded(
    teacher: Backbone, tmp_path: Path, capsys
) -> None:
    folder = save(teacher, tmp_path / "m", provenance={})
    weights = load_file(folder / "model.safetensors")
    for number in (float("nan"), float("inf")):
        weights["encoder.norm.bias"][3] = number
        save_file(weights, folder / "model.safetensors")
        with pytest.raises(InputError, match=r"encoder\.norm\.bias holds NaN or infinite numbers"):
            load(folder)
    teacher.load_state_dict(weights)
    with pytest.raises(InputError, match=r"encoder\.norm\.bias .* nothing was saved"):
        save(teacher, tmp_path / "new", provenance={})
    assert sorted(os.listdir(tmp_path)) == ["m"]
    shapes = ("--data.train", "procedural", "--data.test", "procedural", "--data.train_clouds", "9")
    for words in (
        ["distill", "--teacher", str(folder), *shapes, "--out", str(tmp_path / "a")],
        ["classify", "--model", str(folder), *shapes, "--out", str(tmp_path / "b")],
        ["convert", str(folder), "--out", str(tmp_path / "c")],
    ):
        with pytest.raises(SystemExit) as stop:
            cli.main(words)
        assert stop.value.code == 2
        assert "holds NaN or infinite numbers" in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path)) == ["m"]


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_files_have_the_mode_that_was_asked_for(
    mask: int, teacher: Backbone, tmp_path: Path
) -> None:
    before = os.umask(mask)
    try:
        folder = save(teacher, tmp_path / "m", provenance={})
    finally:
        os.umask(before)
    for path in folder.iterdir():
        assert path.stat().st_mode & 0o777 == 0o666 & ~mask
    assert folder.stat().st_mode & 0o777 == 0o777 & ~mask


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_kill_while_saving_leaves_a_model(
    exchanges: bool, teacher: Backbone, points, tmp_path: Path, monkeypatch
) -> None:
    """Killed at every call that moves something; the next load finds the old or the new model."""
    student = Student.from_teacher(teacher, supertokens=4)
    save(teacher, tmp_path / "m", provenance={})
    if not exchanges:
        monkeypatch.setattr(replace, "exchange", lambda a, b: False)

    class Killed(BaseException):
        pass

    def dies(*_: object, **__: object) -> None:
        raise Killed

    for moves in range(3):
        count = []

        def rename(a: Path, b: Path, moves: int = moves, count: list = count) -> None:
            if len(count) == moves:
                raise Killed
            count.append(a)
            Path(a).rename(b)

        with monkeypatch.context() as patch:
            patch.setattr(replace.os, "rename", rename)
            patch.setattr(replace.shutil, "rmtree", dies)
            with pytest.raises(Killed):
                save(student, tmp_path / "m", provenance={})
        assert isinstance(load(tmp_path / "m"), Backbone | Student)
        assert len(os.listdir(tmp_path)) > 1
        save(teacher, tmp_path / "m", provenance={})
        assert sorted(os.listdir(tmp_path)) == ["m"]
        assert isinstance(load(tmp_path / "m"), Backbone)
