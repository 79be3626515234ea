"""What the measurements say of themselves; times are never asserted."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import TINY
from torch import Tensor

from foundry3d import cli
from foundry3d.bench import floor, forms, measure, memory, objects, paper, scaling, targets
from foundry3d.bench import scene as scenes
from foundry3d.bench.forms import model_of, sample_output
from foundry3d.bench.reference import PlainTeacher
from foundry3d.bench.run import bench
from foundry3d.bench.subjects import Subject, cloud_points, scene_points
from foundry3d.checkpoints.folder import save
from foundry3d.config import BackboneConfig, BenchConfig
from foundry3d.errors import InputError
from foundry3d.inference.cost import Layer, count, linear_layers
from foundry3d.models.backbone import Backbone
from foundry3d.models.student import Student, student_config
from foundry3d.report.rows import read_rows

ROW = {"bench", "name", "precision", "median_s", "iqr_s", "repeats", "ratio", "clouds_s"}
ROW |= {"gmacs", "floor_share", "peak_mb", "error", "device", "threads", "batch", "code"}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> str:
    model = Backbone(TINY, generator=torch.Generator().manual_seed(3)).eval()
    return str(save(model, tmp_path_factory.mktemp("bench") / "teacher", provenance={}))


@pytest.fixture(scope="module")
def config(saved: str) -> BenchConfig:
    return BenchConfig(
        model=saved,
        supertokens=(4, 1),
        quick=True,
        batch_size=3,
        points=96,
        memory=False,
        repeats=2,
    )


class Clock:
    """A clock that candidates move by what they are said to take."""

    def __init__(self) -> None:
        self.now, self.calls = 0.0, []

    def candidate(self, name: str, *seconds: float):
        left: Iterator[float] = iter(seconds)

        def run() -> None:
            self.calls.append(name)
            self.now += next(left)

        return run

    def __call__(self) -> float:
        return self.now


def test_candidates_take_turns_and_the_first_call_is_not_counted() -> None:
    clock = Clock()
    times = measure.interleaved(
        {
            "a": clock.candidate("a", 9, 1, 2, 3),
            "b": clock.candidate("b", 9, 5, 5, 5),
            "c": clock.candidate("c", 9, 0, 1, 8),
        },
        repeats=3,
        clock=clock,
    )
    assert "".join(clock.calls) == "abc" + "abc" + "bca" + "cab"
    assert times["a"] == (2, 1, 3)  # quartiles 1.5 and 2.5
    assert times["b"] == (5, 0, 3)
    assert times["c"].median == 1
    clock = Clock()
    steps = {name: clock.candidate(name, 1, 1, 1) for name in "ab"}
    measure.interleaved(steps, repeats=2, clock=clock, turning=False)
    assert "".join(clock.calls) == "ababab"


def test_slow_candidates_are_called_less_often_and_say_so() -> None:
    clock = Clock()
    times = measure.interleaved(
        {
            "quick": clock.candidate("q", 1, 1, 1, 1, 1),
            "slow": clock.candidate("s", 4, 4, 4),
            "slowest": clock.candidate("S", 20),
        },
        repeats=4,
        limit=10,
        clock=clock,
    )
    assert [t.repeats for t in times.values()] == [4, 2, 1]
    assert times["slowest"].median == 20


def test_errors_and_agreement() -> None:
    wanted = torch.tensor([3.0, 4.0])
    assert measure.relative_error(wanted, wanted) == 0
    assert measure.relative_error(torch.tensor([3.0, 4.5]), wanted) == pytest.approx(0.1)
    assert measure.agreement(torch.tensor([1, 2, 3, 4]), torch.tensor([1, 2, 0, 4])) == 0.75
    assert measure.agreement(None, wanted) is None


def total_macs(layers: Iterable[Layer]) -> int:
    return sum(layer.rows * layer.inputs * layer.outputs for layer in layers)


@pytest.mark.parametrize("sizes", [TINY, BackboneConfig()])
@pytest.mark.parametrize("clouds", [1, 3])
def test_the_floor_is_the_count_less_what_the_algebra_saves(
    sizes: BackboneConfig, clouds: int
) -> None:
    with torch.device("meta"):
        models = [Backbone(sizes), Student(student_config(sizes, supertokens=4))]
    first, second, third = sizes.point_widths
    groups = clouds * sizes.groups
    rows = groups * sizes.group_size
    saved = 2 * rows * second * third - groups * second * third - rows * first * third
    for model in models:
        layers = linear_layers(model, clouds=clouds)
        whole = count(model, clouds=clouds).macs
        assert total_macs(layers) == whole
        assert total_macs(floor.folded(layers, sizes.group_size)) == whole - saved


def test_folded_tokenizer_costs_what_the_method_says() -> None:
    """295,296 multiply-accumulates a point instead of 491,904, and one layer once a group."""
    with torch.device("meta"):
        layers = [part for part in linear_layers(Backbone()) if part.name.startswith("tokenizer")]
    points = 64 * 32
    assert total_macs(layers) == points * 491_904
    once = 64 * 256 * 512
    assert total_macs(floor.folded(layers, 32)) == points * 295_296 + once


def test_the_floor_is_the_time_of_the_fastest_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock that charges each kernel a price per row and each piece a fixed price."""

    def kernel(name: str) -> tuple[Callable, Callable]:
        def apply(x: Tensor, *, weight: Tensor, bias: Tensor, activation: str) -> Tensor:
            used.append((name, len(x)))
            return x @ weight.T + bias

        return lambda weight: weight, apply

    def timed(run: Callable[[], object], device: str) -> float:
        used.clear()
        run()
        return sum(prices[name] * rows + piece for name, rows in used)

    used: list[tuple[str, int]] = []
    prices, piece = {"plain": 3.0, "packed": 2.0}, 10.0
    monkeypatch.setattr(floor, "KERNELS", {name: kernel(name) for name in prices})
    monkeypatch.setattr(floor, "_timed", timed)
    floor.best.cache_clear()
    whole = floor.best(5000, 3, 2, "fp32", "cpu", 1)
    assert whole == (2 * 5000 + 10, "packed, 5000 rows")
    piece = -10.0  # small pieces now save time
    floor.best.cache_clear()
    assert floor.best(5000, 3, 2, "fp32", "cpu", 1) == (2 * 5000 - 3 * 10, "packed, 2048 rows")
    # more rows than are measured: the time is scaled
    found = floor.best(2**16, 3, 2, "fp32", "cpu", 1)
    assert found == (4 * (2 * 2**14 - 8 * 10), "packed, 2048 rows")
    layers = [Layer("a", 5000, 3, 2), Layer("b", 2**16, 3, 2), Layer("c", 5000, 3, 2)]
    assert floor.floor_seconds(layers, "fp32") == 2 * (2 * 5000 - 30) + found[0]
    floor.best.cache_clear()


