import json
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from conftest import TINY
from torch.nn import functional as F

from foundry3d import cli
from foundry3d.baselines import FPSStudent, KMeansStudent, Merged
from foundry3d.checkpoints.folder import load, load_backbone, save
from foundry3d.config import (
    AugmentConfig,
    ClassifyConfig,
    DataConfig,
    FewshotConfig,
    HeadConfig,
    ProbeConfig,
    ReductionConfig,
    SegmentConfig,
    TrainConfig,
    from_dict,
    protocols,
)
from foundry3d.data.archive import write_archive
from foundry3d.data.clouds import Clouds
from foundry3d.data.loading import Splits
from foundry3d.errors import InputError
from foundry3d.evaluation.classify import ClassifyTask, accuracies, classify, votes
from foundry3d.evaluation.finetune import Evaluation, FinetuneTask
from foundry3d.evaluation.finetune_run import start_model
from foundry3d.heads.classifier import ClassHead, Classifier, Inner, reshaped
from foundry3d.models.backbone import Backbone
from foundry3d.models.budget import Budget
from foundry3d.models.student import Student

TRAIN = TrainConfig(epochs=2, batch_size=16, warmup_epochs=1, clip=10.0, lr=3e-3, accelerator="cpu")
NAMES = ("flat", "long")


def ellipsoids(count: int, seed: int, points: int = 64) -> Clouds:
    """Flat and long ellipsoids in alternation: two classes that are easy to tell apart."""
    g = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    axes = np.where(labels[:, None, None] == 0, [[[1, 1, 0.2]]], [[[0.3, 0.3, 1]]])
    balls = g.normal(size=(count, points, 3))
    balls /= np.linalg.norm(balls, axis=-1, keepdims=True)
    return Clouds(
        points=(balls * axes).astype(np.float32), labels=labels, class_names=NAMES, name="balls"
    )


@pytest.fixture
def run(teacher: Backbone, tmp_path: Path, generator: torch.Generator) -> ClassifyConfig:
    """A run on archives, of a student of the tiny teacher."""
    student = Student.from_teacher(teacher, supertokens=3, generator=generator)
    save(student, tmp_path / "student", provenance={})
    write_archive(tmp_path / "train.npz", ellipsoids(60, 0))
    write_archive(tmp_path / "test.npz", ellipsoids(30, 1))
    return ClassifyConfig(
        model=str(tmp_path / "student"),
        out=str(tmp_path / "run"),
        results=str(tmp_path / "results.jsonl"),
        data=DataConfig(
            train=str(tmp_path / "train.npz"),
            test=str(tmp_path / "test.npz"),
            points=48,
            validation=0.2,
        ),
        train=TRAIN,
        head=HeadConfig(hidden=(16,), dropout=0.1),
    )


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    x, y = a.state_dict(), b.state_dict()
    return all(torch.equal(x[k], y[k]) for k in x)


def test_head_is_the_published_one(generator: torch.Generator) -> None:
    """Against the published layers written out, in both modes but for dropout."""
    head = ClassHead(12, 5, HeadConfig(dropout=0.0), generator=generator)
    twin = torch.nn.Sequential(
        torch.nn.Linear(12, 256, bias=False), torch.nn.BatchNorm1d(256), torch.nn.ReLU(),
        torch.nn.Linear(256, 256, bias=False), torch.nn.BatchNorm1d(256), torch.nn.ReLU(),
        torch.nn.Linear(256, 5),
    )  # fmt: skip
    for mine, its in ((0, 0), (1, 3)):
        twin[its].weight.data = head.hidden[mine].weight.data
    twin[6].load_state_dict(head.output.state_dict())
    x = torch.randn(7, 12, generator=generator)
    torch.testing.assert_close(head(x), twin(x))
    torch.testing.assert_close(head.eval()(x), twin.eval()(x))
    plain = ClassHead(12, 5, HeadConfig(hidden=()), generator=generator)
    torch.testing.assert_close(plain(x), F.linear(x, plain.output.weight, plain.output.bias))


