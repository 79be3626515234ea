"""Labels and search for a user's own files: the mathematics of few examples, and the commands."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import laspy
import numpy as np
import pytest
import torch
from conftest import TINY

from foundry3d import cli
from foundry3d.checkpoints.folder import load, save
from foundry3d.config import PartHeadConfig
from foundry3d.data import procedural
from foundry3d.data.clouds import Clouds
from foundry3d.data.files import read_points
from foundry3d.embed import point_parts as parts
from foundry3d.embed.clouds import Policy, embed_clouds
from foundry3d.embed.labelled import palette, write_las, write_ply
from foundry3d.errors import InputError
from foundry3d.evaluation import teaching
from foundry3d.evaluation.teaching import Rows
from foundry3d.export.network import Network, example
from foundry3d.heads.classifier import Classifier
from foundry3d.heads.segmenter import Segmenter
from foundry3d.models.backbone import Backbone
from foundry3d.report.rows import read_rows
from foundry3d.scenes.grouping import group_scene

POINTS = 64
KINDS = ("airplane", "bench", "bottle")
"""Built-in categories whose shapes are the files."""


def run(capsys: pytest.CaptureFixture, *arguments: object) -> tuple[int, str, str]:
    try:
        cli.main([str(word) for word in arguments])
        status = 0
    except SystemExit as stop:
        status = int(stop.code or 0)
    out, err = capsys.readouterr()
    return status, out, err


# ---------------------------------------------------------------- mathematics


@pytest.fixture
def rows() -> Rows:
    """12 examples of 3 classes with 3 rows each, of which one class has 2 examples."""
    rng = np.random.default_rng(5)
    labels = np.array([0, 1, 2, 0, 1, 0, 1, 2, 0, 1, 0, 1])
    example = np.repeat(np.arange(12), 3)
    features = rng.normal(size=(12, 7))[example] + np.eye(3, 7)[labels[example]]
    features += 0.3 * rng.normal(size=features.shape)
    return Rows(features=features, example=example, labels=labels, classes=3)


def without(rows: Rows, i: int) -> Rows:
    kept = rows.example != i
    example = np.unique(rows.example[kept], return_inverse=True)[1]
    labels = np.delete(rows.labels, i)
    return Rows(features=rows.features[kept], example=example, labels=labels, classes=rows.classes)


def test_nearest_means_without_an_example_are_those_of_the_others(rows: Rows) -> None:
    found = teaching.means_left_out(rows)
    for i in range(12):
        head = teaching.from_means(teaching.class_means(without(rows, i)))
        np.testing.assert_allclose(found[i], head.logits(rows.own[i]), atol=1e-12)


def test_ridge_without_an_example_is_ridge_on_the_other_rows(rows: Rows) -> None:
    weights = 1 / (3 * np.bincount(rows.labels[rows.example]))[rows.labels[rows.example]]
    inputs = np.c_[rows.features, np.ones(36)]
    for strength in (0.1, 3.0):
        found, penalty = teaching.ridge_left_out(rows, strength), np.diag([strength] * 7 + [0])
        for i in range(12):
            kept = rows.example != i
            a, w = inputs[kept], weights[kept, None]
            targets = np.eye(3)[rows.labels[rows.example]][kept]
            fit = np.linalg.solve(a.T @ (w * a) + penalty, a.T @ (w * targets))
            np.testing.assert_allclose(found[i], np.r_[rows.own[i], 1] @ fit, atol=1e-9)
        head = teaching.ridge(rows, strength)
        both = head.logits(rows.features)
        gradient = (
            inputs.T @ (weights[:, None] * (both - np.eye(3)[rows.labels[rows.example]]))
            + penalty @ np.c_[head.weight, head.bias].T
        )
        np.testing.assert_allclose(gradient, 0, atol=1e-12)


def test_the_largest_logit_is_the_nearest_mean_and_the_scale_folds() -> None:
    rng = np.random.default_rng(1)
    means, x = rng.normal(size=(4, 9)), 3 + 2 * rng.normal(size=(50, 9))
    scale = teaching.scale_of(x)
    head = teaching.from_means(means)
    z = scale.apply(x)
    nearest = ((z[:, None] - means) ** 2).sum(-1).argmin(1)
    assert (head.logits(z).argmax(1) == nearest).all()
    np.testing.assert_allclose(head.folded(scale).logits(x), head.logits(z), atol=1e-10)
    np.testing.assert_allclose(
        teaching.distances(z, means), np.sqrt(((z[:, None] - means) ** 2).mean(-1).min(1))
    )


def test_wilson_is_the_root_of_the_score_test() -> None:
    for right, count in ((8, 10), (0, 5), (5, 5), (1, 300)):
        for bound in teaching.wilson(right, count):
            if 0 < bound < 1:
                error = np.sqrt(bound * (1 - bound) / count)
                assert abs(abs(right / count - bound) / error - 1.96) < 1e-6
    assert teaching.wilson(5, 5)[1] == 1
    with pytest.raises(InputError, match="of at least one"):
        teaching.wilson(0, 0)


def test_the_temperature_undoes_a_scale_and_never_makes_few_examples_certain() -> None:
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(40, 3))
    labels = (logits + 0.5 * rng.normal(size=(40, 3))).argmax(1)
    one, eight = (teaching.fit_temperature(s * logits, labels)[0] for s in (1, 8))
    assert eight == pytest.approx(8 * one)
    perfect = 100 * np.eye(3)[np.arange(6) % 3]
    temperature, _ = teaching.fit_temperature(perfect, np.arange(6) % 3)
    assert 0.7 < teaching.softmax(perfect / temperature).max() < 1 - 1 / 60


def test_few_examples_get_the_nearest_mean_and_more_may_get_ridge(rows: Rows) -> None:
    singles = Rows(features=rows.own[:3], example=np.arange(3), labels=np.arange(3), classes=3)
    chosen = teaching.choose(singles)
    assert (chosen.name, chosen.tried, set(chosen.answers)) == ("nearest mean", 1, {-1})
    assert teaching.limit_of(singles) is None
    twos = Rows(features=rows.own[:6], example=np.arange(6), labels=np.arange(6) % 3, classes=3)
    assert teaching.choose(twos).tried == 1
    chosen = teaching.choose(rows)
    assert chosen.tried == 1 + len(teaching.STRENGTHS)
    scores = [teaching.means_left_out(rows)]
    scores += [teaching.ridge_left_out(rows, s) for s in teaching.STRENGTHS]
    losses = [teaching.fit_temperature(found, rows.labels)[1] for found in scores]
    assert chosen.loss == min(losses)
    assert np.array_equal(chosen.answers, scores[int(np.argmin(losses))].argmax(1))
    limit = teaching.limit_of(rows)
    assert limit is not None and (limit.judged, limit.beyond) == (12, 0)
    assert teaching.limit_of(rows, 0.5).beyond == 5  # type: ignore[union-attr]
    with pytest.raises(InputError, match="two or more classes"):
        replace(rows, classes=4)


# ---------------------------------------------------------------- commands


@pytest.fixture
def model(tmp_path: Path, teacher: Backbone) -> Path:
    facts = {"normalise": True, "up": "z", "points": POINTS}
    return save(teacher, tmp_path / "model", provenance=facts)


@pytest.fixture(scope="module")
def shapes() -> Clouds:
    return procedural.generate(26 * 8, points=100, seed=3)


@pytest.fixture
def examples(tmp_path: Path, shapes: Clouds) -> Path:
    """Four files of each class, and four others of each in `new`."""
    for name in KINDS:
        rows = np.flatnonzero(shapes.labels == shapes.class_names.index(name))
        for i, row in enumerate(rows[:8]):
            folder = tmp_path / ("examples" if i < 4 else "new") / name
            folder.mkdir(parents=True, exist_ok=True)
            np.save(folder / f"{i}.npy", shapes.points[row])
    return tmp_path / "examples"


def test_teach_and_predict(capsys, tmp_path: Path, model: Path, examples: Path) -> None:
    (examples / "airplane" / "broken.ply").write_bytes(b"ply\n")
    (examples / "empty").mkdir()
    np.save(examples / "airplane" / "again.npy", np.load(examples / "airplane" / "0.npy"))
    out = tmp_path / "mine"
    status, said, err = run(capsys, "teach", examples, "--model", model, "--out", out)
    assert status == 1
    assert "broken.ply" in err and "class empty" in err and "same points as" in err
    assert "12 examples of 3 classes (airplane 4, bench 4, bottle 4)" in said
    made = load(out, kind=Classifier)
    facts = json.loads((out / "config.json").read_text())["provenance"]
    assert f"{facts['right']} of 12 examples" in said
    assert len(facts["confused"]) == 12 - facts["right"]
    assert facts["interval"] == list(teaching.wilson(facts["right"], 12))
    table = tmp_path / "found.jsonl"
    words = ("predict", tmp_path / "new", examples / "airplane" / "0.npy", "--model", out)
    status, said, err = run(capsys, *words, "--out", table, "--open_set")
    assert status == 0
    found = read_rows(table)
    assert len(found) == 13 and "of the 12 examples, each left out" in said
    for row in found:
        points = np.load(row["file"])
        policy = Policy(points=POINTS)
        (tokens,) = embed_clouds(made.backbone, [points], policy=policy)  # type: ignore[arg-type]
        shares = made.head(tokens.pooled()).softmax(-1)[0].detach()
        label = made.config.classes[int(shares.argmax())]
        assert label == row["runner_up" if row["label"] == "unknown" else "label"]
        assert row["distance"] > 1 if row["label"] == "unknown" else row["distance"] <= 1
        if row["label"] != "unknown":
            assert row["confidence"] == pytest.approx(float(shares.max()), abs=1e-3)
    assert found[-1]["label"] == "airplane"
    (tmp_path / "odd").mkdir()
    np.save(tmp_path / "odd" / "line.npy", np.linspace(0, 1, 200)[:, None] * np.eye(3)[0])
    status, said, _ = run(
        capsys, "predict", tmp_path / "odd", "--model", out, "--out", tmp_path / "odd.csv",
        "--open_set",
    )  # fmt: skip
    with open(tmp_path / "odd.csv", newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert row["label"] == "unknown" and row["confidence"] == ""
    network = Network(made, None, "inside").eval()  # what `foundry3d export` writes
    points = torch.rand(2, POINTS, 3, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(network(*example(network, points))[-1], made(points))


def test_one_file_per_class_is_enough(capsys, tmp_path: Path, model: Path, examples: Path) -> None:
    for path in examples.glob("*/[1-9].npy"):
        path.unlink()
    out = tmp_path / "mine"
    words = ("teach", examples, "--model", model, "--out", out, "--up", "y", "--copies", "1")
    status, said, err = run(capsys, *words)
    assert status == 0, err
    assert "No accuracy can be estimated" in said
    assert not json.loads((out / "config.json").read_text())["provenance"]["turned"]
    status, _, err = run(capsys, "predict", examples, "--model", out, "--open_set")
    assert status == 2 and "two examples or more" in err and err.count("\n") == 1
    table = tmp_path / "found.csv"
    assert run(capsys, "predict", examples, "--model", out, "--out", table)[0] == 0
    with open(table, newline="") as stream:
        found = {Path(row["file"]).parent.name: row["label"] for row in csv.DictReader(stream)}
    assert found == {name: name for name in KINDS}  # the files are turned as when it was taught


def test_similar_finds_a_copy_first(capsys, tmp_path: Path, model: Path, examples: Path) -> None:
    query = examples / "bench" / "1.npy"
    cloud = np.load(query)
    np.save(examples / "copy.npy", 5 * cloud + 1)
    picture, table = tmp_path / "found.png", tmp_path / "found.jsonl"
    words = ("similar", query, examples, "--model", model, "--nearest", "3")
    status, said, _ = run(capsys, *words, "--points", "100", "--picture", picture, "--out", table)
    assert status == 0 and "12 shapes searched" in said
    found = read_rows(table)
    assert [row["rank"] for row in found] == [1, 2, 3]
    assert found[0]["file"].endswith("copy.npy") and found[0]["cosine"] > 0.999
    assert all(row["file"] != str(query) for row in found)
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert {p.name for p in tmp_path.iterdir() if "lock" in p.name or "partial" in p.name} == set()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("teach NONE --model M", "got nothing of that name"),
        ("teach EX/airplane/0.npy --model M", "got a file"),
        ("teach EMPTY --model M", "got no file to read"),
        ("teach EX/airplane --model M", "4 files without folders of classes"),
        ("teach ONE --model M", "at least two classes, got one, 'a'"),
        ("teach EQUAL --model M", "'Chair' and 'chair' are two classes whose names are equal"),
        ("teach BROKEN --model M", "no class has a file that can be used"),
        ("teach EX --model M --points 3", "points must be at least 12"),
        ("teach EX --model M --out M", "would replace"),
        ("teach", "name a folder of examples"),
        ("predict EX --model M", "knows no labels; teach it some"),
        ("predict", "name files to label"),
        ("predict EX --model M --out x.txt", "out names a table, .csv or .jsonl"),
        ("predict EX --format las", "add --labelled"),
        ("similar EX/airplane/0.npy", "name a query and the files"),
        ("similar NONE EX --model M", "NONE: expected a file, got nothing of that name"),
        ("similar EX EX --model M", "expected a file, got a directory"),
        ("similar EX/airplane/0.npy EX/airplane/0.npy --model M", "none of 0 could be used"),
        ("similar EX/airplane/0.npy EMPTY --model M", "none of 1 could be used"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    capsys, tmp_path: Path, model: Path, examples: Path, words: str, says: str
) -> None:
    for name in ("EMPTY", "ONE/a", "EQUAL/Chair", "EQUAL/chair", "BROKEN/a", "BROKEN/b"):
        (tmp_path / name).mkdir(parents=True)
        if "/" in name:
            (tmp_path / name / "x.ply").write_bytes(b"ply\n")
    places = {"EX": examples, "M": model}
    given = [
        str(places.get(first, tmp_path / first)) + word[len(first) :] if first.isupper() else word
        for word in words.split()
        for first in [word.split("/")[0]]
    ]
    if "--out" not in given and given[0] == "teach":
        given += ["--out", str(tmp_path / "mine")] if len(given) > 1 else []
    status, _, err = run(capsys, *given)
    assert status == 2
    last = err.splitlines()[-1]
    assert last.startswith("foundry3d: error: ") and says in last.replace(f"{tmp_path}/", "")
    assert err.count("\n") <= 3 and "Traceback" not in err
    assert not (tmp_path / "mine").exists()


# ---------------------------------------------------------------- parts of points


@pytest.fixture
def segmenter(teacher: Backbone, generator: torch.Generator) -> Segmenter:
    head = PartHeadConfig(upsampling=(16,), hidden=(16, 8))
    return Segmenter.from_model(
        teacher, parts=("seat", "leg", "back"), categories=("chair", "stool"),
        owned=((0, 1, 2), (0, 1)), head=head, generator=generator,
    )  # fmt: skip


def test_parts_in_chunks_and_windows(
    segmenter: Segmenter, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = torch.randn(1, 300, 3, generator=generator)
    whole = segmenter.predict(points, torch.tensor([1]))
    monkeypatch.setattr(parts, "AT_ONCE", 70)
    found, shares = parts.point_parts(segmenter, points, segmenter.backbone.group(points), 1)
    assert torch.equal(found, whole[0])
    assert found.max() == 1 and (shares >= 1 / 2).all()
    cloud = parts.PreparedCloud(
        points=points[0], shift=torch.zeros(3), scale=1.0, turn=0, source="a"
    )
    options = {"points_per_token": 300 // TINY.groups, "fit": False}
    one, _ = parts.scene_parts(segmenter, cloud, 0, **options)  # type: ignore[arg-type]
    scene = group_scene(segmenter.backbone, points, points_per_token=300 // TINY.groups)  # type: ignore[arg-type]
    groups = scene.groups(torch.arange(TINY.groups)[None])
    expected, _ = parts.point_parts(segmenter, points, groups, 0)
    assert torch.equal(one, expected)
    moved = replace(cloud, points=3 * cloud.points + 7)
    for fit in (True, False):
        options = {"points_per_token": 10, "fit": fit}
        plain, _ = parts.scene_parts(segmenter, cloud, 0, **options)  # type: ignore[arg-type]
        other, _ = parts.scene_parts(segmenter, moved, 0, **options)  # type: ignore[arg-type]
        assert plain.min() >= 0 and plain.max() <= 2
        assert (plain == other).float().mean() > 0.95 or not fit  # windows forget place and size


def test_labelled_points_are_written(
    capsys, tmp_path: Path, segmenter: Segmenter, generator: torch.Generator
) -> None:
    model = save(segmenter, tmp_path / "seg", provenance={"points": 100, "normalise": True})
    points = torch.randn(400, 3, generator=generator).numpy() + np.array([1000, 0, 0])
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "scan.npy", points)
    write_las(tmp_path / "a" / "air.las", points, np.zeros(400, int), ["none"])
    words = ("predict", tmp_path / "a", tmp_path / "b", "--model", model)
    status, _, err = run(capsys, *words)
    assert status == 2 and "--category is one of chair, stool" in err
    out = tmp_path / "labelled"
    words = (*words, "--category", "stool", "--labelled", out, "--out", tmp_path / "t.jsonl")
    for options in ((), ("--points_per_token", "8")):
        status, _, err = run(capsys, *words, *options)
        assert status == 0, err
        names = sorted(path.name for path in out.iterdir())
        assert names == ["air.las", "scan-2.ply", "scan.ply"]
        rows = {Path(row["written"]).name: row for row in read_rows(tmp_path / "t.jsonl")}
        las = laspy.read(out / "air.las")
        share = np.bincount(np.array(las.classification), minlength=2)[:2].max() / 400
        assert rows["air.las"]["share"] == pytest.approx(share, abs=1e-4)
        assert rows["air.las"]["label"] in ("seat", "leg")
        for name in names:
            found = read_points(out / name)
            at = found.points + np.array(found.origin)
            np.testing.assert_allclose(at, points, atol=1e-3)
    status, _, err = run(capsys, *words[:-4], "--labelled", tmp_path / "b")
    assert status == 2 and "holds scan.npy, which is read" in err


def test_formats_of_labelled_points(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 5, 50)
    names = ["ground", "low vegetation", "a name that is far too long", "é", "water"]
    for size, offset in ((1.0, 0.0), (500.0, 5e6), (1e-3, 0.0)):
        points = size * rng.normal(size=(50, 3)) + offset
        for write, ending in ((write_las, "las"), (write_ply, "ply")):
            path = tmp_path / f"x.{ending}"
            write(path, points, labels, names)
            found = read_points(path)
            at = found.points + np.array(found.origin)
            assert np.abs(at - points).max() < 1e-5 * size
        las = laspy.read(tmp_path / "x.las")
        assert np.array_equal(np.array(las.classification), labels)
        (lookup,) = las.header.vlrs.get("ClassificationLookupVlr")
        assert lookup[1] == "low vegetation"
    assert b"comment label 4 water\n" in (tmp_path / "x.ply").read_bytes()
    assert len(np.unique(palette(60), axis=0)) == 60
    with pytest.raises(InputError, match="at most 256"):
        write_las(tmp_path / "y.las", points, labels, ["x"] * 257)
