"""Models that ship: names in place of folders, cards, `foundry3d models`, `embed` on its own."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import TINY

import foundry3d
from foundry3d import cli
from foundry3d.bench.shipped import models
from foundry3d.checkpoints import shipping, zoo
from foundry3d.checkpoints.card import Card, Score, card_from, read_card, scores_of
from foundry3d.checkpoints.folder import read_config, save
from foundry3d.checkpoints.origin import origin_of
from foundry3d.config import EmbedConfig, ModelsConfig, to_dict
from foundry3d.embed.files import embed
from foundry3d.errors import InputError
from foundry3d.heads.classifier import Classifier
from foundry3d.inference.cost import count
from foundry3d.models.backbone import Backbone
from foundry3d.models.student import Student

FACTS = {
    "made_by": "pretrain (masked)",
    "init": "/home/somebody/runs/before/model",
    "metrics": {"loss": 0.25},
    "settings": {"out": "/home/somebody/runs"},
    "data": "programs (2,000 shapes, seed 0)",
    "pretrained_on": "procedural (seed 0), then programs (2,000 shapes, seed 0)",
    "points": 60,
    "up": "z",
    "normalise": True,
    "seed": 3,
}
CARD = Card(
    summary="A tiny teacher.",
    data="Shapes that programs draw.",
    protocol="Masked reconstruction, 3 epochs.",
    limits=("It knows no scenes.",),
    scores=(Score(data="ModelNet10-vox", measure="linear probe", score=88.5, untrained=84.25),),
)
ZOO = zoo.ZOO


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `run`, a teacher's, and `zoo`, with `tiny`, that teacher, and its student."""
    folder = tmp_path_factory.mktemp("made")
    model = Backbone(TINY, generator=torch.Generator().manual_seed(7)).eval()
    save(model, folder / "run" / "model", provenance=FACTS)
    student = Student.from_teacher(
        model, supertokens=3, gate=True, generator=torch.Generator().manual_seed(8)
    )
    facts = FACTS | {"made_by": "distill", "teacher": "tiny", "distilled_on": "procedural (seed 1)"}
    save(student, folder / "student", provenance=facts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zoo, "ZOO", folder / "zoo")
        shipping.ship(folder / "run", "tiny", CARD)
        shipping.ship(folder / "student", "mini", CARD)
    return folder


@pytest.fixture
def shipped(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `made` in which the package finds its models; the working folder is empty."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(zoo, "ZOO", tmp_path / "zoo")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


def test_a_name_loads_in_float32_what_was_shipped(shipped: Path, points) -> None:
    found = foundry3d.load("tiny", kind=Backbone)
    teacher = foundry3d.load(shipped / "run", kind=Backbone)
    for name, value in found.state_dict().items():
        own = teacher.state_dict()[name]
        assert value.dtype == own.dtype
        assert torch.equal(value, own.half().float() if own.ndim > 1 else own)
    with torch.no_grad():
        wanted, close = teacher(points).features, found(points).features
    assert float((close - wanted).norm() / wanted.norm()) < 2e-3
    assert torch.equal(foundry3d.from_pretrained("tiny")(points).features, found(points).features)
    assert origin_of("mini").distilled_on == "procedural (seed 1)"


def test_a_path_comes_before_a_name(shipped: Path, points) -> None:
    other = Backbone(TINY, generator=torch.Generator().manual_seed(9)).eval()
    save(other, "tiny", provenance={})
    assert torch.equal(foundry3d.load("tiny")(points).features, other(points).features)


@pytest.mark.parametrize("name", ["tinny", "tiny/model", "TINY", ""])
def test_an_unknown_name_lists_the_known_ones(shipped: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"name of a model that ships \(mini, tiny\)"):
        foundry3d.load(name)


def test_nothing_of_the_run_is_shipped(shipped: Path) -> None:
    text = "".join(path.read_text() for path in shipped.glob("zoo/tiny/[cR]*"))
    assert "somebody" not in text and "0.25" not in text.replace("84.25", "")
    facts = read_config("tiny")["provenance"]
    assert facts["pretrained_on"] == FACTS["pretrained_on"] and facts["points"] == 60
    assert card_from(facts["card"]) == CARD
    assert sorted(path.name for path in shipped.glob("zoo/tiny/*")) == [
        "README.md", "config.json", "model.safetensors",
    ]  # fmt: skip


def test_the_card_can_be_read_by_people_and_hubs(shipped: Path) -> None:
    text = (shipped / "zoo" / "tiny" / "README.md").read_text()
    header = yaml.safe_load(text.split("---")[1])
    assert header["license"] == "mit" and header["library_name"] == "foundry3d"
    for part in ("# tiny", 'load("tiny")', CARD.data, CARD.protocol, "- It knows no scenes."):
        assert part in text
    assert re.search(r"\| ModelNet10-vox +\| linear probe +\| 88.5 +\| - +\| 84.2 ", text)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"pretrained_on": "modelnet10_vox_train"}, "modelnet10_vox_train"),
        ({"distilled_on": "procedural (seed 0), then scans"}, "scans"),
        ({"pretrained_on": None}, "does not record"),
    ],
)
def test_only_built_in_shapes_ship(shipped: Path, teacher, data: dict, says: str) -> None:
    save(teacher, "other", provenance=FACTS | data)
    with pytest.raises(InputError, match=says):
        shipping.ship("other", "other", CARD)
    assert zoo.names() == ("mini", "tiny")


