"""Files for ExecuTorch; its stand-ins for missing operators are those of the torch form."""

import warnings
from pathlib import Path

import pytest
import torch

from foundry3d.checkpoints.folder import save
from foundry3d.config import BackboneConfig, ExportConfig
from foundry3d.errors import InputError
from foundry3d.evaluation.exported import export
from foundry3d.geometry import reference
from foundry3d.models.backbone import Backbone

pytest.importorskip("executorch", reason="ExecuTorch is an extra of its own")
with warnings.catch_warnings():  # its imports warn
    warnings.simplefilter("ignore")
    from foundry3d.export import executorch_file


def test_stand_ins_return_the_indices_of_the_torch_form() -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.randint(3, (2, 40, 3), generator=generator).float()  # many equal distances
    start = torch.tensor([0, 7])
    found = executorch_file.farthest_point_sample(points, 12, start, "auto")
    assert torch.equal(found, reference.farthest_point_sample(points, 12, start))
    queries = points[:, :9] + 0.5
    found = executorch_file.nearest_neighbors(queries, points, 6, "auto")
    assert torch.equal(found, reference.nearest_neighbors(queries, points, 6))
    values = torch.randint(4, (3, 20), generator=generator).float()
    for descending in (False, True):
        ours = executorch_file.stable_sort(values, stable=True, dim=1, descending=descending)
        wanted = values.sort(stable=True, dim=1, descending=descending)
        assert torch.equal(ours[0], wanted.values) and torch.equal(ours[1], wanted.indices)


def test_geometry_inside_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    sizes = BackboneConfig(groups=4, group_size=4, point_widths=(4, 8, 8), dim=12, depth=1, heads=2)
    folder = save(Backbone(sizes), tmp_path / "model", provenance={})
    out = tmp_path / "out" / "model.pte"
    with pytest.raises(InputError, match="--geometry outside"):
        export(ExportConfig(model=str(folder), to="executorch", out=str(out)))
    assert not list(out.parent.iterdir())
