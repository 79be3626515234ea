import json
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from conftest import TINY
from torch import Tensor, nn

import foundry3d
from foundry3d import cli
from foundry3d.checkpoints import hub
from foundry3d.config import ConvertConfig, DistillConfig, StudentConfig, StudentOptions
from foundry3d.errors import InputError
from foundry3d.heads.classifier import Classifier
from foundry3d.models.backbone import Backbone
from foundry3d.models.student import Student
from foundry3d.training.distill import DistillTask, student_of
from foundry3d.training.goals import Goal
from foundry3d.training.task import Ready


def test_a_shared_folder_is_a_checkpoint_with_a_card(teacher: Backbone, points, tmp_path: Path):
    student = Student.from_teacher(teacher, supertokens=3)
    folder = hub.save_pretrained(
        student,
        tmp_path / "small",
        provenance={"teacher": "big", "data": "shapes", "seed": 4, "scores": {"svm": 81.5}},
        license="mit",
    )
    again = foundry3d.from_pretrained(folder)
    assert torch.equal(again(points).features, student(points).features)
    text = (folder / "README.md").read_text()
    for expected in ("license: mit", "# small", "3 supertokens", "| data | shapes |", "81.5"):
        assert expected in text
    parameters = sum(p.numel() for p in student.parameters())
    assert f"{parameters / 1e6:.3f} M" in text


def test_no_hub_library_is_one_sentence(
    tmp_path: Path, teacher: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"not a folder here; .*foundry3d\[hub\]"):
        hub.from_pretrained("nobody/nothing")
    with pytest.raises(InputError, match=r"pushing to a hub.*foundry3d\[hub\]"):
        hub.push(hub.save_pretrained(teacher, tmp_path / "m"), "nobody/nothing")
    with pytest.raises(InputError, match="expected a checkpoint folder"):
        hub.push(tmp_path, "nobody/nothing")


class Hub:
    """Stands for the hub library: one repository, and what was uploaded."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.made, self.sent = folder, [], []

    def snapshot_download(self, name: str) -> str:
        if name != "somebody/small":
            raise OSError(f"404: {name}\nand a long explanation")
        return str(self.folder)

    def create_repo(self, name: str, *, exist_ok: bool) -> None:
        self.made.append((name, exist_ok))

    def upload_folder(self, *, repo_id: str, folder_path: str) -> str:
        self.sent.append(folder_path)
        return f"hub/{repo_id}"


def test_repositories_are_fetched_and_pushed(
    tmp_path: Path, teacher: Backbone, points, monkeypatch
) -> None:
    folder = hub.save_pretrained(teacher, tmp_path / "small")
    library = Hub(folder)
    monkeypatch.setitem(sys.modules, "huggingface_hub", library)
    fetched = hub.from_pretrained("somebody/small")
    assert torch.equal(fetched(points).features, teacher(points).features)
    with pytest.raises(InputError, match=r"nor a repository in reach \(404: nobody/nothing\)$"):
        hub.from_pretrained("nobody/nothing")
    assert hub.push(folder, "me/new") == "hub/me/new"
    assert (library.made, library.sent) == ([("me/new", True)], [str(folder)])


def test_a_model_with_a_head_is_not_converted(teacher: Backbone, tmp_path: Path) -> None:
    headed = Classifier.from_model(teacher, classes=("a", "b"))
    foundry3d.save(headed, tmp_path / "headed", provenance={})
    with pytest.raises(InputError, match="got a Classifier"):
        hub.convert(ConvertConfig(model=str(tmp_path / "headed"), out=str(tmp_path / "out")))
    assert not (tmp_path / "out").exists()


def test_convert_reads_foreign_files_and_own_folders(parity, tmp_path: Path, capsys) -> None:
    source = parity / "pointjepa.ckpt"
    cli.main(["convert", str(source), "--out", str(tmp_path / "a"), "--weights", "ema"])
    assert "Point-JEPA" in capsys.readouterr().out
    direct, provenance = foundry3d.load_foreign(source, weights="ema")
    points = torch.rand(2, 64, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(foundry3d.load(tmp_path / "a")(points).features, direct(points).features)
    cli.main(["convert", str(tmp_path / "a"), "--out", str(tmp_path / "b")])
    for name in ("a", "b"):
        content = json.loads((tmp_path / name / "config.json").read_text())
        assert content["provenance"] == provenance
    with pytest.raises(SystemExit) as stop:
        cli.main(["convert", str(source), "--out", str(tmp_path / "a")])
    assert stop.value.code == 2


@pytest.mark.parametrize(
    "name", ["pointjepa.ckpt", "point2vec.ckpt", "pointmae.pth", "pointbert.pth"]
)
def test_every_foreign_teacher_can_be_distilled(parity, sizes, name: str, monkeypatch) -> None:
    asked = {"num_heads": sizes["heads"], "num_groups": 16, "group_size": 8}
    given = asked if name.endswith("pth") else {}
    teacher = foundry3d.load_foreign(parity / name, **given)[0]
    config = DistillConfig(student=StudentOptions(supertokens=4))
    student = student_of(teacher, config)
    task = DistillTask(config, teacher, student).train()
    monkeypatch.setattr(task, "log", lambda *a, **k: None)
    g = torch.Generator().manual_seed(0)
    monkeypatch.setattr(DistillTask, "step_generator", lambda self: g)
    points = torch.rand(8, 1024, 3, generator=g)
    optimizer = torch.optim.AdamW(student.parameters(), lr=3e-3)
    losses = []
    for _ in range(12):
        loss = task.training_step(points, 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])


class Output(NamedTuple):
    features: Tensor
    centers: Tensor


class Own(nn.Module):
    """A teacher that inherits nothing: 9 tokens of 7 features."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 7)

    def forward(self, points: Tensor) -> Output:
        return Output(self.linear(points[:, :9]), points[:, :9])


def test_a_teacher_of_ones_own(points: Tensor, generator: torch.Generator) -> None:
    config = DistillConfig(frozen="none")
    student = Student(StudentConfig(backbone=TINY, supertokens=4, output_dim=7))

    def goal_of(teacher: Own, student: Student) -> Goal:
        task = DistillTask(config, teacher, student)
        return task.goal(Ready(None, generator, points), features=True)

    teacher = Own()
    groups, goal, *_ = goal_of(teacher, student)
    assert torch.equal(groups.centers, points[:, :9])
    assert groups.neighborhoods.shape == (4, 9, 8, 3)
    assert torch.equal(goal, teacher.linear(points[:, :9]))
    assert not goal.requires_grad
    assert student.encode(groups).features.shape == goal.shape
    with pytest.raises(InputError, match="a teacher that is no Backbone needs a student"):
        student_of(teacher, config)
    narrow = Student(StudentConfig(backbone=TINY, supertokens=4))
    with pytest.raises(InputError, match="expected teacher features"):
        goal_of(teacher, narrow)
