"""The suites of Foundry-Gate: Tables 11 to 13, Figures 3 and 5 to 7."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY
from scipy.stats import spearmanr
from test_classify import ellipsoids

from foundry3d.checkpoints.folder import load, save
from foundry3d.config import (
    LAMBDAS,
    ClassifyConfig,
    DataConfig,
    DistillConfig,
    HeadConfig,
    SuiteConfig,
    TrainConfig,
)
from foundry3d.data.archive import write_archive
from foundry3d.data.clouds import Clouds
from foundry3d.errors import InputError
from foundry3d.models.backbone import Backbone, require_teacher
from foundry3d.models.budget import Budget
from foundry3d.paper.suite.cells import Cell, cells_of
from foundry3d.paper.suite.gate_figures import (
    losses_over_lambda,
    scores_over_budgets,
    scores_over_lambda,
)
from foundry3d.paper.suite.gate_results import STUDENTS, best_of, correlations
from foundry3d.paper.suite.grid import grid_of
from foundry3d.paper.suite.models import budget_at_test, distill_settings
from foundry3d.paper.suite.records import COLUMNS, MODELS, gate_name, paper_figures
from foundry3d.paper.suite.render import latex, text_of
from foundry3d.paper.suite.run import suite
from foundry3d.paper.suite.tables import TABLES, table_of
from foundry3d.paper.suite.units import require_inputs, stages, unit_name, wanted_cells
from foundry3d.report.error_bars import Panel, Point, draw_panels
from foundry3d.report.rows import append, read_rows

TRAIN = TrainConfig(epochs=1, batch_size=16, warmup_epochs=0, lr=3e-3, accelerator="cpu")
FROZEN, OTHER = gate_name(1e-11, frozen=True), gate_name(1e-11, frozen=False)


@pytest.fixture
def config(tmp_path: Path) -> SuiteConfig:
    """Table 11 with three weights of the regulariser, of a tiny teacher of 20 tokens."""
    teacher = Backbone(replace(TINY, groups=20), generator=torch.Generator().manual_seed(0))
    save(teacher, tmp_path / "teacher", provenance={})
    write_archive(tmp_path / "a.npz", ellipsoids(60, 0))
    write_archive(tmp_path / "b.npz", ellipsoids(30, 1))
    plain = ellipsoids(20, 2)
    write_archive(tmp_path / "c.npz", Clouds(points=plain.points, labels=-np.ones(20, np.int64)))
    data = DataConfig(points=48, validation=0.2)
    own = replace(data, train=str(tmp_path / "a.npz"), test=None)
    return SuiteConfig(
        name="table11",
        teacher=str(tmp_path / "teacher"),
        out=str(tmp_path / "out"),
        data=(f"mn40={tmp_path}/a.npz,{tmp_path}/b.npz",),
        unfreeze=("start",),
        gate_lambdas=(0.0, 1e-11, 1.0),
        distill=DistillConfig(data=own, train=TRAIN, frozen="none"),
        classify=ClassifyConfig(data=data, train=TRAIN, head=HeadConfig(hidden=(8,))),
    )


def printed(config: SuiteConfig) -> dict[str, dict[str, Any]]:
    """The numbers that the paper printed for the gated students, as rows of a suite."""
    figures, rows = paper_figures(), {}
    table = table_of(replace(config, name="table11"))
    for row in table.rows:
        for column in (*config.sources, "loss"):
            scores = {
                score: float(found[0])
                for score, key in (
                    ("oa", column),
                    ("loss", column),
                    *((name, f"{column}.{name}") for name in ("miou_c", "miou_i")),
                )
                if (found := figures.get(("11", row.name, key)))
            }
            cells = cells_of(config, table, row, column)
            if scores and len(cells) == 1:
                rows[cells[0].name] = scores
    return rows


@pytest.fixture
def everywhere(config: SuiteConfig) -> SuiteConfig:
    """All of the paper's columns, times of unfreezing and weights of the regulariser."""
    data = tuple(f"{name}=procedural" for name in COLUMNS)
    return replace(config, data=data, unfreeze=(), gate_lambdas=LAMBDAS)


