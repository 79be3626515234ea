"""Nothing is trained or scored on clouds that were not named, and every result names them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY
from test_classify import ellipsoids

from foundry3d import cli
from foundry3d.checkpoints.folder import save
from foundry3d.checkpoints.origin import Origin, after, origin_from, origin_of
from foundry3d.config import (
    ClassifyConfig,
    DataConfig,
    DistillConfig,
    HeadConfig,
    MaskedConfig,
    PackConfig,
    PretrainConfig,
    SuiteConfig,
    TrainConfig,
    require_data,
)
from foundry3d.data.archive import write_archive
from foundry3d.data.loading import load_splits, load_train
from foundry3d.errors import InputError
from foundry3d.evaluation.finetune_run import start_origin
from foundry3d.models.backbone import Backbone
from foundry3d.paper.suite.render import origins
from foundry3d.paper.suite.run import suite
from foundry3d.report.rows import read_rows

TRAIN = TrainConfig(epochs=1, batch_size=16, warmup_epochs=0, lr=3e-3, accelerator="cpu")
NEEDED = {
    "pretrain": (),
    "distill": ("--teacher", "m"),
    "classify": ("--model", "m"),
    "segment": ("--model", "m"),
    "fewshot": ("--model", "m"),
    "zeroshot": ("--models", "m"),
    "probe": ("--models", "m"),
    "budgets": ("--models", "m"),
    "specialize": ("--teacher", "m"),
    "sweep gate": ("--distill.teacher", "m"),
}


def refused(capsys: pytest.CaptureFixture, *words: str) -> str:
    """The sentence that the command line ends with."""
    with pytest.raises(SystemExit) as stop:
        cli.main(list(words))
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert error.count("\n") == 1
    return error


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize("command", NEEDED)
def test_commands_refuse_clouds_that_were_not_named(
    command: str,
    teacher: Backbone,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    """With a model at hand; nothing is written."""
    monkeypatch.chdir(tmp_path)
    save(teacher, "m", provenance={})
    words = [*command.split(), *NEEDED[command]]
    group = "distill.data" if command == "sweep gate" else "data"
    says = f"name the training clouds with --{group}.train (an .npz archive, a folder, NAME:FOLDER"
    assert says in refused(capsys, *words)
    if command in ("pretrain", "distill", "fewshot"):
        return
    error = refused(capsys, *words, f"--{group}.train", "procedural")
    assert f"name the test clouds with --{group}.test" in error
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_no_record_of_data_has_a_default() -> None:
    assert (DataConfig().train, DataConfig().test) == ("", None)
    for read in (load_splits, load_train, require_data):
        with pytest.raises(InputError, match=r"--data\.train"):
            read(DataConfig())  # type: ignore[operator]
    require_data(DataConfig(train="procedural"))
    with pytest.raises(InputError, match=r"--distill\.data\.test"):
        require_data(DataConfig(train="procedural"), test=True, option="distill.data")
    with pytest.raises(InputError, match="data pack SOURCE"):
        PackConfig()


# ---------------------------------------------------------------- suites


@pytest.fixture
def config(tmp_path: Path) -> SuiteConfig:
    """A suite on data A, whose training clouds are `a.npz`; it makes its teacher itself."""
    write_archive(tmp_path / "a.npz", ellipsoids(60, 0))
    write_archive(tmp_path / "a-test.npz", ellipsoids(30, 1))
    data = DataConfig(points=48, validation=0.2)
    return SuiteConfig(
        name="table10",
        teacher="pretrain",
        out=str(tmp_path / "out"),
        data=(f"mn40={tmp_path}/a.npz,{tmp_path}/a-test.npz",),
        unfreeze=("start",),
        pretrain=PretrainConfig(
            objective="masked",
            backbone=replace(TINY, groups=16),
            masked=MaskedConfig(decoder_depth=1, decoder_heads=3),
            data=data,
            train=TRAIN,
        ),
        distill=DistillConfig(data=data, train=TRAIN, frozen="none"),
        classify=ClassifyConfig(data=data, train=TRAIN, head=HeadConfig(hidden=(8,))),
    )


def data_of_models(folder: Path) -> dict[str, set[str]]:
    """For every saved model under a folder, all data that its provenance names."""
    found = {}
    for path in folder.rglob("model/config.json"):
        facts = json.loads(path.read_text())["provenance"]
        named = {facts.get("data"), facts["pretrained_on"], facts["distilled_on"]} - {None}
        found[str(path.parent.parent.relative_to(folder))] = named
    return found


def test_every_model_of_a_suite_is_made_on_the_clouds_that_were_named(
    config: SuiteConfig, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """A teacher, a student with its loss, prototypes and a fine-tuned copy of each, all on A."""
    learning = (f"pretrain={tmp_path}/a.npz", f"distill={tmp_path}/a.npz")
    named = replace(config, data=(*config.data, *learning))
    suite(replace(named, only=("s4@start", "teacher")))
    suite(replace(named, name="table4", data=(*named.data, *own(tmp_path)), only=("sn55",)))
    found = data_of_models(Path(config.out))
    models = {f"models/{name}" for name in ("teacher", "s4", "s16-frozen", "kmeans-student")}
    assert models < set(found)
    assert len(found) > 2 * len(models) - 1
    for name, data in found.items():
        if "fps-student-all" in name:
            continue  # nothing of it trains
        assert data == ({"a"} if name.startswith("models/") else {"a", "a / a-test"})
    rows = {row["cell"]: row for row in read_rows(Path(config.out) / "results.jsonl")}
    assert rows["s4/loss/loss/seed0"]["data"] == "a"
    for cell, row in rows.items():
        assert row["pretrained_on"] == "a"
        untrained = cell.startswith(("teacher", "fps-student-all"))
        assert row["distilled_on"] == (None if untrained else "a")
    assert "Data: teacher pre-trained on a; students distilled on a." in capsys.readouterr().out
    again = suite(replace(config, only=("s4@start",)))  # all is made: no clouds are needed
    assert {row["cell"]: row for row in again}.items() <= rows.items()
    with pytest.raises(InputError, match="other settings of distill"):
        suite(replace(config, data=(*config.data, f"distill={tmp_path}/a-test.npz")))
    for suffix in ("md", "tex"):
        assert "students distilled on a." in (Path(config.out) / f"table4.{suffix}").read_text()


def own(tmp_path: Path) -> tuple[str]:
    """Data A as the column of Table 4."""
    return (f"sn55={tmp_path}/a.npz,{tmp_path}/a-test.npz",)


def test_a_suite_refuses_to_make_models_on_clouds_that_were_not_named(
    config: SuiteConfig, teacher: Backbone, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Whatever its columns are; nothing is needed where every model is given."""
    with pytest.raises(InputError, match=r"--data pretrain=TRAIN or --pretrain\.data\.train"):
        suite(replace(config, name="table5", only=("teacher",)))
    save(teacher, tmp_path / "t", provenance={})
    given = replace(config, name="table5", teacher=str(tmp_path / "t"))
    with pytest.raises(InputError, match=r"s4 needs .*--data distill=TRAIN or --distill\.data"):
        suite(replace(given, only=("s4",)))
    with pytest.raises(InputError, match=r"supertoken-teacher needs .*--data pretrain=TRAIN"):
        suite(replace(given, name="table9"))
    lost = replace(given, name="table8", models=tuple(f"{name}=x" for name in STUDENTS))
    with pytest.raises(InputError, match=r"loss/seed0 needs .*--data distill=TRAIN"):
        suite(lost)
    gone = replace(given, data=(*given.data, "distill=none.npz"))
    with pytest.raises(InputError, match=r"none\.npz: no such archive"):
        suite(replace(gone, only=("s4",)))
    assert not (tmp_path / "out").exists()
    rows = suite(replace(given, only=("teacher",)))
    assert [row["pretrained_on"] for row in rows] == [None]
    assert "teacher pre-trained on data that is not recorded" in capsys.readouterr().out


