import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from foundry3d.checkpoints.folder import load, load_backbone, save
from foundry3d.config import (
    AugmentConfig,
    BudgetDraws,
    DataConfig,
    PartHeadConfig,
    SegmentConfig,
    TrainConfig,
    read_recipe,
)
from foundry3d.config.protocols import deviations
from foundry3d.data.archive import write_archive
from foundry3d.data.clouds import Clouds
from foundry3d.data.parts import part_splits, parts_of_category
from foundry3d.data.procedural import CATEGORIES, category_parts, generate
from foundry3d.errors import InputError
from foundry3d.evaluation.segment import SegmentTask, drawn, segment
from foundry3d.heads.segmenter import PartHead, Segmenter, evenly_spaced_blocks
from foundry3d.models.backbone import Backbone
from foundry3d.models.budget import Budget
from foundry3d.models.student import Student

HEAD = PartHeadConfig(upsampling=(12, 16), hidden=(20, 16), dropout=0.3, label_dim=8)
OWNED = ((0, 1), (2, 3, 4), ())


def segmenter(model: Backbone | Student, seed: int = 0) -> Segmenter:
    """A segmenter of three categories whose head has seen some points."""
    generator = torch.Generator().manual_seed(seed)
    made = Segmenter.from_model(
        model,
        parts=tuple("abcde"),
        categories=("x", "y", "z"),
        owned=OWNED,
        head=HEAD,
        generator=generator,
    )
    made.head.train()
    made(torch.randn(6, 96, 3, generator=generator), torch.arange(6) % 3, generator=generator)
    return made.eval()


def halves(n: int, seed: int) -> Clouds:
    """Clouds of two categories: balls cut in two parts across z, and across x."""
    g = np.random.default_rng(seed)
    points = g.normal(size=(n, 80, 3)).astype(np.float32)
    labels = np.arange(n) % 2
    above = np.where(labels[:, None] == 0, points[..., 2], points[..., 0]) > 0
    return Clouds(
        points=points,
        labels=labels,
        class_names=("lying", "standing"),
        parts=(2 * labels[:, None] + above).astype(np.uint8),
        part_names=("bottom", "top", "left", "right"),
    )


def run(
    tmp_path: Path, teacher: Backbone, seen: Clouds, unseen: Clouds, **changes
) -> SegmentConfig:
    """A small run on these clouds."""
    save(teacher, tmp_path / "teacher", provenance={})
    write_archive(tmp_path / "train.npz", seen)
    write_archive(tmp_path / "test.npz", unseen)
    values = {
        "model": str(tmp_path / "teacher"),
        "out": str(tmp_path / "run"),
        "results": str(tmp_path / "results.jsonl"),
        "drop_path": 0.0,
        "head": HEAD,
        "data": DataConfig(
            train=str(tmp_path / "train.npz"),
            test=str(tmp_path / "test.npz"),
            points=64,
            validation=0.2,
        ),
        "augment": AugmentConfig(rotate=False),
        "train": TrainConfig(epochs=4, batch_size=8, lr=1e-2, warmup_epochs=1, accelerator="cpu"),
    }
    return SegmentConfig(**(values | changes))


def test_blocks_end_equal_stretches() -> None:
    assert evenly_spaced_blocks(12) == (3, 7, 11)
    assert evenly_spaced_blocks(4) == (1, 2, 3)
    assert evenly_spaced_blocks(2) == (0, 1)
    assert evenly_spaced_blocks(1) == (0,)


def test_points_in_another_order_get_the_same_logits(teacher, points, generator) -> None:
    model = segmenter(teacher)
    # Sampling starts at the first point, which therefore stays.
    order = torch.cat(
        [torch.zeros(1, dtype=torch.int64), 1 + torch.randperm(95, generator=generator)]
    )
    categories = torch.tensor([0, 1, 2, 0])
    torch.testing.assert_close(
        model(points[:, order], categories), model(points, categories)[:, order], atol=1e-5, rtol=0
    )


def test_the_cloud_half_of_the_head_is_the_plain_concatenation(generator) -> None:
    head = PartHead(6, 3, 5, replace(HEAD, hidden=(20,)), generator=generator).double().eval()
    points, centers, features = (
        torch.randn(2, n, d, generator=generator, dtype=torch.float64, requires_grad=True)
        for n, d in ((30, 3), (7, 3), (7, 6))
    )
    categories = torch.tensor([2, 0])
    local = head.upsampling(points, centers, features)
    whole = head.pooled(features, categories)
    assert whole.shape == (2, 2 * 6 + 8)
    both = torch.cat([local, whole[:, None].expand(-1, 30, -1)], dim=-1)
    weight = torch.cat([head.local.weight, head.whole.weight], dim=1)
    plain = head.out(torch.relu(head.norms[0]((both @ weight.T).flatten(0, 1)))).view(2, 30, 5)
    found = head(points, centers, features, categories)
    torch.testing.assert_close(found, plain)
    slopes = [torch.autograd.grad(y.square().sum(), features)[0] for y in (found, plain)]
    torch.testing.assert_close(*slopes)