# ---------------------------------------------------------------- what the paper printed


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (("11", "gate-1e-11.75-frozen@start", "mn40"), ("89.06", "")),
        (("11", "gate-1e-12-frozen@never", "sonn-pb"), ("82.17", "")),
        (("11", "gate-2", "snp.miou_i"), ("84.72", "0.03")),
        (("11", "gate-0", "loss"), ("0.0152", "")),
        (("12", "all", "sn55"), ("0.1472", "")),
        (("13", "budget-48", "sn55"), ("11.86", "0.13")),
        (("13", "ratio-0.5", "avg"), ("84.86", "")),
    ],
)
def test_numbers_are_the_printed_ones(key: tuple[str, str, str], expected: tuple[str, str]) -> None:
    assert paper_figures()[key] == expected


def test_printed_means_are_over_the_times_of_unfreezing() -> None:
    figures, aggregated = paper_figures(), 0
    for source, row, column in figures:
        each = [figures.get(("11", f"{row}@{t}", column)) for t in ("never", "late", "start")]
        values = torch.tensor([float(found[0]) for found in each if found])
        # Three of the single numbers cannot be read.
        if source == "11" and len(values) == (2 if "snp" in column else 3) and column != "loss":
            mean, std = map(float, figures[source, row, column])
            assert float(values.mean()) == pytest.approx(mean, abs=0.0101)
            assert float(values.std()) == pytest.approx(std, abs=0.0115)
            aggregated += 1
    assert aggregated == 46 * 8 - 3


def test_printed_correlations_follow_from_the_printed_scores(everywhere: SuiteConfig) -> None:
    """Table 12 from Table 11: its definitions are the paper's. Three of its columns are rotated."""
    source = {"sonn-pb": "sonn-obj-bg", "sonn-obj-bg": "sonn-obj-only", "sonn-obj-only": "sonn-pb"}
    rows = printed(everywhere)
    grid = grid_of(replace(everywhere, name="table12"), rows)
    assert [row.name for row, _ in grid.lines] == ["frozen", "unfrozen", "all"]
    for row, results in grid.lines:
        for shown, result in zip(grid.columns, results, strict=True):
            expected = paper_figures()["12", row.name, source.get(shown.key, shown.key)]
            # 22 points where a number cannot be read; the paper correlated rounded means.
            near = 0.0135 if result.runs == 23 else 0.03
            assert result.mean == pytest.approx(float(expected[0]), abs=near)
            unread = (shown.key in ("sonn-obj-only", "sonn-pb")) and row.name != "unfrozen"
            unread |= shown.key == "sonn-obj-only"
            assert (result.runs, result.expected) == (22 if unread else 23, len(LAMBDAS))


# ---------------------------------------------------------------- what is run


def test_names_and_settings_of_gated_students() -> None:
    assert len({name for name in MODELS if name.startswith("gate-")}) == 4 * len(LAMBDAS)
    assert gate_name(10**-11.75, frozen=False, decay=True) == "gate-1e-11.75-decay"
    model = MODELS[FROZEN]
    assert (model.tokens, model.frozen, model.gate_lambda) == (16, "encoder", 1e-11)
    assert model.student == {"gate": True, "gate_through": False}
    rows = {row.name: row for row in TABLES["table11"].rows}
    assert rows["gate-1e-11.75"].title == "λ = 10^-11.75"
    assert set(rows) >= {f"{OTHER}@{time}" for time in ("never", "late", "start")}


