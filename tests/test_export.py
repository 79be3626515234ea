"""Exported files against torch; faults are caught; files describe themselves."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foundry3d_edge import Model

from foundry3d import cli
from foundry3d.baselines import Merged
from foundry3d.checkpoints.folder import load, save
from foundry3d.config import BackboneConfig, ExportConfig, ReductionConfig
from foundry3d.data.files import Points
from foundry3d.embed.clouds import Policy, prepare
from foundry3d.errors import InputError
from foundry3d.evaluation.exported import export
from foundry3d.export import formats
from foundry3d.export.network import Network, example, exported_program, traced_points
from foundry3d.export.tokenizer import with_merged_tokenizers
from foundry3d.export.verify import Case, cases, compare, verify
from foundry3d.heads.classifier import Classifier
from foundry3d.heads.segmenter import Segmenter
from foundry3d.models.backbone import Backbone
from foundry3d.models.budget import Budget
from foundry3d.models.student import Student

SMALL = BackboneConfig(
    groups=16, group_size=8, point_widths=(8, 16, 32), dim=24, depth=2, heads=3, position_dim=16
)
CLASSES = ("cube", "ball", "cone")
BUDGET = Budget(token_budget=8)
FACTS = {"normalise": True, "up": "y", "points": 64, "loss": float("nan")}


def trained(seed: int = 0, **changes: Any) -> Backbone:
    """A small backbone whose BatchNorm statistics are not the initial ones."""
    generator = torch.Generator().manual_seed(seed)
    model = Backbone(replace(SMALL, **changes), generator=generator).train()
    model(torch.randn(4, 96, 3, generator=generator), generator=generator)
    return model.eval()


@pytest.fixture(scope="module")
def student() -> Student:
    generator = torch.Generator().manual_seed(1)
    return Student.from_teacher(trained(), supertokens=4, gate=True, generator=generator)


@pytest.fixture(scope="module")
def saved(student: Student, tmp_path_factory: pytest.TempPathFactory) -> str:
    model = Classifier.from_model(student, CLASSES, generator=torch.Generator().manual_seed(2))
    folder = save(model, tmp_path_factory.mktemp("model") / "gated", provenance=FACTS)
    (folder / "README.md").write_text("---\nlibrary_name: foundry3d\nlicense: mit\n---\n")
    return str(folder)


@pytest.fixture(scope="module")
def written(saved: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ONNX file of the gated classifier, as the command leaves it."""
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    out = tmp_path_factory.mktemp("onnx") / "gated.onnx"
    assert export(ExportConfig(model=saved, token_budget=8, out=str(out))) == out
    return out


@pytest.fixture
def reused(written: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable], None]:
    """Saves the seconds of recording the same network again; a change may spoil the file."""
    from foundry3d.export import onnx_file

    def use(change: Callable[[Path], None]) -> None:
        def copied(network: Network, path: Path) -> None:
            shutil.copy(written, path)
            change(path)

        monkeypatch.setattr(onnx_file, "write_float", copied)

    use(lambda path: None)
    return use


def network_of(saved: str, geometry: Any = "inside") -> Network:
    return Network(load(saved), BUDGET, geometry).eval()


def test_onnx_is_equal_at_other_sizes_and_describes_itself(saved: str, written: Path) -> None:
    onnx = pytest.importorskip("onnx")
    found = {e.key: e.value for e in onnx.load(written).metadata_props}
    facts = json.loads(found["foundry3d"])
    assert facts["format"] == "foundry3d-export" and facts["version"] == 1
    assert facts["kind"] == "classifier" and facts["classes"] == list(CLASSES)
    assert facts["inputs"] == ["points"]
    assert facts["outputs"] == ["features", "centers", "pooled", "assignment", "logits"]
    assert facts["budget"] == {"token_budget": 8} and facts["supertokens"] == 4
    assert (facts["groups"], facts["group_size"], facts["width"]) == (16, 8, 24)
    assert facts["preparation"] == {"normalise": True, "up": "y", "points": 64}
    assert facts["licence"] == "mit" and facts["source"]["loss"] is None
    rows = facts["report"]["cases"]
    assert len(rows) == 5 and {"clustered", "duplicated"} <= {row["cloud"] for row in rows}
    assert all(row["centers"] == row["assignment"] == 1 for row in rows)
    assert all(row["features"] <= 1e-4 and row["logits"] <= 1e-4 for row in rows)
    assert [p.name for p in written.parent.iterdir()] == ["gated.onnx"]
    network = network_of(saved)
    again = verify(network, formats.run_onnx(written, 1), "fp32", seed=5)
    assert again["tolerance"] == 1e-4