def test_dropout_of_the_head_draws_from_the_generator(generator: torch.Generator) -> None:
    head = ClassHead(12, 5, generator=generator)
    x = torch.randn(7, 12, generator=generator)
    a, b, c = (head(x, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.allclose(a, c)


@pytest.fixture(params=["backbone", "student", "merged", "fps_student", "kmeans_student"])
def inner(request: pytest.FixtureRequest, teacher: Backbone, points: torch.Tensor) -> Inner:
    """A model of every kind that can be fine-tuned."""
    match request.param:
        case "student":
            return Student.from_teacher(teacher, supertokens=3)
        case "merged":
            return Merged.from_teacher(teacher, ReductionConfig(method="patchmerger", reach=4))
        case "fps_student":
            return FPSStudent.from_teacher(teacher, supertokens=4, points=48)
        case "kmeans_student":
            return KMeansStudent.from_teacher(teacher, [points], supertokens=4)
    return teacher


def test_classifiers_survive_saving(inner: Inner, points: torch.Tensor, tmp_path: Path) -> None:
    model = inner
    made = Classifier.from_model(model, ("a", "b", "c"), head=HeadConfig(hidden=(8,)))
    assert same(made.backbone, model)
    save(made, tmp_path / "m", provenance={})
    loaded = load(tmp_path / "m")
    assert loaded.config == made.config
    assert torch.equal(loaded(points), made(points))
    assert loaded(points).shape == (4, 3)
    assert same(load_backbone(tmp_path / "m"), model)
    with pytest.raises(InputError, match="got a Linear"):
        save(torch.nn.Linear(2, 2), tmp_path / "x", provenance={})


def test_budgets_reach_the_student(teacher: Backbone, points: torch.Tensor) -> None:
    generator = torch.Generator().manual_seed(0)
    student = Student.from_teacher(teacher, supertokens=4, generator=generator)
    with torch.no_grad():
        student.dso.query.weight.mul_(20)  # tokens differ in what they choose
        student.dso.key.weight.mul_(20)
    assert int(student(points).assignment.max()) >= 2
    made = Classifier.from_model(student, NAMES, head=HeadConfig(hidden=()), generator=generator)
    two = Budget(supertokens=2)
    expected = made.head(student(points, budget=two).pooled())
    torch.testing.assert_close(made(points, budget=two), expected)
    assert not torch.allclose(made(points), expected)


def test_a_run_learns_and_leaves_everything(run: ClassifyConfig, capsys) -> None:
    row = classify(replace(run, votes=2, train=replace(TRAIN, epochs=12, checkpoint_every=12)))
    assert row["oa"] > 90
    assert (row["tokens"], row["encoded"], row["sizes"]) == (12, 3, [48, 12, 30])
    written = json.loads(Path(run.results or "").read_text())
    assert written.pop("run")
    assert written == json.loads(json.dumps(row))
    heading = capsys.readouterr().out.splitlines()[0]
    places = [heading.index(w) for w in ("validation-selected", "OA, last", "best on test")]
    assert places == sorted(places)
    model = load(Path(run.out) / "model")
    assert model.config.classes == NAMES
    log = (Path(run.out) / "metrics" / "version_0" / "metrics.csv").read_text()
    assert {"validation_oa", "test_oa", "test_macc", "loss"} <= set(log.splitlines()[0].split(","))
    with pytest.raises(InputError, match="already holds a run"):
        classify(run)


def test_every_kind_can_be_fine_tuned(inner: Inner, run: ClassifyConfig, tmp_path: Path) -> None:
    """With a frozen encoder: what is wrapped around it trains, the encoder stays."""
    save(inner, tmp_path / "inner", provenance={})
    train = replace(TRAIN, epochs=1)
    frozen = replace(run, model=str(tmp_path / "inner"), unfreeze_encoder=None, train=train)
    row = classify(replace(frozen, data=replace(run.data, validation=0.0)))
    found = load_backbone(Path(run.out) / "model")
    assert type(found) is type(inner)
    assert same(found.encoder, inner.encoder)
    assert same(found.tokenizer, inner.tokenizer) == isinstance(inner, KMeansStudent)
    assert row["tokens"] == 12
    assert row["encoded"] == {Backbone: 12, Student: 3}.get(type(inner), 4)


@pytest.mark.parametrize("late", [None, 1])
def test_frozen_parts_do_not_move(run: ClassifyConfig, late: int | None) -> None:
    """Weights and BatchNorm statistics, in runs that end before or without thawing."""
    start = start_model(run)
    assert isinstance(start, Student)
    config = replace(
        run,
        unfreeze_tokenizer=late,
        unfreeze_position=late,
        unfreeze_encoder=late,
        train=replace(TRAIN, epochs=1),
    )
    classify(config)
    found = load_backbone(Path(run.out) / "model")
    assert isinstance(found, Student)
    for part in ("tokenizer", "position", "encoder"):
        assert same(getattr(found, part), getattr(start, part))
    assert not same(found.dso, start.dso)
    assert not same(found.cau, start.cau)


def test_parts_thaw_one_by_one(run: ClassifyConfig) -> None:
    start = start_model(run)
    config = replace(run, unfreeze_tokenizer=None, unfreeze_position=0, unfreeze_encoder=1)
    classify(replace(config, data=replace(run.data, validation=0.0)))  # keeps the last epoch
    found = load_backbone(Path(run.out) / "model")
    assert same(found.tokenizer, start.tokenizer)
    assert not same(found.position, start.position)
    assert not same(found.encoder, start.encoder)


def test_a_frozen_class_token_stays(run: ClassifyConfig, tmp_path: Path) -> None:
    model = Backbone(replace(TINY, class_token=True), generator=torch.Generator().manual_seed(0))
    save(model, tmp_path / "b", provenance={})
    classify(replace(run, model=str(tmp_path / "b"), unfreeze_encoder=None))
    found = load_backbone(Path(run.out) / "model")
    assert isinstance(found, Backbone)
    assert found.class_token is not None and model.class_token is not None
    assert torch.equal(found.class_token, model.class_token)


class Epoch(NamedTuple):
    validation: float
    test: float


def outcome_of(run: ClassifyConfig, epochs: list[Epoch], held: bool = True) -> FinetuneTask:
    clouds = ellipsoids(30, 0)
    splits = Splits(train=clouds, validation=clouds if held else None, test=clouds)
    task = ClassifyTask(run, Classifier.from_model(start_model(run), NAMES), splits)
    for i, (validation, test) in enumerate(epochs):
        scores = {"oa": validation, "loss": 1.0} if held else None
        task.history.append(Evaluation(i + 1, scores, {"oa": test, "loss": 1.0}))
    return task


def test_held_out_clouds_select_and_test_does_not(run: ClassifyConfig) -> None:
    epochs = [Epoch(60, 95), Epoch(80, 70), Epoch(80, 99), Epoch(75, 90)]
    selected, last, best = outcome_of(run, epochs).outcome()
    assert [selected.epoch, last.epoch, best.epoch] == [2, 4, 3]
    other = [Epoch(e.validation, 100 - e.test) for e in epochs]
    assert outcome_of(run, other).outcome().selected.epoch == 2
    unheld = outcome_of(run, epochs, held=False).outcome()
    assert unheld.selected.epoch == unheld.last.epoch == 4


def test_the_saved_weights_are_those_of_the_selected_epoch(
    run: ClassifyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held-out scores are made to fall, so that the first epoch is the one to keep."""
    seen = []

    def falling(self: ClassifyTask, split: str) -> dict[str, float]:
        if split == "validation":
            seen.append({k: v.clone() for k, v in self.model.state_dict().items()})
        rising = float(len(seen))
        return {"oa": -rising if split == "validation" else rising, "macc": 0.0, "loss": 0.0}

    monkeypatch.setattr(ClassifyTask, "scores", falling)
    row = classify(replace(run, train=replace(TRAIN, epochs=3)))
    assert (row["selected_epoch"], row["best_on_test_epoch"]) == (1, 3)
    assert (row["oa"], row["oa_last"], row["oa_best_on_test"]) == (1, 3, 3)
    saved = load(Path(run.out) / "model").state_dict()
    assert all(torch.equal(saved[k], seen[0][k]) for k in saved)
    assert not all(torch.equal(saved[k], seen[2][k]) for k in saved)


def test_resumed_equals_uninterrupted(run: ClassifyConfig, tmp_path: Path) -> None:
    """Stopped in its third epoch by an error; scores and weights end as if never stopped."""
    whole = replace(run, train=replace(TRAIN, epochs=4), eval_every=2, drop_path=0.2)
    expected = classify(whole)
    broken = replace(whole, out=str(tmp_path / "broken"))
    original = ClassifyTask.on_train_epoch_start

    def stops(self: ClassifyTask) -> None:
        if self.current_epoch == 2:
            raise KeyError("power cut")
        original(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ClassifyTask, "on_train_epoch_start", stops)
        with pytest.raises(KeyError):
            classify(broken)
    row = classify(replace(broken, resume=True))
    assert same(load(Path(broken.out) / "model"), load(Path(whole.out) / "model"))
    mine = {"seconds", "settings"}
    assert {k: v for k, v in row.items() if k not in mine} == {
        k: v for k, v in expected.items() if k not in mine
    }


def test_votes_are_fixed_in_number_and_seeded(generator: torch.Generator) -> None:
    clouds, data = ellipsoids(70, 3), DataConfig(points=32)
    seen: list[torch.Tensor] = []

    def model(points: torch.Tensor) -> torch.Tensor:
        seen.append(points.clone())
        return torch.stack([points[:, 0, 0], points.std(dim=1)[:, 2]], dim=1)

    change = AugmentConfig(rotate=True, flip=True, scale=(0.5, 1.5))
    shares = votes(model, clouds, data, change, count=3, seed=0)
    assert [len(batch) for batch in seen] == [64, 6] * 3
    assert all(batch.shape[1:] == (32, 3) for batch in seen)
    assert not torch.allclose(seen[0], seen[2])
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(70))
    logits = [torch.cat(seen[i : i + 2]) for i in (0, 2, 4)]
    single = [model(points).softmax(dim=1) for points in logits]
    torch.testing.assert_close(shares, torch.stack(single).mean(dim=0))
    assert torch.equal(shares, votes(model, clouds, data, change, count=3, seed=0))
    assert not torch.equal(shares, votes(model, clouds, data, change, count=3, seed=1))
    flat = clouds.points[clouds.labels == 0]
    assert np.ptp(flat[..., 2]) < np.ptp(flat[..., 0])  # votes leave the clouds as they are


def test_accuracies() -> None:
    logits = torch.eye(3)[[0, 0, 1, 2, 0, 0]]
    found = accuracies(logits, np.array([0, 0, 1, 1, 2, 0]))
    assert found["oa"] == pytest.approx(100 * 4 / 6)
    assert found["macc"] == pytest.approx(100 * (1 + 0.5 + 0) / 3)


def test_copies_with_other_groups_keep_the_weights(teacher: Backbone) -> None:
    copy = reshaped(teacher, groups=6, group_size=4, drop_path=0.3, dropout=None)
    assert same(copy, teacher)
    assert copy.shape == replace(TINY, groups=6, group_size=4, drop_path=0.3)
    assert teacher.shape == TINY
    fresh = reshaped(teacher, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(fresh.encoder.blocks[0].fc1.weight, copy.encoder.blocks[0].fc1.weight)


def test_unlabelled_or_foreign_classes_are_one_sentence(
    run: ClassifyConfig, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="name the test clouds"):
        classify(replace(run, data=replace(run.data, test=None)))
    clouds = ellipsoids(10, 0)
    for change, says in (
        ({"labels": np.full(10, -1)}, "expected a label"),
        ({"class_names": ("long", "flat")}, "same order"),
        ({"class_names": (*NAMES, "new"), "labels": np.full(10, 2)}, "same order"),
    ):
        write_archive(tmp_path / "other.npz", replace(clouds, **change))
        with pytest.raises(InputError, match=says):
            classify(replace(run, data=replace(run.data, test=str(tmp_path / "other.npz"))))


TASKS = {"classify": ClassifyConfig, "fewshot": FewshotConfig, "segment": SegmentConfig,
         "probe": ProbeConfig}  # fmt: skip


@pytest.mark.parametrize("name", protocols.PROTOCOLS)
def test_every_protocol_is_a_run_that_does_not_deviate_from_itself(name: str) -> None:
    protocol = protocols.PROTOCOLS[name]
    needed = {"models": ("m",)} if protocol.task == "probe" else {}
    config = from_dict(TASKS[protocol.task], protocol.settings | needed)
    assert protocols.deviations(name, config, protocol.task) == {}
    assert protocol.source and protocol.selection and "@" in name


def test_protocols_hold_the_published_values() -> None:
    """Published values: epochs, thawing, rate, label smoothing, groups."""
    found = {
        name: (
            s["train"]["epochs"], s.get("unfreeze_encoder", 0), s["train"]["lr"],
            s.get("label_smoothing"), s["groups"], s["data"]["points"], s["augment"]["scale"],
        )
        for name, s in ((n, p.settings) for n, p in protocols.PROTOCOLS.items() if "groups" in
                        p.settings)
    }  # fmt: skip
    assert found == {
        "modelnet40@point-jepa": (200, 150, 1e-3, 0.1, 64, 1024, (0.6, 1.4)),
        "modelnet40@point-mae": (300, 0, 5e-4, 0.0, 64, 1024, (2 / 3, 3 / 2)),
        "scanobjectnn-pb@point-jepa": (150, 100, 1e-3, 0.2, 128, 2048, (0.9, 1.1)),
        "scanobjectnn-obj-bg@point-jepa": (300, 200, 1e-3, 0.2, 128, 2048, (0.9, 1.1)),
        "scanobjectnn-obj-only@point-jepa": (150, 100, 1e-3, 0.2, 128, 2048, (0.9, 1.1)),
        "modelnet-fewshot@point-jepa": (150, 0, 1e-3, 0.2, 64, 1024, (0.6, 1.4)),
        "shapenetpart@point-jepa": (300, 0, 2e-4, None, 128, 2048, (0.8, 1.25)),
        "shapenetpart@point-mae": (300, 0, 2e-4, None, 128, 2048, (0.8, 1.25)),
    }


def test_a_protocol_fills_the_defaults_and_options_win() -> None:
    words = ["--protocol", "scanobjectnn-pb@point-jepa", "--train.epochs", "7"]
    config = cli.read_options("classify", words)
    assert (config.train.epochs, config.train.batch_size) == (7, 32)
    assert (config.groups, config.unfreeze_encoder, config.dropout) == (128, 100, 0.1)
    assert protocols.deviations(config.protocol, config, "classify") == {"train.epochs": 7}
    recipe = cli.read_options("classify", ["--config", "paper/classify-modelnet40"])
    changed = protocols.deviations(recipe.protocol, recipe, "classify")
    assert changed == {"unfreeze_encoder": 100, "train.epochs": 150}
    assert recipe.augment.scale == (0.6, 1.4)


def test_unknown_protocols_name_the_known_ones(run: ClassifyConfig) -> None:
    for name in ("modelnet40", "shapenetpart@point-jepa"):
        with pytest.raises(InputError, match="classify knows modelnet10-vox@foundry3d, modelnet40"):
            classify(replace(run, protocol=name))
    assert not Path(run.out).exists()