def test_what_does_not_fit_is_refused(shipped: Path, teacher, monkeypatch) -> None:
    with pytest.raises(InputError, match="lower-case"):
        shipping.ship(shipped / "run", "../tiny", CARD)
    save(Classifier.from_model(teacher, classes=("a", "b")), "headed", provenance=FACTS)
    with pytest.raises(InputError, match="Classifier"):
        shipping.ship("headed", "headed", CARD)
    taken = sum(shipping.size_of(name) for name in ("mini", "tiny"))
    monkeypatch.setattr(shipping, "MOST_BYTES", taken)
    shipping.ship(shipped / "run", "tiny", CARD)  # in place of the earlier one
    with pytest.raises(InputError, match="all that ship have"):
        shipping.ship(shipped / "run", "third", CARD)


def test_scores_come_from_result_rows_over_seeds(tmp_path: Path) -> None:
    def row(model: str, seed: int, **columns: object) -> dict[str, object]:
        return {"task": "linear probe", "data": "a / b", "model": model, "seed": seed, **columns}

    rows = [row("tiny", seed, svm=80.0 + seed, protocol="p") for seed in (0, 2)]
    rows += [row("untrained", 0, svm=70.0), row("other", 0, svm=1.0)]
    rows.append(row("tiny", 0, taught=60.0, examples=5))
    rows.append({"task": "few-shot classification", "data": "c", "model": "tiny"} | {"oa": 90.0,
                "way": 5, "shot": 10})  # fmt: skip
    probe, taught, fewshot = scores_of(rows, "tiny")
    assert probe == Score(
        data="a / b", measure="linear probe", score=81.0, untrained=70.0, deviation=1.41, seeds=2,
        protocol="p",
    )  # fmt: skip
    assert (taught.measure, taught.untrained) == ("5 examples per class", None)
    assert (fewshot.measure, fewshot.score, fewshot.seeds) == ("5-way 10-shot", 90.0, 1)
    with pytest.raises(InputError, match="named mini"):
        scores_of(rows, "mini")
    (tmp_path / "card.json").write_text(json.dumps(to_dict(replace(CARD, scores=(probe,)))))
    assert read_card(tmp_path / "card.json").scores == (probe,)


@pytest.mark.parametrize("text", ["[]", "{}", '{"summary": 1}', '{"nonsense": 1}', "{"])
def test_facts_that_are_no_card_are_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "card.json").write_text(text)
    with pytest.raises(InputError, match=r"card\.json"):
        read_card(tmp_path / "card.json")


