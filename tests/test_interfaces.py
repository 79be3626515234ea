"""What other libraries expect: models by name, a transformer, hub folders, clouds and meshes."""

import copy
import pickle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import TINY
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks

import foundry3d
from foundry3d.checkpoints import zoo
from foundry3d.checkpoints.folder import save
from foundry3d.config import BackboneConfig, from_dict
from foundry3d.embed.clouds import Policy, embed_clouds
from foundry3d.errors import InputError
from foundry3d.models.backbone import Backbone
from foundry3d.models.student import Student
from foundry3d.sklearn import Features

BOX = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], float)
FACES = np.array([[0, 1, 3], [0, 3, 2], [4, 7, 5], [4, 6, 7], [0, 4, 5], [0, 5, 1], [2, 3, 7]])


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, teacher: Backbone) -> Student:
    """A student that ships as `tiny`."""
    student = Student.from_teacher(teacher, supertokens=3).eval()
    save(student, tmp_path / "zoo" / "tiny", provenance={"normalise": True, "up": "z"})
    monkeypatch.setattr(zoo, "ZOO", tmp_path / "zoo")
    return student


def test_models_are_made_by_name(shipped: Student, points: torch.Tensor) -> None:
    assert foundry3d.list_models() == ["tiny", "vit_b", "vit_s", "vit_t"]
    assert foundry3d.list_models("vit_?") == ["vit_b", "vit_s", "vit_t"]
    assert foundry3d.list_models(pretrained=True) == ["tiny"]
    small = foundry3d.create_model("vit_t", pretrained=False, depth=1, groups=8)
    assert isinstance(small, Backbone) and not small.training
    assert (small.config.dim, small.config.depth, small.config.groups) == (192, 1, 8)
    model = foundry3d.create_model("tiny")
    assert torch.equal(model(points).features, shipped(points).features)


def test_changes_keep_the_weights_that_fit(shipped: Student, points: torch.Tensor) -> None:
    fewer = foundry3d.create_model("tiny", backbone={"groups": 6})
    assert fewer(points).features.shape == (4, 6, 24)
    for key, weight in shipped.state_dict().items():
        assert torch.equal(fewer.state_dict()[key], weight)
    new = foundry3d.create_model("tiny", pretrained=False, supertokens=5)
    assert new.config.supertokens == 5
    with pytest.raises(InputError, match="do not fit supertokens"):
        foundry3d.create_model("tiny", supertokens=5)
    with pytest.raises(InputError, match="unknown key"):
        foundry3d.create_model("tiny", colour=1)


