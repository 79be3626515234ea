"""Students beyond the paper's: positions in the reconstruction, and what saved ones keep."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor

import foundry3d
from foundry3d.checkpoints.folder import load, save
from foundry3d.cli import read_options
from foundry3d.config import DistillConfig, StudentOptions, to_dict
from foundry3d.errors import InputError
from foundry3d.geometry import gather
from foundry3d.heads.classifier import Classifier
from foundry3d.inference.cost import count
from foundry3d.models.backbone import Backbone
from foundry3d.models.student import Student
from foundry3d.training.run_folder import open_run

# ---------------------------------------------------------------- positions in the residual


def without(folder: Path, *names: str) -> Path:
    """The checkpoint as it was before these options existed."""
    content = json.loads((folder / "config.json").read_text())
    inner = content["config"].get("inner", content["config"])
    for name in names:
        del inner[name]
    (folder / "config.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("positions", [True, False])
def test_the_residual_is_the_formula_to_the_bit(
    teacher: Backbone, points: Tensor, positions: bool
) -> None:
    """Equation 5 from its parts: MLP(T + P + CAM S), or MLP(T + CAM S) as it was at first."""
    student = Student.from_teacher(teacher, supertokens=4, cau_positions=positions)
    groups, cau = student.group(points), student.cau
    with torch.no_grad():
        tokens, places = student.embed_groups(groups)
        packed = student.dso(tokens, places)
        hidden = torch.zeros(4, 4).masked_fill(~packed.used, float("-inf"))
        encoded = student.encoder(packed.supertokens, packed.positions, bias=hidden)
        read = tokens + places if positions else tokens
        wanted = cau.fc2(torch.nn.functional.gelu(cau.fc1(read + packed.cam @ encoded)))
        found = student.encode(groups)
    assert torch.equal(found.features, wanted)
    assert found.assignment is not None
    chosen = gather(encoded, found.assignment)
    assert torch.equal(packed.cam @ encoded, chosen)


def test_positions_are_the_default_and_cost_nothing(teacher: Backbone) -> None:
    student = Student.from_teacher(teacher, supertokens=4)
    assert student.config.cau_positions
    assert count(student) == count(
        Student.from_teacher(teacher, cau_positions=False, supertokens=4)
    )


def test_earlier_students_keep_their_reading(
    teacher: Backbone, points: Tensor, tmp_path: Path
) -> None:
    """Checkpoints without the option compute what they did, under a head too."""
    student = Student.from_teacher(teacher, supertokens=4, cau_positions=False)
    headed = Classifier.from_model(student, ("a", "b"))
    for name, model in (("student", student), ("classifier", headed)):
        folder = without(save(model, tmp_path / name, provenance={}), "cau_positions")
        again = load(folder)
        assert again.config == model.config
        found, wanted = again(points), model(points)
        if isinstance(model, Student):
            found, wanted = found.features, wanted.features
        assert torch.equal(found, wanted)
    new = Student.from_teacher(teacher, supertokens=4)
    new.load_state_dict(student.state_dict())
    assert not torch.allclose(new(points).features, student(points).features, atol=1e-3)


def test_earlier_runs_keep_their_reading(tmp_path: Path) -> None:
    """A run's own settings go on as they were; a recipe by hand has today's default."""
    config = DistillConfig(out=str(tmp_path), student=StudentOptions(cau_positions=False))
    assert open_run(tmp_path, config) is None
    path = tmp_path / "config.yaml"
    header, body = path.read_text().split("\n", 1)
    values = yaml.safe_load(body)
    del values["student"]["cau_positions"]
    path.write_text(f"{header}\n{yaml.safe_dump(values)}")
    before = path.read_bytes()
    resumed = read_options("distill", ["--config", str(path), "--resume"])
    assert resumed.student == config.student
    assert open_run(tmp_path, resumed) is None
    with pytest.raises(InputError, match="other settings of student"):
        open_run(tmp_path, DistillConfig(out=str(tmp_path), resume=True))
    again = ["--config", str(path), "--student.cau_positions", "true"]
    assert read_options("distill", again).student.cau_positions
    assert path.read_bytes() == before
    (tmp_path / "mine.yaml").write_text("student: {supertokens: 4}\n")
    mine = read_options("distill", ["--config", str(tmp_path / "mine.yaml")])
    assert to_dict(mine.student) == to_dict(StudentOptions(supertokens=4))


@pytest.mark.parametrize("gate", [False, True])
def test_the_compiled_form_reads_positions(teacher: Backbone, points: Tensor, gate: bool) -> None:
    student = Student.from_teacher(teacher, supertokens=4, gate=gate)
    with torch.no_grad():
        wanted = student(points).features
        torch.testing.assert_close(foundry3d.compile(student)(points).features, wanted)
