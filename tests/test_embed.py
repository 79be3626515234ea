"""Features of files and arrays: any size, hostile neighbours, one archive or nothing."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY
from test_files import CLOUDS, MESHES, npy, npz, ply, write

from foundry3d import cli
from foundry3d.checkpoints.folder import save
from foundry3d.config import EmbedConfig, from_dict
from foundry3d.embed.clouds import Policy, embed_clouds, read_policy
from foundry3d.embed.files import embed
from foundry3d.errors import InputError, PartialFailure
from foundry3d.models.backbone import Backbone
from foundry3d.models.student import Student
from foundry3d.transforms import normalise

RNG = np.random.default_rng(3)
TRAINED = {"normalise": True, "up": "z", "points": 60}


def blob(size: int) -> np.ndarray:
    """A stretched cloud far from the origin, (size, 3)."""
    return (RNG.normal(size=(size, 3)) * (3, 1, 0.5) + (10, -20, 5)).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path, teacher: Backbone) -> Path:
    return save(teacher, tmp_path / "model", provenance=TRAINED)


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What the package tells while the test runs, line by line."""
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    handler, log = Keep(), logging.getLogger("foundry3d")
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield lines
    log.removeHandler(handler)
    log.setLevel(level)


def run(capsys: pytest.CaptureFixture, *arguments: object) -> tuple[int, str]:
    """Status and last line on standard error of the command."""
    try:
        cli.main(["embed", *map(str, arguments)])
        status = 0
    except SystemExit as stop:
        status = int(stop.code or 0)
    lines = capsys.readouterr().err.splitlines()
    return status, lines[-1] if lines else ""


