import os
import subprocess
import sys
from dataclasses import is_dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import TINY

from foundry3d import cli
from foundry3d.checkpoints.folder import load, save
from foundry3d.config import (
    RECIPES,
    BackboneConfig,
    ClassifyConfig,
    DistillConfig,
    HeadConfig,
    PretrainConfig,
    SearchConfig,
    SegmentConfig,
    SuiteConfig,
    from_dict,
    read_recipe,
    to_dict,
)
from foundry3d.data.published.sources import is_published
from foundry3d.errors import InputError
from foundry3d.heads.classifier import Classifier
from foundry3d.models.backbone import Backbone
from foundry3d.report.rows import read_rows


def run(capsys: pytest.CaptureFixture, *arguments: str) -> tuple[int, str, str]:
    try:
        cli.main(list(arguments))
        status = 0
    except SystemExit as stop:
        status = int(stop.code or 0)
    out, err = capsys.readouterr()
    return status, out, err


SHAPES = ("--data.train", "procedural", "--data.test", "procedural")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nonsense"], "known are demo"),
        (["pretrain", "--nonsense", "3"], "--nonsense"),
        (["pretrain", "--train.epoch", "3"], "--train.epoch"),
        (["pretrain", "--train.epochs", "many"], "train.epochs"),
        (["pretrain", "--train.epochs", "0"], "epochs must be positive"),
        (["pretrain", "--train.precision", "int4"], "precision is one of"),
        (["pretrain", "--objective", "magic"], "objective"),
        (["pretrain", "--backbone.heads", "5"], "heads must divide dim"),
        (["pretrain", "--config", "no/such"], "no recipe"),
        (["pretrain", "--data.train", "no/such.npz", "--out", "OUT"], "no such archive"),
        (["distill", "--teacher", "no/such", *SHAPES], "expected a checkpoint folder"),
        (["distill", "--student.supertokens", "-1"], "supertokens must be positive"),
        (["probe"], "at least one saved model"),
        (["probe", "--models", "no/such", *SHAPES], "expected a checkpoint folder"),
        (["cost", "--model", "vit_x"], "vit_s"),
        (["cost", "--batch_size", "0"], "batch_size must be positive"),
    ],
)
def test_bad_input_is_one_sentence(capsys, tmp_path: Path, arguments: list[str], says: str) -> None:
    arguments = [str(tmp_path / "out") if a == "OUT" else a for a in arguments]
    status, _, err = run(capsys, *arguments)
    assert status == 2
    assert says in err
    assert err.startswith("foundry3d: error: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("text", ["train: {epoch: 3}", "nonsense: 1", "train: [1", "3", ""])
def test_bad_recipes_are_one_sentence(capsys, tmp_path: Path, text: str) -> None:
    recipe = tmp_path / "bad.yaml"
    recipe.write_text(text)
    status, _, err = run(capsys, "pretrain", "--config", str(recipe))
    assert status == 2
    assert err.count("\n") == 1


RECIPE_KINDS = {
    "pretrain": PretrainConfig,
    "jepa": PretrainConfig,
    "demo_teacher": PretrainConfig,
    "demo_student": DistillConfig,
    "distill": DistillConfig,
    "budgets": DistillConfig,
    "classify": ClassifyConfig,
    "segment": SegmentConfig,
    "suite": SuiteConfig,
    "search": SearchConfig,
}


def test_every_recipe_is_valid() -> None:
    found = sorted(RECIPES.glob("*/*.yaml"))
    assert len(found) >= 8
    for path in found:
        name = str(path.relative_to(RECIPES).with_suffix(""))
        kind = RECIPE_KINDS[path.stem.replace("demo-", "demo_").split("-")[0]]
        made = read_recipe(kind, name)
        if path.parent.name == "paper" and not isinstance(made, SuiteConfig):
            assert is_published(made.data.train)
            assert made.data.up == "y"


def test_the_paper_recipes_hold_the_published_values() -> None:
    teacher = read_recipe(PretrainConfig, "paper/pretrain")
    assert teacher.objective == "jepa"
    assert (teacher.train.epochs, teacher.train.batch_size, teacher.train.lr) == (500, 512, 1e-3)
    assert (teacher.backbone.dim, teacher.backbone.depth, teacher.backbone.groups) == (384, 12, 64)
    student = read_recipe(DistillConfig, "paper/distill")
    assert (student.train.epochs, student.train.warmup_epochs) == (150, 15)
    assert student.frozen_words == "encoder until epoch 50" == DistillConfig().frozen_words
    assert read_recipe(DistillConfig, "paper/distill-frozen").frozen_words == "encoder"
    narrow = read_recipe(DistillConfig, "paper/distill-vit_t")
    assert (narrow.student.dim, narrow.frozen) == (192, "none")


def test_print_config_can_be_read_back(capsys, tmp_path: Path) -> None:
    status, out, _ = run(
        capsys, "pretrain", "--config", "cpu/pretrain", "--train.epochs", "7",
        "--backbone.point_widths", "8", "16", "32", "--resume", "--print_config",
    )  # fmt: skip
    assert status == 0
    values = yaml.safe_load(out)
    assert values["train"]["epochs"] == 7
    assert values["backbone"]["point_widths"] == [8, 16, 32]
    assert values["resume"] is True
    config = from_dict(PretrainConfig, values)
    assert config.masked.decoder_depth == 2
    assert to_dict(config) == values


def test_records_round_trip_and_refuse_unknown_keys() -> None:
    assert from_dict(BackboneConfig, to_dict(TINY)) == TINY
    with pytest.raises(InputError, match=r"colour.*known are"):
        from_dict(BackboneConfig, {"colour": 1})


def test_help_is_there(capsys) -> None:
    for arguments in ([], ["--help"], ["-h"]):
        status, out, _ = run(capsys, *arguments)
        assert status == 0
        assert all(name in out for name in cli.COMMANDS)
    for name in cli.COMMANDS:
        status, out, _ = run(capsys, name, "--help")
        assert status == 0
        assert "--config" in out
    assert run(capsys, "--version")[1].strip()


def test_cost_writes_its_rows(capsys, tmp_path: Path, teacher: Backbone) -> None:
    save(teacher, tmp_path / "run" / "model", provenance={})
    target = tmp_path / "rows.jsonl"
    status, out, _ = run(
        capsys, "cost", "--model", str(tmp_path / "run" / "model"), "--results", str(target)
    )
    assert status == 0
    assert "run" in out
    (row,) = read_rows(target)
    assert row["clouds"] == 64
    assert row["params_m"] == sum(p.numel() for p in teacher.parameters()) / 1e6


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("cost --json rows.json", "--json is now --results"),
        ("bench --pictures folder", "--pictures is now --out"),
        ("bench --clouds=3", "--clouds is now --batch_size"),
        ("probe --models m --out rows.jsonl", "--out is now --results"),
        ("distill --supertokens 4", "--supertokens is now --student.supertokens"),
        ("distill --gate --out x", "--gate is now --student.gate"),
        ("distill --student tome", "--student is now --student.kind"),
        ("distill --unfreeze_encoder 0", "--unfreeze_encoder is now --unfreeze_epoch"),
        ("suite --distill.unfreeze_encoder 0", "is now --distill.unfreeze_epoch"),
        ("classify --unfreeze_epoch null", "--unfreeze_epoch is now --unfreeze_encoder"),
        (
            "distill --student_tokenizer.point_widths 8 16",
            "--student_tokenizer.point_widths is now --student.point_widths",
        ),
        ("specialize --model m", "--model is now --teacher"),
        ("sweep gate --distill.gate", "--distill.gate is now --distill.student.gate"),
        ("classify --augment.center false", "--augment.center is now --augment.normalise"),
    ],
)
def test_a_renamed_option_names_the_new_one(capsys, words: str, says: str) -> None:
    status, _, err = run(capsys, *words.split())
    assert status == 2
    assert says in err
    assert err.count("\n") == 1


