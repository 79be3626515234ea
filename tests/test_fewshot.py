import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY

from foundry3d.checkpoints.folder import save
from foundry3d.config import DataConfig, FewshotConfig, HeadConfig, TrainConfig, ZeroshotConfig
from foundry3d.data.archive import write_archive
from foundry3d.data.clouds import Clouds
from foundry3d.errors import InputError
from foundry3d.evaluation import fewshot as module
from foundry3d.evaluation.fewshot import Folds, fewshot
from foundry3d.evaluation.zeroshot import (
    nearest_mean,
    nearest_text,
    read_texts,
    scores,
    unit,
    zeroshot,
)
from foundry3d.models.backbone import Backbone

AXES = np.array([[1, 1, 0.2], [0.3, 0.3, 1], [1, 1, 1], [1, 0.3, 0.2], [0.1, 1, 1]])


def shapes(each: int, seed: int, points: int = 48) -> Clouds:
    """Ellipsoids of five proportions, one class each."""
    g = np.random.default_rng(seed)
    labels = np.arange(5 * each) % 5
    balls = g.normal(size=(len(labels), points, 3))
    balls /= np.linalg.norm(balls, axis=-1, keepdims=True)
    return Clouds(
        points=(balls * AXES[labels][:, None]).astype(np.float32),
        labels=labels,
        class_names=("a", "b", "c", "d", "e"),
        name="shapes",
    )


@pytest.fixture
def run(teacher: Backbone, tmp_path: Path) -> FewshotConfig:
    save(teacher, tmp_path / "model", provenance={})
    write_archive(tmp_path / "clouds.npz", shapes(12, 0))
    return FewshotConfig(
        model=str(tmp_path / "model"),
        out=str(tmp_path / "run"),
        results=str(tmp_path / "results.jsonl"),
        way=3,
        shot=4,
        folds=3,
        data=DataConfig(train=str(tmp_path / "clouds.npz"), points=48),
        train=TrainConfig(epochs=2, batch_size=6, warmup_epochs=1, accelerator="cpu"),
        head=HeadConfig(hidden=(8,)),
    )


def test_probe_scores_every_fold_the_same_again(run: FewshotConfig) -> None:
    row = fewshot(run)
    assert row["folds"] == len(row["oa_folds"]) == 3
    assert row["oa"] == pytest.approx(np.mean(row["oa_folds"]), abs=0.01)
    assert row["oa_std"] == pytest.approx(np.std(row["oa_folds"], ddof=1), abs=0.01)
    assert row["oa"] > 60  # chance is 33
    lines = (Path(run.out) / "folds.jsonl").read_text().splitlines()
    assert [json.loads(line)["queries"] for line in lines] == [24] * 3  # 12 - 4 of each class
    again = fewshot(replace(run, out=run.out + "2"))
    assert again["oa_folds"] == row["oa_folds"]


