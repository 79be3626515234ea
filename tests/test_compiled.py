"""The inference form gives what the model gives, for every kind of model and kind of cloud."""

import copy
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count as counting
from pathlib import Path
from threading import Barrier

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import foundry3d
from foundry3d.baselines import FPSStudent, KMeansStudent, Merged
from foundry3d.config import BackboneConfig, PartHeadConfig, ReductionConfig
from foundry3d.errors import InputError
from foundry3d.heads.classifier import Classifier
from foundry3d.heads.segmenter import Segmenter
from foundry3d.inference import compiled, kernels
from foundry3d.inference.cost import count
from foundry3d.models.backbone import Backbone, Tokens
from foundry3d.models.budget import Budget
from foundry3d.models.student import Student
from foundry3d.models.truncated import Truncated


def stirred(model: nn.Module, points: Tensor, generator: torch.Generator) -> nn.Module:
    """The model with norms that are not the initial ones."""
    for part in model.modules():
        if isinstance(part, nn.BatchNorm1d):
            assert part.running_mean is not None
            assert part.running_var is not None
            part.running_mean.normal_(0, 0.3, generator=generator)
            part.running_var.uniform_(0.5, 2, generator=generator)
            nn.init.uniform_(part.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(part.bias, 0, 0.3, generator=generator)
    return model.eval()


def relative(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


CLOUDS = {
    "random": lambda x: x,
    "clustered": lambda x: 0.01 * x + x[:, :4].repeat(1, 24, 1),
    "collinear": lambda x: x[..., :1] * torch.tensor([1.0, 2.0, -1.0]),
    "duplicated": lambda x: x[:, :24].repeat(1, 4, 1),
    "far": lambda x: x + 1000,
}


@pytest.mark.parametrize("kind", CLOUDS)
@pytest.mark.parametrize("gate", [False, True])
def test_student_is_the_same_function(
    kind: str, gate: bool, teacher: Backbone, points: Tensor, generator: torch.Generator
) -> None:
    student = Student.from_teacher(teacher, supertokens=4, gate=gate, generator=generator)
    stirred(student, points, generator)
    cloud = CLOUDS[kind](points)
    budget = Budget(token_budget=8) if gate else None
    fast = foundry3d.compile(student)
    with torch.no_grad():
        wanted, found = student(cloud, budget=budget), fast(cloud, budget=budget)
    assert wanted.assignment is not None
    assert relative(found.features, wanted.features) < 1e-5
    assert torch.equal(found.assignment, wanted.assignment)
    assert torch.equal(found.centers, wanted.centers)
    assert torch.equal(found.tokens_used, wanted.tokens_used)


def models(teacher: Backbone, points: Tensor) -> dict[str, nn.Module]:
    bert = Backbone(
        BackboneConfig(
            groups=12, group_size=8, point_widths=(8, 16, 32), tokenizer_dim=20, dim=24,
            depth=2, heads=3, class_token=True, point_bias=True, radius=0.5,
        )
    )  # fmt: skip
    head = PartHeadConfig(upsampling=(16,), hidden=(16, 12), label_dim=4)
    tome = ReductionConfig(method="tome", reach=3)
    student = Student.from_teacher(teacher, supertokens=4)
    parts = dict(parts=("a", "b", "c"), categories=("x", "y"), owned=((0, 1), (2,)), head=head)
    return {
        "teacher": teacher,
        "point-bert": bert,
        "narrow student": Student.from_teacher(teacher, supertokens=4, dim=12, heads=3),
        "light student": Student.from_teacher(teacher, supertokens=4, point_widths=(8, 16)),
        "two heads, cau norm": Student.from_teacher(
            teacher, supertokens=4, assignment_heads=2, cau_norm=True, soft_assignment=True
        ),
        "truncated": Truncated.from_teacher(teacher, depth=2),
        "no blocks": Truncated.from_teacher(teacher, depth=0, dim=12, heads=3),
        "supertokens after a block": Student.from_teacher(
            teacher, supertokens=4, supertokens_after=1
        ),
        "tome": Merged.from_teacher(teacher, tome),
        "fps": FPSStudent.from_teacher(teacher, supertokens=4, points=96),
        "kmeans": KMeansStudent.from_teacher(teacher, [points], supertokens=4),
        "classifier": Classifier.from_model(student, ("a", "b")),
        "segmenter": Segmenter.from_model(student, **parts),
        "one category": Segmenter.from_model(teacher, parts=("a", "b"), head=head),
    }


NAMES = (
    "teacher",
    "point-bert",
    "narrow student",
    "light student",
    "two heads, cau norm",
    "truncated",
    "no blocks",
    "supertokens after a block",
    "tome",
    "fps",
    "kmeans",
    "classifier",
    "segmenter",
    "one category",
)


@pytest.mark.parametrize("name", NAMES)
def test_every_model_compiles(
    name: str, teacher: Backbone, points: Tensor, generator: torch.Generator
) -> None:
    model = stirred(models(teacher, points)[name], points, generator)
    before = copy.deepcopy(model.state_dict())
    fast = foundry3d.compile(model)
    categories = torch.tensor([0, 1, 1, 0] if name == "segmenter" else [0, 0, 0, 0])
    more = (categories,) if isinstance(model, Segmenter) else ()
    with torch.no_grad():
        wanted, found = model(points, *more), fast(points, *more)
    assert type(fast) is type(model)
    assert not any(isinstance(part, nn.BatchNorm1d | nn.Linear) for part in fast.modules())
    if isinstance(wanted, Tokens):
        wanted, found = wanted.features, found.features
    assert relative(found, wanted) < 1e-5
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_block_features_are_the_same(teacher: Backbone, points: Tensor) -> None:
    student = Student.from_teacher(teacher, supertokens=4)
    fast = foundry3d.compile(student)
    with torch.no_grad():
        groups = student.group(points)
        for a, b in zip(
            student.block_features(groups, (0, 2)), fast.block_features(groups, (0, 2)), strict=True
        ):
            assert relative(b, a) < 1e-5


def test_bf16_is_close_and_returns_float32(teacher: Backbone, points: Tensor) -> None:
    fast = foundry3d.compile(teacher, "bf16")
    with torch.no_grad():
        wanted, found = teacher(points).features, fast(points).features
    assert found.dtype == torch.float32
    assert relative(found, wanted) < 0.02


@pytest.mark.parametrize("kernel", kernels.KERNELS)
@pytest.mark.parametrize("activation", ["none", "relu", "gelu"])
def test_kernels_agree(
    kernel: str, activation: kernels.Activation, generator: torch.Generator
) -> None:
    if kernels.seconds(kernel, torch.float32) == float("inf"):
        pytest.skip("not on this machine")
    linear = nn.Linear(20, 12)
    x = torch.randn(3, 5, 20, generator=generator)
    fast = kernels.FastLinear(linear.weight, linear.bias, activation=activation, kernel=kernel)
    wanted = {"none": lambda y: y, "relu": torch.relu, "gelu": nn.functional.gelu}[activation]
    with torch.no_grad():
        torch.testing.assert_close(fast(x), wanted(linear(x)), rtol=1e-5, atol=1e-5)


def test_a_kernel_that_fails_or_errs_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Tensor:
        raise NotImplementedError("no such operator")

    def wrong(x: Tensor, weight: Tensor, bias: Tensor, activation: str) -> Tensor:
        return (x @ weight.mT).relu() * 1.01

    same = kernels.KERNELS["plain"]
    tried = {"broken": (broken, broken), "wrong": (same[0], wrong), "plain": same}
    monkeypatch.setattr(kernels, "KERNELS", tried)
    kernels._fastest.cache_clear()
    assert kernels.fastest(torch.float32)[0] == "plain"
    kernels._fastest.cache_clear()
    assert kernels.seconds("wrong", torch.float32) == float("inf")


def test_threads_agree_on_kernels_that_are_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    order, ready = counting(), Barrier(8)

    def measured(name: str, dtype: torch.dtype) -> float:
        number = next(order)
        time.sleep(0.02)  # without a lock, all threads measure at the same time
        return float(number % 3)

    def chosen(_: int) -> tuple[object, ...]:
        ready.wait()
        return kernels.fastest(torch.float32), kernels.fastest(torch.bfloat16)

    monkeypatch.setattr(kernels, "seconds", measured)
    kernels._fastest.cache_clear()
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(chosen, range(8)))
    kernels._fastest.cache_clear()
    assert len(found) == 1
    assert next(order) == 2 * len(kernels.KERNELS)


class Doubled(nn.Linear):
    """A subclass of a linear layer that computes something else."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def test_a_part_of_another_type_keeps_its_function(teacher: Backbone, points: Tensor) -> None:
    first = teacher.encoder.blocks[0]
    changed = Doubled(24, 24)
    changed.load_state_dict(first.attn.proj.state_dict())
    with torch.no_grad():
        plain = teacher(points).features
        first.attn.proj = changed
        wanted, found = teacher(points).features, foundry3d.compile(teacher)(points).features
    assert relative(plain, wanted) > 1e-3
    assert relative(found, wanted) < 1e-5


def test_a_gate_in_bf16_answers_in_float32(
    teacher: Backbone, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half-precision logits would tie many of a cloud's tokens."""
    monkeypatch.setattr(compiled, "fastest", lambda dtype: ("plain", 1.0))
    student = Student.from_teacher(teacher, supertokens=4, gate=True, generator=generator)
    tokens = torch.randn(1, 256, 24, generator=generator)
    fast = foundry3d.compile(student, "bf16")
    with torch.no_grad():
        wanted, found = student.gate(tokens), fast.gate(tokens)
    assert found.shape == wanted.shape
    assert found.unique().numel() > 250
    assert found.to(torch.bfloat16).unique().numel() < 250
    assert (found - wanted).abs().max() < 2**-6


class Largest(TorchDispatchMode):
    """The most bytes of any tensor that an operation makes."""

    def __init__(self, apart: tuple[int, ...]) -> None:
        super().__init__()
        self.bytes, self.apart = 0, apart

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        fresh = isinstance(out, Tensor) and out.layout == torch.strided and not out._is_view()
        if fresh and out.numel() not in self.apart:
            self.bytes = max(self.bytes, out.numel() * out.element_size())
        return out


def test_no_temporary_is_larger_than_stated(
    teacher: Backbone, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "MOST_BYTES", 2**14)
    student = Student.from_teacher(teacher, supertokens=4, generator=generator)
    fast = foundry3d.compile(student)
    neighborhoods = torch.randn(40, 12, 8, 3, generator=generator)
    x = torch.randn(40, 12, 24, generator=generator)
    with torch.no_grad():
        for run, slow in ((fast, False), (student, True)):
            with Largest(apart=(x.numel(),)) as seen:
                run.tokenizer(neighborhoods)
                run.encoder(x, x)
            assert (seen.bytes > 2**14) == slow


def test_what_a_compiled_model_refuses(teacher: Backbone, tmp_path: Path) -> None:
    fast = foundry3d.compile(teacher)
    with pytest.raises(InputError, match="train the one"):
        fast.train()
    with pytest.raises(InputError, match="save the one"):
        foundry3d.save(fast, tmp_path / "model", provenance={})
    with pytest.raises(InputError, match="count the one"):
        count(fast)
    with pytest.raises(InputError, match="compiled already"):
        foundry3d.compile(fast)
    with pytest.raises(InputError, match="fp32, bf16"):
        foundry3d.compile(teacher, "int8")
    assert not (tmp_path / "model").exists()


def test_slow_bfloat16_falls_back_with_a_word(
    teacher: Backbone, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    slow = {torch.float32: ("plain", 1.0), torch.bfloat16: ("plain", 2.0)}
    monkeypatch.setattr(compiled, "fastest", lambda dtype: slow[dtype])
    fast = foundry3d.compile(teacher, "bf16")
    assert "slower than float32" in caplog.text
    assert next(fast.parameters()).dtype == torch.float32