def test_a_renamed_option_in_a_recipe_names_the_new_one(capsys, tmp_path: Path) -> None:
    for text, says in {
        "supertokens: 4": "--supertokens is now --student.supertokens",
        "student: tome": "--student is now --student.kind",
        "student_tokenizer: {epochs: 2}": "--student_tokenizer.epochs is now --token_loss.epochs",
    }.items():
        recipe = tmp_path / "old.yaml"
        recipe.write_text(text)
        status, _, err = run(capsys, "distill", "--config", str(recipe))
        assert status == 2
        assert says in err
        assert err.count("\n") == 1


def test_a_rename_never_hides_an_option() -> None:
    """What `renamed` refuses is no option, what it names is one."""
    for command in cli.COMMANDS.values():
        for old in cli.RENAMED:
            new = cli.renamed(command.options, old)
            if new is not None:
                assert cli.option_type(command.options, new) is not None
                own = cli.option_type(command.options, old)
                assert own is None or is_dataclass(own)


def test_distill_finds_the_teacher_that_pretrain_left(capsys, tmp_path, monkeypatch) -> None:
    """Both commands with tiny sizes and the folders that they choose themselves."""
    monkeypatch.chdir(tmp_path)
    small = (
        "--data.train procedural --data.train_clouds 16 --data.points 64 --data.validation 0 "
        "--train.epochs 1 --train.batch_size 8 --train.warmup_epochs 0 --train.accelerator cpu "
    )
    sizes = "--backbone.groups 8 --backbone.group_size 8 --backbone.dim 12 --backbone.depth 1 "
    sizes += "--backbone.heads 2 --masked.decoder_depth 1 --masked.decoder_heads 2"
    assert run(capsys, "pretrain", *(small + sizes).split())[0] == 0
    assert run(capsys, "distill", *(small + "--student.supertokens 2").split())[0] == 0
    student = load("runs/student")
    assert student.config.supertokens == 2
    assert student.shape.dim == load("runs/teacher/model").shape.dim == 12