def test_chosen_lambdas(config: SuiteConfig) -> None:
    models = {cell.model for cell in wanted_cells(config)}
    assert models == {"teacher"} | {
        gate_name(value, frozen=frozen) for value in (0.0, 1e-11, 1.0) for frozen in (True, False)
    }
    for name in ("table12", "figure5"):
        own = set(wanted_cells(replace(config, name=name)))
        assert {cell.model for cell in own} == models - {"teacher"}
        assert own < set(wanted_cells(config))
    decayed = wanted_cells(replace(config, name="figure6"))
    assert sum(cell.model.endswith("decay") for cell in decayed) == 6
    with pytest.raises(InputError, match="the paper's"):
        replace(config, gate_lambdas=(0.5,))
    given = replace(config, models=("gate-1e-11.75=somewhere",)).given
    assert given == {"gate-1e-11.75": "somewhere"}


def made_up(model: str, unfreeze: str, seed: int, held: float, test: float) -> dict[str, Any]:
    cell = Cell(model, "mn40", "classify", seed, unfreeze)
    return {"cell": cell.name, "oa": test, "oa_validation": held, "tokens": 32}


@pytest.fixture
def tuned() -> dict[str, dict[str, Any]]:
    """Fine-tuned students; the best held-out mean is not the best test score, nor the last seed."""
    rows = [
        made_up(FROZEN, "start", 0, 80.0, 99.0),
        made_up(FROZEN, "start", 1, 70.0, 99.0),
        made_up(OTHER, "start", 0, 74.0, 60.0),
        made_up(OTHER, "start", 1, 78.0, 62.0),
    ]
    return {row["cell"]: row for row in rows}


def test_held_out_clouds_select_never_test(
    config: SuiteConfig, tuned: dict[str, dict[str, Any]]
) -> None:
    two = replace(config, name="table13", seeds=(0, 1))
    table = table_of(two)
    rows = {row.name: row for row in table.rows}
    cells = {name: cells_of(two, table, row, "mn40") for name, row in rows.items()}
    assert len(cells["gate"]) == 4
    chosen = best_of(cells["gate"], tuned)
    assert chosen is not None
    assert {(c.model, c.unfreeze) for c in chosen} == {(OTHER, "start")}
    for row in tuned.values():  # whatever the test scores are
        row["oa"] = 100 - row["oa"]
    assert best_of(cells["gate"], tuned) == chosen
    budget = best_of(cells["budget-32"], tuned)
    assert budget == [cell._replace(at_test="budget-32") for cell in chosen]
    assert best_of(cells["budget-48"], tuned) == []  # the model has 32 tokens
    (name, *_) = tuned
    missing = {key: row for key, row in tuned.items() if key != name}
    assert best_of(cells["gate"], missing) is None
    assert best_of(cells["gate"], {**tuned, name: tuned[name] | {"oa_validation": None}}) is None


def test_only_the_selected_student_is_tested_under_budgets(
    config: SuiteConfig, tuned: dict[str, dict[str, Any]]
) -> None:
    two = replace(config, name="table13", seeds=(0, 1), only=("gate", "budget-16", "ratio-0.3"))
    rows: dict[str, dict[str, Any]] = {}
    found = stages(two, rows)
    assert [next(found) for _ in range(2)] == [[], [FROZEN, OTHER]]
    assert {unit_name(unit) for unit in next(found)} == set(tuned)
    rows |= tuned
    assert [unit_name(unit) for unit in next(found)] == [
        f"{OTHER}+{what}@start/mn40/classify/seed{seed}"
        for what in ("budget-16", "ratio-0.3")
        for seed in (0, 1)
    ]
    nothing = replace(config.classify.data, validation=0.0)
    blind = replace(two, classify=replace(config.classify, data=nothing))
    with pytest.raises(InputError, match=r"table13 selects .* --classify.data.validation"):
        require_inputs(blind, ())
    require_inputs(replace(blind, name="table11", only=()), ())


def test_budgets_by_name() -> None:
    assert budget_at_test("budget-32") == Budget(token_budget=32)
    assert budget_at_test("ratio-0.3") == Budget(ratio=0.3)
    assert budget_at_test("tome-8") is None