def test_the_package_for_the_edge_returns_the_features_of_embed(
    student: Student, written: Path, tmp_path: Path
) -> None:
    onnx = pytest.importorskip("onnx")
    file, bare = onnx.load(written), tmp_path / "bare.onnx"
    (entry,) = [e for e in file.metadata_props if e.key == "foundry3d"]
    bound = {"normalise": Policy().normalise, "up": None, "points": None}
    entry.value = json.dumps(json.loads(entry.value) | {"preparation": bound})
    onnx.save(file, bare)
    generator = torch.Generator().manual_seed(8)
    points = [7 * torch.randn(n, 3, generator=generator).numpy() for n in (64, 90, 64)]
    found = Model(bare, threads=1)(points)
    for i, own in enumerate(points):
        ready = prepare(Points(points=own, source="a"), Policy(), 1)
        with torch.inference_mode():
            right = student(ready.points[None], budget=BUDGET)
        np.testing.assert_allclose(found.features[i], right.features[0], atol=1e-4)
        np.testing.assert_allclose(found.pooled[i], right.pooled()[0], atol=1e-4)
        np.testing.assert_array_equal(found.assignment[i], right.assignment[0])
        np.testing.assert_allclose(found.centers[i], ready.original(right.centers)[0], atol=1e-5)


def test_none_of_the_verified_sizes_is_the_recorded_one(saved: str) -> None:
    network = network_of(saved)
    sizes = [tuple(case.points.shape[:2]) for case in cases(network, 0)]
    assert len(set(sizes)) == 5
    assert all(count != traced_points(network) for _, count in sizes)
    assert min(count for _, count in sizes) == network.least