def test_doctor_says_what_was_picked(capsys) -> None:
    status, out, _ = run(capsys, "doctor")
    assert status == 0
    assert "both agree here" in out
    assert "threads" in out


def test_the_installed_command_ends_with_two() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "foundry3d", "data", "check", "modelnet40", "no/such"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_a_value_of_the_wrong_kind_is_one_plain_sentence(capsys) -> None:
    status, _, err = run(capsys, "embed", "x.ply", "--model", "m", "--ratio", "nan")
    assert status == 2
    assert "embed: --ratio does not take 'nan'; --help says what it takes" in err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("doctor now", "unrecognized arguments: now"),
        ("bench objects --device tpu", "device is cpu or cuda"),
        ("pretrain --jepa.predictor_heads 5", "predictor_heads must divide predictor_dim"),
        ("suite table5 --teacher no/such --data mn40=a.npz", "no/such: expected a checkpoint"),
        ("cost --results .", "is a folder"),
        ("embed a.ply --model m --ratio 2", "ratio must lie in [0, 1]"),
    ],
)
def test_plain_misuse_is_one_sentence(capsys, words: str, says: str) -> None:
    status, _, err = run(capsys, *words.split())
    assert status == 2
    assert says in err
    assert err.count("\n") == 1


def test_a_classifier_is_shared_as_it_is(capsys, tmp_path: Path, teacher: Backbone) -> None:
    made = Classifier.from_model(teacher, classes=("a", "b"), head=HeadConfig(hidden=(8,)))
    save(made.eval(), tmp_path / "classifier", provenance={})
    status, _, err = run(capsys, "convert", str(tmp_path / "classifier"), "--out", "x")
    assert status == 2
    assert "got a Classifier" in err
    assert not Path("x").exists()


def test_a_file_name_that_is_not_utf8_costs_itself_alone(
    capsys, tmp_path: Path, teacher: Backbone
) -> None:
    save(teacher, tmp_path / "model", provenance={})
    cloud = np.random.default_rng(0).normal(size=(100, 3))
    names = [os.fsencode(tmp_path) + name for name in (b"/\xff\xe9.npy", b"/plain.npy")]
    for name in names:
        with open(name, "wb") as stream:
            np.save(stream, cloud)
    words = [os.fsdecode(name) for name in (*names, os.fsencode(tmp_path) + b"/\xfe.npy")]
    out = tmp_path / "f.npz"
    status, _, err = run(
        capsys, "embed", *words, "--model", str(tmp_path / "model"), "--out", str(out)
    )
    assert status == 1
    assert r"/\xfe.npy" in err
    with np.load(out) as found:
        assert found["names"].tolist() == words[:2]