def test_the_floor_of_this_machine_grows_with_its_layers() -> None:
    with torch.device("meta"):
        layers = linear_layers(Backbone(TINY))
    for precision in ("fp32", "bf16"):
        each = [floor.floor_seconds([layer], precision) for layer in layers]
        assert floor.floor_seconds(layers, precision) == pytest.approx(sum(each))


def test_plain_form_is_the_teacher(teacher: Backbone, points: torch.Tensor) -> None:
    for cloud in (points, points + 100, points.round(decimals=1)):
        with torch.inference_mode():
            found, wanted = PlainTeacher(teacher)(cloud), teacher(cloud)
        assert torch.equal(found.centers, wanted.centers)
        assert measure.relative_error(found.features, wanted.features) < 1e-6


def test_subjects_are_what_they_are_named(saved: str) -> None:
    first = Subject(name="", model=saved, clouds=2, points=96)
    assert model_of(first) is model_of(Subject(name="other", form="compiled", model=saved))
    student = Subject(name="", model=saved, supertokens=3, clouds=2, points=96)
    assert sample_output(student).assignment.max() < 3
    light = Subject(name="", model=saved, supertokens=3, group_size=4, point_widths=(4, 8, 16))
    assert model_of(light).tokenizer.lift.out_features == 4
    same, other = model_of(student).state_dict(), model_of(light).state_dict()
    assert all(torch.equal(same[k], other[k]) for k in same if k.startswith("encoder."))
    assert model_of(Subject(name="", model=saved, groups=20)).shape.groups == 20
    assert torch.equal(cloud_points(2, 8, 1), cloud_points(2, 8, 1))
    assert scene_points(500, 0).shape == (1, 500, 3)
    with pytest.raises(InputError, match="neither a saved model"):
        model_of(Subject(name="", model="no/such"))


