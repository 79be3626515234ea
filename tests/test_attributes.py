"""Attributes of points: read, normalised, augmented, selected and given to models."""

from __future__ import annotations

import io
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import TINY
from test_files import CORNERS, TRIANGLES, glb_tree, npy, npz, pack_glb, write

import foundry3d
from foundry3d.baselines import FPSStudent
from foundry3d.checkpoints.folder import load, save
from foundry3d.config import (
    AugmentConfig,
    BackboneConfig,
    DataConfig,
    EmbedConfig,
    PretrainConfig,
    from_dict,
    read_for,
    to_dict,
)
from foundry3d.config.attributes import width_of
from foundry3d.config.distillation import DistillConfig
from foundry3d.data.archive import read_archive, write_archive
from foundry3d.data.attributes import joined
from foundry3d.data.clouds import Clouds
from foundry3d.data.files import read_points
from foundry3d.data.formats.fields import normalised
from foundry3d.data.loading import load_splits
from foundry3d.data.procedural import generate_colored
from foundry3d.embed.clouds import embed_clouds
from foundry3d.embed.files import embed
from foundry3d.errors import InputError, PartialFailure
from foundry3d.export.network import Network
from foundry3d.geometry import group_points
from foundry3d.heads.classifier import Classifier
from foundry3d.inference.cost import count
from foundry3d.models.attributes import dropped, encoded
from foundry3d.models.backbone import Backbone
from foundry3d.models.student import Student
from foundry3d.scenes.scene import encode_scene, group_scene
from foundry3d.training.goals import evaluation_goal
from foundry3d.training.pretrain import start
from foundry3d.transforms import augment, normalise, rotate_about, subsample

NAMES = ("normal", "color", "intensity")
READ = replace(TINY, attributes=NAMES, attribute_dropout=0.5)
RNG = np.random.default_rng(5)
SPOTS = RNG.normal(size=(40, 3)).astype(np.float32)
NORMALS = (SPOTS / np.linalg.norm(SPOTS, axis=1, keepdims=True)).astype(np.float32)
BYTES = RNG.integers(0, 256, (40, 3), dtype=np.uint8)
SHADE = RNG.integers(0, 256, 40, dtype=np.uint8)
CLOUD = joined(
    SPOTS, {"normal": NORMALS, "color": BYTES / 255, "intensity": SHADE[:, None] / 255}, NAMES
)


