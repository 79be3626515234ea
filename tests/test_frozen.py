"""What stays frozen: bit for bit as it came, in distillation and in fine-tuning."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY
from test_classify import ellipsoids

from foundry3d import cli
from foundry3d.baselines import FPSStudent, KMeansStudent, Merged
from foundry3d.checkpoints.folder import load, load_backbone, read_config, save
from foundry3d.config import (
    ClassifyConfig,
    DataConfig,
    DistillConfig,
    FewshotConfig,
    HeadConfig,
    SpecialistConfig,
    StudentConfig,
    StudentOptions,
    SuiteConfig,
    TokenLossConfig,
    TrainConfig,
)
from foundry3d.config.freezing import PARTS, limits_of, words_of
from foundry3d.data.archive import write_archive
from foundry3d.data.clouds import Clouds
from foundry3d.errors import InputError
from foundry3d.evaluation.classify import classify
from foundry3d.evaluation.fewshot import fewshot
from foundry3d.models.backbone import Backbone
from foundry3d.models.student import Student
from foundry3d.paper.suite.cells import Cell
from foundry3d.paper.suite.models import distill_settings
from foundry3d.paper.suite.records import MODELS
from foundry3d.paper.suite.run import suite
from foundry3d.paper.suite.tables import TABLES
from foundry3d.paper.suite.work import settings_of
from foundry3d.training.distill import DistillTask, distill, student_of
from foundry3d.training.engine import fit

TRAIN = TrainConfig(epochs=2, batch_size=16, warmup_epochs=0, lr=3e-3, accelerator="cpu")
DATA = DataConfig(train="procedural", train_clouds=32, test=None, points=64, validation=0.0)
RUN = DistillConfig(student=StudentOptions(supertokens=4), data=DATA, train=TRAIN)
WORDS = ("encoder", "all", "none")


def kept(model: torch.nn.Module, before: torch.nn.Module) -> set[str]:
    """The tensors of a model, buffers included, that are bit for bit those of another."""
    x, y = model.state_dict(), before.state_dict()
    return {name for name in x if name in y and torch.equal(x[name], y[name])}


def of(model: torch.nn.Module, *parts: str) -> set[str]:
    """The names of all tensors of these parts."""
    return {name for name in model.state_dict() if name.split(".")[0] in parts}


# ---------------------------------------------------------------- the words


@pytest.mark.parametrize(
    ("epochs", "words"),
    [
        ((0, 0, 0), "none"),
        ((0, 0, None), "encoder"),
        ((None, None, None), "all"),
        ((0, 0, 7), "encoder until epoch 7"),
        ((7, 7, 7), "all until epoch 7"),
        ((0, 0, 10), "encoder"),  # of 10 epochs
        ((None, 0, 3), "tokenizer, encoder until epoch 3"),
        ((None, None, 3), "tokenizer and position, encoder until epoch 3"),
    ],
)
def test_words_for_what_is_frozen(epochs: tuple[int | None, ...], words: str) -> None:
    assert words_of(dict(zip(PARTS, epochs, strict=True)), 10) == words


def test_distillation_freezes_what_its_options_say() -> None:
    train = replace(TRAIN, epochs=60)
    for options, words in [
        ({}, "encoder until epoch 50"),
        ({"frozen": "all"}, "all"),
        ({"frozen": "all", "unfreeze_epoch": 5}, "all until epoch 5"),
        ({"unfreeze_epoch": None}, "encoder"),
        ({"frozen": "none"}, "none"),
    ]:
        chosen: dict[str, Any] = options
        assert DistillConfig(train=train, **chosen).frozen_words == words


def test_fine_tuning_freezes_what_its_options_say() -> None:
    assert ClassifyConfig().limits == limits_of("none")
    assert SpecialistConfig().limits == limits_of("all")
    assert SpecialistConfig(frozen="none").limits == limits_of("none")
    assert ClassifyConfig(unfreeze_encoder=9).limits == limits_of("encoder", 9)
    for word in WORDS:
        assert ClassifyConfig(frozen=word).limits == limits_of(word)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("distill --frozen none --unfreeze_epoch 5", "contradicts unfreeze_epoch 5"),
        ("distill --frozen none --unfreeze_epoch null", "contradicts unfreeze_epoch None"),
        ("distill --unfreeze_epoch 0", "--frozen none"),
        ("distill --frozen some", "Got value: some"),
        ("classify --frozen encoder --unfreeze_encoder 0", "means unfreeze_encoder null, got 0"),
        ("classify --frozen none --unfreeze_encoder null", "means unfreeze_encoder 0, got None"),
        ("segment --frozen all --unfreeze_position 3", "means unfreeze_position null, got 3"),
        ("fewshot --frozen encoder --unfreeze_tokenizer null", "means unfreeze_tokenizer 0"),
        ("classify --protocol modelnet40@point-jepa --frozen all", "null, got 150"),
        ("suite --classify.frozen all --classify.unfreeze_encoder 2", "null, got 2"),
    ],
)
def test_contradictions_are_one_sentence(
    capsys: pytest.CaptureFixture, words: str, says: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(words.split())
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert says in said
    assert said.count("\n") == 1


# ---------------------------------------------------------------- distillation


@pytest.fixture
def saved(teacher: Backbone, tmp_path: Path) -> str:
    return str(save(teacher, tmp_path / "teacher", provenance={}))


@pytest.mark.parametrize("word", WORDS)
def test_distillation_keeps_what_is_frozen(
    saved: str, teacher: Backbone, tmp_path: Path, word: Any
) -> None:
    """Weights and BatchNorm statistics; everything else moves."""
    epoch = "auto" if word == "none" else None
    run = replace(RUN, teacher=saved, out=str(tmp_path / "s"), frozen=word, unfreeze_epoch=epoch)
    student = distill(run)
    start = student_of(teacher, run)
    assert isinstance(start, Student)
    assert kept(start, teacher) == of(start, "tokenizer", "position", "encoder")
    parts = {"encoder": ("encoder",), "all": PARTS, "none": ()}[word]
    assert kept(student, teacher) == of(student, *parts)
    assert not kept(student, start) & of(start, "dso", "cau")
    assert all(p.requires_grad for p in student.parameters())
    assert read_config(tmp_path / "s")["provenance"]["distill_frozen"] == word


@pytest.mark.parametrize("word", ["encoder", "all"])
def test_gradients_are_absent_until_the_epoch(
    teacher: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: Any
) -> None:
    found: dict[int, set[str]] = {}
    run = replace(RUN, out=str(tmp_path / "s"), frozen=word, unfreeze_epoch=1)
    student = student_of(teacher, run)

    class Watched(DistillTask):
        def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
            super().on_before_optimizer_step(optimizer)
            moving = {n for n, p in student.named_parameters() if p.grad is not None}
            found.setdefault(self.current_epoch, moving)
            modes = {norm.training for norm in batch_norms(student)}
            assert modes == {word == "encoder" or self.current_epoch > 0}

    points = np.random.default_rng(0).normal(size=(32, 64, 3)).astype(np.float32)
    task = Watched(run, teacher, student)
    fit(task, Clouds(points=points, labels=np.full(32, -1)), run)
    names = {name for name, _ in student.named_parameters()}
    parts = ("encoder",) if word == "encoder" else PARTS
    assert names - found[0] == {name for name in names if name.split(".")[0] in parts}
    assert found[1] == names


def batch_norms(model: torch.nn.Module) -> list[torch.nn.BatchNorm1d]:
    return [part for part in model.modules() if isinstance(part, torch.nn.BatchNorm1d)]


def test_all_keeps_what_a_narrow_student_took_over(
    saved: str, teacher: Backbone, tmp_path: Path
) -> None:
    """Its encoder and the Linear layers that change the width are new and train."""
    narrow = StudentOptions(supertokens=4, dim=12, heads=2)
    run = replace(RUN, teacher=saved, out=str(tmp_path / "s"), student=narrow, frozen="all")
    student, start = distill(run), student_of(teacher, run)
    assert kept(student, teacher) == of(student, "tokenizer", "position")
    moving = of(start, "encoder", "token_bridge", "position_bridge", "output")
    assert moving
    assert not kept(student, start) & moving


def test_a_class_token_belongs_to_the_encoder(tmp_path: Path) -> None:
    teacher = Backbone(replace(TINY, class_token=True), generator=torch.Generator().manual_seed(0))
    tome = StudentOptions(kind="tome", supertokens=4)
    run = replace(RUN, student=tome, out=str(tmp_path / "s"), unfreeze_epoch=None)
    student = distill(run, teacher=teacher.eval())
    assert isinstance(student, Merged)
    names = of(teacher, "encoder", "class_token", "class_position")
    assert names <= kept(student.backbone, teacher)
    assert not any(name.startswith("tokenizer") for name in kept(student.backbone, teacher))


@pytest.mark.parametrize(
    ("options", "frozen", "says"),
    [
        ({"dim": 12, "heads": 2}, "encoder", "encoder does not come from the teacher"),
        ({"depth": 2}, "encoder", "--frozen none"),
        ({"heads": 2}, "encoder", "--frozen none"),
        ({"kind": "fps-student"}, "all", "no weights but its teacher's"),
        ({"kind": "tome"}, "all", "use --frozen encoder or none"),
    ],
)
def test_random_weights_are_never_frozen(
    teacher: Backbone, tmp_path: Path, options: dict[str, Any], frozen: Any, says: str
) -> None:
    student = StudentOptions(supertokens=4, **options)
    run = replace(RUN, student=student, out=str(tmp_path / "s"), frozen=frozen)
    with pytest.raises(InputError, match=says):
        distill(run, teacher=teacher)
    assert not (tmp_path / "s").exists()


def test_a_student_that_is_not_the_teachers_is_not_frozen(teacher: Backbone) -> None:
    """Neither one with new weights of the same sizes, nor that of a foreign teacher."""
    sizes = StudentConfig(backbone=TINY, supertokens=4)
    own = Student.from_teacher(teacher, supertokens=4)
    for word in ("encoder", "all"):
        run = replace(RUN, frozen=word)
        fresh = Student(sizes, generator=torch.Generator().manual_seed(1))
        with pytest.raises(InputError, match=r"(do|does) not come"):
            DistillTask(run, teacher, fresh)
        with pytest.raises(InputError, match="nothing to keep frozen"):
            DistillTask(run, lambda points: teacher(points), own)
    DistillTask(replace(RUN, frozen="none"), teacher, fresh)


def test_a_frozen_tokenizer_has_no_loss_of_its_own(teacher: Backbone) -> None:
    run = replace(RUN, frozen="all", token_loss=TokenLossConfig(epochs=1))
    with pytest.raises(InputError, match="token_loss would train the tokenizer"):
        DistillTask(run, teacher, student_of(teacher, run))


# ---------------------------------------------------------------- fine-tuning


@pytest.fixture
def tuned(teacher: Backbone, tmp_path: Path, generator: torch.Generator) -> ClassifyConfig:
    """Fine-tuning of a student that was distilled with a frozen encoder."""
    student = Student.from_teacher(teacher, supertokens=3, generator=generator)
    save(student, tmp_path / "student", provenance={"distill_frozen": "encoder"})
    write_archive(tmp_path / "train.npz", ellipsoids(48, 0))
    write_archive(tmp_path / "test.npz", ellipsoids(20, 1))
    train, test = str(tmp_path / "train.npz"), str(tmp_path / "test.npz")
    return ClassifyConfig(
        model=str(tmp_path / "student"), out=str(tmp_path / "run"), results=None,
        data=DataConfig(train=train, test=test, points=48, validation=0.0),
        train=replace(TRAIN, epochs=1), head=HeadConfig(hidden=(8,)),
    )  # fmt: skip


@pytest.mark.parametrize("word", WORDS)
def test_fine_tuning_keeps_what_is_frozen(tuned: ClassifyConfig, word: Any) -> None:
    row = classify(replace(tuned, frozen=word))
    before, after = load_backbone(tuned.model), load_backbone(Path(tuned.out) / "model")
    parts = {"encoder": ("encoder",), "all": PARTS, "none": ()}[word]
    assert kept(after, before) == of(after, *parts)
    known = read_config(tuned.out)["provenance"]
    for place in (row, known):
        assert (place["distill_frozen"], place["frozen"]) == ("encoder", word)


@pytest.mark.parametrize("word", ["encoder", "all"])
def test_the_backbone_of_a_kmeans_student_stays(
    tuned: ClassifyConfig, teacher: Backbone, points: torch.Tensor, tmp_path: Path, word: Any
) -> None:
    """Prototypes too: only the head trains, whichever of the two is asked for."""
    start = KMeansStudent.from_teacher(teacher, [points], supertokens=4)
    save(start, tmp_path / "k", provenance={})
    run = replace(tuned, model=str(tmp_path / "k"))
    with pytest.raises(InputError, match="add --frozen all"):
        classify(run)
    row = classify(replace(run, frozen=word))
    found = load_backbone(Path(run.out) / "model")
    assert kept(found, start) == set(start.state_dict())
    assert kept(found.get_submodule("backbone"), teacher) == set(teacher.state_dict())
    assert row["frozen"] == "all"


def test_fine_tuned_episodes_name_what_they_freeze(tuned: ClassifyConfig, tmp_path: Path) -> None:
    run = FewshotConfig(
        model=tuned.model, out=str(tmp_path / "f"), results=None, mode="finetune", way=2, shot=2,
        folds=2, frozen="encoder", data=replace(tuned.data, test=None), head=tuned.head,
        train=replace(tuned.train, batch_size=4),
    )  # fmt: skip
    row = fewshot(run)
    assert (row["distill_frozen"], row["frozen"]) == ("encoder", "encoder")
    assert "frozen" not in fewshot(replace(run, mode="probe", out=str(tmp_path / "p")))


# ---------------------------------------------------------------- the tables


@pytest.fixture
def tables(tuned: ClassifyConfig, saved: str, tmp_path: Path) -> SuiteConfig:
    data = replace(tuned.data, test=None)
    return SuiteConfig(
        name="table4", teacher=saved, out=str(tmp_path / "out"),
        data=(f"sn55={tuned.data.train},{tuned.data.test}",),
        distill=DistillConfig(data=data, train=replace(TRAIN, epochs=1), frozen="none"),
        classify=replace(tuned, model="", out="x"),
    )  # fmt: skip


def test_models_are_distilled_as_their_rows_say(
    tables: SuiteConfig, teacher: Backbone, tmp_path: Path
) -> None:
    frozen_50 = replace(tables, distill=DistillConfig(data=DATA, train=replace(TRAIN, epochs=60)))
    for name, words in {
        "s16": "encoder until epoch 50",
        "s16-frozen": "encoder",
        "s16-frozen-all": "all",
        "s16-vit_t": "none",
        "fps-student": "encoder",
        "tome-fmd-1": "encoder until epoch 50",
    }.items():
        found = distill_settings(frozen_50, MODELS[name], teacher, tmp_path)
        assert found.frozen_words == words
        whole = distill_settings(tables, MODELS[name], teacher, tmp_path)
        assert whole.frozen_words == (words if "frozen" in name or "fps" in name else "none")


def test_fine_tuning_has_the_meaning_of_the_model(tables: SuiteConfig) -> None:
    def limits(model: str, when: str, config: SuiteConfig = tables) -> dict[str, int | None]:
        return dict(settings_of(config, Cell(model, "sn55", "classify", 0, when)).limits)

    long = replace(tables.classify, train=replace(TRAIN, epochs=30))
    assert limits("s16-frozen", "never") == limits_of("encoder")
    assert limits("s16-frozen-all", "never") == limits_of("all")
    assert limits("kmeans-student", "never") == limits_of("all")
    assert limits("s16-frozen-all", "late", replace(tables, classify=long)) == limits_of("all", 20)
    asked = replace(tables, classify=replace(tables.classify, frozen="all"))
    assert limits("teacher", "start", asked) == {"tokenizer": None, "position": None, "encoder": 0}


def test_table_4_has_both_meanings(tables: SuiteConfig, teacher: Backbone) -> None:
    """A run of all its rows with a tiny teacher of 16 groups."""
    larger = Backbone(replace(TINY, groups=16), generator=torch.Generator().manual_seed(0)).eval()
    save(larger, Path(tables.out) / "larger", provenance={})
    rows = {row["cell"]: row for row in suite(replace(tables, teacher=f"{tables.out}/larger"))}
    found = {
        name.split("@")[0]: (row["distill_frozen"], row["frozen"]) for name, row in rows.items()
    }
    assert found == {
        "s16-frozen": ("encoder", "encoder"),
        "fps-student": ("encoder", "encoder"),
        "s16-frozen-all": ("all", "all"),
        "fps-student-all": ("all", "all"),
        "kmeans-student": ("all", "all"),
        "truncated-1-frozen": ("encoder", "encoder"),
        "truncated-1-frozen-all": ("all", "all"),
    }
    for name, whole in {
        "fps-student-all": True,
        "kmeans-student": True,
        "fps-student": False,
    }.items():
        cell = next(cell for cell in rows if cell.startswith(f"{name}@"))
        model = load(Path(tables.out) / "cells" / cell / "model").backbone
        assert isinstance(model, FPSStudent | KMeansStudent)
        assert whole == (kept(model.backbone, larger) == set(larger.state_dict()))
        assert of(larger, "encoder") <= kept(model.backbone, larger)
    text = (Path(tables.out) / "table4.md").read_text()
    assert text.count("✓ (encoder)") == 3
    assert text.count("✓ (all)") == 5
    assert text.count("(paper") == 3
    printed = [r.name for r in TABLES["table4"].rows if TABLES["table4"].paper(r.name, "sn55")]
    assert printed == ["s16-frozen", "kmeans-student", "fps-student"]