def test_objects(config: BenchConfig) -> None:
    rows = bench(replace(config, what="objects"))
    assert len(rows) == len(objects.listed(config))
    published = [row for row in rows if row["form"] == "published"]
    assert [row["batch"] for row in published] == [3, 1]
    best = min(row["median_s"] for row in published)
    assert sum(row["baseline"] for row in rows) == 1
    for row in rows:
        assert set(row) >= ROW, ROW - set(row)
        assert row["ratio"] == best / row["median_s"]
        assert row["clouds_s"] == 3 / row["median_s"]
        assert row["floor_share"] == row["floor_s"] / row["median_s"]
        assert row["error"] < (1e-5 if row["precision"] == "fp32" else 0.1)
        assert row["precision"] == "bf16" or row["agreement"] in (None, 1)
    names = [row["name"] for row in rows]
    assert {"teacher, compiled", "s=4, compiled", "s=1, plain"} < set(names)
    assert rows[-1]["light"]
    json.dumps(rows)


@pytest.mark.parametrize("what", ["scene", "geometry", "train", "scaling"])
def test_command(what: str, saved: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    written = tmp_path / "rows.jsonl"
    words = ["bench", what, "--quick", "--model", saved, "--supertokens", "4", "--memory", "false"]
    words += ["--batch_size", "2", "--points", "96", "--scene_points", "1200", "--repeats", "1"]
    cli.main([*words, "--results", str(written), "--out", str(tmp_path)])
    rows = read_rows(written)
    shown = capsys.readouterr().out
    assert rows
    for row in rows:
        assert {"bench", "name", "device", "threads", "code"} <= set(row)
        assert row["name"] in shown
    if what == "geometry":
        assert all(row["error"] == 0 for row in rows)
    if what == "scene":
        exact = [row for row in rows if row["precision"] == "fp32" and row["form"] == "streamed"]
        assert exact[0]["error"] < 1e-5
        assert exact[0]["agreement"] == 1
    if what == "train":
        stages = [row["name"] for row in rows if row["precision"] == "fp32"]
        assert "distill s=4: teacher" in stages
        shares = [row["percent"] for row in rows if "whole" not in row["name"]]
        assert sum(shares) == pytest.approx(100 * 4)
    if what == "scaling":
        assert (tmp_path / "scaling_time.png").stat().st_size > 0
        assert {"tokens", "supertokens", "batch"} < {row.get("sweep") for row in rows}


def test_memory_is_that_of_the_call() -> None:
    def use() -> int:
        return int(torch.ones(64 * 2**20, dtype=torch.uint8).sum())

    small, large = memory.peak_of(lambda: None), memory.peak_of(use)
    assert large.working > small.working + 50
    assert large.peak >= large.working


@pytest.mark.parametrize(
    "form", ["compiled", "streamed", "windows", "dense", "geometry", "distill"]
)
def test_every_form_can_be_called_apart(form: str, saved: str) -> None:
    subject = Subject(name="", form=form, model=saved, supertokens=4, clouds=1, points=400)
    scene = form not in ("compiled", "distill")
    subject = replace(subject, batch=1, groups=25 if scene else None, clouds=1 if scene else 2)
    memory.call_of(subject)()


def test_a_form_for_inference_needs_no_trainer() -> None:
    code = "import foundry3d.bench.scene_forms, sys; print('lightning' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_memory_in_a_process_of_its_own(saved: str, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = Subject(name="", model=saved, supertokens=4, clouds=2, points=96, batch=2)
    found = memory.peak_apart(subject, 1)
    assert found.peak > found.working >= 0
    monkeypatch.setattr(memory.sys, "executable", "false")
    with pytest.raises(InputError, match="measures memory stopped: status 1"):
        memory.peak_apart(subject, 1)


def test_exponents_are_recovered() -> None:
    xs = [1e4, 3e4, 1e5, 3e5, 1e6]
    for exponent in (0.0, 1.0, 1.5, 2.0):
        slope, r2 = scaling.fit(xs, [3.7 * x**exponent for x in xs])
        assert slope == pytest.approx(exponent, abs=1e-9)
        assert r2 == pytest.approx(1)
    slope, _ = scaling.fit(xs, [x * torch.tensor(x).log().item() for x in xs])
    assert slope == pytest.approx(1.09, abs=0.01)
    shared = {"sweep": "tokens", "name": "a", "form": "compiled", "working_mb": None}
    rows = [shared | {"x": x, "median_s": x**2} for x in (1, 2, 4)]
    (found,) = scaling.fits(rows)
    assert found["of"] == "tokens, time"
    assert found["exponent"] == pytest.approx(2)
    assert scaling.fits(rows[:2]) == []


def test_every_printed_speed_of_the_paper_is_there() -> None:
    rows = paper.paper_speed()
    tables = [row["table"] for row in rows]
    assert [tables.count(t) for t in (6, 7, 14)] == [25, 15, 50]
    cpu = {(r["method"], r["supertokens"]): r for r in rows if r["device"] == "cpu"}
    assert cpu["foundry_vit_s", 16]["clouds_s"] == 104.32
    assert cpu["baseline", None]["runtime_s"] == 0.93
    lost = [row for row in rows if row["clouds_s"] is None]
    assert {row["method"] for row in lost} == {"baseline", "tome"}
    twice = [row for row in rows if row["table"] == 6 and row["note"]]
    assert len(twice) == 3  # cells where Tables 6 and 14 print different figures


def _row(**values: object) -> dict:
    row = {"bench": "objects", "form": "compiled", "precision": "fp32", "supertokens": 16}
    row |= {"gate": False, "gate_ratio": None, "encoded": None, "token_budget": None}
    row |= {"removed": [], "light": False, "clouds": 64, "points": 1024}
    row |= {"tokens": 64, "dim": 384, "width": 384, "name": "row", "median_s": 0.5, "ratio": 4.0}
    return row | {"clouds_s": 128.0, "peak_mb": 900.0, "floor_share": 0.9} | values


def test_our_rows_stand_beside_the_papers() -> None:
    rows = [
        _row(form="published", supertokens=None, median_s=1.0),
        _row(form="published", supertokens=None, median_s=2.0),
        _row(precision="bf16", dim=192),
        _row(removed=[32, 16], supertokens=None),
        _row(gate=True, token_budget=64),  # not in the paper
        _row(gate=True, token_budget=32),
        _row(gate=True),
        _row(gate=True, gate_ratio=0.9, encoded=64),
        _row(light=True),
        _row(tokens=12),
    ]
    lines = {(r["method"], r["token_budget"], r["ratio"]): r for r in paper.with_paper(rows, 6)}
    assert set(lines) == {
        ("baseline", None, None),
        ("foundry_vit_t", None, None),
        ("tome_16", None, None),
        ("foundry_gate", None, None),
        ("foundry_gate", None, 0.9),
        ("foundry_gate", 32, None),
    }
    assert lines["baseline", None, None]["plain_s"] == 1.0
    assert lines["foundry_vit_t", None, None]["bf16_s"] == 0.5
    assert lines["foundry_gate", 32, None]["cpu_clouds_s"] == 88.91
    assert lines["foundry_gate", None, None]["cpu_clouds_s"] == 65.88
    assert lines["foundry_gate", None, 0.9]["cpu_clouds_s"] == 67.11
    assert lines["foundry_gate", None, 0.9]["encoded"] == 64


def test_every_row_of_the_papers_tables_is_measured() -> None:
    scene = {"scene_points": 2**18, "supertokens": (16, 4)}
    for table, config, listed, size in (
        (6, BenchConfig(paper=True), objects.listed, {"points": 1024, "tokens": 64}),
        (7, BenchConfig(what="scene", paper=True, **scene), scenes.listed, {}),
    ):
        size = size or {"points": 2**18, "tokens": 2**14}
        rows = [
            _row(
                form=s.form,
                supertokens=s.supertokens,
                dim=s.dim or 384,
                removed=list(s.removed),
                gate=s.gate,
                token_budget=s.token_budget,
                gate_ratio=s.ratio,
                light=bool(s.point_widths or s.group_size),
                **size,
            )
            for s in listed(config)
        ]
        key = ("method", "supertokens", "token_budget", "ratio")
        found = [tuple(line.get(k) for k in key) for line in paper.with_paper(rows, table)]
        printed = [r for r in paper.paper_speed() if (r["table"], r["device"]) == (table, "gpu")]
        assert sorted(map(str, found)) == sorted(str(tuple(r[k] for k in key)) for r in printed)


def test_what_a_ratio_merges_is_counted() -> None:
    """Costs of a gate without a token budget are those of the padded batch that was passed."""
    start = Subject(name="gate", model="vit_t", supertokens=4, gate=True, clouds=2, batch=2)
    for ratio in (None, 0.0, 1.0):
        subject = replace(start, ratio=ratio)
        output = forms.runner(subject)()
        merged = int((output.assignment >= 0).sum(dim=1).max())
        encoded = int(output.tokens_used.max())
        row = forms.described(subject)
        cost = count(forms.model_of(subject), clouds=2, merged=merged, used=encoded - 64 + merged)
        assert row["gmacs"] == cost.macs / 1e9
        assert (row["encoded"], row["gate"], row["gate_ratio"]) == (encoded, True, ratio)
    assert forms.described(replace(start, ratio=1.0))["encoded"] == 64
    forms.forget()


def test_parts_of_a_scene_do_not_stand_beside_the_whole() -> None:
    size = {"points": 2**18, "tokens": 2**14}
    rows = [
        _row(form="plain scene", median_s=60.0, **size),
        _row(form="geometry", median_s=0.05, **size),
        _row(form="windows", supertokens=None, **size),
        _row(form="streamed", precision="bf16", median_s=1.0, **size),
        _row(form="dense", precision="bf16", median_s=2.0, **size),
    ]
    *lost, line = paper.with_paper(rows, 7)
    assert [row["method"] for row in lost] == ["baseline", "tome"]
    assert all("out of memory" in row["note"] for row in lost)
    assert (line["plain_s"], line["bf16_s"]) == (60.0, 1.0)


def test_targets_are_met_or_not() -> None:
    rows = [_row(), _row(precision="bf16", ratio=8.0), _row(light=True, ratio=16.0)]
    rows += [_row(bench="scene", form="streamed", points=2**18, peak_mb=p) for p in (900.0, 1100.0)]
    rows.append({"bench": "fit", "of": "scene points, time", "form": "streamed", "name": "s"})
    rows[-1]["exponent"] = 1.02
    found = {row["what"]: row for row in targets.target_rows(rows)}
    assert found["s=16, fp32"] | {} == {
        "what": "s=16, fp32", "reach": "4.5x", "reached": "4x", "met": "no", "row": "row",
    }  # fmt: skip
    assert found["s=16, bf16"]["met"] == "yes"
    assert found["a light tokenizer, any s"]["reached"] == "16x"
    assert found["scene of 2^18 points, peak memory"]["met"] == "no"
    gated = _row(gate=True, gate_ratio=0.1, ratio=9.0)
    assert targets.target_rows([_row(), gated]) == targets.target_rows([_row()])
    assert "s=1, fp32" not in found
    assert targets.target_rows([_row(clouds=8)]) == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["everything"], "what"),
        (["objects", "--batch_size", "0"], "batch_size must be positive"),
        (["objects", "--precisions", "int8"], "precisions"),
        (["objects", "--model", "no/such"], "neither a saved model"),
        (["objects", "--supertokens", "-1"], "supertokens must be positive"),
    ],
)
def test_bad_input(words: list[str], says: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["bench", *words, "--memory", "false"])
    assert stop.value.code == 2
    assert says in capsys.readouterr().err