def with_all(points: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Points (B, N, 3) with random normals, colours and intensities."""
    rest = torch.rand(*points.shape[:2], 7, generator=generator)
    return torch.cat([points, F.normalize(rest[..., :3] - 0.5, dim=-1), rest[..., 3:]], dim=-1)


@pytest.fixture
def reader(teacher: Backbone, generator: torch.Generator) -> Backbone:
    """The tiny teacher, which also reads attributes, with weights that are not zero."""
    model = foundry3d.with_attributes(teacher, NAMES, attribute_dropout=0.5)
    with torch.no_grad():
        model.tokenizer.lift.weight.normal_(0, 0.3, generator=generator)
    return model


# ---------------------------------------------------------------- files


def table(kind: str) -> bytes:
    """The cloud as text with a header."""
    mark = "," if kind == "csv" else " "
    head = mark.join(["x", "y", "z", "nx", "ny", "nz", "R", "G", "B", "Intensity"])
    rows = np.concatenate([SPOTS, NORMALS, BYTES, SHADE[:, None]], axis=1)
    return (head + "\n" + "\n".join(mark.join(f"{v:.9g}" for v in row) for row in rows)).encode()


def ply(kind: str) -> bytes:
    """The cloud with properties of their usual names and types."""
    names = {"f": ("x", "y", "z", "nx", "ny", "nz"), "B": ("red", "green", "blue", "intensity")}
    head = f"ply\nformat {kind} 1.0\nelement vertex {len(SPOTS)}\n"
    head += "".join(f"property float {name}\n" for name in names["f"])
    head += "".join(f"property uchar {name}\n" for name in names["B"]) + "end_header\n"
    if kind == "ascii":
        values = np.concatenate([SPOTS, NORMALS, BYTES, SHADE[:, None]], axis=1)
        return (head + "".join(" ".join(f"{v:.9g}" for v in row) + "\n" for row in values)).encode()
    rows = np.zeros(len(SPOTS), [("f", "<f4", 6), ("c", "u1", 3), ("i", "u1")])
    rows["f"], rows["c"], rows["i"] = np.concatenate([SPOTS, NORMALS], axis=1), BYTES, SHADE
    return head.encode() + rows.tobytes()


def pcd(kind: str) -> bytes:
    """The cloud with colours packed into the bits of a float, as PCL writes them."""
    n = len(SPOTS)
    head = "FIELDS x y z rgb normal_x normal_y normal_z intensity\nSIZE 4 4 4 4 4 4 4 4\n"
    head += f"TYPE F F F F F F F F\nCOUNT 1 1 1 1 1 1 1 1\nPOINTS {n}\nDATA {kind}\n"
    bits = BYTES.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    columns = [SPOTS, bits.view(np.float32)[:, None], NORMALS, SHADE[:, None]]
    values = np.concatenate(columns, axis=1, dtype=np.float32)
    if kind == "binary":
        return head.encode() + values.tobytes()
    return (head + "".join(" ".join(f"{v:.9g}" for v in row) + "\n" for row in values)).encode()


def records() -> bytes:
    kind = [(name, "f4") for name in ("x", "y", "z", "nx", "ny", "nz")]
    kind += [(name, "u1") for name in ("red", "green", "blue", "intensity")]
    values = zip(*SPOTS.T, *NORMALS.T, *BYTES.T, SHADE, strict=True)
    return npy(np.array(list(values), kind))


def parquet() -> bytes:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    columns = dict(zip("xyz", SPOTS.T, strict=True))
    columns |= dict(zip(("nx", "ny", "nz"), NORMALS.T, strict=True))
    columns |= dict(zip(("red", "green", "blue"), BYTES.T, strict=True))
    stream = io.BytesIO()
    pq.write_table(pa.table(columns | {"intensity": SHADE}), stream)
    return stream.getvalue()


def las(folder: Path, name: str) -> Path:
    import laspy

    header = laspy.LasHeader(point_format=2, version="1.2")
    header.scales = np.full(3, 1e-4)
    header.add_extra_dims([laspy.ExtraBytesParams(n, "f4") for n in ("nx", "ny", "nz")])
    file = laspy.LasData(header)
    file.x, file.y, file.z = SPOTS.T.astype(np.float64)
    file.red, file.green, file.blue = BYTES.T.astype(np.uint16) * 257
    file.intensity = SHADE.astype(np.uint16) * 257
    file.nx, file.ny, file.nz = NORMALS.T
    file.write(str(folder / name))
    return folder / name


FILES = {
    "a.csv": lambda: table("csv"),
    "a.xyz": lambda: table("xyz"),
    "text.ply": lambda: ply("ascii"),
    "packed.ply": lambda: ply("binary_little_endian"),
    "text.pcd": lambda: pcd("ascii"),
    "packed.pcd": lambda: pcd("binary"),
    "records.npy": records,
    "a.npz": lambda: npz(points=SPOTS, normals=NORMALS, colors=BYTES, intensity=SHADE),
    "a.parquet": parquet,
}


@pytest.mark.parametrize("name", [*FILES, "a.las", "a.laz"])
def test_every_format_gives_the_same_attributes(tmp_path: Path, name: str) -> None:
    path = las(tmp_path, name) if "las" in name or "laz" in name else None
    path = path or write(tmp_path, name, FILES[name]())
    found = read_points(path, attributes=NAMES)
    assert set(found.attributes) == set(NAMES)
    whole = joined(found.points, found.attributes, NAMES)
    np.testing.assert_allclose(whole, CLOUD, atol=1e-4 if path.suffix[1:3] == "la" else 1e-6)
    plain = read_points(path)
    assert not plain.attributes
    np.testing.assert_array_equal(plain.points, found.points)


def test_mesh_vertices_pass_their_attributes_on(tmp_path: Path) -> None:
    text = "".join(
        f"v {x} {y} {z} {x / 2} {y / 2} {z / 5}\n" for x, y, z in CORNERS.tolist()
    ) + "".join("f " + " ".join(str(i + 1) for i in face) + "\n" for face in TRIANGLES.tolist())
    found = read_points(write(tmp_path, "a.obj", text), samples=50, attributes=NAMES)
    np.testing.assert_allclose(found.attributes["color"], found.points / (2, 2, 5), atol=1e-6)
    np.testing.assert_allclose(found.attributes["normal"], [[0, 0, 1]] * 50, atol=1e-6)
    assert "intensity" not in found.attributes
    plain = read_points(tmp_path / "a.obj", samples=50)
    np.testing.assert_array_equal(plain.points, found.points)


def test_glb_normals_turn_with_their_nodes(tmp_path: Path) -> None:
    tree, block = glb_tree(CORNERS, TRIANGLES)
    normals = np.tile(np.float32([0, 0.6, 0.8]), (len(CORNERS), 1))
    colors = np.tile(np.uint8([255, 51, 0, 255]), (len(CORNERS), 1))
    for kind, data, form in (("NORMAL", normals, "VEC3"), ("COLOR_0", colors, "VEC4")):
        packed, view = data.tobytes(), len(tree["bufferViews"])
        place = {"buffer": 0, "byteOffset": len(block), "byteLength": len(packed)}
        tree["bufferViews"].append(place)
        component = {"componentType": 5126 if kind == "NORMAL" else 5121, "type": form}
        tree["accessors"].append({"bufferView": view, "count": len(data)} | component)
        tree["accessors"][-1]["normalized"] = kind != "NORMAL"
        tree["meshes"][0]["primitives"][0]["attributes"][kind] = len(tree["accessors"]) - 1
        block += packed
    tree["buffers"][0]["byteLength"] = len(block)
    tree["nodes"] = [{"mesh": 0, "scale": [1, 2, 1]}]
    path = write(tmp_path, "a.glb", pack_glb(tree, block))
    found = read_points(path, samples=20, attributes=("normal", "color")).attributes
    expected = np.array([0, 0.3, 0.8]) / np.hypot(0.3, 0.8)
    np.testing.assert_allclose(found["normal"], np.tile(expected, (20, 1)), atol=1e-6)
    np.testing.assert_allclose(found["color"], np.tile([1, 0.2, 0], (20, 1)), atol=1e-6)


def test_the_policy_of_units() -> None:
    fractions = np.array([[0.0, 0.5, 1.0]])
    np.testing.assert_allclose(normalised("color", fractions), fractions)
    np.testing.assert_allclose(normalised("color", fractions * 255), fractions)
    np.testing.assert_allclose(normalised("color", np.uint16([[0, 51, 255]])), [[0, 0.2, 1]])
    np.testing.assert_allclose(normalised("color", np.uint8([[0, 0, 1]])), [[0, 0, 1 / 255]])
    np.testing.assert_allclose(normalised("intensity", np.uint16([[65535], [0]])), [[1], [0]])
    np.testing.assert_allclose(normalised("normal", np.array([[0, 0, 4]])), [[0, 0, 1]])
    assert np.isnan(normalised("normal", np.zeros((1, 3)))).all()
    np.testing.assert_array_equal(normalised("curvature:1", np.array([[700.0]])), [[700]])


def test_any_other_attribute_by_its_name(tmp_path: Path) -> None:
    path = write(tmp_path, "a.npz", npz(points=SPOTS, curvature=SPOTS[:, 0], slope=SPOTS[:, :2]))
    found = read_points(path, attributes=("curvature:1", "slope:2")).attributes
    np.testing.assert_array_equal(found["curvature:1"], SPOTS[:, :1])
    np.testing.assert_array_equal(found["slope:2"], SPOTS[:, :2])
    with pytest.raises(InputError, match=r"'slope:3'.*\(40, 3\)"):
        read_points(path, attributes=("slope:3",))
    with pytest.raises(InputError, match="number of channels"):
        read_points(path, attributes=("slope",))


# ---------------------------------------------------------------- augmentation and selection


def test_normals_stay_perpendicular_to_the_surface(generator: torch.Generator) -> None:
    one, other = F.normalize(torch.randn(2, 6, 3, generator=generator), dim=-1)
    other = F.normalize(torch.linalg.cross(one, other), dim=-1)
    tangents = torch.stack([one, other, torch.linalg.cross(one, other)], dim=1)
    here = torch.randn(6, 1, 3, generator=generator)
    cloud = torch.cat([here, here + tangents[:, :1], here + tangents[:, 1:2]], dim=1)
    normals = tangents[:, 2:].expand(-1, 3, -1)
    config = AugmentConfig(scale=(0.5, 2.0), flip=True, translate=0.1)
    whole = torch.cat([cloud, normals, torch.rand(6, 3, 3, generator=generator)], dim=-1)
    made = augment(whole, config, up="z", generator=generator, attributes=("normal", "color"))
    for i in (1, 2):
        along = made[:, i, :3] - made[:, 0, :3]
        assert float((along * made[:, 0, 3:6]).sum(dim=1).abs().max()) < 1e-5
    torch.testing.assert_close(made[..., 3:6].norm(dim=-1), torch.ones(6, 3))
    torch.testing.assert_close(made[..., 6:], whole[..., 6:])
    still = augment(
        whole, replace(config, scale=(1, 1), flip=False), up="z",
        generator=torch.Generator().manual_seed(1), attributes=("normal", "color"),
    )  # fmt: skip
    angle = torch.atan2(still[..., 4], still[..., 3]) - torch.atan2(whole[..., 4], whole[..., 3])
    turned = rotate_about(whole[..., 3:6], angle[:, 0], "z")
    torch.testing.assert_close(still[..., 3:6], turned, atol=1e-5, rtol=0)


def test_coordinates_are_augmented_as_without_attributes(
    points: torch.Tensor, generator: torch.Generator
) -> None:
    whole = with_all(points, generator)
    config = AugmentConfig(flip=True, translate=0.2)
    one, other = (torch.Generator().manual_seed(3) for _ in range(2))
    plain = augment(points, config, up="y", generator=one)
    made = augment(whole, config, up="y", generator=other, attributes=NAMES)
    assert torch.equal(made[..., :3], plain)
    assert torch.equal(normalise(whole)[..., :3], normalise(points))


@pytest.mark.parametrize("how", ["random", "fps", "first"])
def test_attributes_are_selected_with_their_points(points: torch.Tensor, how: str) -> None:
    whole = torch.cat([points, points * 2], dim=-1)
    one, other = (torch.Generator().manual_seed(3) for _ in range(2))
    found = subsample(whole, 20, how=how, generator=one)
    assert torch.equal(found[..., 3:], found[..., :3] * 2)
    assert torch.equal(found[..., :3], subsample(points, 20, how=how, generator=other))


def test_groups_take_attributes_along(points: torch.Tensor) -> None:
    plain = group_points(points, 6, 5, radius=0.5)
    found = group_points(torch.cat([points, points], dim=-1), 6, 5, radius=0.5, attributes=3)
    assert torch.equal(found.centers, plain.centers)
    assert torch.equal(found.neighborhoods[..., :3], plain.neighborhoods)
    again = (found.neighborhoods[..., 3:] - found.centers[:, :, None]) / 0.5
    torch.testing.assert_close(again, plain.neighborhoods)
    with pytest.raises(InputError, match=r"\(B, N, 3\)"):
        group_points(torch.cat([points, points], dim=-1), 6, 5)


# ---------------------------------------------------------------- models


def test_zero_weights_keep_the_features(
    teacher: Backbone, points: torch.Tensor, generator: torch.Generator
) -> None:
    model = foundry3d.with_attributes(teacher, NAMES, attribute_dropout=0.2)
    wanted = teacher(points).features
    for read in (points, with_all(points, generator)):
        torch.testing.assert_close(model(read).features, wanted, atol=1e-6, rtol=0)
    back = foundry3d.with_attributes(model, ())
    assert torch.equal(back(points).features, wanted)
    assert back.config == teacher.config


def test_absent_is_zero_and_known_to_be(points: torch.Tensor, generator: torch.Generator) -> None:
    whole = with_all(points, generator)
    whole[0, :, 3:6] = torch.nan  # the first cloud has no normals
    whole[1, 0, 9] = torch.nan  # one point has no intensity
    found = encoded(whole, READ)
    assert found.shape[-1] == READ.point_channels == 3 + 4 + 4 + 2
    assert bool((found[0, :, 3:7] == 0).all()) and bool((found[1:, :, 6] == 1).all())
    assert found[1, 0, 11:].tolist() == [0, 0] and bool((found[1, 1:, 12] == 1).all())
    assert torch.equal(encoded(points, READ)[..., 3:], torch.zeros(4, 96, 10))


def test_dropout_is_drawn_for_each_attribute_and_cloud(generator: torch.Generator) -> None:
    near = torch.ones(400, 2, 3, READ.point_channels)
    found = dropped(near, READ, generator)
    assert bool((found[..., :3] == 1).all())
    kept = found[:, 0, 0, [3, 7, 11]]
    assert torch.equal(found[..., 3:7], kept[:, None, None, :1].expand(-1, 2, 3, 4))
    assert bool(((kept.mean(dim=0) - 0.5).abs() < 0.1).all())
    assert float(torch.corrcoef(kept.T).fill_diagonal_(0).abs().max()) < 0.2


def test_training_drops_attributes_and_evaluation_does_not(
    reader: Backbone, points: torch.Tensor, generator: torch.Generator
) -> None:
    groups = reader.group(with_all(points, generator))
    assert torch.equal(reader.tokenize(groups, generator), reader.tokenize(groups, generator))
    reader.train()
    reader.tokenizer.eval()
    outcomes = [reader.tokenize(groups, generator) for _ in range(4)]
    assert any(not torch.equal(outcomes[0], other) for other in outcomes[1:])


def test_a_model_without_dropout_insists(reader: Backbone, points: torch.Tensor) -> None:
    strict = foundry3d.with_attributes(reader, ("normal", "color"))
    with pytest.raises(InputError, match="no normal"):
        strict(points)
    whole = torch.rand(2, 96, 9)
    whole[1, :, 6:] = torch.nan
    with pytest.raises(InputError, match="no color"):
        strict(whole)
    whole[1, 5:, 6:] = 0.5
    assert strict(whole).features.isfinite().all()
    with pytest.raises(InputError, match=r"\(B, N, 9\).*got \(2, 96, 7\)"):
        strict(torch.rand(2, 96, 7))


def test_students_read_fewer_attributes(
    reader: Backbone, points: torch.Tensor, generator: torch.Generator
) -> None:
    whole = with_all(points, generator)
    student = Student.from_teacher(reader, supertokens=4, attributes=("color",))
    goal = evaluation_goal(reader, student, whole)
    assert torch.equal(goal.features, reader(whole).features)
    own = student.group(torch.cat([whole[..., :3], whole[..., 6:9]], dim=-1))
    assert torch.equal(goal.groups.neighborhoods, own.neighborhoods)
    columns = torch.cat([torch.arange(3), torch.arange(7, 11)])
    lift = reader.tokenizer.lift.weight[:, columns]
    assert torch.equal(student.tokenizer.lift.weight, lift)
    with pytest.raises(InputError, match="extend the teacher"):
        Student.from_teacher(reader, attributes=("curvature:1",))


def test_saved_models_keep_their_attributes(
    reader: Backbone, points: torch.Tensor, tmp_path: Path, generator: torch.Generator
) -> None:
    again = load(save(reader, tmp_path / "model", provenance={}))
    assert again.config.attributes == NAMES and again.config.attribute_dropout == 0.5
    whole = with_all(points, generator)
    assert torch.equal(again(whole).features, reader(whole).features)


def test_other_forms_honour_attributes(
    reader: Backbone, points: torch.Tensor, generator: torch.Generator
) -> None:
    whole = with_all(points, generator)
    fast = foundry3d.compile(reader)
    wanted = reader(whole).features.detach()
    torch.testing.assert_close(fast(whole).features, wanted, atol=1e-4, rtol=1e-4)
    student = Student.from_teacher(reader, supertokens=4)
    scene = group_scene(student, whole[:1], points_per_token=8)
    every = student.encode(scene.groups(torch.arange(12)[None])).features.detach()
    torch.testing.assert_close(encode_scene(student, scene).features, every, atol=1e-5, rtol=1e-5)
    other = whole[:1].clone()
    other[..., 6:9] = 1 - other[..., 6:9]
    changed = encode_scene(student, group_scene(student, other, points_per_token=8))
    assert float((changed.features - every).abs().max()) > 1e-3
    coarse = FPSStudent.from_teacher(reader, supertokens=4, points=96)
    assert coarse(whole).features.shape == wanted.shape
    with pytest.raises(InputError, match="coordinates alone"):
        Network(reader, None, "inside")


def test_the_cost_counts_the_channels(teacher: Backbone, reader: Backbone) -> None:
    rows, first = TINY.groups * TINY.group_size, TINY.point_widths[0]
    assert count(reader).macs - count(teacher).macs == rows * first * 10
    assert count(reader).params - count(teacher).params == first * 10


def test_attributes_are_named_properly() -> None:
    for wrong in (("colour",), ("color", "color"), ("color:3",), ("a:0",), ("a:2000",)):
        with pytest.raises(InputError):
            BackboneConfig(attributes=wrong)
    config = BackboneConfig(attributes=("normal", "curvature:2"))
    assert width_of(config.attributes) == 8
    assert from_dict(BackboneConfig, to_dict(config)) == config


# ---------------------------------------------------------------- data sets and embed


def test_archives_round_trip(tmp_path: Path) -> None:
    clouds = generate_colored(6, points=20)
    write_archive(tmp_path / "a.npz", clouds)
    found = read_archive(tmp_path / "a.npz", ("color", "intensity"))
    np.testing.assert_array_equal(found.points[..., :6], clouds.points)
    assert np.isnan(found.points[..., 6]).all() and found.attributes == ("color", "intensity")
    plain = read_archive(tmp_path / "a.npz")
    np.testing.assert_array_equal(plain.points, clouds.points[..., :3])


def folder_of(path: Path) -> Path:
    """Two files with colours and one without."""
    path.mkdir()
    for name in ("a", "b"):
        write(path, f"{name}.npz", npz(points=SPOTS, colors=BYTES))
    write(path, "bare.npz", npz(points=SPOTS))
    return path


def test_files_without_an_attribute_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = DataConfig(train=str(folder_of(tmp_path / "d")), points=12, validation=0.0)
    shape = BackboneConfig(attributes=("color",))
    with caplog.at_level(logging.WARNING, "foundry3d"):
        found = load_splits(read_for(data, shape)).train
    assert len(found) == 2 and "no color in bare.npz, left out" in caplog.text
    filled = load_splits(read_for(data, replace(shape, attribute_dropout=0.3))).train
    assert len(filled) == 3 and np.isnan(filled.points[2, :, 3:]).all()
    assert load_splits(data).train.points.shape[-1] == 3
    with pytest.raises(InputError, match="no file has all of intensity"):
        load_splits(read_for(data, replace(shape, attributes=("intensity",))))


def test_embed_reads_what_the_model_reads(reader: Backbone, tmp_path: Path) -> None:
    files = folder_of(tmp_path / "d")
    strict = foundry3d.with_attributes(reader, ("color",))
    model = save(strict, tmp_path / "m", provenance={"normalise": True, "up": "y"})
    options = {"files": (str(files),), "model": str(model), "up": "y"}
    with pytest.raises(PartialFailure, match=r"bare\.npz"):
        embed(EmbedConfig(**options, out=str(tmp_path / "f.npz")))
    found = np.load(tmp_path / "f.npz")
    assert len(found["names"]) == 2
    rows = np.concatenate([SPOTS, BYTES.astype(np.float32) / 255], axis=1)
    (tokens,) = embed_clouds(strict, [rows])
    np.testing.assert_allclose(found["features"][0], tokens.features[0], atol=1e-5)
    save(reader, tmp_path / "n", provenance={"normalise": True, "up": "y"})
    options |= {"model": str(tmp_path / "n"), "normals": "estimate"}
    embed(EmbedConfig(**options, out=str(tmp_path / "g.npz")))
    assert len(np.load(tmp_path / "g.npz")["names"]) == 3


def test_normals_turn_with_the_axes_of_a_file(reader: Backbone) -> None:
    rows = CLOUD.copy()
    turned = rows.copy()
    for first in (0, 3):  # the same cloud in a file whose up axis is another
        turned[:, first : first + 3] = np.roll(rows[:, first : first + 3], -1, axis=1)
    policy = foundry3d.embed.clouds.Policy
    (one,) = embed_clouds(reader, [rows])
    (other,) = embed_clouds(reader, [turned], policy=policy(turn=1))
    torch.testing.assert_close(one.features, other.features, atol=1e-5, rtol=1e-5)


# ---------------------------------------------------------------- training


SMALL = replace(TINY, groups=8, group_size=8)


def trained(clouds: Clouds, steps: int) -> Classifier:
    """A classifier of coloured shapes whose colours are absent in half of its training."""
    generator = torch.Generator().manual_seed(0)
    shape = replace(SMALL, depth=1, attributes=("color",), attribute_dropout=0.5)
    model = Classifier.from_model(
        Backbone(shape, generator=generator), clouds.class_names, generator=generator
    ).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    points, labels = torch.from_numpy(clouds.points), torch.from_numpy(clouds.labels)
    for _ in range(steps):
        rows = torch.randint(len(points), (32,), generator=generator)
        loss = F.cross_entropy(model(points[rows], generator=generator), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def test_color_separates_what_shape_cannot() -> None:
    model = trained(generate_colored(256, points=96, seed=2), 60)
    test = generate_colored(128, points=96, seed=3)
    labels = torch.from_numpy(test.labels)
    with torch.no_grad():
        seen = model(torch.from_numpy(test.points)).argmax(dim=1)
        blind = model(torch.from_numpy(test.points[..., :3])).argmax(dim=1)

    def share(found: torch.Tensor, wanted: torch.Tensor) -> float:
        return float((found == wanted).float().mean())

    assert share(seen % 2, labels % 2) > 0.95 and share(seen, labels) > 0.6
    assert share(blind // 2, labels // 2) > max(0.6, share(seen // 2, labels // 2) - 0.15)
    assert 0.25 < share(blind, labels) < 0.65  # 0.125 is chance, 0.5 what shape alone can give


def test_a_saved_model_is_extended_where_a_run_asks_for_attributes(
    teacher: Backbone, points: torch.Tensor, tmp_path: Path
) -> None:
    saved = save(teacher, tmp_path / "m", provenance={})
    shape = replace(TINY, attributes=("color",), attribute_dropout=0.1)
    model = start(PretrainConfig(init=str(saved), backbone=shape))
    assert model.config == shape
    torch.testing.assert_close(model.eval()(points).features, teacher(points).features)
    with pytest.raises(InputError, match="other sizes"):
        start(PretrainConfig(init=str(saved), backbone=replace(shape, depth=2)))


def test_runs_from_pretraining_to_a_student_of_coordinates(tmp_path: Path) -> None:
    data = {"train": "colored", "train_clouds": 24, "points": 48, "validation": 0.34}
    train = {"epochs": 1, "batch_size": 8, "accelerator": "cpu", "ahead": 0}
    shape = to_dict(replace(SMALL, attributes=("color",), attribute_dropout=0.2))
    values = {"out": str(tmp_path / "t"), "data": data, "train": train, "backbone": shape}
    values["masked"] = {"decoder_depth": 1, "decoder_heads": 3}
    model = foundry3d.pretrain(from_dict(PretrainConfig, values))
    assert model.config.attributes == ("color",)
    assert bool(model.tokenizer.lift.weight[:, 3:].any())
    values = {"out": str(tmp_path / "s"), "data": data, "train": train}
    values |= {"teacher": str(tmp_path / "t" / "model"), "dropped_points": 0.25}
    values["student"] = {"supertokens": 4, "attributes": []}
    student = foundry3d.distill(from_dict(DistillConfig, values))
    assert (
        student.shape.attributes == () and student(torch.rand(1, 48, 3)).features.isfinite().all()
    )


# ---------------------------------------------------------------- estimated normals


def test_normals_of_a_sphere_and_a_tilted_plane(generator: torch.Generator) -> None:
    sphere = F.normalize(torch.randn(3000, 3, generator=generator), dim=-1)
    far = (sphere * 2).double() + torch.tensor([1e6, 0, 0], dtype=torch.float64)
    found = torch.from_numpy(foundry3d.estimate_normals(far))
    assert float((found * sphere).sum(dim=1).min()) > 0.97
    inside = torch.from_numpy(foundry3d.estimate_normals(sphere, viewpoint=(0, 0, 0)))
    assert float((inside * sphere).sum(dim=1).max()) < -0.97
    flat = torch.rand(500, 3, generator=generator) * torch.tensor([1.0, 1.0, 0.0])
    flat[:, 2] = flat[:, 0]  # z = x
    up = foundry3d.estimate_normals(flat.numpy(), neighbors=8, viewpoint=(0.5, 0.5, 9))
    np.testing.assert_allclose(up, np.tile([-(0.5**0.5), 0, 0.5**0.5], (500, 1)), atol=1e-4)


def test_normals_refuse_what_they_cannot_use() -> None:
    for points, options in (
        (np.zeros((5, 2)), {}),
        (SPOTS, {"neighbors": 2}),
        (SPOTS, {"neighbors": 41}),
        (np.full((40, 3), np.nan), {}),
        (SPOTS, {"viewpoint": (0, 1)}),
    ):
        with pytest.raises(InputError):
            foundry3d.estimate_normals(points, **options)


def test_readers_estimate_normals_on_request(tmp_path: Path) -> None:
    path = write(tmp_path, "a.npy", npy(NORMALS))
    assert "normal" not in read_points(path, attributes=("normal",)).attributes
    found = read_points(path, attributes=("normal",), normals="estimate")
    np.testing.assert_array_equal(found.attributes["normal"], foundry3d.estimate_normals(NORMALS))
    assert any("estimated" in notice for notice in found.notices)