def test_stopped_runs_go_on_with_the_next_fold(
    run: FewshotConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = fewshot(replace(run, out=run.out + "-whole"))["oa_folds"]
    original, seen = module.probe_fold, []

    def stops(*arguments, **options):
        seen.append(1)
        if len(seen) == 2:
            raise KeyError("power cut")
        return original(*arguments, **options)

    monkeypatch.setattr(module, "probe_fold", stops)
    with pytest.raises(KeyError):
        fewshot(run)
    with pytest.raises(InputError, match="already holds a run"):
        fewshot(run)
    row = fewshot(replace(run, resume=True))
    assert row["oa_folds"] == expected
    assert len(seen) == 4  # the first fold was not repeated


def test_fine_tuning_reports_the_last_epoch_and_the_best_by_name(run: FewshotConfig) -> None:
    short = replace(run, mode="finetune", folds=2, eval_every=10, label_smoothing=0.0)
    frozen = replace(
        short,
        unfreeze_tokenizer=None,
        unfreeze_position=None,
        unfreeze_encoder=None,
        head=HeadConfig(hidden=(16,), dropout=0.0),
    )
    row = fewshot(
        replace(frozen, train=replace(run.train, epochs=30, lr=1e-2, checkpoint_every=30))
    )
    assert row["oa"] <= row["oa_best_on_test"]
    assert row["oa"] > 45
    folders = sorted(p.name for p in Path(run.out).iterdir() if p.is_dir())
    assert folders == ["fold0", "fold1"]
    assert not list(Path(run.out).glob("fold*/checkpoints/last.ckpt"))


def test_folds_differ_and_keep_training_from_queries(run: FewshotConfig) -> None:
    folds = Folds(run)
    (train, queries), (other, _) = folds[0], folds[1]
    assert len(train) == 12 and set(np.bincount(train.labels)) == {4}
    assert not np.array_equal(train.points, other.points)
    rows = {cloud.tobytes() for cloud in train.points}
    assert not rows & {cloud.tobytes() for cloud in queries.points}


def test_data_without_enough_classes_is_one_sentence(run: FewshotConfig) -> None:
    with pytest.raises(InputError, match="lower way or shot"):
        fewshot(replace(run, way=6))
    assert not Path(run.out).exists()
    with pytest.raises(InputError, match="votes must be 0"):
        replace(run, votes=3)


def test_nearest_mean_and_text_by_hand() -> None:
    support = np.array([[0.0, 0], [0, 2], [4, 0], [4, 2]])
    queries = np.array([[1.0, 1], [3.9, 9], [2.1, 0]])
    assert nearest_mean(support, np.array([7, 7, 2, 2]), queries).tolist() == [7, 2, 2]
    texts = np.array([[0.0, 1], [10, 0]])
    assert nearest_text(np.array([[1.0, 3], [3, 1], [0, 0.1]]), texts).tolist() == [0, 1, 0]
    np.testing.assert_allclose(unit(np.array([[3.0, 4], [0, 0]])), [[0.6, 0.8], [0, 0]])


def test_scores_tell_separable_from_noise_and_ignore_shift_and_scale() -> None:
    g = np.random.default_rng(0)
    labels = np.arange(90) % 3
    noise = g.normal(size=(2, 90, 6)).astype(np.float32)
    apart = noise + 20 * np.eye(6, dtype=np.float32)[labels]
    good = scores(apart[0], labels, apart[1], labels, neighbors=5)
    assert set(good.values()) == {100.0}
    bad = scores(noise[0], labels, noise[1], labels, neighbors=5)
    assert max(bad.values()) < 60
    moved = scores(3 * noise[0] + 7, labels, 3 * noise[1] + 7, labels, neighbors=5)
    assert moved == bad


def test_zeroshot_with_texts(run: FewshotConfig, tmp_path: Path) -> None:
    """Texts that are the class means of the features score like the nearest mean by cosine."""
    write_archive(tmp_path / "test.npz", shapes(6, 1))
    data = DataConfig(
        train=run.data.train, test=str(tmp_path / "test.npz"), points=48, validation=0.0
    )
    texts = tmp_path / "texts.npz"
    width = 2 * TINY.dim
    g = np.random.default_rng(0)
    np.savez(texts, names=np.array(list("edcbaz")), embeddings=g.normal(size=(6, width)))
    config = ZeroshotConfig(
        models=(run.model,), texts=str(texts), data=data, results=run.results, neighbors=3
    )
    (row,) = zeroshot(config)
    assert row["class_mean"] > 60 and row["knn"] > 60  # chance is 20
    assert 0 <= row["text"] <= 60
    assert row["sizes"] == [60, 0, 30]
    assert json.loads(Path(run.results or "").read_text()) == row
    ordered = read_texts(texts, ("a", "e"))
    np.testing.assert_allclose(ordered, np.load(texts)["embeddings"][[4, 0]], rtol=1e-6)
    np.savez(texts, names=np.array(list("abcde")), embeddings=np.ones((5, width + 1)))
    with pytest.raises(InputError, match=f"as wide as the model's pooled features, {width}"):
        zeroshot(config)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"names": np.array(["a"]), "embeddings": np.ones((1, 4))}, "no embedding of b"),
        ({"names": np.array(["a", "b"]), "embeddings": np.ones((1, 4))}, "one row per name"),
        ({"embeddings": np.ones((1, 4))}, "'names' and 'embeddings'"),
        ({"names": np.array(["a", "b"], object), "embeddings": np.ones((2, 4))}, "'names' and"),
    ],
)
def test_unusable_texts_are_one_sentence(tmp_path: Path, arrays: dict, says: str) -> None:
    np.savez(tmp_path / "t.npz", **arrays)
    with pytest.raises(InputError, match=says):
        read_texts(tmp_path / "t.npz", ("a", "b"))
    with pytest.raises(InputError, match="npz archive with"):
        read_texts(tmp_path / "none.npz", ("a", "b"))
