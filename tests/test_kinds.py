"""Students beyond the paper's: positions in the reconstruction, truncated, supertokens later."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import TINY
from torch import Tensor, nn

import foundry3d
from foundry3d.checkpoints.folder import load, save
from foundry3d.cli import read_options
from foundry3d.config import (
    BackboneConfig,
    BudgetDraws,
    DataConfig,
    DistillConfig,
    PartHeadConfig,
    PretrainConfig,
    StudentOptions,
    TokenLossConfig,
    TrainConfig,
    to_dict,
)
from foundry3d.data.procedural import generate
from foundry3d.errors import InputError
from foundry3d.geometry import gather
from foundry3d.heads.classifier import Classifier
from foundry3d.heads.segmenter import Segmenter
from foundry3d.inference.cost import count, count_parts
from foundry3d.models.backbone import Backbone
from foundry3d.models.budget import Budget
from foundry3d.models.student import Student
from foundry3d.models.truncated import Truncated
from foundry3d.models.vit import State
from foundry3d.scenes import memory
from foundry3d.scenes.memory import scene_memory
from foundry3d.scenes.scene import encode_scene, group_scene
from foundry3d.scenes.windows import encode_windows, split_windows
from foundry3d.training.distill import distill, student_of
from foundry3d.training.goals import held_out_losses
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


# ---------------------------------------------------------------- truncated students


def shallow(teacher: Backbone, depth: int, **options: Any) -> Truncated:
    generator = torch.Generator().manual_seed(3)
    return Truncated.from_teacher(teacher, depth=depth, generator=generator, **options)


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_truncated_is_the_teachers_first_blocks_and_the_mlp(
    teacher: Backbone, points: Tensor, depth: int
) -> None:
    """MLP(T_k + P) with T_k from the teacher itself, at k = depth from its unnormed output."""
    student, groups = shallow(teacher, depth), teacher.group(points)
    tokens, places = teacher.embed_groups(groups)
    states = [tokens, *teacher.encoder.states(tokens, places)]
    wanted = student.mlp(states[depth] + places)
    found = student(points)
    assert torch.equal(found.features, wanted)
    assert found.assignment is None and found.probability is None
    assert found.tokens_used.tolist() == [TINY.groups] * 4
    assert torch.equal(student.encode(groups).features, wanted)
    layers = range(max(1, depth))
    for layer, features in zip(layers, student.block_features(groups, layers), strict=True):
        assert torch.equal(features, student.mlp(states[layer + 1 if depth else 0] + places))
    assert student.shape.depth == len(student.encoder.blocks) == depth


def test_a_truncated_student_of_all_blocks_can_be_its_teacher(
    teacher: Backbone, points: Tensor
) -> None:
    """With an MLP that is the final LayerNorm of what it reads, less the positions added there."""
    student = shallow(teacher, TINY.depth)
    groups = student.group(points)
    places = student.embed_centers(groups.centers)
    student.mlp = nn.Identity()  # type: ignore[assignment]
    features = student.encode(groups).features - places
    torch.testing.assert_close(teacher.encoder.norm(features), teacher.encode(groups).features)


def test_weights_of_other_sizes_are_new(teacher: Backbone) -> None:
    """Whatever agrees in size is the teacher's: all but the MLP; a part of another size is new."""
    weights = teacher.state_dict()

    def is_copied(student: Truncated, part: str) -> bool:
        own = {n: w for n, w in student.state_dict().items() if n.startswith(part)}
        return bool(own) and all(
            n in weights and torch.equal(w, weights[n]) for n, w in own.items()
        )

    parts = ("tokenizer", "position.", "encoder")
    assert [is_copied(shallow(teacher, 2), part) for part in parts] == [True, True, True]
    narrow = shallow(teacher, 2, dim=12, heads=3)
    assert [is_copied(narrow, part) for part in parts] == [True, True, False]
    assert narrow.output_dim == TINY.dim
    light = shallow(teacher, 1, point_widths=(8, 16), group_size=4)
    assert [is_copied(light, part) for part in parts] == [False, True, True]
    assert (light.shape.group_size, light.shape.point_widths) == (4, (8, 16))


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_cost_of_a_truncated_student_by_hand(teacher: Backbone, depth: int) -> None:
    """Tokenizer, positions, k blocks on c tokens, and two layers of d x d on each."""
    found, parts = count(shallow(teacher, depth)), count_parts(teacher)
    c, d, hidden = TINY.groups, TINY.dim, 4 * TINY.dim
    block = c * (3 * d * d + d * d + 2 * d * hidden)
    before = parts["tokenizer"].macs + parts["position"].macs
    assert found.macs == before + depth * block + c * 2 * d * d
    front = parts["tokenizer"].params + parts["position"].params
    weights = 3 * d * d + 3 * d + d * d + d + 2 * d * hidden + hidden + d + 4 * d
    assert found.params == front + depth * weights + 2 * (d * d + d)


