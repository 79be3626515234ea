"""The paper's qualitative figures: known values of what they show, and the command."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY

from foundry3d import cli
from foundry3d.baselines import Merged
from foundry3d.checkpoints.folder import save
from foundry3d.config import FiguresConfig, ReductionConfig
from foundry3d.data.clouds import Clouds
from foundry3d.errors import InputError
from foundry3d.models.backbone import Backbone, Tokens
from foundry3d.models.student import Student
from foundry3d.paper.figures import study
from foundry3d.paper.figures.curves import curves_of
from foundry3d.paper.figures.features import coloured
from foundry3d.paper.figures.health import stability
from foundry3d.paper.figures.maps import map_image, ordered_assignment, supertoken_of_points
from foundry3d.paper.figures.page import page, write_caption
from foundry3d.paper.figures.palette import distances, distinct_colours, oklab
from foundry3d.paper.figures.panels import legend_shape
from foundry3d.paper.figures.projection import agreement, colours, shown_from, tsne, upright
from foundry3d.paper.figures.projections import read_tokens, spaces_of
from foundry3d.paper.figures.run_metrics import by_epoch
from foundry3d.paper.figures.study import (
    Objects,
    Subject,
    name_and_folder,
    read_subjects,
    shown_classes,
)


@pytest.fixture
def models(teacher: Backbone, tmp_path: Path) -> dict[str, Path]:
    """A saved teacher, two students of other seeds, and one with a gate."""
    made = {"teacher": teacher}
    for name, seed, options in (("a", 0, {}), ("b", 1, {}), ("gated", 2, {"gate": True})):
        drawn = torch.Generator().manual_seed(seed)
        made[name] = Student.from_teacher(teacher, generator=drawn, supertokens=5, **options)
    return {name: save(m, tmp_path / name, provenance={}) for name, m in made.items()}


def words(models: dict[str, Path], *names: str) -> list[str]:
    return [f"{name}={models[name]}" for name in names]


def figures(*arguments: str) -> int:
    try:
        cli.main(["figures", *arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


SMALL = ["--data", "procedural", "--points", "64", "--clouds", "60", "--objects", "2"]
SMALL += ["--examples", "2"]


def test_colours_differ_for_every_reader() -> None:
    shades = distinct_colours(16)
    for sight, least in ((None, 0.12), ("protanopia", 0.06), ("deuteranopia", 0.06)):
        apart = distances(shades, shades, sight) + np.eye(16)
        assert apart.min() > least  # 0.02 can just be seen
    assert np.array_equal(distinct_colours(8), shades[:8])
    assert (oklab(shades)[:, 0] < 0.9).all()  # visible on white


def test_white_has_no_hue_for_any_reader() -> None:
    white = np.ones((1, 3))
    for sight in (None, "protanopia", "deuteranopia"):
        assert oklab(white, sight)[0] == pytest.approx([1, 0, 0], abs=1e-3)


def test_tsne_keeps_clusters_apart_and_repeats() -> None:
    draw = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 20)
    features = 8 * np.eye(70)[labels] + 0.1 * draw.normal(size=(60, 70))
    places = tsne(features, perplexity=10, seed=3)
    assert places.shape == (60, 2)
    assert np.array_equal(places, tsne(features, perplexity=10, seed=3))
    assert agreement(places, labels) == agreement(features, labels) == 1.0


def test_agreement_of_labels_by_chance_and_of_opposites() -> None:
    line = np.arange(40, dtype=float)[:, None]
    assert agreement(line, np.arange(40)) == 0.0
    assert agreement(line, np.arange(40) % 2, neighbours=2) == pytest.approx(2 / 80)


def test_views_keep_lengths_and_turn_the_axis_up() -> None:
    axes = np.eye(3)
    places, near = shown_from(axes)
    assert np.column_stack([places, near]) @ np.column_stack([places, near]).T == pytest.approx(
        np.eye(3)
    )
    assert places[2, 1] > 0.9  # z points up in the picture
    for name, axis in zip("xyz", axes, strict=True):
        assert upright(axis, name).tolist() == [0, 0, 1]
        turned = np.stack([upright(a, name) for a in axes])
        assert np.linalg.det(turned) == pytest.approx(1)  # no mirror image


def test_colours_follow_the_features_in_each_basis() -> None:
    draw = np.random.default_rng(1)
    one, other = draw.normal(size=(2, 12, 6)), draw.normal(size=(2, 9, 6))
    shared = coloured([one, other, one], "shared")
    assert [found.shape for found in shared] == [(2, 12, 3), (2, 9, 3), (2, 12, 3)]
    assert shared[0] == pytest.approx(shared[2])
    own = coloured([one, other], "own")
    assert own[0][1] == pytest.approx(colours(one[1]))
    per_object = coloured([one, other], "object")
    assert per_object[1][0] == pytest.approx(colours(np.concatenate([one[0], other[0]]))[12:])
    assert all(0 <= c.min() <= c.max() <= 1 for c in (*shared, *own, *per_object))
    assert coloured([np.ones((1, 4, 2))], "own")[0].shape == (1, 4, 3)


def test_stability_of_known_assignments() -> None:
    draw = np.random.default_rng(2)
    first = draw.integers(0, 6, 5000)
    renamed = draw.permutation(6)[first]
    assert stability(first, renamed, 6) == (1.0, 1.0)
    chance = stability(first, draw.integers(0, 6, 5000), 6)
    assert chance.matched == pytest.approx(1 / 6, abs=0.03)
    assert chance.rand == pytest.approx(0, abs=0.01)
    half = np.where(np.arange(5000) < 2500, renamed, -1)
    assert stability(first, half, 6) == (1.0, 1.0)
    assert np.isnan(stability(first, np.full(5000, -1), 6).matched)
    assert stability(np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1]), 2).matched == 0.75


def test_maps_are_one_hot_and_neighbours_are_neighbours() -> None:
    image = map_image(np.array([2, 0, -1]), 3)
    assert image.tolist() == [[0, 0, 1], [1, 0, 0], [0, 0, 0]]
    centers = torch.tensor([[[0.0, 0, 0], [5, 0, 0], [1, 0, 0], [4, 0, 0]]])
    output = Tokens(
        features=torch.zeros(1, 4, 2),
        centers=centers,
        assignment=torch.tensor([[7, 8, 7, 8]]),
        tokens_used=torch.tensor([2]),
    )
    assert ordered_assignment(output).tolist() in ([[7, 7, 8, 8]], [[8, 8, 7, 7]])
    points = torch.tensor([[[0.2, 0, 0], [4.9, 0, 0]]])
    assert supertoken_of_points(Objects(points, ("one",)), output).tolist() == [[7, 8]]


def test_both_spaces_are_those_in_which_a_student_chooses(
    teacher: Backbone, points: torch.Tensor
) -> None:
    student = Student.from_teacher(
        teacher, supertokens=5, generator=torch.Generator().manual_seed(0)
    )
    objects = Objects(points, ("x",) * len(points))
    read = read_tokens(student, objects)
    found = spaces_of(student.dso, read)
    assert found.chosen.tolist() == student(points).assignment.flatten().tolist()
    assert np.argmax(found.keys @ found.queries.T, axis=1).tolist() == found.chosen.tolist()
    assert found.tokens.shape == (48, 24)
    assert found.queries.shape == found.supertokens.shape == (5, 24)
    assert not student.dso.norm._forward_hooks


def test_tokens_that_a_gate_keeps_are_not_read(teacher: Backbone, points: torch.Tensor) -> None:
    student = Student.from_teacher(
        teacher, supertokens=5, gate=True, generator=torch.Generator().manual_seed(1)
    )
    read = read_tokens(student, Objects(points, ("x",) * len(points)))
    assert len(read) == int((student(points).assignment >= 0).sum())


def test_metrics_by_epoch() -> None:
    rows = [
        {"step": "0", "loss": "4"}, {"step": "9", "loss": "2"},
        {"step": "10", "clouds_per_second": "5"}, {"step": "10", "validation_oa": "50"},
        {"step": "19", "loss": "1"}, {"step": "20", "clouds_per_second": "5"},
        {"step": "20", "validation_oa": "nan"}, {"step": "19", "loss": "3"},
    ]  # fmt: skip
    epochs, losses = by_epoch(rows, "loss")
    assert epochs.tolist() == [1, 2]
    assert losses.tolist() == [3, 3]
    assert [v.tolist() for v in by_epoch(rows, "validation_oa", after=True)] == [[1], [50]]
    assert by_epoch(rows[:2], "loss")[0].tolist() == []
    assert by_epoch([], "loss")[0].tolist() == []


def run_folder(folder: Path, settings: str, columns: str, *lines: str) -> Path:
    (folder / "metrics" / "version_0").mkdir(parents=True)
    (folder / "config.yaml").write_text(settings)
    text = "\n".join(["step,clouds_per_second," + columns, *lines]) + "\n"
    (folder / "metrics" / "version_0" / "metrics.csv").write_text(text)
    return folder


def test_curves_of_a_fine_tuned_model_start_with_its_distillation(tmp_path: Path) -> None:
    distilled = run_folder(
        tmp_path / "mse", "teacher: t\nloss: mse\n", "loss", "0,,4", "1,,2", "2,9,", "3,,1", "4,9,"
    )
    (distilled / "model").mkdir()
    tuned = run_folder(
        tmp_path / "cls", f"model: {distilled / 'model'}\n", "loss,validation_oa",
        "5,9,,", "5,,,60", "10,9,,", "10,,,70",
    )  # fmt: skip
    subjects = [Subject("MSE", str(tuned), None), Subject("none", str(tmp_path), None)]
    panels, losses = curves_of(subjects)
    assert losses == {"MSE": "MSE"}
    assert {axis: [c.y.tolist() for c in found] for axis, found in panels.items()} == {
        "validation accuracy (%)": [[60, 70]],
        "distillation loss (training)": [[3, 1]],
    }
    assert figures(f"MSE={tuned}", "--which", "curves", "--out", str(tmp_path / "f")) == 0
    caption = (tmp_path / "f" / "captions.md").read_text()
    assert "MSE: MSE" in caption
    assert (tmp_path / "f" / "curves.svg").is_file()


def test_all_figures_and_the_same_pictures_again(
    models: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(study, "code_version", lambda: "1.2.3")

    def drawn(out: Path, *which: str) -> dict[str, str]:
        named = words(models, "teacher", "a", "b", "gated")
        assert figures(*named, *SMALL, "--which", *which, "--out", str(out)) == 0
        return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in out.iterdir()}

    kinds = ("tsne", "pca", "assignment", "supertokens3d", "projections", "health")
    first = drawn(tmp_path / "one", *kinds)
    names = ["assignment", "health", "pca", "tsne"]
    names += [f"{kind}-{m}" for kind in ("projections", "supertokens3d") for m in ("a", "b")]
    names.append("supertokens3d-gated")
    for name in names:
        assert {f"{name}.png", f"{name}.svg"} <= first.keys()
    said = capsys.readouterr()
    assert "teacher has no supertokens and is left out" in said.err
    assert "a and b" in said.out  # the stability of the two
    captions = (tmp_path / "one" / "captions.md").read_text()
    assert all(f"## {name}\n" in captions for name in names)
    assert "60 clouds, 64 points each, seed 0" in captions
    assert "Code: 1.2.3." in captions
    assert not [name for name in first if name.endswith("partial")]
    again = drawn(tmp_path / "two", "tsne", "projections")
    pictures = {name for name in again if name != "captions.md"}
    assert pictures == {name for name in first if name.startswith(("tsne.", "projections-"))}
    assert all(again[name] == first[name] for name in pictures)


def test_a_reducer_has_maps_and_no_learned_supertokens(
    teacher: Backbone, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    reduced = Merged.around(teacher, ReductionConfig(method="tome", reach=4))
    folder = save(reduced, tmp_path / "tome", provenance={})
    which = ["--which", "assignment", "projections"]
    out = tmp_path / "f"
    assert figures(f"tome={folder}", *SMALL, *which, "--out", str(out)) == 0
    assert "tome has no learned supertokens and is left out" in capsys.readouterr().err
    assert sorted(p.name for p in out.iterdir()) == [
        "assignment.png", "assignment.svg", "captions.md",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--which", "tsnee"], "which takes one or more of tsne"),
        (["--basis", "both"], "basis"),
        (["--data", "no/such.npz"], "no such archive"),
        (["--classes", "unicorn"], "has no class unicorn; it has"),
        (["--classes", "chair", "--examples", "90"], "--examples is 90"),
        (["--examples", "90"], "lower --examples"),
        (["--which", "projections"], "no model has what projections show"),
        (["--which", "tsne", "--clouds", "3"], "t-SNE needs at least 5 clouds"),
        (["--which", "curves"], "no model has what curves show"),
    ],
)
def test_bad_input_is_one_sentence(
    models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture, options: list[str],
    says: str,
) -> None:  # fmt: skip
    which = [] if "--which" in options else ["--which", "supertokens3d"]
    names = ("a",) if which else ("teacher",)
    given = [*words(models, *names), *SMALL, *which, "--out", str(tmp_path / "f"), *options]
    assert figures(*given) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("foundry3d: error: ")
    assert says in error


def test_what_a_call_needs() -> None:
    for given, says in (
        ({}, "name at least one saved model"),
        ({"models": ("m",)}, "with --data"),
        ({"models": ("m",), "data": "d", "perplexity": 0.0}, "perplexity must be positive"),
    ):
        with pytest.raises(InputError, match=says):
            FiguresConfig(**given)
    assert FiguresConfig(models=("m",), which=("curves",)).data == ""


def test_names_of_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert name_and_folder("T=runs/t/model") == ("T", "runs/t/model")
    assert name_and_folder("runs/s16/model") == ("s16", "runs/s16/model")
    Path("a=b").mkdir()
    assert name_and_folder("a=b") == ("a=b", "a=b")
    Path("run").mkdir()
    assert name_and_folder("s=16=run") == ("s=16", "run")
    assert name_and_folder("s = 16=a=b") == ("s = 16", "a=b")
    with pytest.raises(InputError, match="NAME=FOLDER"):
        name_and_folder("=x")
    for one, other in (("s=a", "s=b"), ("s 1=a", "s/1=b")):
        with pytest.raises(InputError, match="the same file names; name them"):
            read_subjects([one, other], models=False)
    (found,) = read_subjects(["../../s, 1=run"], models=False)
    assert (found.name, found.file_name) == ("../../s, 1", "s-1")


def test_classes_are_spread_over_those_with_enough_clouds() -> None:
    clouds = Clouds(
        points=np.zeros((7, 4, 3), np.float32),
        labels=np.array([0, 0, 1, 2, 2, 3, 3]),
        class_names=("a", "b", "c", "d", "never"),
    )
    assert shown_classes(clouds, [], 2, 2) == [0, 3]
    assert shown_classes(clouds, [], 9, 2) == [0, 2, 3]
    assert shown_classes(clouds, ["c", "a"], 9, 1) == [2, 0]


def test_a_picture_that_is_interrupted_leaves_the_earlier_one(tmp_path: Path) -> None:
    with page(tmp_path, "x", (1, 1), "first"):
        pass
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(KeyboardInterrupt), page(tmp_path, "x", (1, 1), "second"):
        raise KeyboardInterrupt
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    assert b"first" in before["x.png"] and b"first" in before["x.svg"]


def test_legends_fit_below_their_panels() -> None:
    assert legend_shape(["chair", "bathtub"], 3.4) == (2, 1)
    columns, lines = legend_shape(["class name"] * 40, 3.4)
    assert columns * 10 < 3.4 * 18 < (columns + 1) * 15  # about 18 letters in an inch
    assert lines == -(-40 // columns)
    assert legend_shape(["a name that is wider than the picture"], 1.0) == (1, 1)
    assert legend_shape([], 3.4) == (1, 0)


def test_captions_are_kept_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "captions.md"
    for name, text in (("b", "two\n\n| x |"), ("a", "one"), ("b", "three")):
        write_caption(path, name, text)
    assert path.read_text() == "# Captions\n\n## a\n\none\n\n## b\n\nthree\n"


def test_widths_that_cannot_share_a_basis_are_left_out(
    teacher: Backbone, models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    wide = Backbone(
        TINY.__class__(**{**TINY.__dict__, "dim": 30}), generator=torch.Generator().manual_seed(0)
    ).eval()
    folder = save(wide, tmp_path / "wide", provenance={})
    given = [*words(models, "teacher"), f"wide={folder}", *SMALL, "--which", "pca"]
    assert figures(*given, "--out", str(tmp_path / "f")) == 0
    assert "wide is left out, its features are 30 wide" in capsys.readouterr().err
    assert figures(*given, "--out", str(tmp_path / "g"), "--basis", "own") == 0
    assert "left out" not in capsys.readouterr().err
