import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from foundry3d.checkpoints import folder as checkpoint
from foundry3d.cli import main
from foundry3d.config import (
    LAMBDAS,
    BudgetDraws,
    BudgetsConfig,
    DataConfig,
    DistillConfig,
    StudentOptions,
    SweepConfig,
    TrainConfig,
)
from foundry3d.data.archive import read_archive, write_archive
from foundry3d.data.clouds import Clouds
from foundry3d.errors import InputError
from foundry3d.evaluation.budgets import accuracy_over_budgets
from foundry3d.heads.classifier import Classifier
from foundry3d.heads.segmenter import Segmenter
from foundry3d.inference.cost import count
from foundry3d.models.backbone import Backbone
from foundry3d.models.budget import Budget, Timing, candidates, choose
from foundry3d.models.student import Budgeted, Student
from foundry3d.paper.gate_sweep import correlation_rows, sweep_gate
from foundry3d.report.rows import read_rows
from foundry3d.training.distill import DistillTask, distill, gate_loss
from foundry3d.transforms import normalise

FAST = TrainConfig(epochs=1, batch_size=8, warmup_epochs=0, accelerator="cpu")


def write_clouds(path: Path, seed: int) -> str:
    """Two easy classes: flat clouds and long ones."""
    generator = np.random.default_rng(seed)
    points = generator.normal(size=(40, 64, 3)).astype(np.float32)
    labels = np.arange(40) % 2
    points[labels == 0, :, 2] *= 0.05
    points[labels == 1, :, :2] *= 0.05
    write_archive(path, Clouds(points=points, labels=labels, class_names=("flat", "long")))
    return str(path)


@pytest.fixture
def data(tmp_path: Path) -> DataConfig:
    train, test = (write_clouds(tmp_path / f"{n}.npz", i) for i, n in enumerate(("a", "b")))
    return DataConfig(train=train, test=test, points=64, validation=0.2)


def test_budgeted_students_keep_their_budget(teacher: Backbone, points: torch.Tensor) -> None:
    student = Student.from_teacher(teacher, supertokens=4, gate=True)
    at = Budgeted(student, Budget(token_budget=7))
    expected = student(points, budget=Budget(token_budget=7))
    assert torch.equal(at(points).features, expected.features)
    assert at(points).tokens_used.tolist() == [7] * 4
    with pytest.raises(InputError, match="token_budget"):
        Budgeted(student, Budget(token_budget=2))


def test_fewer_supertokens_cost_less(teacher: Backbone) -> None:
    student = Student.from_teacher(teacher, supertokens=4)
    two = Student.from_teacher(teacher, supertokens=2)
    assert count(student, supertokens=2).macs == count(two).macs
    gated = Student.from_teacher(teacher, supertokens=4, gate=True)
    gated_two = Student.from_teacher(teacher, supertokens=2, gate=True)
    assert count(gated, supertokens=2).macs == count(gated_two).macs


def test_gate_loss_is_the_published_sum() -> None:
    probability = torch.tensor([[0.2, 0.3], [0.5, 0.6]])
    assert float(gate_loss(probability, 0.1)) == pytest.approx(-0.1 * (0.5 + 1.1) / 2)


def test_gate_is_decayed_only_if_asked(teacher: Backbone) -> None:
    for decay in (False, True):
        config = DistillConfig(student=StudentOptions(gate=True), gate_decay=decay, train=FAST)
        task = DistillTask(config, teacher, Student.from_teacher(teacher, supertokens=2, gate=True))
        assert len(list(task.undecayed())) == (0 if decay else 4)


def test_distilled_with_drawn_budgets(teacher: Backbone, data: DataConfig, tmp_path: Path) -> None:
    """Every budget works afterwards; the gate has moved and the run says how."""
    config = DistillConfig(
        out=str(tmp_path / "run"),
        student=StudentOptions(supertokens=4, gate=True),
        frozen="none",
        budgets=BudgetDraws(random_ratio=True, nested=True),
        data=data,
        train=FAST,
    )
    student = distill(config, teacher=teacher)
    fresh = Student.from_teacher(
        teacher, supertokens=4, gate=True, generator=torch.Generator().manual_seed(0)
    )
    assert student.gate is not None
    assert fresh.gate is not None
    assert not torch.equal(student.gate.fc1.weight, fresh.gate.fc1.weight)
    clouds = torch.randn(3, 64, 3, generator=torch.Generator().manual_seed(1))
    asked = Budget(token_budget=4), Budget(token_budget=12), Budget(supertokens=1, ratio=0.0)
    for budget in asked:
        assert torch.isfinite(student(clouds, budget=budget).features).all()
    loaded = checkpoint.load(tmp_path / "run" / "model")
    assert torch.equal(loaded(clouds).features, student(clouds).features)


def test_random_ratio_needs_a_gate() -> None:
    with pytest.raises(InputError, match=r"--student\.gate"):
        DistillConfig(budgets=BudgetDraws(random_ratio=True))