# ---------------------------------------------------------------- what is shown


def test_means_and_deviations_under_budgets(
    config: SuiteConfig, tuned: dict[str, dict[str, Any]]
) -> None:
    two = replace(config, name="figure7", seeds=(0, 1))
    for seed, score in ((0, 50.0), (1, 54.0)):
        for what in ("budget-16", "ratio-0.3"):
            cell = Cell(OTHER, "mn40", "classify", seed, "start", what)
            tuned[cell.name] = {"oa": score}
            other = cell._replace(model=FROZEN)
            tuned[other.name] = {"oa": 90.0}  # of the student that was not selected
    grid = grid_of(two, tuned)
    texts = {row.name: text_of(results[0], 2) for row, results in grid.lines}
    assert texts["budget-16"] == "52.00 ± 2.83"
    assert texts["budget-48"] == "-"
    assert texts["ratio-0.4"] == "missing"
    assert f"mn40: {OTHER}, unfrozen start" in grid.caption
    budgets, ratios = scores_over_budgets(grid)
    assert budgets.curves == {"MN40": [Point(16, 52.0, pytest.approx(2.828, abs=1e-3))]}
    assert ratios.curves["MN40"][0].x == 0.3
    unknown = grid_of(replace(two, name="table13"), {})
    assert text_of(unknown.lines[0][1][0], 2) == "missing"


def test_correlations_against_scipy(generator: torch.Generator) -> None:
    scores = torch.randn(len(LAMBDAS), 2, generator=generator).tolist()
    names = [[gate_name(x, frozen=frozen) for frozen in (True, False)] for x in LAMBDAS]
    pairs = [
        (MODELS[name], score)
        for own, line in zip(names, scores, strict=True)
        for name, score in zip(own, line, strict=True)
    ]
    found = correlations(pairs)
    means = [sum(line) / 2 for line in scores]
    by_hand = ([line[0] for line in scores], [line[1] for line in scores], means)
    for name, ys in zip(STUDENTS, by_hand, strict=True):
        expected = spearmanr(LAMBDAS, ys)
        assert found[name].rho == pytest.approx(expected.statistic)
        assert found[name].p == pytest.approx(expected.pvalue)
        assert (found[name].n, found[name].of) == (len(LAMBDAS), len(LAMBDAS))
    pairs[0] = (pairs[0][0], None)  # frozen, lambda 0
    partial = correlations(pairs)
    assert [partial[name].n for name in STUDENTS] == [24, 25, 24]
    assert partial["all"].rho == pytest.approx(spearmanr(LAMBDAS[1:], means[1:]).statistic)


def test_correlations_are_shown_with_n_and_p(everywhere: SuiteConfig) -> None:
    grid = grid_of(replace(everywhere, name="table12"), printed(everywhere))
    texts = {row.name: text_of(results[0], 4) for row, results in grid.lines}
    names = [gate_name(x, frozen=False) for x in LAMBDAS[1:-1]]
    times = ("never", "late", "start")
    scores = [
        round(sum(float(paper_figures()["11", f"{name}@{t}", "mn40"][0]) for t in times) / 3, 9)
        for name in names
    ]
    expected = spearmanr(LAMBDAS[1:-1], scores)
    shown = f"{expected.statistic:.4f} [n = 23, p = {expected.pvalue:.2g}] (paper -0.1339)"
    assert texts["unfrozen"] == shown
    text = latex("t", "t", grid_of(replace(everywhere, name="table11"), {}))
    assert r"$\lambda$ = $10^{-11.75}$, unfrozen: late" in text


