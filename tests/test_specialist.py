from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from foundry3d import cli
from foundry3d.checkpoints.folder import load, read_config, save
from foundry3d.config import (
    BudgetDraws,
    DataConfig,
    HeadConfig,
    PartHeadConfig,
    SpecialistConfig,
    SupertokenOptions,
    TrainConfig,
)
from foundry3d.data.archive import write_archive
from foundry3d.data.batches import LabelledBatches
from foundry3d.data.clouds import Clouds
from foundry3d.data.labelled import labelled_splits
from foundry3d.errors import InputError
from foundry3d.evaluation.specialize import (
    ClassSpecialist,
    divergence,
    specialist_of,
    specialize,
)
from foundry3d.heads.classifier import Classifier
from foundry3d.heads.segmenter import Segmenter
from foundry3d.models.backbone import Backbone
from foundry3d.models.student import Student
from foundry3d.report.rows import read_rows

CLASSES = ("lying", "standing")
PARTS = ("bottom", "top", "left", "right")
TRAIN = TrainConfig(epochs=1, batch_size=16, warmup_epochs=0, lr=3e-3, accelerator="cpu")


def halves(n: int, seed: int, labels: np.ndarray | None = None) -> Clouds:
    """Balls of two categories, cut in two parts across z or across x."""
    g = np.random.default_rng(seed)
    points = g.normal(size=(n, 80, 3)).astype(np.float32)
    labels = np.arange(n) % 2 if labels is None else labels
    above = np.where(labels[:, None] == 0, points[..., 2], points[..., 0]) > 0
    return Clouds(
        points=points,
        labels=labels,
        class_names=CLASSES,
        parts=(2 * labels[:, None] + above).astype(np.uint8),
        part_names=PARTS,
        name="halves",
    )


def headed(teacher: Backbone, kind: str) -> Classifier | Segmenter:
    """A fine-tuned model as far as it matters here: its head's statistics are not the initial."""
    g = torch.Generator().manual_seed(0)
    points = torch.randn(16, 80, 3, generator=g)
    if kind == "classifier":
        head = HeadConfig(hidden=(16,), dropout=0.1)
        made = Classifier.from_model(teacher, CLASSES, head=head, generator=g)
        made.head.train()
        made(points, generator=g)
        return made.eval()
    sizes = PartHeadConfig(upsampling=(12, 16), hidden=(20, 16), dropout=0.1, label_dim=8)
    parts = Segmenter.from_model(
        teacher, parts=PARTS, categories=CLASSES, owned=((0, 1), (2, 3)), head=sizes, generator=g
    )
    parts.head.train()
    parts(points, torch.arange(16) % 2, generator=g)
    return parts.eval()


@pytest.fixture
def make(teacher: Backbone, tmp_path: Path) -> Callable[[str], SpecialistConfig]:
    """A run on archives, from a saved fine-tuned model of a kind."""

    def made(kind: str) -> SpecialistConfig:
        save(headed(teacher, kind), tmp_path / kind, provenance={})
        write_archive(tmp_path / "train.npz", halves(40, 0))
        write_archive(tmp_path / "test.npz", halves(10, 1))
        return SpecialistConfig(
            teacher=str(tmp_path / kind),
            out=str(tmp_path / "run"),
            results=str(tmp_path / "results.jsonl"),
            student=SupertokenOptions(supertokens=4),
            data=DataConfig(
                train=str(tmp_path / "train.npz"),
                test=str(tmp_path / "test.npz"),
                points=64,
                validation=0.2,
            ),
            train=TRAIN,
        )

    return made


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    x, y = a.state_dict(), b.state_dict()
    return x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)


def test_divergence_by_hand(generator: torch.Generator) -> None:
    found, goal = torch.randn(2, 3, 5, 4, generator=generator).unbind(0)
    for t in (1.0, 3.0):
        p, q = (goal / t).softmax(-1), (found / t).softmax(-1)
        expected = t**2 * (p * (p / q).log()).sum(-1).mean()
        torch.testing.assert_close(divergence(found, goal, t), expected)
    assert float(divergence(goal + 5, goal, 2.0)) == pytest.approx(0, abs=1e-6)
    small = 1e-2 * (found - goal)  # near the goal the square of T keeps the size
    close = [float(divergence(1e-2 * goal + small, 1e-2 * goal, t)) for t in (1.0, 4.0)]
    assert close[0] == pytest.approx(close[1], rel=0.05)


@pytest.mark.parametrize("kind", ["classifier", "segmenter"])
def test_answers_are_the_models_own(teacher: Backbone, points: Tensor, kind: str) -> None:
    """Of the teacher and of a student; the student starts from the teacher and its head."""
    model = headed(teacher, kind)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    student = specialist_of(
        model, SpecialistConfig(student=SupertokenOptions(supertokens=4, assignment_heads=2))
    )
    labels = torch.tensor([0, 1, 1, 0])
    for each in (model, student):
        own = each(points) if kind == "classifier" else each(points, labels)
        shared = each.answers(points, each.backbone.group(points), labels)
        torch.testing.assert_close(shared, own)
    assert isinstance(student.backbone, Student)
    assert student.backbone.config.assignment_heads == 2
    assert same(student.head, model.head)
    for part in ("tokenizer", "position", "encoder"):
        assert same(getattr(student.backbone, part), getattr(teacher, part))
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