def test_predictions_are_the_best_of_the_parts_that_the_category_owns(teacher, points) -> None:
    model = segmenter(teacher)
    categories = torch.tensor([0, 1, 2, 1])
    logits, found = model(points, categories), model.predict(points, categories)
    for i, category in enumerate(categories):
        owned = OWNED[category] or tuple(range(5))  # a category that owns none may have any
        best = logits[i][:, list(owned)].argmax(dim=-1)
        torch.testing.assert_close(found[i], torch.tensor(owned)[best])
    assert (logits.argmax(dim=-1) != found).any()


def test_categories_matter_only_where_there_are_several(teacher, points) -> None:
    model = segmenter(teacher)
    one, other = (model(points, torch.full((4,), category)) for category in (0, 1))
    assert not torch.allclose(one, other)
    single = Segmenter.from_model(teacher, parts=("a", "b"), head=HEAD)
    assert not [name for name in single.state_dict() if name.startswith("head.label")]
    with pytest.raises(InputError, match=r"0\.\.0"):
        single(points, torch.ones(4, dtype=torch.int64))
    with pytest.raises(InputError, match="one per cloud"):
        single(points, torch.zeros(3, dtype=torch.int64))


def test_same_generator_same_training_logits(teacher, points) -> None:
    model = segmenter(teacher).train()
    categories = torch.tensor([0, 1, 2, 0])
    first, again, other = (
        model(points, categories, generator=torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_saved_students_come_back_and_take_budgets(teacher, points, tmp_path) -> None:
    student = Student.from_teacher(
        teacher, supertokens=6, generator=torch.Generator().manual_seed(1)
    )
    model = segmenter(student)
    categories = torch.tensor([0, 1, 2, 0])
    back = load(save(model, tmp_path / "model", provenance={}))
    assert isinstance(back, Segmenter)
    assert back.config == model.config
    assert torch.equal(back(points, categories), model(points, categories))
    assert torch.equal(back.predict(points, categories), model.predict(points, categories))
    whole, fewer = (model(points, categories, budget=Budget(supertokens=s)) for s in (6, 1))
    assert torch.equal(whole, model(points, categories))
    assert not torch.allclose(fewer, whole)
    assert isinstance(load_backbone(tmp_path / "model"), Student)


def test_parts_of_categories_are_read_from_clouds() -> None:
    clouds = generate(400, points=256, seed=0)
    known = category_parts()
    for category, parts in zip(CATEGORIES, parts_of_category(clouds), strict=True):
        assert tuple(parts) == known[category]
    first = halves(6, 0)
    one = parts_of_category(first.take(np.array([0, 2])))
    assert [part.tolist() for part in one] == [[0, 1], []]
    both = parts_of_category(first.take(np.array([0, 2])), first.take(np.array([1])))
    assert [part.tolist() for part in both] == [[0, 1], [2, 3]]


def test_drawn_points_keep_their_parts(generator) -> None:
    points = torch.randn(3, 50, 3, generator=generator)
    parts = (points[..., 0] > 0).long() + 200 * (points[..., 1] > 0).long()
    some, theirs = drawn(points, parts, 20, generator)
    assert some.shape == (3, 20, 3)
    assert torch.equal(theirs, (some[..., 0] > 0).long() + 200 * (some[..., 1] > 0).long())


def test_a_run_learns_parts_and_reports_what_was_selected(teacher, tmp_path, capsys) -> None:
    train = TrainConfig(epochs=8, batch_size=8, lr=1e-2, warmup_epochs=1, accelerator="cpu")
    config = run(tmp_path, teacher, halves(80, 0), halves(24, 1), without=("top",), train=train)
    row = segment(config)
    assert row["accuracy"] > 75  # two parts of equal size in each category
    assert row["miou_c"] == pytest.approx(row["miou_i"], abs=0.02)  # categories of equal size
    written = json.loads((tmp_path / "results.jsonl").read_text())
    assert written.pop("run")
    assert written == json.loads(json.dumps(row))
    parts = row["part_iou"]
    assert np.mean(list(parts.values())) == pytest.approx(row["iou"], abs=0.02)
    rest = [value for name, value in parts.items() if name != "top"]
    assert np.mean(rest) == pytest.approx(row["iou_without"], abs=0.02)
    assert row["sizes"] == [64, 16, 24]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == [
        "validation-selected",
        "last",
        "best on test",
    ]
    assert "part IoU without top" in lines[0]
    model = load(tmp_path / "run" / "model")
    assert model.config.owned == ((0, 1), (2, 3))


def test_frozen_parts_do_not_change(teacher, tmp_path) -> None:
    frozen = {f"unfreeze_{part}": None for part in ("tokenizer", "position", "encoder")}
    train = TrainConfig(epochs=1, batch_size=8, lr=1e-2, warmup_epochs=0, accelerator="cpu")
    config = run(tmp_path, teacher, halves(20, 0), halves(8, 1), train=train, **frozen)
    segment(config)
    after = load(tmp_path / "run" / "model").backbone.state_dict()
    for name, value in teacher.state_dict().items():
        assert torch.equal(after[name], value), name


def test_category_miou_selects_unless_there_is_one_category(teacher, tmp_path) -> None:
    config = run(tmp_path, teacher, halves(20, 0), halves(8, 1))
    splits = part_splits(config.data, seed=0)
    assert splits.test is not None
    bare = {"labels": np.full(8, -1), "class_names": ()}
    single = {
        "train": replace(splits.train.take(np.arange(8)), **bare),
        "test": replace(splits.test, **bare),
    }
    first, second = ({"miou_c": a, "iou": b} for a, b in ((2, 1), (1, 2)))
    for chosen, parts in ((first, splits), (second, replace(splits, validation=None, **single))):
        names = parts.train.class_names or ("all",)
        model = Segmenter.from_model(
            teacher,
            parts=parts.train.part_names,
            categories=names,
            owned=[()] * len(names),
            head=HEAD,
        )
        task = SegmentTask(config, model, parts)
        assert max((first, second), key=task.rank) is chosen


def test_clouds_without_classes_are_of_one_category(teacher, tmp_path) -> None:
    def bare(clouds: Clouds) -> Clouds:
        own = clouds.take(np.arange(0, len(clouds), 2))
        return replace(own, labels=np.full(len(own), -1), class_names=())

    train = TrainConfig(epochs=1, batch_size=8, lr=1e-2, warmup_epochs=0, accelerator="cpu")
    row = segment(run(tmp_path, teacher, bare(halves(24, 0)), bare(halves(8, 1)), train=train))
    assert row["miou_c"] == row["miou_i"]
    assert set(row["part_iou"]) <= {"bottom", "top"}
    model = load(tmp_path / "run" / "model")
    assert model.config.categories == ("all",)
    assert model.config.owned == ((0, 1),)


def test_unusable_data_and_options_are_refused(teacher, tmp_path) -> None:
    train, test = halves(20, 0), halves(8, 1)
    config = run(tmp_path, teacher, train, test, without=("lid",))
    with pytest.raises(InputError, match="lid"):
        segment(config)
    with pytest.raises(InputError, match="for students"):
        segment(replace(config, without=(), budgets=BudgetDraws(nested=True)))
    with pytest.raises(InputError, match=r"data\.test"):
        part_splits(replace(config.data, test=None), seed=0)
    write_archive(tmp_path / "test.npz", replace(test, part_names=("a", "b", "c", "d")))
    with pytest.raises(InputError, match="its parts a, b, c, d are not those of"):
        part_splits(config.data, seed=0)
    write_archive(tmp_path / "test.npz", replace(test, parts=None, part_names=()))
    with pytest.raises(InputError, match="a part for every point"):
        part_splits(config.data, seed=0)
    with pytest.raises(InputError, match="at random"):
        SegmentConfig(data=DataConfig(subsample="fps"))
    with pytest.raises(InputError, match=r"0\.\.2"):
        Segmenter.from_model(teacher, parts=("a", "b"), head=PartHeadConfig(blocks=(1, 3)))
    with pytest.raises(InputError, match="below 2"):
        Segmenter.from_model(teacher, parts=("a", "b"), owned=((0, 2),))


def test_the_published_recipe_is_the_published_head() -> None:
    config = read_recipe(SegmentConfig, "paper/segment-shapenetpart")
    assert config.head == replace(PartHeadConfig(), blocks=(3, 7, 11))
    assert config.train == SegmentConfig().train
    assert deviations("shapenetpart@point-jepa", config, "segment") == {}
    head = PartHead(384, 16, 50, config.head)
    assert sum(p.numel() for p in head.parameters() if p.ndim > 1) == (
        16 * 64 + 387 * 384 + 384 * 384 + (384 + 768 + 64) * 512 + 512 * 256 + 256 * 50
    )
    assert read_recipe(SegmentConfig, "cpu/segment").head.hidden == (128, 64)