STUDENTS = ("s16", "s16-frozen", "s16-frozen-mse", "s16-soft", "s16-qkv-bias", "s16-cau-norm")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"data": ("distill=a",)}, "name data with --data NAME=TRAIN,TEST"),
        ({"data": ("x=a,b", "distill=a,b")}, "training clouds alone"),
        ({"data": ("x=a,b", "distill=a"), "distill": "b"}, "differ; name one of them"),
        ({"data": ("x=a,b", "distill=a"), "tasks": ("distill=probe",)}, "which --data does not"),
    ],
)
def test_names_that_are_no_columns(config: SuiteConfig, options: dict[str, Any], says: str) -> None:
    if "distill" in options:
        data = replace(config.distill.data, train=options["distill"])
        options = options | {"distill": replace(config.distill, data=data)}
    with pytest.raises(InputError, match=says):
        replace(config, **options)


def test_clouds_to_learn_from_replace_nothing_else(config: SuiteConfig) -> None:
    named = replace(config, data=(*config.data, "distill=b", "pretrain=c"))
    assert list(named.sources) == ["mn40"]
    made = named.with_training_clouds()
    assert (made.distill.data.train, made.pretrain.data.train) == ("b", "c")
    assert replace(made, distill=named.distill, pretrain=named.pretrain) == named
    assert made.with_training_clouds() == made
    assert config.with_training_clouds() == config


