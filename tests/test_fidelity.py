"""How well students reproduce teachers: known values, and where the numbers end up."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from foundry3d.baselines import FPSStudent
from foundry3d.checkpoints.folder import read_config, save
from foundry3d.checkpoints.origin import Origin, origin_from, origin_of
from foundry3d.config import (
    AugmentConfig,
    DataConfig,
    DistillConfig,
    StudentOptions,
    SuiteConfig,
    TrainConfig,
)
from foundry3d.data import loading, procedural
from foundry3d.data.loading import load_and_measured, load_splits
from foundry3d.errors import InputError
from foundry3d.evaluation.retrieval import retrieval_map
from foundry3d.evaluation.rows import model_columns
from foundry3d.models.backbone import Backbone
from foundry3d.models.student import Student
from foundry3d.paper.suite.cells import Cell
from foundry3d.paper.suite.work import loss_row
from foundry3d.training.distill import distill
from foundry3d.training.fidelity import TokenFidelity, linear_cka, mean_cosine, unexplained
from foundry3d.training.goals import held_out_losses
from foundry3d.transforms import normalise


@pytest.fixture
def features(generator: torch.Generator) -> Tensor:
    return torch.randn(3, 5, 8, generator=generator) + 2


def test_the_same_features_are_fully_explained(features: Tensor) -> None:
    assert unexplained(features, features) == 0
    assert mean_cosine(features, features) == pytest.approx(1)


def test_predicting_the_mean_explains_nothing(features: Tensor) -> None:
    mean = features.mean(dim=(0, 1)).expand_as(features)
    assert unexplained(mean, features) == pytest.approx(1, rel=1e-6)
    shifted = features + torch.tensor(1.0)
    variance = float((features - mean).square().sum())
    assert unexplained(shifted, features) == pytest.approx(features.numel() / variance, rel=1e-5)


def test_cosines_ignore_length_and_opposites_are_minus_one(features: Tensor) -> None:
    assert mean_cosine(3 * features, features) == pytest.approx(1)
    assert mean_cosine(-features, features) == pytest.approx(-1)
    half = torch.cat([features[:1], -features[1:2]])
    assert mean_cosine(half, features[:2]) == pytest.approx(0, abs=1e-6)


def test_batches_add_up(features: Tensor, generator: torch.Generator) -> None:
    """Variance and error are those of all tokens, not means over batches."""
    found = features + 0.3 * torch.randn(features.shape, generator=generator)
    sums = TokenFidelity()
    for one in range(3):
        sums.add(found[one], features[one] + 0)
    assert sums.count == 15
    assert sums.unexplained == pytest.approx(unexplained(found, features))
    assert sums.cosine == pytest.approx(mean_cosine(found, features))
    flat = features.flatten(0, 1).double()
    error = (found.flatten(0, 1).double() - flat).square().sum()
    assert sums.unexplained == pytest.approx(float(error / (flat - flat.mean(0)).square().sum()))


def test_features_without_variance() -> None:
    same = torch.ones(2, 3, 4)
    assert unexplained(same, same) == 0
    assert unexplained(same + 1, same) == float("inf")
    with pytest.raises(InputError, match="teacher's shape"):
        unexplained(same, same[:1])


@pytest.mark.parametrize(("clouds", "width"), [(40, 6), (7, 12)])
def test_cka_ignores_rotation_scale_and_shift(
    clouds: int, width: int, generator: torch.Generator
) -> None:
    """Both ways of computing it, by products of clouds and of features."""
    one = torch.randn(clouds, width, generator=generator, dtype=torch.float64)
    rotation, _ = torch.linalg.qr(torch.randn(width, width, generator=generator).double())
    assert linear_cka(one, one) == pytest.approx(1)
    assert linear_cka(3 * one @ rotation + 5, one) == pytest.approx(1)
    other = torch.randn(clouds, width + 1, generator=generator).double()
    found = linear_cka(one, other)
    assert 0 < found < 0.95
    assert linear_cka(one @ rotation, other) == pytest.approx(found)
    a, b = one - one.mean(0), other - other.mean(0)
    grams = (a @ a.T).flatten(), (b @ b.T).flatten()
    assert found == pytest.approx(float(torch.cosine_similarity(*grams, dim=0)))


def test_cka_of_what_does_not_vary(generator: torch.Generator) -> None:
    other = torch.randn(5, 3, generator=generator)
    assert np.isnan(linear_cka(torch.ones(5, 2), other))
    with pytest.raises(InputError, match="same clouds"):
        linear_cka(other, other[:4])


def test_retrieval_by_hand() -> None:
    """Four clouds on a circle; the fifth is alone in its class."""
    angles = np.deg2rad([0, 10, 25, 60, 180])
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    labels = np.array([0, 1, 0, 1, 2])
    # from 0: 1, 2*, 3, 4 -> 1/2; from 10: 0, 2, 3*, 4 -> 1/3; from 25: 10, 0*, 60 -> 1/2
    # from 60: 25, 10*, 0 -> 1/2
    wanted = (1 / 2 + 1 / 3 + 1 / 2 + 1 / 2) / 4
    assert retrieval_map(features, labels) == pytest.approx(wanted)
    assert retrieval_map(7 * features, labels) == pytest.approx(wanted)
    assert retrieval_map(features, np.array([0, 0, 0, 1, 1])) == pytest.approx(
        np.mean([1, 1, 1, 1 / 4, 1])
    )


def test_retrieval_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    g = np.random.default_rng(0)
    features, labels = g.normal(size=(30, 4)), g.integers(0, 3, 30)
    whole = retrieval_map(features, labels)
    monkeypatch.setattr("foundry3d.evaluation.retrieval.QUERIES_AT_ONCE", 7)
    assert retrieval_map(features, labels) == pytest.approx(whole)
    assert retrieval_map(np.eye(3)[labels], labels) == 1
    with pytest.raises(InputError, match="two clouds"):
        retrieval_map(features[:3], np.arange(3))
    with pytest.raises(InputError, match="expected features"):
        retrieval_map(features, labels[:4])


def test_fidelity_of_a_student_on_clouds(teacher: Backbone) -> None:
    clouds = procedural.generate(70, points=64, seed=3)
    student = Student.from_teacher(teacher, supertokens=4)
    found = held_out_losses(teacher, student, clouds, 64)
    points = normalise(torch.from_numpy(np.asarray(clouds.points, np.float32)))
    with torch.no_grad():
        own, wanted = student(points), teacher(points)
    assert found["unexplained"] == pytest.approx(
        unexplained(own.features, wanted.features), rel=1e-4
    )
    assert found["cosine"] == pytest.approx(mean_cosine(own.features, wanted.features), rel=1e-4)
    assert found["cka"] == pytest.approx(linear_cka(own.pooled(), wanted.pooled()), rel=1e-4)
    kept = FPSStudent.from_teacher(teacher, supertokens=4, points=64).eval()
    assert held_out_losses(teacher, kept, clouds, 64)["unexplained"] > 0


def test_a_student_of_smaller_groups_is_held_against_the_whole_teacher(teacher: Backbone) -> None:
    """The teacher reads its own number of points, the student the nearest of them."""
    clouds = procedural.generate(8, points=64, seed=3)
    student = Student.from_teacher(teacher, supertokens=4, group_size=4)
    found = held_out_losses(teacher, student, clouds, 64)
    points = normalise(torch.from_numpy(np.asarray(clouds.points, np.float32)))
    with torch.no_grad():
        wanted = teacher(points).features
        assert found["unexplained"] == pytest.approx(
            unexplained(student(points).features, wanted), rel=1e-4
        )


TRAIN = TrainConfig(epochs=1, batch_size=16, warmup_epochs=0, lr=3e-3, accelerator="cpu")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"validation": 0.5}, "held-out clouds of"),
        ({"validation": 0.0, "test": "procedural", "test_clouds": 20}, "20 test clouds of"),
        ({"validation": 0.0}, "40 training clouds of"),
    ],
)
def test_distillation_measures_its_student(
    teacher: Backbone, tmp_path: Path, data: dict, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    save(teacher, tmp_path / "teacher", provenance={"made_by": "pretrain (masked)", "data": "A"})
    config = DistillConfig(
        teacher=str(tmp_path / "teacher"),
        out=str(tmp_path / "run"),
        student=StudentOptions(supertokens=4),
        data=DataConfig(train="procedural", train_clouds=40, points=64, **data),
        augment=AugmentConfig(normalise=False),
        train=TRAIN,
    )
    with caplog.at_level("INFO", logger="foundry3d"):
        student = distill(config)
    assert "of the variance of the teacher's token features unexplained, cosine" in caplog.text
    _, held = load_and_measured(config.data, seed=0)
    assert held is not None
    found = held_out_losses(teacher, student, held.clouds, 64, normalised=False)
    origin = origin_of(tmp_path / "run")
    assert origin.pretrained_on == "A"
    assert origin.unexplained == pytest.approx(found["unexplained"], abs=1e-4)
    assert origin.cosine == pytest.approx(found["cosine"], abs=1e-4)
    assert origin.cka == pytest.approx(found["cka"], abs=1e-4)
    assert origin.fidelity_on is not None
    assert said in origin.fidelity_on
    row = model_columns("s", student, origin)
    assert (row["unexplained"], row["cosine"]) == (origin.unexplained, origin.cosine)
    assert read_config(tmp_path / "run")["provenance"]["unexplained"] == origin.unexplained
    logged = (tmp_path / "run" / "metrics" / "version_0" / "metrics.csv").read_text()
    assert "fidelity/unexplained" in logged.splitlines()[0]


def test_loss_cells_of_a_suite_measure_fidelity(teacher: Backbone, tmp_path: Path) -> None:
    save(teacher, tmp_path / "teacher", provenance={})
    student = Student.from_teacher(teacher, supertokens=4).eval()
    save(student, tmp_path / "s", provenance={})
    data = DataConfig(train="procedural", train_clouds=52, points=64, validation=0.5)
    config = SuiteConfig(
        name="table8",
        teacher=str(tmp_path / "teacher"),
        models=(f"s16={tmp_path}/s",),
        distill=DistillConfig(data=data, train=TRAIN),
    )
    row = loss_row(config, Cell("s16", "loss", "loss", 0))
    held = load_splits(data).validation
    assert held is not None
    found = held_out_losses(teacher, student, held, 64)
    for name in ("loss", "unexplained", "cosine", "cka"):
        assert row[name] == pytest.approx(found[name], abs=1e-4)
    assert row["fidelity_on"] == f"{len(held)} held-out clouds of {held.name}"


def test_fidelity_is_that_of_the_last_distillation() -> None:
    """A teacher that was a student itself does not pass on its numbers."""
    facts = {"made_by": "distill", "data": "C", "unexplained": 0.1, "fidelity_on": "9 clouds"}
    assert origin_from(facts) == Origin(distilled_on="C", unexplained=0.1, fidelity_on="9 clouds")
    assert origin_from({"made_by": "pretrain (jepa)", "data": "A"}).unexplained is None


def test_only_some_clouds_of_a_large_split_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "MOST_MEASURED", 5)
    data = DataConfig(train="procedural", train_clouds=40, points=32, validation=0.0)
    train, found = load_and_measured(data)
    assert found is not None
    assert (len(train), len(found.clouds)) == (40, 5)
    assert np.array_equal(found.clouds.points[[0, -1]], train.points[[0, -1]])
