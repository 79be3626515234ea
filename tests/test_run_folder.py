"""Damaged, shared and resumed run folders."""

import errno
import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from test_classify import run  # noqa: F401
from test_training import MASKED, same

from foundry3d.errors import InputError
from foundry3d.evaluation.classify import classify
from foundry3d.report.rows import append, read_rows
from foundry3d.training import callbacks
from foundry3d.training.pretrain import pretrain
from foundry3d.training.run_folder import read_settings, run_name
from foundry3d.writing import held


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.nn.Module]:
    """A finished run of two epochs, and its model."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    return out, pretrain(replace(MASKED, out=str(out)))


@pytest.fixture
def damaged(whole: tuple[Path, torch.nn.Module], tmp_path: Path) -> Path:
    """A copy of the run whose settings name its own folder."""
    out = tmp_path / "run"
    (out / "checkpoints").mkdir(parents=True)
    for path in (whole[0] / "checkpoints").iterdir():
        (out / "checkpoints" / path.name).write_bytes(path.read_bytes())
    text = (whole[0] / "config.yaml").read_text()
    (out / "config.yaml").write_text(text.replace(str(whole[0]), str(out)))
    return out


class Trap:
    """Unpickled, it would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def changed(path: Path, change) -> None:
    content = torch.load(path, weights_only=True)
    torch.save(change(content) or content, path)


def without_weight(content: dict) -> None:
    del content["state_dict"]["backbone.encoder.norm.weight"]


def other_shape(content: dict) -> None:
    content["state_dict"]["backbone.encoder.norm.weight"] = torch.zeros(3)


def nan_weight(content: dict) -> None:
    content["state_dict"]["backbone.encoder.norm.weight"][0] = torch.nan


def other_optimiser(content: dict) -> None:
    content["optimizer_states"][0]["param_groups"][0]["params"].pop()


def odd_loops(content: dict) -> None:
    content["loops"] = {"fit_loop": 3}