@pytest.mark.parametrize("options", [{}, {"dim": 12, "heads": 3}, {"point_widths": (8, 16)}])
@pytest.mark.parametrize("depth", [0, 2])
def test_truncated_students_survive_saving(
    teacher: Backbone, points: Tensor, tmp_path: Path, depth: int, options: dict[str, Any]
) -> None:
    student = shallow(teacher, depth, **options)
    again = load(save(student, tmp_path / "m", provenance={}), kind=Truncated)
    assert again.config == student.config
    assert torch.equal(again(points).features, student(points).features)
    fast = foundry3d.compile(student)
    torch.testing.assert_close(fast(points).features, student(points).features)
    headed = Classifier.from_model(student, ("a", "b"))
    found = load(save(headed, tmp_path / "c", provenance={}), kind=Classifier)
    assert torch.equal(found(points), headed(points))


def test_a_truncated_student_is_asked_for_and_shared(teacher: Backbone, tmp_path: Path) -> None:
    words = ["--data.train", "procedural", "--student.kind", "truncated", "--student.depth", "0"]
    options = read_options("distill", words).student
    assert options == StudentOptions(kind="truncated", depth=0)
    student = Truncated.from_teacher(teacher, options)
    foundry3d.save_pretrained(student, tmp_path / "shared")
    assert "first 0 blocks" in (tmp_path / "shared" / "README.md").read_text()
    assert isinstance(foundry3d.from_pretrained(tmp_path / "shared"), Truncated)