def test_models_lists_what_ships(shipped: Path, capsys: pytest.CaptureFixture) -> None:
    cli.main(["models", "--json", "--no_speed"])
    rows = json.loads(capsys.readouterr().out)
    assert [(row["name"], row["kind"], row["license"]) for row in rows] == [
        ("mini", "student", "MIT"),
        ("tiny", "backbone", "MIT"),
    ]
    mini, tiny = rows
    assert mini["gmacs_least"] < mini["gmacs_most"]
    assert tiny["gmacs_least"] == tiny["gmacs_most"]
    student = foundry3d.load("mini", kind=Student)
    assert mini["gmacs_most"] == round(count(student, merged=0).macs / 1e9, 4)
    assert tiny["scores"][0]["untrained"] == 84.25
    assert models(ModelsConfig(models=("tiny",)))[0]["clouds_s"] > 0
    text = capsys.readouterr().out
    assert "clouds/s: median of" in text and "84.2" in text and "mini" not in text


def test_no_shipped_model_is_one_sentence(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(zoo, "ZOO", tmp_path)
    with pytest.raises(InputError, match="no model ships"):
        models(ModelsConfig())


def test_commands_take_names(shipped: Path, capsys: pytest.CaptureFixture) -> None:
    cli.main(["cost", "--model", "tiny", "--results", "null"])
    assert "tiny" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        cli.main(["distill", "--teacher", "tinny", "--data.train", "procedural"])
    assert "(mini, tiny)" in capsys.readouterr().err
    cli.main(["convert", "tiny", "--out", "converted", "--license", "mit"])
    assert foundry3d.load("converted", kind=Backbone).config == TINY


def test_embed_without_a_model_uses_mini(shipped: Path, capsys: pytest.CaptureFixture) -> None:
    cloud = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    np.save("a.npy", cloud)
    embed(EmbedConfig(files=("a.npy",), out="fast.npz"))
    embed(EmbedConfig(files=("a.npy",), out="plain.npz", compile=False, device="cpu"))
    found = {}
    for name in ("fast", "plain"):
        with np.load(f"{name}.npz") as archive:
            found[name] = archive["features"]
            protocol = json.loads(str(archive["protocol"]))
        assert protocol["model"] == "mini" and protocol["compiled"] == (name == "fast")
    np.testing.assert_allclose(found["fast"], found["plain"], rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        points = torch.from_numpy(cloud - cloud.mean(0))
        points = points / points.norm(dim=1).max()
        wanted = foundry3d.load("mini")(points[None]).features
    np.testing.assert_allclose(found["plain"], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_device_is_one_sentence(shipped: Path) -> None:
    np.save("a.npy", np.random.default_rng(0).normal(size=(60, 3)))
    with pytest.raises(InputError, match="--device cuda"):
        embed(EmbedConfig(files=("a.npy",), device="cuda"))


@pytest.mark.parametrize("name", sorted(path.parent.name for path in ZOO.glob("*/config.json")))
def test_what_ships_is_what_it_says(name: str) -> None:
    """The models of this package, where they are."""
    facts = read_config(name)["provenance"]
    shipping.require_free(facts, name)
    assert set(facts) <= {*shipping.KEPT, "card"}
    card = card_from(facts["card"])
    text = (ZOO / name / "README.md").read_text()
    assert yaml.safe_load(text.split("---")[1])["license"] == card.license.lower() == "mit"
    assert card.scores and all(score.untrained is not None for score in card.scores)
    assert {path.name for path in (ZOO / name).iterdir()} == {
        "README.md", "config.json", "model.safetensors",
    }  # fmt: skip
    model = foundry3d.load(name)
    assert all(not p.is_floating_point() or p.dtype == torch.float32 for p in model.parameters())
    points = torch.randn(2, 1024, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = model(points / points.norm(dim=-1).amax(dim=1)[:, None, None]).features
    assert bool(features.isfinite().all()) and float(features.std()) > 1e-3


def test_all_that_ships_is_small() -> None:
    assert sum(shipping.size_of(name) for name in zoo.names()) <= shipping.MOST_BYTES