def test_openvino_is_equal_and_describes_itself(saved: str, reused: Any, tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    out = tmp_path / "gated.xml"
    export(ExportConfig(model=saved, to="openvino", token_budget=8, out=str(out)))
    assert {path.name for path in tmp_path.iterdir()} == {"gated.xml", "gated.bin"}
    model = openvino.Core().read_model(out)
    facts = json.loads(model.get_rt_info("foundry3d").astype(str))
    assert facts["kind"] == "classifier" and facts["precision"] == "fp32"
    hint = model.get_rt_info(["runtime_options", "INFERENCE_PRECISION_HINT"]).astype(str)
    assert hint == "f32"


def spoil(path: Path, old: str, new: str) -> None:
    """Replaces every operator of one type in an ONNX file."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(path)
    nodes = [node for node in model.graph.node if node.op_type == old]
    assert nodes
    for node in nodes:
        node.op_type = new
    onnx.save(model, path)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("ArgMax", "ArgMin", "differs from torch: features .*nothing is written"),
        ("Erf", "Tanh", "differs from torch: features .*nothing is written"),
        ("Erf", "Unknown", "onnx cannot load the exported file"),
    ],
)
def test_a_broken_writer_is_caught_and_leaves_nothing(
    old: str, new: str, named: str, saved: str, reused: Any, tmp_path: Path
) -> None:
    reused(lambda path: spoil(path, old, new))
    out = tmp_path / "gated.onnx"
    out.write_text("an earlier file")
    with pytest.raises(InputError, match=named):
        export(ExportConfig(model=saved, token_budget=8, out=str(out)))
    assert [path.name for path in tmp_path.iterdir()] == ["gated.onnx"]
    assert out.read_text() == "an earlier file"


def test_nan_and_wrong_shapes_are_caught(saved: str) -> None:
    network = network_of(saved)

    def run(arrays: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        with torch.no_grad():
            return tuple(t.numpy().copy() for t in network(*map(torch.from_numpy, arrays)))

    assert verify(network, run, "fp32")["cases"]

    def nan(arrays: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        found = run(arrays)
        found[0][0, 0, 0] = np.nan
        return found

    for precision in ("fp32", "int8"):
        with pytest.raises(InputError, match="features of random clouds"):
            verify(network, nan, precision)
    with pytest.raises(InputError, match="returns features of shape"):
        verify(network, lambda arrays: tuple(x[:, :1] for x in run(arrays)), "fp32")

    def refusing(arrays: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        raise RuntimeError("no such size\nmore")

    with pytest.raises(InputError, match=r"does not run on random clouds.*: no such size"):
        verify(network, refusing, "fp32")


def test_other_precisions_keep_the_centers(saved: str, reused: Any, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    clouds = torch.randn(6, 64, 3, generator=torch.Generator().manual_seed(3)).numpy()
    np.savez(tmp_path / "clouds.npz", points=clouds, labels=np.zeros(6, int), class_names=["a"])
    for precision in ("fp16", "int8"):
        out = tmp_path / f"{precision}.onnx"
        calibration = str(tmp_path / "clouds.npz") if precision == "int8" else None
        export(
            ExportConfig(
                model=saved,
                token_budget=8,
                precision=precision,
                calibration=calibration,
                out=str(out),
            )
        )
        model = onnx.load(out)
        facts = json.loads(model.metadata_props[0].value)
        assert facts["precision"] == precision and facts["report"]["tolerance"] is None
        assert all(row["centers"] == 1 for row in facts["report"]["cases"])
    quantised = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    shapes = {t.name: tuple(t.dims) for t in model.graph.initializer}
    products = [n for n in model.graph.node if n.op_type in ("MatMul", "Gemm")]
    assert any(n.input[0] in quantised for n in products)
    for node in products:  # what reads coordinates is not rounded
        if 3 in shapes.get(node.input[1], ()):
            assert node.input[0] not in quantised


def test_segmenter_of_groups_as_a_torch_file(tmp_path: Path) -> None:
    model = Segmenter.from_model(
        trained(),
        parts=("leg", "top", "wing", "body"),
        categories=("table", "plane"),
        owned=((0, 1), (2, 3)),
        generator=torch.Generator().manual_seed(4),
    )
    folder = save(model, tmp_path / "parts", provenance={})
    out = tmp_path / "parts.pt2"
    export(ExportConfig(model=str(folder), to="torch", geometry="outside", out=str(out)))
    facts = json.loads((tmp_path / "parts.pt2.json").read_text())
    assert facts["inputs"] == ["points", "centers", "neighborhoods", "categories"]
    assert facts["outputs"] == ["logits"] and facts["categories"] == ["table", "plane"]
    assert facts["owned"] == [[0, 1], [2, 3]] and facts["preparation"]["up"] is None
    network = Network(load(folder), None, "outside").eval()
    case = Case("random", torch.randn(2, 40, 3, generator=torch.Generator().manual_seed(5)))
    assert compare(network, formats.run_torch(out, 1), case)["logits"] < 1e-4


def test_a_baseline_is_recorded_for_any_number_of_clouds() -> None:
    network = Network(Merged.from_teacher(trained(), ReductionConfig(reach=8)), None, "outside")
    program = exported_program(network.eval()).module()
    generator = torch.Generator().manual_seed(6)
    given = example(network, torch.randn(2, 30, 3, generator=generator))
    with torch.no_grad():
        for found, wanted in zip(program(*given), network(*given), strict=True):
            torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("widths", [(8, 16, 32), (8, 16)])
def test_merged_tokenizers_compute_the_same(widths: tuple[int, ...]) -> None:
    model = trained(point_widths=widths)
    before = model.tokenizer
    merged = with_merged_tokenizers(model)
    assert model.tokenizer is before and type(merged.tokenizer) is not type(before)
    groups = torch.randn(2, 5, 8, 3, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(merged.tokenizer(groups), before(groups), rtol=1e-5, atol=1e-5)


def test_int8_keeps_what_decides_in_float32(saved: str, written: Path) -> None:
    onnx = pytest.importorskip("onnx")
    onnx_file = pytest.importorskip("foundry3d.export.onnx_file")
    model, network = onnx.load(written), network_of(saved)
    names = set(onnx_file.kept(model, network))
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    left = [
        shapes[n.input[1]] for n in model.graph.node if n.name in names and n.input[1] in shapes
    ]
    # positions and lift read coordinates; the gate's layers, keys and queries decide
    for shape in ((3, 16), (8, 3), (24, 128), (128, 1), (24, 24), (24, 4)):
        assert left.count(shape) == 1, shape


def test_refusals(saved: str, student: Student, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has a gate.*--token_budget"):
        export(ExportConfig(model=saved, to="torch", out=str(tmp_path / "x.pt2")))
    with pytest.raises(InputError, match=r"torch files end in \.pt2"):
        export(ExportConfig(model=saved, to="torch", token_budget=8, out=str(tmp_path / "x.onnx")))
    with pytest.raises(InputError, match="not written in int8"):
        export(ExportConfig(model=saved, to="torch", precision="int8", calibration="procedural"))
    with pytest.raises(InputError, match="--calibration"):
        ExportConfig(model=saved, precision="int8")
    with pytest.raises(InputError, match="two collections"):
        ExportConfig(model=saved, data=("one",))
    with pytest.raises(InputError, match="drawn anew"):
        random = ReductionConfig(method="random", reach=8)
        Network(Merged.from_teacher(trained(), random), None, "inside")
    with pytest.raises(InputError, match="budgets are for students"):
        Network(trained(), BUDGET, "inside")
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(
    saved: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        formats,
        "import_module",
        lambda name: (_ for _ in ()).throw(ModuleNotFoundError("none", name="onnxruntime")),
    )
    with pytest.raises(SystemExit) as stop:
        cli.main(["export", saved, "--to", "onnx", "--token_budget", "8"])
    assert stop.value.code == 2
    assert 'onnxruntime, which is not installed; run: pip install "foundry3d[export]"' in (
        capsys.readouterr().err
    )


def test_the_command_imports_no_runtime() -> None:
    code = (
        "import sys, foundry3d.evaluation.exported, foundry3d.bench.exported\n"
        "print({'onnx', 'onnxruntime', 'onnxscript', 'openvino', 'executorch'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
    code = "import sys, foundry3d.bench.exported_process; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_bench_measures_files_in_their_own_process(saved: str, written: Path) -> None:
    from foundry3d.bench import exported
    from foundry3d.bench.exported_process import Job
    from foundry3d.config import BenchExportConfig

    config = BenchExportConfig(
        model=saved, token_budget=8, batches=(1,), points=64, threads=(1,), repeats=3
    )
    batches = exported.points_files(network_of(saved), config, written.parent)
    job = Job(form="onnx", path=str(written), batches=batches, **exported.shared(config))
    row = exported.measured(job, config)
    assert set(row) == {"load_s", "median_ms_1_1", "p95_ms_1_1", "peak_mb"}
    assert 0 < row["median_ms_1_1"] <= row["p95_ms_1_1"]
    heads = exported.columns(config, [row])
    assert heads["median_ms_1_1"] == "median, 1 clouds, 1 threads, ms" and "svm" not in heads
    (written.parent / "1.npz").unlink()


def test_an_operator_without_a_translation_is_one_sentence(tmp_path: Path) -> None:
    class Inverted(Network):
        def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
            features, *rest = super().forward(*inputs)
            return torch.linalg.eigvalsh(features @ features.mT), *rest

    onnx_file = pytest.importorskip("foundry3d.export.onnx_file", exc_type=ImportError)
    network = Inverted(trained(), None, "outside").eval()
    with pytest.raises(InputError, match="torch cannot write this model to an ONNX file"):
        onnx_file.write_float(network, tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())
