"""Teachers from stored features: files, pooling, training, and the command that writes them."""

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from foundry3d.checkpoints.folder import load, read_config, save
from foundry3d.cli import main
from foundry3d.config import (
    AugmentConfig,
    BackboneConfig,
    DataConfig,
    DistillConfig,
    StudentOptions,
    TeacherFeaturesConfig,
    TrainConfig,
)
from foundry3d.data import procedural
from foundry3d.data.archive import write_archive
from foundry3d.data.crop_samples import Needs, StoredBatch
from foundry3d.data.scenes import load_stored
from foundry3d.data.stored import read_stored, write_stored
from foundry3d.embed.teacher_features import teacher_features
from foundry3d.errors import InputError, PartialFailure
from foundry3d.models.backbone import Backbone
from foundry3d.models.student import Student
from foundry3d.training.distill import distill
from foundry3d.training.losses import distance, relation_loss
from foundry3d.training.stored_goals import moved, pooled_in, stored_goal
from foundry3d.transforms import augment

STILL = AugmentConfig(scale=(1, 1), flip=False, rotate=False)
TRAIN = TrainConfig(epochs=2, batch_size=8, warmup_epochs=0, accelerator="cpu", lr=3e-3)
SMALL = BackboneConfig(
    groups=12, group_size=8, point_widths=(8, 16, 32), dim=24, depth=1, heads=3, position_dim=16
)
FORMATS = ["npz", "parquet"]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def some(rng: np.random.Generator, rows: int, width: int = 7) -> np.ndarray:
    return rng.normal(size=(rows, width)).astype(np.float32)


@pytest.mark.parametrize("ending", FORMATS)
def test_what_is_written_is_read(tmp_path: Path, rng: np.random.Generator, ending: str) -> None:
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    points, features = some(rng, 50, 3), some(rng, 50).astype(np.float16)
    features[3] = np.nan
    write_stored(tmp_path / f"a.{ending}", points=points, features=features)
    found = read_stored(tmp_path / f"a.{ending}")
    assert np.array_equal(found.points, points) and found.centers is None
    assert np.flatnonzero(~found.present).tolist() == [3]
    assert np.array_equal(found.features, np.nan_to_num(features))
    assert found.features.dtype == np.float16
    write_stored(tmp_path / f"b.{ending}", points=points, features=features[:9], centers=points[:9])
    found = read_stored(tmp_path / f"b.{ending}")
    assert found.centers is not None and np.array_equal(found.centers, points[:9])
    assert np.array_equal(found.features, np.nan_to_num(features[:9]))
    assert not list(tmp_path.glob("*.partial"))


def test_parquet_of_columns_and_variable_lists(tmp_path: Path, rng: np.random.Generator) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    points, features = some(rng, 6, 3).astype(np.float64), some(rng, 6, 2)
    lists = [None, *features[1:].tolist()]
    columns = {axis: points[:, i] for i, axis in enumerate("xyz")} | {"features": lists}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    found = read_stored(tmp_path / "a.parquet")
    assert np.allclose(found.points, points, atol=1e-6)
    assert found.present.tolist() == [False] + [True] * 5
    assert np.array_equal(found.features[1:], features[1:])
    columns["features"] = [[1.0], *features[1:].tolist()]
    pq.write_table(pa.table(columns), tmp_path / "b.parquet")
    with pytest.raises(InputError, match=r"b\.parquet: expected lists of one length"):
        read_stored(tmp_path / "b.parquet")
    (tmp_path / "c.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-20])
    with pytest.raises(InputError, match=r"c\.parquet: not a readable Parquet file"):
        read_stored(tmp_path / "c.parquet")


def test_parquet_without_pyarrow_names_its_install_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "pyarrow.parquet", raising=False)
    with pytest.raises(InputError, match=r'pip install "foundry3d\[parquet\]"'):
        read_stored(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"features": np.ones((49, 7), np.float32)}, "one row of features for each of 50 points"),
        ({"features": np.ones((50, 7), int)}, "expected features of shape"),
        ({"features": np.full((50, 7), np.nan)}, "NaN or infinite numbers in all"),
        ({"centers": np.ones((49, 3))}, "for each of 49 centers, got 50"),
        ({"points": np.ones((50, 2))}, "expected points of shape"),
        ({"points": np.full((50, 3), np.inf)}, "expected finite points"),
        ({"points": None}, "expected an array 'points'"),
    ],
)
def test_arrays_that_do_not_belong_together(tmp_path: Path, changed: dict, said: str) -> None:
    arrays = {"points": np.ones((50, 3)), "features": np.ones((50, 7), np.float32)} | changed
    path = tmp_path / "a.npz"
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    with pytest.raises(InputError, match=said) as error:
        read_stored(path)
    assert str(path) in str(error.value)


