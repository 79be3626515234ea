"""A config.json with any values: a model of the sizes of its weights, or one sentence."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY
from safetensors.torch import load_file, save_file
from torch import nn

import foundry3d
from foundry3d.baselines import FPSStudent, KMeansStudent, Merged
from foundry3d.checkpoints.folder import KINDS, load, read_config, save
from foundry3d.config import ReductionConfig
from foundry3d.errors import InputError
from foundry3d.heads.classifier import Classifier
from foundry3d.heads.segmenter import Segmenter
from foundry3d.models.backbone import Backbone
from foundry3d.models.student import Student
from foundry3d.models.truncated import Truncated

TRIALS = 400
DEEP: list[Any] = []
for _ in range(200):
    DEEP = [DEEP]
HOSTILE = [
    *(True, False, None, 0, 1, -1, 3, 2.5, -0.0, 1e-9, 1e30, 10**9, 10**18, 10**30, 10**400),
    *(float("inf"), float("-inf"), float("nan"), "", "x", "24", "student", "a" * 5000, "\0\x1b[2J"),
    *([], [1], [1] * 50, [0], [-1], [None], [[]], [[[1]]], [True], [1.5], ["a", "b"], [10**12] * 3),
    *({}, {"dim": 24}, {"kind": "student"}, DEEP),
]
Place = tuple[str | int, ...]


def made() -> dict[str, nn.Module]:
    """A tiny model of every kind."""
    g = torch.Generator().manual_seed(0)
    teacher = Backbone(TINY, generator=g).eval()
    student = Student.from_teacher(teacher, supertokens=4)
    parts = {"categories": ("a", "b"), "parts": ("x", "y", "z"), "owned": ((0,), (1, 2))}
    merged = Merged.around(teacher, ReductionConfig(reach=3))
    return {
        "backbone": teacher,
        "student": student,
        "truncated": Truncated.from_teacher(teacher, depth=1, dim=12, heads=3),
        "classifier": Classifier.from_model(student, classes=("a", "b")),
        "segmenter": Segmenter.from_model(teacher, **parts),
        "merged": merged,
        "fps_student": FPSStudent.from_teacher(teacher, supertokens=4, points=96),
        "kmeans_student": KMeansStudent.from_teacher(
            teacher, [torch.randn(2, 96, 3, generator=g)], supertokens=3
        ),
    }


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("saved")
    return {name: save(model, root / name, provenance={}) for name, model in made().items()}


def places(content: Any, at: Place = ()) -> Iterator[Place]:
    """Every value in nested JSON, by the keys that lead to it."""
    inner = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in inner:
        yield (*at, key)
        if isinstance(value, dict | list):
            yield from places(value, (*at, key))


def replaced(content: Any, place: Place, value: Any) -> Any:
    changed = copy.deepcopy(content)
    held = changed
    for key in place[:-1]:
        held = held[key]
    held[place[-1]] = value
    return changed


def loads(folder: Path) -> bool:
    """Whether a folder loads, to a model with the weights of the file; else the refusal is plain.

    Anything but an `InputError` fails the test.
    """
    try:
        model = load(folder)
    except InputError as error:
        message = str(error)
        assert "\n" not in message
        assert len(message) < 1000
        return False
    weights = load_file(folder / "model.safetensors")
    assert {k: v.shape for k, v in model.state_dict().items()} == {
        k: v.shape for k, v in weights.items()
    }
    return True


def test_every_kind_is_tried(saved: dict[str, Path]) -> None:
    assert saved.keys() == KINDS.keys()
    assert all(loads(folder) for folder in saved.values())


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_hostile_values_are_refused_or_harmless(saved: dict[str, Path]) -> None:
    draw = random.Random(22)
    found = {True: 0, False: 0}
    for _ in range(TRIALS):
        folder = saved[draw.choice(sorted(saved))]
        path = folder / "config.json"
        before = path.read_text()
        content = json.loads(before)
        changed = replaced(content, draw.choice(list(places(content))), draw.choice(HOSTILE))
        path.write_text(json.dumps(changed))
        try:
            found[loads(folder)] += 1
        finally:
            path.write_text(before)
    assert found[False] > TRIALS / 2
    assert found[True] > 0


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        (("depth",), 10**9, "depth makes 1000000000 layers, the weights are"),
        (("depth",), True, "expected config.depth of type int, got True"),
        (("dim",), 24.0, "expected config.dim of type int, got 24.0"),
        (("dim",), 3 * 10**12, "does not fit|no model can have|must be at most"),
        (("mlp_ratio",), float("inf"), "expected config.mlp_ratio of type float, got inf"),
        (("mlp_ratio",), 1e18, "does not fit|no model can have|must be at most"),
        (("point_widths",), [8, 16, "32"], "expected config.point_widths"),
        (("point_widths",), [8] * 10**5, "point_widths makes 100000 layers"),
        (("radius",), "0.1", "expected config.radius"),
        (("heads",), 10**30, "expected config.heads of type int"),
    ],
)
def test_sizes_are_held_against_types_and_weights(
    saved: dict[str, Path], place: Place, value: Any, says: str
) -> None:
    path = saved["backbone"] / "config.json"
    before = path.read_text()
    path.write_text(json.dumps(replaced(json.loads(before), ("config", *place), value)))
    try:
        with pytest.raises(InputError, match=says):
            load(saved["backbone"])
    finally:
        path.write_text(before)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\x00",
        b"[" * 200_000,
        b'{"config":' * 100_000,
        b'{"format": "foundry3d", "version": 1' + b"0" * 6000 + b"}",
        b" " * (2**22 + 1),
        b'{"format": "foundry3d", "version": true, "kind": "backbone"}',
        b'{"format": "foundry3d", "version": 1, "kind": ["backbone"]}',
        b'{"format": "foundry3d", "version": 1, "kind": {}}',
        b'{"format": "foundry3d", "version": 1, "kind": "backbone", "config": {}}',
        b'{"format": "foundry3d", "version": 1, "kind": "backbone", "provenance": {}}',
        b'{"format": ["foundry3d"]}',
        b"3",
        b"null",
    ],
)
def test_hostile_text_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    for call in (lambda: load(tmp_path), lambda: foundry3d.load(str(tmp_path))):
        with pytest.raises(InputError) as caught:
            call()
        assert len(str(caught.value)) < 1000


def test_weights_of_another_type_are_refused(saved: dict[str, Path], tmp_path: Path) -> None:
    tensors = load_file(saved["backbone"] / "model.safetensors")
    (tmp_path / "config.json").write_text((saved["backbone"] / "config.json").read_text())
    for kind in (torch.int64, torch.bool):
        save_file(tensors | {"encoder.norm.weight": torch.ones(24, dtype=kind)}, tmp_path / "w")
        (tmp_path / "w").rename(tmp_path / "model.safetensors")
        with pytest.raises(InputError, match=f"encoder.norm.weight is {kind}"):
            load(tmp_path)


def test_weights_that_are_no_file_are_refused(saved: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((saved["backbone"] / "config.json").read_text())
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(InputError, match="safetensors"):
        load(tmp_path)


def test_the_class_that_is_expected_can_be_named(saved: dict[str, Path]) -> None:
    assert isinstance(load(saved["student"], kind=Student), Student)
    with pytest.raises(InputError, match="expected a Student, it is a Backbone"):
        load(saved["backbone"], kind=Student)
    assert read_config(saved["student"])["kind"] == "student"
    with pytest.raises(InputError, match=r"load its folder"):
        load(saved["student"] / "model.safetensors")
