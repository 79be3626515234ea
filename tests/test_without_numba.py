"""Where numba is missing, the torch form takes over with the same features."""

import ast
from pathlib import Path

import numpy as np
import torch
from blocking import without

import foundry3d
from foundry3d import geometry
from foundry3d.checkpoints.folder import save
from foundry3d.data.programs import program
from foundry3d.models.backbone import Backbone

CODE = """
import logging
import numpy as np, torch, foundry3d
from foundry3d import geometry

said = []
log = logging.getLogger("foundry3d")
log.addHandler(type("Kept", (logging.Handler,), {"emit": lambda self, r: said.append(r)})())
folder = sys.argv[1]
small, large = (torch.from_numpy(np.load(f"{folder}/{n}.npy")) for n in ("small", "large"))
model = foundry3d.load(f"{folder}/model")
with torch.inference_mode():
    features = model(small).features
groups = geometry.group_points(large, 300, 8)
try:
    geometry.farthest_point_sample(small, 3, backend="compiled")
except foundry3d.InputError as error:
    print(error)
assert geometry.build_trees(large) is None
assert sum("numba cannot be imported" in record.getMessage() for record in said) == 1

from foundry3d.data.programs import program
shape = program(3, 1, 128)
assert "over a hundred times slower" in said[-1].getMessage()
np.savez(f"{folder}/found.npz", features=features, centers=groups.centers,
         neighborhoods=groups.neighborhoods, order=geometry.greedy_order(small),
         shape=shape)
"""


def test_the_torch_form_gives_the_same_features(
    tmp_path: Path, teacher: Backbone, points: torch.Tensor, generator: torch.Generator
) -> None:
    large = torch.randn(1, 4200, 3, generator=generator)  # above the size where a tree is built
    save(teacher, tmp_path / "model", provenance={})
    np.save(tmp_path / "small.npy", points)
    np.save(tmp_path / "large.npy", large)
    said = without(["numba", "llvmlite"], CODE, str(tmp_path))
    assert "where numba is installed" in said
    groups = geometry.group_points(large, 300, 8)
    with np.load(tmp_path / "found.npz") as found:
        assert torch.equal(torch.from_numpy(found["centers"]), groups.centers)
        assert torch.equal(torch.from_numpy(found["neighborhoods"]), groups.neighborhoods)
        assert torch.equal(torch.from_numpy(found["order"]), geometry.greedy_order(points))
        np.testing.assert_allclose(found["shape"], program(3, 1, 128), atol=1e-5)
        with torch.inference_mode():
            torch.testing.assert_close(
                torch.from_numpy(found["features"]), teacher(points).features, rtol=1e-5, atol=1e-6
            )


def test_only_compiled_forms_need_numba() -> None:
    package = Path(foundry3d.__file__).parent
    compiled = {f"foundry3d.geometry.{name}" for name in ("jit", "scan", "search", "tree", "cpu")}
    forms = {package / "geometry" / f"{name.rsplit('.', 1)[1]}.py" for name in compiled}
    for path in set(package.rglob("*.py")) - forms:
        for node in ast.parse(path.read_text()).body:  # not what is tried, or for types alone
            if isinstance(node, ast.ImportFrom):
                named = {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
                assert not named & compiled, f"{path} needs numba"