@pytest.mark.parametrize("depth", [0, 1])
def test_a_part_head_reads_the_blocks_there_are(
    teacher: Backbone, points: Tensor, depth: int
) -> None:
    head = PartHeadConfig(upsampling=(16,), hidden=(16, 12), label_dim=4)
    model = Segmenter.from_model(shallow(teacher, depth), parts=("a", "b"), head=head)
    assert model(points, torch.zeros(4, dtype=torch.int64)).shape == (4, 96, 2)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"depth": 4}, "at most the teacher's 3 blocks"),
        ({"depth": -1}, "depth must be >= 0"),
        ({}, "add --student.depth"),
        ({"depth": 1, "gate": True}, "takes only dim, depth, heads.* not gate"),
        ({"depth": 1, "supertokens": 4}, "not supertokens"),
        ({"depth": 1, "group_size": 9}, "at most the teacher's 8 points"),
        ({"depth": 1, "kind": "supertokens"}, "expected a student of kind truncated"),
    ],
)
def test_what_cannot_be_truncated_is_one_sentence(
    teacher: Backbone, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        Truncated.from_teacher(teacher, **options)


def test_budgets_need_supertokens(teacher: Backbone, points: Tensor) -> None:
    student = shallow(teacher, 1)
    with pytest.raises(InputError, match="budgets are for students with supertokens"):
        student(points, budget=Budget(supertokens=2))
    with pytest.raises(InputError, match="positive"):
        StudentOptions(depth=0)
    with pytest.raises(InputError, match="depth must be positive"):
        PretrainConfig(backbone=replace(TINY, depth=0))
    with pytest.raises(InputError, match="nested needs"):
        options = StudentOptions(kind="truncated", depth=1)
        DistillConfig(student=options, budgets=BudgetDraws(nested=True))


@pytest.mark.parametrize("options", [{"depth": 0}, {"depth": 1, "point_widths": (8, 16)}])
def test_a_truncated_student_learns(
    teacher: Backbone, tmp_path: Path, options: dict[str, Any]
) -> None:
    """The command's run ends with a model of its kind, closer to the teacher than it began."""
    save(teacher, tmp_path / "teacher", provenance={})
    data = DataConfig(train="procedural", train_clouds=64, test=None, points=64, validation=0.0)
    config = DistillConfig(
        teacher=str(tmp_path / "teacher"),
        out=str(tmp_path / "run"),
        student=StudentOptions(kind="truncated", **options),
        frozen="none",
        token_loss=TokenLossConfig(weight=0.1 if "point_widths" in options else 0.0),
        data=data,
        train=TrainConfig(epochs=4, batch_size=16, warmup_epochs=0, lr=5e-3, accelerator="cpu"),
    )
    before = student_of(teacher, config)
    assert isinstance(before, Truncated)
    distill(config)
    after = load(tmp_path / "run", kind=Truncated)
    clouds = generate(32, points=64, seed=9)
    losses = [held_out_losses(teacher, m.eval(), clouds, 64) for m in (before, after)]
    assert losses[1]["loss"] < 0.9 * losses[0]["loss"]
    assert losses[1]["fusion_ratio"] == 0


# ---------------------------------------------------------------- supertokens after k blocks


def after(teacher: Backbone, blocks: int, **options: Any) -> Student:
    """A student whose tokens spread over its supertokens."""
    generator = torch.Generator().manual_seed(3)
    options = {"supertokens": 4, "supertokens_after": blocks} | options
    student = Student.from_teacher(teacher, generator=generator, **options)
    with torch.no_grad():
        student.dso.supertokens.mul_(5)
        if student.gate is not None:
            student.gate.fc2.weight.mul_(20)
    return student


@pytest.mark.parametrize("blocks", [0, 1, 2])
def test_supertokens_after_blocks_are_the_formula(
    teacher: Backbone, points: Tensor, blocks: int
) -> None:
    """The teacher's first k blocks, then DSO, the other blocks and CAU, from their parts."""
    student = after(teacher, blocks)
    groups = student.group(points)
    tokens, places = teacher.embed_groups(groups)
    for block in teacher.encoder.blocks[:blocks]:
        tokens = block(0, State(tokens=tokens, positions=places)).tokens
    packed = student.dso(tokens, places)
    bias = torch.zeros(4, 4).masked_fill(~packed.used, float("-inf"))
    state = State(tokens=packed.supertokens, positions=packed.positions, bias=bias)
    for block in teacher.encoder.blocks[blocks:]:
        state = block(0, state)
    encoded = teacher.encoder.norm(state.tokens)
    wanted = student.cau(tokens + places, packed.cam, encoded)
    found = student.encode(groups)
    torch.testing.assert_close(found.features, wanted)
    assert torch.equal(found.assignment, packed.assignment)


@pytest.mark.parametrize("blocks", [0, 1, 2])
def test_a_gate_that_merges_nothing_leaves_the_teacher(
    teacher: Backbone, points: Tensor, blocks: int
) -> None:
    student = after(teacher, blocks, gate=True)
    kept = student(points, budget=Budget(token_budget=TINY.groups))
    torch.testing.assert_close(kept.features, teacher(points).features)
    for packed in (False, True):
        found = student(points, budget=Budget(ratio=0.5, packed=packed)).features
        one = [student(cloud[None], budget=Budget(ratio=0.5)).features for cloud in points]
        torch.testing.assert_close(found, torch.cat(one))


def test_budgets_after_blocks_are_exact(teacher: Backbone, points: Tensor) -> None:
    student = after(teacher, 1, gate=True)
    fast = foundry3d.compile(student)
    for budget in (Budget(token_budget=6), Budget(supertokens=2, token_budget=5)):
        found = student(points, budget=budget)
        assert found.tokens_used.tolist() == [budget.token_budget] * 4
        torch.testing.assert_close(fast(points, budget=budget).features, found.features)
    nested = after(teacher, 1)(points, budget=Budget(supertokens=2))
    assert nested.assignment is not None and int(nested.assignment.max()) < 2


@pytest.mark.parametrize("blocks", [1, 2])
def test_blocks_before_the_supertokens_are_the_teachers(
    teacher: Backbone, points: Tensor, blocks: int
) -> None:
    student = after(teacher, blocks)
    groups = student.group(points)
    found = student.block_features(groups, range(TINY.depth))
    wanted = teacher.block_features(groups, range(TINY.depth))
    for layer in range(TINY.depth):
        assert torch.allclose(found[layer], wanted[layer], atol=1e-5) == (layer < blocks)
    student.encoder.norm = nn.Identity()
    torch.testing.assert_close(found[-1], student.encode(groups).features)


def test_cost_after_blocks_by_hand(teacher: Backbone) -> None:
    """k blocks on c tokens, the others on s, or on what the gate lets through."""
    c, d, s = TINY.groups, TINY.dim, 4
    token = 4 * d * d + 2 * d * 4 * d
    for blocks in (0, 1, 2):
        student = after(teacher, blocks)
        encoder = token * (blocks * c + (TINY.depth - blocks) * s)
        assert count_parts(student)["encoder"].macs == encoder
        gated = count_parts(after(teacher, blocks, gate=True), merged=7, used=3)["encoder"].macs
        assert gated == token * (blocks * c + (TINY.depth - blocks) * (c - 7 + 3))
        assert count(student).params == count(after(teacher, 0)).params


def test_a_step_reaches_every_block(teacher: Backbone, points: Tensor) -> None:
    draws = torch.Generator().manual_seed(0)
    student = after(teacher, 1, gate=True).train()
    student(points, generator=draws).features.square().mean().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in student.encoder.parameters())