def test_accuracy_over_budgets(teacher: Backbone, data: DataConfig, tmp_path: Path) -> None:
    student = Student.from_teacher(teacher, supertokens=4, gate=True)
    for name, model in (("teacher", teacher), ("gated", student)):
        checkpoint.save(model, tmp_path / name, provenance={})
    config = BudgetsConfig(
        models=(str(tmp_path / "teacher"), str(tmp_path / "gated")),
        token_budgets=(4, 8, 12, 64),
        paper_rule=True,
        ratios=(0.5,),
        supertokens=(1, 4, 16),
        out=str(tmp_path / "out"),
        data=data,
    )
    rows = accuracy_over_budgets(config)
    asked = [(row["budget"], row["value"]) for row in rows]
    assert asked == [
        ("token_budget", 12),
        *((kind, b) for b in (4, 8, 12) for kind in ("token_budget", "paper_budget")),
        ("ratio", 0.5),
        ("supertokens", 1),
        ("supertokens", 4),
    ]
    assert [row["encoded"] for row in rows[1:7:2]] == [4, 8, 12]
    by_listing = [row["encoded"] for row in rows[2:7:2]]
    assert by_listing[0] <= 4 and by_listing[1] <= 7 and by_listing[2] == 12
    assert rows[0]["score"] == rows[5]["score"] == rows[6]["score"]  # nothing merged: the teacher
    assert (tmp_path / "out" / "budgets.png").stat().st_size > 10_000
    written = (tmp_path / "out" / "results.jsonl").read_text()
    assert accuracy_over_budgets(config) == [json.loads(line) for line in written.splitlines()]
    assert (tmp_path / "out" / "results.jsonl").read_text() == written


def test_fine_tuned_models_are_tested_at_every_budget(
    teacher: Backbone, data: DataConfig, tmp_path: Path
) -> None:
    """A classifier's accuracy and a segmenter's mIoU are those of its own predictions."""
    student = Student.from_teacher(teacher, supertokens=4, gate=True)
    classes = Classifier.from_model(student, ("flat", "long"))
    parts = Segmenter.from_model(student, parts=("low", "high"))
    for name in ("train", "test"):
        clouds = read_archive(str(getattr(data, name)))
        halves = (clouds.points[..., 0] > 0).astype(np.uint8)
        made = replace(clouds, parts=halves, part_names=("low", "high"), class_names=("x", "y"))
        write_archive(tmp_path / f"{name}.npz", replace(made, labels=made.labels * 0))
    checkpoint.save(classes, tmp_path / "classes", provenance={})
    checkpoint.save(parts, tmp_path / "parts", provenance={})
    budget = {"token_budgets": (8,), "supertokens": (), "seed": 0}
    (row,) = accuracy_over_budgets(
        BudgetsConfig(
            models=(str(tmp_path / "classes"),), out=str(tmp_path / "a"), data=data, **budget
        )
    )
    test = read_archive(str(data.test))
    points = normalise(torch.from_numpy(test.points.astype(np.float32)))
    eight = Budget(token_budget=8)
    right = classes(points, budget=eight).argmax(dim=1).numpy() == test.labels
    assert row["score"] == pytest.approx(100 * right.mean(), abs=0.01)
    both = replace(data, train=str(tmp_path / "train.npz"), test=str(tmp_path / "test.npz"))
    (row,) = accuracy_over_budgets(
        BudgetsConfig(
            models=(str(tmp_path / "parts"),), out=str(tmp_path / "b"), data=both, **budget
        )
    )
    found = parts.predict(points, torch.zeros(40, dtype=torch.int64), budget=eight).numpy()
    truth = (test.points[..., 0] > 0).astype(int)
    ious = [
        np.mean([(p & t).sum() / max((p | t).sum(), 1) for p, t in ((f, y), (1 - f, 1 - y))])
        for f, y in zip(found, truth, strict=True)
    ]
    assert row["score"] == pytest.approx(100 * np.mean(ious), abs=0.01)


def test_lambdas_are_the_published_ones() -> None:
    assert len(LAMBDAS) == 1 + 17 + 6 + 1
    assert LAMBDAS[0] == 0
    assert {1e-15, 10**-11.75, 10.0, 2.0} < set(LAMBDAS)


def test_correlations_by_hand() -> None:
    rows = [
        {"gate_lambda": x, "frozen": frozen, "score": s, "loss": x, "fusion_ratio": 1.0}
        for frozen, scores in ((True, (5.0, 5.0, 5.0)), (False, (3.0, 2.0, 1.0)))
        for x, s in enumerate(scores)
    ]
    decayed = [row | {"decay": True, "score": 0.0} for row in rows[3:]]
    found = {
        line["students"]: line
        for line in correlation_rows([*(row | {"decay": False} for row in rows), *decayed])
    }
    assert found["unfrozen"]["score"] == pytest.approx(-1)
    assert found["frozen"]["score"] is None
    assert found["all"]["score"] == pytest.approx(-1)
    assert found["all"]["loss"] == pytest.approx(1)
    assert found["all"]["fusion_ratio"] is None
    assert found["all"]["n"] == 3