def read(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


# ---------------------------------------------------------------- arrays


@pytest.mark.parametrize("kind", ["teacher", "student"])
def test_mixed_sizes_equal_one_by_one(teacher: Backbone, kind: str) -> None:
    model = teacher if kind == "teacher" else Student.from_teacher(teacher, supertokens=4)
    grid = np.stack(np.meshgrid(*[np.arange(5.0)] * 3), axis=-1).reshape(-1, 3)  # full of ties
    clouds = [grid, blob(125), blob(125), blob(40), grid + 7, blob(1000), blob(1000)]
    together = embed_clouds(model, clouds, batch=4)
    for cloud, tokens in zip(clouds, together, strict=True):
        (alone,) = embed_clouds(model, [cloud])
        assert tokens.features.shape == (1, TINY.groups, TINY.dim)
        torch.testing.assert_close(tokens.features, alone.features, rtol=1e-5, atol=1e-5)
        assert torch.equal(tokens.centers, alone.centers)
        assert (tokens.assignment is None) == (kind == "teacher")
        if alone.assignment is not None:
            assert torch.equal(tokens.assignment, alone.assignment)


@pytest.mark.parametrize("size", [12, 100, 1_000, 100_000])
def test_it_is_the_model_on_normalised_points(teacher: Backbone, size: int) -> None:
    cloud = blob(size)
    (tokens,) = embed_clouds(teacher, [cloud])
    with torch.no_grad():
        plain = teacher(normalise(torch.from_numpy(cloud).double()[None]).float())
    torch.testing.assert_close(tokens.features, plain.features, rtol=1e-5, atol=1e-5)
    assert tokens.pooled().shape == (1, 2 * TINY.dim)


@pytest.mark.parametrize("policy", [Policy(), Policy(normalise=False), Policy(turn=2)])
def test_centers_are_points_of_the_cloud(teacher: Backbone, policy: Policy) -> None:
    cloud = blob(300)
    (tokens,) = embed_clouds(teacher, [cloud], policy=policy)
    distance = torch.cdist(tokens.centers[0], torch.from_numpy(cloud).double()).amin(dim=1)
    assert distance.max() < 1e-5


def test_place_and_size_do_not_matter(teacher: Backbone) -> None:
    cloud = blob(200).astype(np.float64)
    plain, moved = embed_clouds(teacher, [cloud, 1e-20 * cloud + 3e-18])
    torch.testing.assert_close(plain.features, moved.features, rtol=1e-4, atol=1e-4)
    kept = cloud.copy()
    embed_clouds(teacher, [cloud], policy=Policy(points=50))
    assert np.array_equal(cloud, kept)


def test_turning_is_a_rotation_to_the_up_axis(teacher: Backbone, folder: Path) -> None:
    cloud = blob(200)
    policy, notice = read_policy(folder, up="y")
    assert notice is None
    (turned,) = embed_clouds(teacher, [cloud], policy=policy)
    (same,) = embed_clouds(teacher, [cloud[:, [2, 0, 1]]])  # y becomes z, and z x, and x y
    assert torch.equal(turned.features, same.features)
    assert read_policy(folder, up="z")[0] == read_policy(folder)[0] == Policy()


def test_what_a_model_does_not_say_is_said(teacher: Backbone, tmp_path: Path) -> None:
    path = save(teacher, tmp_path / "plain", provenance={})
    policy, notice = read_policy(path, up="y")
    assert policy == Policy() and notice is not None
    assert "centred and scaled" in notice and "which axis" in notice
    known = save(teacher, tmp_path / "known", provenance={"normalise": False, "up": "x"})
    assert read_policy(known) == (Policy(normalise=False), None)
    assert read_policy(known, normalise=True)[0] == Policy()
    foreign = write(tmp_path, "other.ckpt", b"x")
    assert read_policy(foreign)[1] is not None


@pytest.mark.parametrize(
    ("cloud", "says"),
    [
        (np.zeros((3, 3)), "at least 12 points.*got 3"),
        (np.zeros((100, 3)), "points that differ, got 100 equal"),
        (np.full((100, 3), np.nan), "finite coordinates"),
        (np.zeros((100, 2)), r"shape \(N, 3\), got float64 of shape \(100, 2\)"),
        (np.zeros((100, 3), complex), "real numbers"),
        (np.eye(3).repeat(9, axis=0) * 1e200, "a finite size"),
    ],
)
def test_bad_arrays_are_named(teacher: Backbone, cloud: np.ndarray, says: str) -> None:
    with pytest.raises(InputError, match=f"cloud 1: .*{says}"):
        embed_clouds(teacher, [blob(100), cloud])


def test_a_model_in_training_mode_is_refused(teacher: Backbone) -> None:
    with pytest.raises(InputError, match="eval"):
        embed_clouds(teacher.train(), [blob(100)])
    assert embed_clouds(teacher.eval(), []) == []


# ---------------------------------------------------------------- files


def test_every_format_in_one_archive(tmp_path: Path, folder: Path, teacher: Backbone) -> None:
    data = tmp_path / "data"
    (data / "sub").mkdir(parents=True)
    for name, content in CLOUDS.items():
        write(data, name, content)
    for name, content in MESHES.items():
        write(data / "sub", name, content)
    write(data, ".hidden.ply", b"no")
    write(data, "notes.md", b"no")
    out = tmp_path / "deep" / "features.npz"
    embed(EmbedConfig(files=(str(data),), model=str(folder), out=str(out), samples=80))
    found = read(out)
    count = len(CLOUDS) + len(MESHES)
    assert found["names"].shape == found["points_used"].shape == (count,)
    assert found["pooled"].shape == (count, 2 * TINY.dim)
    assert found["features"].shape == (count, TINY.groups, TINY.dim)
    assert found["centers"].shape == (count, TINY.groups, 3)
    assert found["centers"].dtype == np.float64 and "assignment" not in found
    assert sorted(set(found["points_used"].tolist())) == [60, 80]
    assert json.loads(str(found["protocol"]))["normalise"] is True
    row = found["names"].tolist().index(str(data / "UPPER.NPY"))
    (tokens,) = embed_clouds(teacher, [np.load(data / "UPPER.NPY")])
    np.testing.assert_allclose(found["features"][row], tokens.features[0], rtol=1e-5, atol=1e-5)


def test_students_subsets_and_many_clouds_in_a_file(tmp_path: Path, teacher: Backbone) -> None:
    student = save(Student.from_teacher(teacher, supertokens=4), tmp_path / "m", provenance=TRAINED)
    file = write(tmp_path, "many.npy", npy(np.stack([blob(90) for _ in range(5)])))
    config = EmbedConfig(
        files=(str(file),), model=str(student), out=str(tmp_path / "a.npz"), points=50, batch_size=2
    )
    found = read(embed(config))
    assert found["names"].tolist() == [f"{file}[{i}]" for i in range(5)]
    assert found["assignment"].shape == (5, TINY.groups) and found["assignment"].max() < 4
    assert set(found["points_used"]) == {50}
    again = read(embed(config))
    assert all(np.array_equal(found[name], again[name]) for name in found)


def test_far_coordinates_come_back(tmp_path: Path, folder: Path) -> None:
    points = RNG.normal(size=(100, 3)) + np.array([500_000, 5_400_000, 100])
    file = write(tmp_path, "map.npy", npy(points))
    centers = read(
        embed(EmbedConfig(files=(str(file),), model=str(folder), out=str(tmp_path / "a.npz")))
    )["centers"][0]
    distance = np.linalg.norm(centers[:, None] - points, axis=-1).min(axis=1)
    assert distance.max() < 1e-5


def hostile(tmp_path: Path) -> list[Path]:
    bad = blob(50)
    bad[7, 1] = np.nan
    several = np.stack([blob(50), bad, blob(50)])
    return [
        write(tmp_path, "good.ply", ply("ascii", blob(60))),
        write(tmp_path, "nan.npy", npy(bad)),
        write(tmp_path, "three.xyz", "0 0 0\n1 0 0\n0 1 0\n"),
        write(tmp_path, "same.npy", npy(np.ones((70, 3), np.float32))),
        write(tmp_path, "cut.ply", ply("binary_little_endian", blob(60))[:-50]),
        write(tmp_path, "empty.obj", b""),
        write(tmp_path, "what.bin", b"123"),
        write(tmp_path, "several.npy", npy(several)),
        tmp_path / "missing.ply",
        write(tmp_path, "good.npz", npz(points=blob(60), labels=np.zeros(60))),
    ]


def test_bad_files_are_told_and_the_others_done(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture, said: list[str]
) -> None:
    files, out = hostile(tmp_path), tmp_path / "f.npz"
    status, last = run(capsys, *files, tmp_path / "no*", "--model", folder, "--out", out)
    assert status == 1
    assert "9 could not be used" in last and "the other 4 are in" in last
    names = read(out)["names"].tolist()
    assert names == [str(files[0]), f"{files[7]}[0]", f"{files[7]}[2]", str(files[-1])]
    bad = [*files[1:7], f"{files[7]}[1]", files[8], tmp_path / "no*"]
    for path in bad:
        assert str(path) in last
        assert sum(line.startswith(f"{path}: ") for line in said) == 1, path
    assert all("\n" not in line for line in said)
    assert not list(tmp_path.glob("*.partial"))


def test_when_nothing_can_be_used_nothing_is_written(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture
) -> None:
    out = write(tmp_path, "f.npz", b"before")
    status, last = run(capsys, *hostile(tmp_path)[1:4], "--model", folder, "--out", out)
    assert status == 2 and "none of 3" in last
    assert out.read_bytes() == b"before"
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "name files to embed"),
        (["A", "--model", ""], "--model"),
        (["A", "--model", "MODEL", "--device", "tpu"], "device"),
        (["A", "--model", "MODEL", "--compile", "false", "--precision", "bf16"], "bf16"),
        (["A", "--model", "no/such"], "no/such"),
        (["A", "--model", "MODEL", "--out", "FOLDER"], "is a folder"),
        (["A", "--model", "MODEL", "--out", "A"], "would replace"),
        (["A", "--model", "MODEL", "--points", "5"], "points must be at least 12"),
        (["A", "--model", "MODEL", "--points", "0"], "points must be positive"),
        (["A", "--model", "MODEL", "--samples", "0"], "samples must be positive"),
        (["A", "--model", "MODEL", "--seed", "-1"], "seed must be"),
        (["A", "--model", "MODEL", "--up", "w"], "up"),
        (["A", "--model", "MODEL", "--colour", "w"], "colour"),
        (["--model", "MODEL", "A"], "a.npy"),
        (["FOLDER", "--model", "MODEL"], "none of 1"),
    ],
)
def test_bad_options_end_with_two(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture, arguments: list[str], says: str
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    file = write(tmp_path, "a.npy", npy(blob(50)))
    words = {"A": file, "MODEL": folder, "FOLDER": empty}
    before = file.read_bytes()
    out = [] if "--out" in arguments else ["--out", tmp_path / "out.npz"]
    status, last = run(capsys, *(words.get(a, a) for a in arguments), *out)
    assert status == 2
    assert last.startswith("foundry3d: error: ") and says in last
    assert file.read_bytes() == before and not (tmp_path / "out.npz").exists()


def test_notices_come_once_a_kind(tmp_path: Path, teacher: Backbone, said: list[str]) -> None:
    model = save(teacher, tmp_path / "model", provenance={})
    files = [write(tmp_path, f"{i}.ply", ply("ascii", blob(60 + i))) for i in range(4)]
    three = write(tmp_path, "three.npy", npy(blob(3).repeat(20, axis=0)))
    embed(
        EmbedConfig(
            files=(*map(str, files), str(three)), model=str(model), out=str(tmp_path / "a.npz")
        )
    )
    (colours,) = (line for line in said if "red ignored" in line)
    assert colours.startswith(str(files[0])) and colours.endswith("(and 3 more files like it)")
    assert sum("does not record" in line for line in said) == 1
    assert sum("tokens repeat" in line for line in said) == 1


def test_another_density_than_in_training_is_told(
    tmp_path: Path, folder: Path, said: list[str]
) -> None:
    file = write(tmp_path, "a.npy", npy(blob(500)))
    options = {"files": (str(file),), "model": str(folder), "out": str(tmp_path / "a.npz")}
    embed(from_dict(EmbedConfig, options | {"points": 60}))
    assert not any("trained on clouds of" in line for line in said)
    embed(from_dict(EmbedConfig, options))
    assert sum("trained on clouds of 60" in line for line in said) == 1


def test_words_in_front_are_files(tmp_path: Path, folder: Path) -> None:
    names = ["1", "[a].npy", "ä😀.npy", "a b,c.npy"]
    options = cli.read_options("embed", [*names, "--model", "m", "--normalise"])
    assert options.files == tuple(names) and options.normalise is True
    assert cli.read_options("embed", ["x", "--model", "m"]).normalise is None
    odd = write(tmp_path, "[a].npy", npy(blob(50)))
    write(tmp_path, "b.npy", npy(blob(50)))
    config = {"model": str(folder), "out": str(tmp_path / "o.npz")}
    embed(EmbedConfig(files=(str(odd),), **config))
    found = embed(EmbedConfig(files=(f"{tmp_path}/*.np[yz]",), **config))  # not what it wrote
    assert len(read(found)["names"]) == 2
    (tmp_path / "sub" / "deep").mkdir(parents=True)
    write(tmp_path / "sub" / "deep", "c.npy", npy(blob(50)))
    for pattern in ("s*", "s*/**", "**/c.*"):
        found = embed(EmbedConfig(files=(f"{tmp_path}/{pattern}",), **config))
        assert read(found)["names"].tolist() == [str(tmp_path / "sub" / "deep" / "c.npy")]
    with pytest.raises(InputError, match="none of 1"):
        embed(EmbedConfig(files=("x" * 300,), **config))


def test_partial_failure_is_an_input_error(tmp_path: Path, folder: Path) -> None:
    good, _, three = hostile(tmp_path)[:3]
    config = EmbedConfig(
        files=(str(good), str(three)), model=str(folder), out=str(tmp_path / "o.npz")
    )
    with pytest.raises(PartialFailure) as caught:
        embed(config)
    assert isinstance(caught.value, InputError) and caught.value.status == 1


def test_the_famous_meshes(
    shared: Path, tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture
) -> None:
    source = shared / "data" / "famous_meshes_16k.npz"
    if not source.is_file():
        pytest.skip("famous meshes are not here")
    out = tmp_path / "features.npz"
    cli.main(["embed", str(source), "--model", str(folder), "--up", "y", "--out", str(out)])
    said = capsys.readouterr().err
    assert "arrays ids ignored" in said and "Traceback" not in said
    found = read(out)
    assert len(found["names"]) == 16 and set(found["points_used"]) == {16384}
    assert np.isfinite(found["features"]).all()
    assert len(np.unique(found["pooled"].round(4), axis=0)) == 16