DAMAGES = {
    "empty": (lambda p: p.write_bytes(b""), "damaged or not a checkpoint"),
    "cut": (lambda p: p.write_bytes(p.read_bytes()[:-500]), "damaged or not a checkpoint"),
    "text": (lambda p: p.write_text("hello"), "damaged or not a checkpoint"),
    "pickle": (lambda p: p.write_bytes(pickle.dumps({"a": 1})), "damaged or not a checkpoint"),
    "list": (lambda p: torch.save([1, 2], p), "is not a checkpoint of a run but a list"),
    "other": (lambda p: torch.save({"a": 1}, p), "lacks state_dict, optimizer_states"),
    "no weight": (lambda p: changed(p, without_weight), r"missing \['backbone.encoder.norm.we"),
    "shape": (lambda p: changed(p, other_shape), "of another shape"),
    "nan": (lambda p: changed(p, nan_weight), "norm.weight holds NaN"),
    "no optimiser": (
        lambda p: changed(p, lambda c: c | {"optimizer_states": []}),
        "no usable state of the optimiser",
    ),
    "optimiser": (lambda p: changed(p, other_optimiser), "optimiser's state of another model"),
    "loops": (lambda p: changed(p, odd_loops), "cannot be resumed from"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    name: str, damaged: Path, whole: tuple[Path, torch.nn.Module]
) -> None:
    damage, says = DAMAGES[name]
    config = replace(MASKED, out=str(damaged), resume=True)
    last = damaged / "checkpoints" / "last.ckpt"
    damage(last)
    with pytest.raises(InputError, match=says) as caught:
        pretrain(config)
    said = str(caught.value)
    assert "\n" not in said and str(last) in said
    assert "remove it, and --resume goes on from previous.ckpt" in said
    last.unlink()
    assert same(pretrain(config), whole[1])


def test_without_an_earlier_checkpoint_a_run_starts_again(damaged: Path) -> None:
    (damaged / "checkpoints" / "previous.ckpt").unlink()
    (damaged / "checkpoints" / "last.ckpt").write_bytes(b"")
    with pytest.raises(InputError, match=r"no checkpoint before it is left, so start again"):
        pretrain(replace(MASKED, out=str(damaged), resume=True))


def test_a_checkpoint_runs_no_code(damaged: Path, tmp_path: Path) -> None:
    mark, last = tmp_path / "mark", damaged / "checkpoints" / "last.ckpt"
    torch.save({"state_dict": Trap(mark)}, last)
    with pytest.raises(InputError, match=r"last\.ckpt is damaged or not a checkpoint"):
        pretrain(replace(MASKED, out=str(damaged), resume=True))
    assert not mark.exists()


@pytest.mark.parametrize(
    "content",
    [b"train: {", b"\xff\xfe\x00", b"- 1\n- 2\n", b"3: 4\n", b"[" * 800,
     b"a: !!python/object/apply:os.system [true]\n"],
)  # fmt: skip
def test_damaged_settings_are_one_sentence(content: bytes, damaged: Path) -> None:
    (damaged / "config.yaml").write_bytes(content)
    for resume in (True, False):
        with pytest.raises(InputError, match=r"config\.yaml (is damaged|does not hold)") as caught:
            pretrain(replace(MASKED, out=str(damaged), resume=resume))
        assert "\n" not in str(caught.value)


def test_empty_settings_count_as_absent(damaged: Path, whole: tuple, tmp_path: Path) -> None:
    (damaged / "config.yaml").write_bytes(b"")
    assert same(pretrain(replace(MASKED, out=str(damaged), resume=True)), whole[1])
    assert read_settings(damaged / "config.yaml")["out"] == str(damaged)
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    (fresh / "config.yaml").write_bytes(b"")
    assert same(pretrain(replace(MASKED, out=str(fresh))), whole[1])


def test_the_second_of_two_runs_says_who_holds_the_folder(damaged: Path) -> None:
    with held(damaged / "run"), pytest.raises(BlockingIOError, match=r"written by process \d+ on "):
        pretrain(replace(MASKED, out=str(damaged), resume=True))
    assert not (damaged / "run.lock").exists()


def test_checkpoints_do_not_pass_through_the_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    pretrain(replace(MASKED, out=str(tmp_path / "run")))
    found = {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert found == {"last.ckpt", "previous.ckpt"}


def test_a_full_disk_keeps_the_checkpoint_before(
    tmp_path: Path, whole: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(MASKED, out=str(tmp_path / "run"))
    original, calls = Path.write_bytes, []

    def full(self: Path, data: bytes) -> int:
        calls.append(self)
        if len(calls) == 2:
            original(self, bytes(data)[:100])
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(callbacks.Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space left"):
            pretrain(config)
    checkpoints = tmp_path / "run" / "checkpoints"
    assert [path.name for path in checkpoints.iterdir()] == ["last.ckpt"]
    assert torch.load(checkpoints / "last.ckpt", weights_only=True)["epoch"] == 0
    assert same(pretrain(replace(config, resume=True)), whole[1])


# ---------------------------------------------------------------- rows


def test_a_resumed_run_has_one_row_and_all_its_seconds(run, tmp_path: Path) -> None:  # noqa: F811
    first = classify(run)
    last = Path(run.out) / "checkpoints" / "last.ckpt"
    content = torch.load(last, weights_only=True)
    content["callbacks"]["KeepLast"]["seconds"] += 1000.0
    torch.save(content, last)
    again = classify(replace(run, resume=True))
    assert again["oa"] == first["oa"] and again["seconds"] >= 1000
    (row,) = read_rows(run.results)
    assert row["run"] == run_name(Path(run.out)) and row["seconds"] == first["seconds"]
    classify(replace(run, out=str(tmp_path / "other")))
    assert len({row["run"] for row in read_rows(run.results)}) == 2


def test_one_cloud_a_batch_is_refused_before_the_run(run) -> None:  # noqa: F811
    one = replace(run, train=replace(run.train, batch_size=1))
    with pytest.raises(InputError, match=r"train\.batch_size of at least 2, got 1"):
        classify(one)
    assert not Path(run.out).exists()
    without = replace(one, head=replace(run.head, hidden=()))
    assert classify(without)["oa"] >= 0


def test_pretraining_takes_batches_of_one(tmp_path: Path) -> None:
    data = replace(MASKED.data, train_clouds=3)
    train = replace(MASKED.train, batch_size=1, epochs=1)
    pretrain(replace(MASKED, out=str(tmp_path / "run"), data=data, train=train))
    assert (tmp_path / "run" / "model").is_dir()


def test_rows_that_lack_a_key_or_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    append(path, [{"cell": 1}, {"other": 2}])
    assert len(read_rows(path)) == 2
    with pytest.raises(InputError, match=r"rows\.jsonl, line 2: expected a result row with cell"):
        read_rows(path, keys=["cell"])
    path.write_bytes(b'{"cell": 1}\n\xff\xfe\n{"cell": 2}\n')
    with pytest.raises(InputError, match="line 2: expected a result row"):
        read_rows(path)
    path.write_bytes(b'{"cell": 1}\n{"ce')
    assert read_rows(path, keys=["cell"]) == [{"cell": 1}]


def test_settings_of_a_run_are_those_it_was_given(whole: tuple) -> None:
    text = (whole[0] / "config.yaml").read_text()
    assert text.startswith("# run ") and len(run_name(whole[0])) == 16
    assert json.dumps(yaml.safe_load(text)) == json.dumps(read_settings(whole[0] / "config.yaml"))