def test_curves_over_lambda(everywhere: SuiteConfig) -> None:
    rows = printed(everywhere)
    panels = scores_over_lambda(grid_of(replace(everywhere, name="figure5"), rows))
    assert [panel.heading for panel in panels][-2:] == ["SNP mIoU_C", "SNP mIoU_I"]
    assert panels[0].y == "test accuracy (%)"
    assert list(panels[0].curves) == ["frozen", "not frozen"]
    point = next(p for p in panels[0].curves["frozen"] if p.x == 1e-11)
    assert point.y == pytest.approx(90.99, abs=0.01)
    assert point.std == pytest.approx(0.77, abs=0.01)
    six = losses_over_lambda(grid_of(replace(everywhere, name="figure6"), rows))
    whole, rise = six
    assert whole.curves["frozen"][0] == Point(0, 0.0191)
    assert [p.x for p in rise.curves["frozen"]] == [x for x in LAMBDAS if 9e-13 < x < 2e-10]


@pytest.mark.parametrize("xs", [(0.0, 1e-11, 1.0), (1e-3, 1.0), (0.0,)])
def test_every_point_is_drawn_on_its_side_of_the_break(
    tmp_path: Path, xs: tuple[float, ...]
) -> None:
    curves = {"a": [Point(x, 1.0, 0.5) for x in xs], "b": [Point(x, 2.0) for x in xs]}
    path = draw_panels(tmp_path / "p.png", [Panel("h", "x", "y", curves, True)] * 2, title="t")
    assert path.read_bytes().startswith(b"\x89PNG")


# ---------------------------------------------------------------- real work, tiny


def test_tiny_gate_tables(config: SuiteConfig) -> None:
    """Table 11, what follows from it without training, and Table 13, in one folder."""
    suite(replace(config, only=("gate-0", "gate-1e-11", "gate-1e-11-frozen")))
    out = Path(config.out)
    before = {row["cell"] for row in read_rows(out / "results.jsonl")}
    assert before == {
        f"{name}{where}"
        for name in ("gate-0", OTHER, FROZEN)
        for where in ("/loss/loss/seed0", "@start/mn40/classify/seed0")
    }
    settings = [
        distill_settings(config, MODELS[name], require_teacher(load(config.teacher)), out)
        for name in (FROZEN, f"{OTHER}-decay")
    ]
    assert [own.gate_lambda for own in settings] == [1e-11, 1e-11]
    assert [own.gate_decay for own in settings] == [False, True]
    assert [own.frozen_words for own in settings] == ["encoder", "none"]
    student = load(out / "models" / FROZEN / "model")
    assert not student.config.gate_through

    suite(replace(config, name="table13", only=("gate", "budget-16", "budget-32", "ratio-0.0")))
    rows = {row["cell"]: row for row in read_rows(out / "results.jsonl")}
    (budget, ratio) = sorted(set(rows) - before)
    assert (rows[budget]["encoded"], rows[budget]["tokens"]) == (16, 20)
    assert rows[ratio]["encoded"] <= 16
    grid = list(csv.DictReader((out / "table13.csv").read_text().splitlines()))
    assert float(grid[1]["mean"]) == pytest.approx(rows[budget]["oa"], abs=0.01)

    second = f"fusion={Path(config.teacher).parent}/c.npz"
    six = replace(config, name="figure6", only=("gate-0", FROZEN), data=(second,))
    found = suite(six)
    assert {row["sizes"][0] for row in found} == {12, 20}
    assert all(0 <= row["fusion_ratio"] <= 1 for row in found)
    suite(replace(config, name="table12", render=True))
    for name in ("figure3", "figure5", "figure7"):
        suite(replace(config, name=name, render=True))
    pictures = {path.name for path in out.glob("*.png")}
    assert pictures == {f"figure{number}.png" for number in (3, 5, 6, 7)}


def test_a_whole_picture_of_made_up_rows(config: SuiteConfig) -> None:
    rows = [
        made_up(gate_name(x, frozen=frozen), "start", 0, 1.0, 50.0)
        for x in (0.0, 1.0)
        for frozen in (True, False)
    ]
    append(Path(config.out) / "results.jsonl", rows)
    assert len(suite(replace(config, name="figure5", render=True))) == 4
    assert (Path(config.out) / "figure5.png").is_file()