@pytest.mark.parametrize("kind", ["classifier", "segmenter"])
def test_only_head_and_supertokens_train(
    make: Callable, kind: str, capsys: pytest.CaptureFixture
) -> None:
    config = make(kind)
    row = specialize(config)
    found, teacher = load(Path(config.out) / "model"), load(config.teacher)
    assert isinstance(found, type(teacher))
    for part in ("tokenizer", "position", "encoder"):
        assert same(getattr(found.backbone, part), getattr(teacher.backbone, part))
    fresh = specialist_of(teacher, config)
    for part in ("dso", "cau"):
        assert not same(getattr(found.backbone, part), getattr(fresh.backbone, part))
    assert not same(found.head, teacher.head)
    score = "oa" if kind == "classifier" else "miou_c"
    assert 0 <= row[score] <= 100
    assert "specialist" in row["task"]
    assert row["supertokens"] == 4
    assert [r[score] for r in read_rows(config.results)] == [row[score]]
    assert read_config(Path(config.out) / "model")["provenance"]["selection"] == "held-out clouds"
    assert ("OA" if kind == "classifier" else "mIoU_C") in capsys.readouterr().out


def test_no_label_is_read(make: Callable, tmp_path: Path) -> None:
    """Other labels, the same weights, where nothing is held out to select by."""
    config = make("classifier")
    config = replace(config, data=replace(config.data, validation=0.0))
    specialize(config)
    mixed = np.random.default_rng(5).permutation(np.arange(40) % 2)
    write_archive(tmp_path / "other.npz", halves(40, 0, mixed))
    other = replace(
        config,
        out=str(tmp_path / "other"),
        data=replace(config.data, train=str(tmp_path / "other.npz")),
    )
    specialize(other)
    assert same(load(Path(config.out) / "model"), load(Path(other.out) / "model"))


def test_it_learns_to_answer_as_the_teacher(make: Callable, teacher: Backbone) -> None:
    """Over steps that each augment anew and draw ratios; the gate learns, the teacher does not."""
    config = make("classifier")
    config = replace(
        config,
        student=replace(config.student, gate=True),
        budgets=BudgetDraws(random_ratio=True),
    )
    draws = torch.Generator().manual_seed(0)
    model = Classifier.from_model(teacher, CLASSES, head=HeadConfig(hidden=()), generator=draws)
    with torch.no_grad():
        model.head.output.weight.mul_(5)
    start, student = specialist_of(model, config), specialist_of(model, config)
    splits = labelled_splits(config.data, seed=0)
    task = ClassSpecialist(config, student, splits, model)
    task.train()
    task.on_train_epoch_start()
    optimizer = torch.optim.AdamW([p for p in task.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for epoch in range(8):
        batches = LabelledBatches(splits.train, 16, seed=0)
        batches.set_epoch(epoch)
        for batch in batches:
            loss = task.loss(batch, draws)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    assert np.mean(losses[-4:]) < 0.6 * np.mean(losses[:2]), losses
    assert not same(student.backbone.gate, start.backbone.gate)
    assert same(student.backbone.encoder, teacher.encoder)
    assert not any(part.training for part in model.modules())


def test_what_cannot_be_imitated(make: Callable, teacher: Backbone, tmp_path: Path) -> None:
    config = make("classifier")
    save(teacher, tmp_path / "plain", provenance={})
    with pytest.raises(InputError, match="fine-tuned classifier or segmenter, got a Backbone"):
        specialize(replace(config, teacher=str(tmp_path / "plain")))
    save(specialist_of(load(config.teacher), config), tmp_path / "student", provenance={})
    with pytest.raises(InputError, match="a teacher is a backbone, got a Student"):
        specialize(replace(config, teacher=str(tmp_path / "student")))
    for split, seed in (("train", 0), ("test", 1)):
        renamed = replace(halves(40, seed), class_names=("a", "b"))
        write_archive(tmp_path / f"{split}.npz", renamed)
    for kind, what in (("classifier", "classes a, b"), ("segmenter", "categories a, b")):
        save(headed(teacher, kind), tmp_path / kind, provenance={})
        with pytest.raises(InputError, match=f"its {what} are not those of the fine-tuned teacher"):
            specialize(replace(config, teacher=str(tmp_path / kind)))
    fps = replace(
        config, teacher=str(tmp_path / "segmenter"), data=replace(config.data, subsample="fps")
    )
    with pytest.raises(InputError, match="points at random"):
        specialize(fps)
    assert not Path(config.out).exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budgets": BudgetDraws(random_ratio=True)}, "needs the gate"),
        ({"temperature": 0.0}, "temperature must be positive"),
    ],
)
def test_settings_that_are_refused(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        SpecialistConfig(**change)


def test_command_line_reads_the_options() -> None:
    words = [
        "--teacher",
        "m",
        "--student.supertokens",
        "8",
        "--temperature",
        "2",
        "--train.epochs",
        "3",
    ]
    options = cli.read_options("specialize", words)
    assert options == SpecialistConfig(
        teacher="m",
        student=SupertokenOptions(supertokens=8),
        temperature=2.0,
        train=replace(SpecialistConfig().train, epochs=3),
    )