@pytest.mark.parametrize("blocks", [3, 5])
def test_some_blocks_are_left_for_supertokens(teacher: Backbone, blocks: int) -> None:
    with pytest.raises(InputError, match="fewer than the 3 blocks"):
        after(teacher, blocks)
    with pytest.raises(InputError, match="supertokens_after must be >= 0"):
        StudentOptions(supertokens_after=-1)


def test_blocks_before_supertokens_survive_saving(
    teacher: Backbone, points: Tensor, tmp_path: Path
) -> None:
    student = after(teacher, 2)
    again = load(save(student, tmp_path / "m", provenance={}), kind=Student)
    assert again.config == student.config
    assert torch.equal(again(points).features, student(points).features)


# ---------------------------------------------------------------- scenes


SCENES = ["truncated-0", "truncated-2", "truncated-narrow", "after-1", "after-2-gate"]


def scene_model(teacher: Backbone, name: str) -> Truncated | Student:
    match name:
        case "truncated-0" | "truncated-2":
            return shallow(teacher, int(name[-1]))
        case "truncated-narrow":
            return shallow(teacher, 1, dim=12, heads=3)
        case "after-1":
            return after(teacher, 1)
    return after(teacher, 2, gate=True)


@pytest.mark.parametrize("name", SCENES)
def test_a_scene_of_one_window_is_the_model(
    teacher: Backbone, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """As many tokens as a training cloud has, in chunks of five groups."""
    model = scene_model(teacher, name)
    monkeypatch.setattr(memory, "MOST_TEMPORARY", 5 * memory.group_bytes(model.shape))
    scene = group_scene(model, torch.randn(1, 120, 3, generator=generator), points_per_token=10)
    rows = torch.arange(12)[None]
    for form in (model, foundry3d.compile(model)):
        found = encode_scene(form, scene)
        wanted = model.encode(scene.groups(rows))
        torch.testing.assert_close(found.features, wanted.features, rtol=1e-5, atol=1e-5)
        assert torch.equal(found.tokens_used, wanted.tokens_used)


@pytest.mark.parametrize("name", ["truncated-0", "truncated-2", "truncated-narrow"])
def test_a_truncated_scene_is_its_windows(
    teacher: Backbone, generator: torch.Generator, name: str
) -> None:
    """Without blocks that is the model on all groups at once."""
    model = scene_model(teacher, name)
    scene = group_scene(model, torch.randn(1, 700, 3, generator=generator), points_per_token=7)
    found = encode_scene(model, scene)
    windows, _ = encode_windows(model, scene, TINY.groups, fit=False)
    torch.testing.assert_close(found.features, windows.features, rtol=1e-5, atol=1e-5)
    whole = model.encode(scene.groups(torch.arange(100)[None])).features
    same = torch.allclose(found.features, whole, rtol=1e-4, atol=1e-4)
    assert same == (name == "truncated-0")


def test_supertokens_of_a_scene_are_shared_by_its_windows(
    teacher: Backbone, generator: torch.Generator
) -> None:
    """First blocks in windows, then one DSO, encoder and CAU for all tokens."""
    model = after(teacher, 1)
    scene = group_scene(model, torch.randn(1, 700, 3, generator=generator), points_per_token=7)
    tokens, places = model.embed_groups(scene.groups(torch.arange(100)[None]))
    read = torch.empty_like(tokens)
    for rows in split_windows(scene.centers[0], TINY.groups):
        read[:, rows] = model.encoder.begin(tokens[:, rows], places[:, rows], 1)
    packed = model.dso(read, places)
    hidden = torch.zeros(1, 4).masked_fill(~packed.used, float("-inf"))
    encoded = model.encoder(packed.supertokens, packed.positions, bias=hidden, start=1)
    found = encode_scene(model, scene)
    wanted = model.cau(read + places, packed.cam, encoded)
    torch.testing.assert_close(found.features, wanted, rtol=1e-5, atol=1e-5)
    with pytest.raises(InputError, match="attention over 12 tokens"):
        encode_scene(model, scene, most_attention=1000)
    encode_scene(shallow(teacher, 0), scene, most_attention=1000)


def test_memory_of_first_blocks_is_that_of_their_windows() -> None:
    shape = BackboneConfig()
    sizes = {"points": 2**18, "tokens": 2**14, "supertokens": 16}
    plain, blocks = scene_memory(shape, **sizes), scene_memory(shape, **sizes, first_blocks=2)
    need = memory.attention(shape, 64)
    together = memory.groups_at_once(shape) // 64 or 1
    assert blocks.encoder == memory.KEPT * together * (need.weights + need.rows) > plain.encoder
    assert blocks.tokens == plain.tokens
    longer = scene_memory(shape, **sizes | {"tokens": 2**16}, first_blocks=2)
    assert longer.encoder == blocks.encoder
