"""The base installation is enough for features; what is missing names the line that installs it."""

import ast
import json
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import numpy as np
import pytest
from blocking import without

import foundry3d
from foundry3d.checkpoints.folder import save
from foundry3d.extras import EXTRAS, missing, require_extra
from foundry3d.models.backbone import Backbone

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PACKAGE = Path(foundry3d.__file__).parent
BROUGHT = {"triton": "torch", "PIL": "matplotlib"}
"""Modules that come with another package."""


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def named(requirements: list[str]) -> set[str]:
    return {plain(re.match(r"[\w.-]+", text)[0]) for text in requirements}


def imported() -> set[str]:
    """The top-level modules of others that the package imports anywhere."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add((node.module or "").split(".")[0])
    return found - set(sys.stdlib_module_names) - {"foundry3d"}


def test_every_import_is_in_the_base_or_in_an_extra() -> None:
    base = named(PROJECT["dependencies"])
    packages = packages_distributions()
    optional = {module for modules in EXTRAS.values() for module in modules}
    for module in imported() - optional:
        name = BROUGHT.get(module, module)
        found = {plain(package) for package in packages.get(name, [name])}
        assert found & base or name in optional, f"{module} is imported and not declared"


def test_extras_bring_the_modules_they_are_named_for() -> None:
    declared = PROJECT["optional-dependencies"]
    packages = packages_distributions()
    for extra, modules in EXTRAS.items():
        brought = " ".join(declared[extra]).replace("[lazrs]", " lazrs")
        for module in modules:
            names = {plain(package) for package in packages.get(module, [module])}
            assert any(name in plain(brought) for name in names), (extra, module)
    together = re.search(r"\[(.*)\]", declared["all"][0])[1].split(",")
    assert set(EXTRAS) - {"executorch"} <= set(together) <= set(EXTRAS)


def test_a_missing_module_names_its_extra() -> None:
    found = missing(ModuleNotFoundError("none", name="optuna.trial"))
    assert 'needs optuna, which is not installed; run: pip install "foundry3d[train]"' in str(found)
    assert isinstance(found, ImportError)
    assert missing(ModuleNotFoundError("none", name="a_module_of_yours")) is None
    require_extra("json")
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        require_extra("no_such_module")


BASE = """
import contextlib, io, json
from pathlib import Path
from foundry3d import cli

folder = Path(sys.argv[1])
model, done = str(folder / "model"), {}

def run(name, *words):
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            cli.main([str(word) for word in words])
            status = 0
        except SystemExit as stop:
            status = stop.code
    done[name] = [status, said.getvalue()]

import foundry3d
foundry3d.load(model)
done["lazy"] = "numba" not in sys.modules
out = ("--out", folder / "f.npz")
run("base", "embed", folder / "scan.ply", folder / "scan.npy", "--model", model, *out)
run("figures", "embed", folder / "scan.ply", "--model", model, "--points_per_token", 8,
    "--picture", folder / "p.png", "--out", folder / "g.npz")
run("similar", "similar", folder / "scan.ply", folder / "scan.npy", "--model", model,
    "--picture", folder / "p.png")
run("models", "models", model, "--no_speed")
for to in ("onnx", "openvino", "executorch"):
    run(to, "export", model, "--to", to, "--out", folder / "model.none")
run("train", "pretrain", "--data.train", "procedural", "--out", folder / "run")
run("search", "search", "--teacher", model, "--limit", "1ms", "--data.train", "procedural")
run("maps", "figures", "A=" + model, "--data", "procedural")

from foundry3d.data.files import read_points
from foundry3d.data.published.hdf5 import read_h5
from foundry3d.doctor import complete
assert not complete("train") and not complete("las")
calls = {
    "las": lambda: read_points(folder / "scan.laz"),
    "mesh": lambda: read_points(folder / "star.off"),
    "hub": lambda: foundry3d.from_pretrained("nobody/nothing"),
    "distill": lambda: foundry3d.distill,
    "sklearn": lambda: __import__("foundry3d.sklearn"),
    "hdf5": lambda: read_h5(folder / "scan.npy", "data", 3),
}
for name, call in calls.items():
    try:
        call()
    except foundry3d.InputError as error:
        done[name] = [2, str(error)]
print(json.dumps(done))
"""
STAR = "OFF\n5 1 0\n0 0 0\n2 0 0\n.5 .5 0\n0 2 0\n-1 -1 1\n5 0 1 2 3 4\n"
NEEDED = {
    "las": "las", "mesh": "mesh", "figures": "figures", "onnx": "export",
    "openvino": "export,openvino",
    "executorch": "executorch", "train": "train", "search": "train", "maps": "figures",
    "similar": "figures", "hub": "hub", "distill": "train", "sklearn": "train", "hdf5": "train",
}  # fmt: skip


def test_the_base_installation_embeds_and_names_what_else_needs(
    tmp_path: Path, teacher: Backbone
) -> None:
    folder = tmp_path / "ein Ordner für Scans"
    folder.mkdir()
    save(teacher, folder / "model", provenance={"normalise": True, "up": "z"})
    points = np.random.default_rng(0).normal(size=(300, 3)).astype("f4")
    np.save(folder / "scan.npy", points)
    head = "ply\nformat ascii 1.0\nelement vertex 300\n"
    head += "".join(f"property float {axis}\n" for axis in "xyz") + "end_header\n"
    lines = "\n".join(" ".join(f"{x:.9g}" for x in point) for point in points)
    (folder / "scan.ply").write_text(head + lines + "\n")
    (folder / "scan.laz").write_bytes(b"LASF" + bytes(400))
    (folder / "star.off").write_text(STAR)
    optional = {module for modules in EXTRAS.values() for module in modules}
    done = json.loads(without(optional, BASE, str(folder)))
    assert done["lazy"], "numba is imported before the first call that uses it"
    assert done["base"][0] == 0, done["base"]
    assert done["models"][0] == 0, done["models"]
    with np.load(folder / "f.npz") as found:
        assert found["features"].shape == (2, 12, 24)
        assert np.allclose(found["pooled"][0], found["pooled"][1], atol=1e-5)
    for name, extra in NEEDED.items():
        status, said = done[name]
        assert status == 2, (name, said)
        assert f'pip install "foundry3d[{extra}]"' in said, (name, said)
        assert "Traceback" not in said
    assert not (folder / "g.npz").exists()