def test_coordinates_far_from_zero_keep_their_details(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    points = rng.normal(size=(30, 3)) + np.array([5e6, 4e5, 0])
    write_stored(tmp_path / "a.npz", points=points, features=some(rng, 5), centers=points[:5])
    found = read_stored(tmp_path / "a.npz")
    assert found.centers is not None
    assert np.array_equal(found.centers, found.points[:5])
    assert np.allclose(np.diff(found.points, axis=0), np.diff(points, axis=0), atol=1e-6)


def test_pooling_means_over_the_points_that_have_features(generator: torch.Generator) -> None:
    features = torch.randn(3, 20, 5, generator=generator)
    present = torch.rand(3, 20, generator=generator) < 0.4
    index = torch.randint(20, (3, 6, 4), generator=generator)
    present[0, index[0, 0]] = False  # a group without any
    found, share = pooled_in(features, index, present)
    assert share is not None
    for b in range(3):
        for c in range(6):
            rows = [i for i in index[b, c].tolist() if present[b, i]]
            assert float(share[b, c]) == len(rows) / 4
            expected = features[b, rows].mean(dim=0) if rows else torch.zeros(5)
            assert torch.allclose(found[b, c], expected, atol=1e-6)
    everywhere, none = pooled_in(features, index)
    assert none is None
    assert torch.allclose(everywhere, pooled_in(features, index, present | True)[0], atol=1e-6)


@pytest.mark.parametrize("kind", ["smooth_l1", "mse"])
def test_tokens_without_features_do_not_count(kind, generator: torch.Generator) -> None:
    own, goal = (torch.randn(2, 6, 5, generator=generator, requires_grad=True) for _ in "ab")
    weight = torch.tensor([[1, 1, 0, 1, 0, 1], [0, 1, 1, 1, 0, 1.0]])
    kept = weight > 0
    loss = distance(own, goal, kind, weight)
    assert torch.allclose(loss, distance(own[kept], goal[kept], kind))
    (gradient,) = torch.autograd.grad(loss, own)
    assert torch.equal(gradient.abs().sum(-1) > 0, kept)
    assert torch.allclose(distance(own, goal, kind, torch.ones(2, 6)), distance(own, goal, kind))
    assert not distance(own, goal, kind, torch.zeros(2, 6)).detach().any()
    ones = relation_loss(own, goal, torch.ones(2, 6))
    assert torch.allclose(ones, relation_loss(own, goal))
    four = relation_loss(own[:1], goal[:1], weight[:1])
    assert torch.allclose(four, relation_loss(own[:1, kept[0]], goal[:1, kept[0]]))


def test_centers_move_with_their_points(points: Tensor, generator: torch.Generator) -> None:
    features = torch.randn(4, 10, 6, generator=generator)
    batch = StoredBatch(points, features, points[:, 5:15], None)
    config = AugmentConfig(flip=True, translate=0.3)
    seeds = [torch.Generator().manual_seed(3) for _ in range(2)]
    found = moved(batch, config, "z", seeds[0])
    assert found.centers is not None and torch.equal(found.features, features)
    assert torch.allclose(found.centers, found.points[:, 5:15], atol=1e-6)
    assert torch.allclose(found.points, augment(points, config, up="z", generator=seeds[1]))
    assert torch.equal(batch.points, points)


def test_a_group_of_points_gets_their_mean(points: Tensor, generator: torch.Generator) -> None:
    """Features that are the coordinates themselves, pooled, are the mean of each group."""
    student = Student.from_teacher(Backbone(SMALL, generator=generator), supertokens=2)
    goal = stored_goal(student, StoredBatch(points, points, None, None), None, drawn=False)
    assert goal.features is not None and goal.weight is None
    expected = goal.groups.centers + goal.groups.neighborhoods.mean(dim=2)
    assert torch.allclose(goal.features, expected, atol=1e-5)


def losses(run: Path) -> np.ndarray:
    text = (run / "metrics" / "version_0" / "metrics.csv").read_text()
    return np.array(
        [float(row["loss"]) for row in csv.DictReader(text.splitlines()) if row["loss"]]
    )


def test_stored_features_train_like_the_teacher_that_wrote_them(
    teacher: Backbone, tmp_path: Path
) -> None:
    save(teacher, tmp_path / "teacher", provenance={"data": "A", "made_by": "pretrain (jepa)"})
    write_archive(tmp_path / "clouds.npz", procedural.generate(24, points=64, seed=1))
    live = DistillConfig(
        teacher=str(tmp_path / "teacher"), out=str(tmp_path / "live"),
        student=StudentOptions(supertokens=4), starts="first", teacher_cache=0,
        data=DataConfig(train=str(tmp_path / "clouds.npz"), points=64, validation=0.0),
        augment=STILL, train=TRAIN,
    )  # fmt: skip
    distill(live)
    folder = teacher_features(
        TeacherFeaturesConfig(
            model=live.teacher, data=live.data.train, out=str(tmp_path / "features"), normalise=True
        )
    )
    stored = replace(
        live, teacher_features=str(folder), out=str(tmp_path / "stored"), teacher_cache=2,
        data=replace(live.data, train=""),
    )  # fmt: skip
    distill(stored)
    curve = losses(tmp_path / "stored")
    assert len(curve) == 6 and curve[-1] < curve[0]
    assert np.abs(curve - losses(tmp_path / "live")).max() < 1e-6
    facts = read_config(tmp_path / "stored")["provenance"]
    assert facts["teacher"] == live.teacher and facts["teacher_features"] == str(folder)
    assert facts["pretrained_on"] == "A" and facts["fidelity_on"].startswith("24 training clouds")
    before = read_config(tmp_path / "live")["provenance"]
    for name in ("unexplained", "cosine", "cka"):
        assert facts[name] == pytest.approx(before[name], rel=1e-3)


@pytest.fixture
def folder(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Features of points of another model, 10 wide, a function of the place, some missing."""
    out = tmp_path / "foreign"
    out.mkdir()
    mix = rng.normal(size=(3, 10))
    for i in range(6):
        points = rng.normal(size=(80 + 10 * i, 3)).astype(np.float32)
        features = np.tanh(points @ mix).astype(np.float32)
        features[rng.random(len(points)) < 0.2] = np.nan
        write_stored(out / f"{i}.npz", points=points, features=features)
    (out / "features.json").write_text(json.dumps({"model": "somebody/their-model"}))
    return out


def test_a_new_student_learns_features_of_another_width(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, rng: np.random.Generator
) -> None:
    """What cannot be used is left out: other counts, another width, a damaged file."""
    np.savez(folder / "7.npz", points=some(rng, 90, 3), features=some(rng, 80, 10))
    np.savez(folder / "8.npz", points=some(rng, 90, 3), features=some(rng, 90, 11))
    whole = (folder / "5.npz").read_bytes()
    (folder / "9.npz").write_bytes(whole[: len(whole) // 2])
    config = DistillConfig(
        teacher_features=str(folder), out=str(tmp_path / "run"), backbone=SMALL, frozen="none",
        student=StudentOptions(supertokens=4), whiten=True, relation_weight=0.1,
        data=DataConfig(points=64, crop="count:70", crops=8, validation=0.0),
        train=replace(TRAIN, epochs=3, lr=1e-2),
    )  # fmt: skip
    with caplog.at_level("WARNING", logger="foundry3d"):
        student = distill(config)
    assert "3 clouds left out, the other 6 are used; the first:" in caplog.text
    assert isinstance(student, Student)
    assert student.output_dim == 10 and isinstance(student.output, torch.nn.Linear)
    curve = losses(tmp_path / "run")
    assert curve[-3:].mean() < 0.9 * curve[:3].mean()
    saved = load(tmp_path / "run").eval()
    batch = torch.randn(2, 64, 3, generator=torch.Generator().manual_seed(1))
    assert torch.equal(saved(batch).features, student(batch).features)
    assert saved(batch).features.shape == (2, 12, 10)
    facts = read_config(tmp_path / "run")["provenance"]
    assert facts["teacher"] == "somebody/their-model"
    assert facts["fidelity_on"] == "48 training crops of foreign"
    assert -1 <= facts["cosine"] <= 1


def test_what_stored_features_cannot_do_is_said(folder: Path, tmp_path: Path) -> None:
    for options, said in (
        ({"student": StudentOptions(kind="tome")}, "supertokens or truncated"),
        ({"loss_blocks": (0,)}, "leave them out"),
        ({"data": DataConfig(train="procedural")}, "leave --data.train procedural out"),
    ):
        with pytest.raises(InputError, match=said):
            DistillConfig(teacher_features=str(folder), **options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="backbone has the sizes of a student of stored"):
        DistillConfig(backbone=SMALL)
    config = DistillConfig(
        teacher_features=str(folder), out=str(tmp_path / "run"), backbone=SMALL,
        student=StudentOptions(supertokens=4), data=DataConfig(points=64), train=TRAIN,
    )  # fmt: skip
    with pytest.raises(InputError, match="use --frozen none"):
        distill(config)
    with pytest.raises(InputError, match="expected a folder of stored features"):
        distill(replace(config, teacher_features=str(tmp_path / "nothing")))
    for path in folder.glob("*.npz"):
        path.write_bytes(b"PK")
    with pytest.raises(InputError, match=r"foreign: no cloud can be used; the first: .*0\.npz"):
        distill(config)


def test_crops_of_tokens_hold_their_own_tokens(tmp_path: Path, rng: np.random.Generator) -> None:
    points = rng.uniform(-5, 5, size=(2000, 3)).astype(np.float32)
    write_stored(tmp_path / "a.npz", points=points, features=points[::10], centers=points[::10])
    config = DataConfig(points=64, crop="sphere:3", crops=4, validation=0.0)
    stream, held = load_stored(
        str(tmp_path), config, seed=0, needs=Needs(points=12, tokens=9), memory=0
    )
    assert (stream.width, stream.sampler.tokens, len(held)) == (3, 9, 4)
    for batch in stream.batches(2, seed=1):
        assert isinstance(batch, StoredBatch) and batch.centers is not None
        assert batch.centers.shape == (2, 9, 3)
        assert torch.equal(batch.features, batch.centers)  # each row belongs to its place
        spread = torch.cdist(batch.centers, batch.centers)
        assert float(spread.max()) <= 6
    with pytest.raises(InputError, match="at least 12 points and 9 tokens"):
        small = replace(config, crop="sphere:0.5")
        load_stored(str(tmp_path), small, seed=0, needs=Needs(points=12, tokens=9), memory=0)


def test_the_command_continues_and_refuses_what_differs(
    teacher: Backbone, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    model, data, out = (tmp_path / name for name in ("m", "data", "out"))
    save(teacher, model, provenance={"normalise": True, "up": "z"})
    data.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        np.save(data / f"{name}.npy", rng.normal(size=(100, 3)) * 5 + 7)
    (data / "c.npy").write_bytes(b"damaged")
    words = ["teacher-features", "--model", str(model), "--data", str(data), "--out", str(out)]
    words += ["--points_per_token", "4", "--windows", "12", "--per_point", "--half"]
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == PartialFailure.status
    files = sorted(path.name for path in out.glob("*.npz"))
    assert files == ["000000-a.npy.npz", "000001-b.npy.npz"]
    found = read_stored(out / files[1])
    assert np.allclose(found.points, np.load(data / "b.npy"), atol=1e-4)
    assert found.features.shape == (100, 24) and found.features.dtype == np.float16
    (out / files[1]).unlink()
    kept = (out / files[0]).stat().st_mtime_ns
    with pytest.raises(SystemExit):
        main(words)
    assert (out / files[0]).stat().st_mtime_ns == kept
    assert np.array_equal(read_stored(out / files[1]).features, found.features)
    with pytest.raises(SystemExit) as stopped:
        main(words[:-1])  # without half
    assert stopped.value.code == 2
    assert "name another folder" in capsys.readouterr().err


def test_stored_crops_have_the_features_of_the_teacher_on_them(
    teacher: Backbone,
    tmp_path: Path,
    rng: np.random.Generator,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model, data = tmp_path / "m", tmp_path / "data"
    save(teacher, model, provenance={"normalise": True, "up": "z"})
    data.mkdir()
    scene = rng.normal(size=(900, 3)) * 5 + 7
    np.save(data / "a.npy", scene)
    config = TeacherFeaturesConfig(
        model=str(model), data=str(data), out=str(tmp_path / "whole"), crop="column:4", crops=3
    )
    files = sorted(teacher_features(config).glob("*.npz"))
    assert [path.name for path in files] == [f"{i:06d}-a.npy.npz" for i in range(3)]
    for path in files:
        found = read_stored(path)
        assert found.centers is not None
        flat = found.points[:, :2]  # a column: what lies as near to a point of it, at any height
        near = [np.linalg.norm(scene[:, :2] - middle, axis=1) <= 4 for middle in scene[:, :2]]
        assert any(w.sum() == len(flat) and np.allclose(scene[w], found.points) for w in near)
        points, centers = (torch.from_numpy(a).double() for a in (found.points, found.centers))
        mean = points.mean(dim=0)
        radius = (points - mean).norm(dim=1).max()
        tokens = teacher(((points - mean) / radius).float()[None])
        assert np.allclose(tokens.features[0].detach(), found.features, atol=1e-4)
        assert np.allclose(tokens.centers[0].double() * radius + mean, centers, atol=1e-4)
    few = replace(config, out=str(tmp_path / "few"), crop="count:60", points=40, per_point=True)
    found = read_stored(min(teacher_features(few).glob("*.npz")))
    assert found.points.shape == (40, 3) and found.features.shape == (40, 24)
    gaps = np.linalg.norm(found.points[:, None] - scene, axis=-1).min(axis=1)
    assert gaps.max() < 1e-4  # they are points of the scene
    with pytest.raises(InputError, match="none of 1 could be used"):
        teacher_features(replace(few, out=str(tmp_path / "none"), points=100))
    assert "a.npy: expected crops of at least 100 points, got at most 60" in caplog.text