def test_a_caption_lists_all_data(config: SuiteConfig) -> None:
    """Also that of a student whose row does not record it."""
    cells = {"teacher@late": ("A", None), "s4@start": ("B", "D"), "s1@start": ("A", "C")}
    rows: dict[str, dict[str, Any]] = {
        f"{name}/mn40/classify/seed0": {"pretrained_on": before, "distilled_on": on}
        for name, (before, on) in cells.items()
    }
    table5 = replace(config, name="table5")
    assert origins(table5, rows) == "Data: teacher pre-trained on A, B; students distilled on C, D."
    rows["s2@start/mn40/classify/seed0"] = {"oa": 80.0}
    assert origins(table5, rows).endswith("students distilled on C, D, data that is not recorded.")
    assert origins(table5, {}) == ""


# ---------------------------------------------------------------- origins


def test_origins_of_models_saved_before_they_were_recorded(
    teacher: Backbone, tmp_path: Path
) -> None:
    """Provenance names the model that a run started from, which may be gone."""
    first, second, third = (str(tmp_path / name) for name in "abc")
    save(teacher, first, provenance={"made_by": "pretrain (masked)", "init": None, "data": "A"})
    save(teacher, second, provenance={"made_by": "pretrain (jepa)", "init": first, "data": "B"})
    save(teacher, third, provenance={"made_by": "distill", "teacher": second, "data": "C"})
    assert origin_of(first) == Origin("A")
    assert origin_of(second) == Origin("A, then B")
    assert origin_of(third) == Origin("A, then B", "C")
    tuned = {"made_by": "classify", "model": third, "data": "D / E"}
    assert origin_from(tuned) == origin_of(third)
    assert origin_from({"made_by": "k-means", "teacher": first, "data": "A"}) == Origin("A", "A")
    assert origin_from({"made_by": "distill", "teacher": "gone", "data": "C"}) == Origin(None, "C")
    assert origin_from({}) == Origin()
    assert after("A", "A") == after(None, "A") == "A"


def test_origins_of_others_and_of_circles(teacher: Backbone, tmp_path: Path) -> None:
    circle = str(tmp_path / "circle")
    save(teacher, circle, provenance={"made_by": "classify", "model": circle, "data": "A / B"})
    assert origin_of(circle) == Origin()
    (tmp_path / "theirs.ckpt").write_bytes(b"")
    assert origin_of(tmp_path / "theirs.ckpt") == Origin("data that theirs.ckpt does not name")
    converted = {"source": "Point-JEPA", "file": "a.ckpt", "form": "pre-trained"}
    assert origin_from(converted) == Origin("data that a.ckpt (Point-JEPA) does not name")


def test_a_run_from_scratch_has_no_origin(teacher: Backbone, tmp_path: Path) -> None:
    save(teacher, tmp_path / "m", provenance={"made_by": "pretrain (masked)", "data": "A"})
    config = ClassifyConfig(model=str(tmp_path / "m"))
    assert start_origin(config.model, config) == Origin("A")
    assert start_origin(config.model, replace(config, scratch=True)) == Origin()