def test_sweep_runs_only_missing_cells(teacher: Backbone, data: DataConfig, tmp_path: Path) -> None:
    checkpoint.save(teacher, tmp_path / "teacher", provenance={})
    base = DistillConfig(
        teacher=str(tmp_path / "teacher"),
        student=StudentOptions(supertokens=4, gate=True, gate_through=False),
        data=data,
        train=FAST,
    )
    config = SweepConfig(
        out=str(tmp_path / "sweep"), gate_lambdas=(0.0, 10.0), frozen=(False,), distill=base
    )
    rows = sweep_gate(config)
    assert [row["gate_lambda"] for row in rows] == [0.0, 10.0]
    # A lambda of 10 pulls every probability up; without one nothing trains the gate.
    assert rows[1]["probability"] > rows[0]["probability"] + 0.005
    path = tmp_path / "sweep" / "results.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + lines[1][:20])  # stopped while writing the second row
    again = sweep_gate(config)
    assert [row["score"] for row in again] == [row["score"] for row in rows]
    assert path.read_text().splitlines(keepends=True)[0] == lines[0]
    assert read_rows(path) == again


@pytest.mark.parametrize(
    "words",
    [
        ["budgets", "--models", "m", "--ratios", "nan"],
        ["budgets", "--models", "m", "--token_budgets", "0"],
        ["budgets", "--models", "m", "--token_budgets=-4"],
        ["sweep", "gate", "--gate_lambdas", "-1"],
        ["distill", "--gate_lambda", "nan", "--student.gate"],
        ["distill", "--budgets.nested", "--budgets.whole", "2"],
        ["distill", "--budgets.random_ratio"],
    ],
)
def test_bad_options_end_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as found:
        main(words)
    assert found.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_limit_picks_the_largest_budget_that_keeps_it() -> None:
    timings = [
        Timing(Budget(supertokens=s), s, ms) for s, ms in ((1, 2.0), (2, 2.5), (4, 4.0), (8, 3.5))
    ]
    assert choose(timings, 4.0).tokens == 8
    assert choose(timings, 3.0).tokens == 2
    with pytest.raises(InputError, match=r"no budget keeps 1 ms .* quickest takes 2\.00 ms"):
        choose(timings, 1.0)
    for limit in (0.0, -1.0, float("nan")):
        with pytest.raises(InputError, match="milliseconds must be positive"):
            choose(timings, limit)


def test_candidates_reach_from_one_supertoken_to_all_tokens(
    teacher: Backbone, points: torch.Tensor
) -> None:
    student = Student.from_teacher(teacher, supertokens=4, gate=True)
    found = candidates(12, 4, gated=True)
    assert [t.tokens for t in found] == [1, 2, 4, 5, 7, 8, 9, 11, 12]
    for timing in found:
        assert int(student(points, budget=timing.budget).tokens_used.max()) <= timing.tokens
    assert [t.budget for t in candidates(12, 4, gated=False)] == [
        Budget(supertokens=s) for s in (1, 2, 4)
    ]


def test_budget_for_a_time(teacher: Backbone, points: torch.Tensor) -> None:
    """With all the time in the world nothing is merged; with none there is no answer."""
    student = Student.from_teacher(teacher, supertokens=4, gate=True)
    best = student.budget_for(milliseconds=1e6, points=96, repeats=1)
    assert best == Budget(supertokens=4, token_budget=12)
    assert repr(best) == "Budget(token_budget=12, supertokens=4)"
    whole = student(points, budget=best).features
    assert torch.allclose(whole, teacher(points).features, atol=1e-5)
    plain = Student.from_teacher(teacher, supertokens=4)
    assert plain.budget_for(milliseconds=1e6, points=96, repeats=1) == Budget(supertokens=4)
    with pytest.raises(ValueError, match="quickest"):
        student.budget_for(milliseconds=1e-6, points=96, repeats=1)


def test_embed_within_a_budget(teacher: Backbone, tmp_path: Path) -> None:
    student = Student.from_teacher(teacher, supertokens=4, gate=True)
    checkpoint.save(student, tmp_path / "model", provenance={"normalise": True, "up": "z"})
    cloud = np.random.default_rng(0).normal(size=(90, 3)).astype(np.float32)
    np.save(tmp_path / "cloud.npy", cloud)
    words = ["embed", str(tmp_path / "cloud.npy"), "--model", str(tmp_path / "model")]
    out = tmp_path / "f.npz"
    main([*words, "--out", str(out), "--token_budget", "9"])
    with np.load(out) as archive:
        merged = (archive["assignment"][0] >= 0).sum()
        assert len(set(archive["assignment"][0]) - {-1}) + 12 - merged == 9
    for bad in (["--token_budget", "3"], ["--ratio", "nan"], ["--supertokens", "5"]):
        with pytest.raises(SystemExit) as found:
            main([*words, "--out", str(tmp_path / "g.npz"), *bad])
        assert found.value.code == 2
        assert not (tmp_path / "g.npz").exists()