@pytest.mark.parametrize(
    ("name", "says"),
    [("vit_s", "no trained weights; pretrained=False"), ("vit_x", "known are tiny, vit_b")],
)
def test_names_without_weights_say_so(shipped: Student, name: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        foundry3d.create_model(name)


def test_a_hub_class_reads_our_folders(
    tmp_path: Path, teacher: Backbone, points: torch.Tensor
) -> None:
    hub = pytest.importorskip("huggingface_hub")

    class Shared(Backbone, hub.PyTorchModelHubMixin):
        def __init__(self, config: dict) -> None:
            super().__init__(from_dict(BackboneConfig, config))

    folder = foundry3d.save_pretrained(teacher, tmp_path / "shared", license="mit")
    again = Shared.from_pretrained(str(folder), local_files_only=True)
    assert again.config == TINY
    assert torch.equal(again.eval()(points).features, teacher(points).features)
    card = hub.ModelCard.load(folder / "README.md")
    assert (card.data.license, card.data.library_name) == ("mit", "foundry3d")
    assert "point-cloud" in card.data.tags


def test_a_model_of_the_hub_is_read_offline_from_its_cache(
    tmp_path: Path, teacher: Backbone, points: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))
    commit, repository = "0" * 40, tmp_path / "models--somebody--small"
    foundry3d.save_pretrained(teacher, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    model = foundry3d.from_pretrained("somebody/small")
    assert torch.equal(model(points).features, teacher(points).features)


def cloud_like(points: np.ndarray) -> dict[str, object]:
    return {
        "Open3D": SimpleNamespace(points=points.tolist()),
        "Open3D tensors": SimpleNamespace(point=SimpleNamespace(positions=torch.tensor(points))),
        "trimesh": SimpleNamespace(vertices=points),
        "trimesh without faces": SimpleNamespace(vertices=points, faces=np.zeros((0, 3), int)),
    }


def test_clouds_of_other_libraries_are_their_points(teacher: Backbone) -> None:
    points = np.random.default_rng(0).normal(size=(60, 3))
    (expected,) = embed_clouds(teacher, [points])
    for name, cloud in cloud_like(points).items():
        (found,) = embed_clouds(teacher, [cloud])
        assert torch.equal(found.features, expected.features), name


def mesh_like() -> list[SimpleNamespace]:
    positions, indices = (SimpleNamespace(cpu=lambda v=v: v) for v in (BOX, FACES))
    return [
        SimpleNamespace(vertices=BOX, faces=FACES),
        SimpleNamespace(vertices=BOX.tolist(), triangles=FACES.tolist()),
        SimpleNamespace(
            vertex=SimpleNamespace(positions=positions),
            triangle=SimpleNamespace(indices=SizedTensor(indices)),
        ),
    ]


class SizedTensor:
    """A tensor of another library: it has a length, and is moved to the CPU."""

    def __init__(self, held: SimpleNamespace) -> None:
        self.cpu = held.cpu

    def __len__(self) -> int:
        return len(self.cpu())


def test_meshes_are_sampled_with_the_seed(teacher: Backbone) -> None:
    kept = BOX.copy()
    first, *others = [embed_clouds(teacher, [mesh])[0] for mesh in mesh_like()]
    for found in others:
        assert torch.equal(found.features, first.features)
    centers = first.centers[0].numpy()
    on_a_side = np.isclose(centers, 0, atol=1e-5) | np.isclose(centers, 1, atol=1e-5)
    assert on_a_side.any(axis=1).all()
    (other,) = embed_clouds(teacher, mesh_like()[:1], policy=Policy(seed=1))
    assert not torch.equal(other.centers, first.centers)
    assert (kept == BOX).all()


def test_a_mesh_that_is_sampled_equals_its_file(tmp_path: Path, teacher: Backbone) -> None:
    lines = [f"v {x} {y} {z}" for x, y, z in BOX] + [f"f {a} {b} {c}" for a, b, c in FACES + 1]
    (tmp_path / "box.obj").write_text("\n".join(lines) + "\n")
    from foundry3d.data.files import read_points

    read = read_points(tmp_path / "box.obj", samples=16384, seed=0)
    (expected,) = embed_clouds(teacher, [read.points])
    (found,) = embed_clouds(teacher, mesh_like()[:1])
    torch.testing.assert_close(found.features, expected.features, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "mesh",
    [
        SimpleNamespace(vertices=BOX, faces=FACES + 5),
        SimpleNamespace(vertices=BOX[:, :2], faces=FACES),
        SimpleNamespace(vertices=BOX * np.nan, faces=FACES),
        SimpleNamespace(vertices=BOX * 0, faces=FACES),
        SimpleNamespace(colour="red"),
    ],
)
def test_objects_that_hold_no_cloud_are_named(teacher: Backbone, mesh: SimpleNamespace) -> None:
    with pytest.raises(InputError, match="cloud 1: expected"):
        embed_clouds(teacher, [np.random.default_rng(0).normal(size=(60, 3)), mesh])


def test_the_transformer_gives_pooled_features(shipped: Student) -> None:
    rng = np.random.default_rng(0)
    clouds = [rng.normal(size=(n, 3)) for n in (40, 60, 60)]
    features = Features("tiny").fit_transform(clouds)
    expected = torch.cat([tokens.pooled() for tokens in embed_clouds(shipped, clouds)])
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, expected.numpy(), rtol=1e-6)
    fitted = Features(shipped).fit(clouds)
    assert list(fitted.get_feature_names_out()[[0, 24]]) == ["max0", "mean0"]
    assert fitted.transform([]).shape == (0, 48)
    again = pickle.loads(pickle.dumps(fitted)).transform(clouds)
    np.testing.assert_array_equal(again, fitted.transform(clouds))
    pipeline = make_pipeline(Features("tiny", batch=2), StandardScaler())
    scaled = clone(pipeline).set_params(features__points=30).fit_transform(clouds)
    assert np.abs(scaled.mean(axis=0)).max() < 1e-4


def test_the_transformer_refuses_what_it_cannot_use(shipped: Student) -> None:
    with pytest.raises(InputError, match="expected a checkpoint folder"):
        Features("no/such").fit([])
    with pytest.raises(InputError, match="up is for saved models"):
        Features(shipped, up="y").fit([])
    with pytest.raises(InputError, match="cloud 0"):
        Features("tiny").fit([]).transform([np.zeros((40, 3))])
    with pytest.raises(ValueError, match="not fitted"):
        Features("tiny").transform([])


@pytest.mark.parametrize(
    "check",
    [
        estimator_checks.check_parameters_default_constructible,
        estimator_checks.check_no_attributes_set_in_init,
        estimator_checks.check_get_params_invariance,
        estimator_checks.check_set_params,
    ],
    ids=lambda check: check.__name__,
)
def test_checks_of_estimators_pass(check) -> None:
    check("Features", copy.deepcopy(Features()))
