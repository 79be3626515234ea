import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import TINY
from test_classify import ellipsoids

from foundry3d import cli
from foundry3d.checkpoints.folder import load_backbone, save
from foundry3d.config import (
    ClassifyConfig,
    ClusterConfig,
    DataConfig,
    DistillConfig,
    FewshotConfig,
    HeadConfig,
    SuiteConfig,
    TrainConfig,
    from_dict,
    read_recipe,
)
from foundry3d.config.paper import SUITES
from foundry3d.data.archive import write_archive
from foundry3d.data.published.sources import is_published
from foundry3d.errors import InputError, PartialFailure
from foundry3d.models.backbone import Backbone
from foundry3d.models.student import Student
from foundry3d.paper.suite import run as module
from foundry3d.paper.suite.cells import Cell, cells_of, columns_of
from foundry3d.paper.suite.gate_results import STUDENTS
from foundry3d.paper.suite.grid import grid_of
from foundry3d.paper.suite.models import is_reconstructing, reduced_at_test, supertoken_settings
from foundry3d.paper.suite.pictures import (
    logged,
    losses_and_scores,
    rank_correlation,
    scores_over_tokens,
    with_correlations,
)
from foundry3d.paper.suite.printed import TEACHER, is_table_15
from foundry3d.paper.suite.records import COLUMNS, MODELS, paper_figures
from foundry3d.paper.suite.render import latex, markdown, text_of, write_tables
from foundry3d.paper.suite.run import run_here, run_stage, suite
from foundry3d.paper.suite.tables import TABLES
from foundry3d.paper.suite.units import require_published, stages, unit_name, wanted_cells
from foundry3d.paper.suite.work import episode_settings, published_settings, settings_of
from foundry3d.report.figures import Level
from foundry3d.report.rows import append, read_rows
from foundry3d.report.scatter import Mark

TRAIN = TrainConfig(epochs=1, batch_size=16, warmup_epochs=0, lr=3e-3, accelerator="cpu")


@pytest.fixture
def config(teacher: Backbone, tmp_path: Path) -> SuiteConfig:
    """Table 5 of a tiny teacher on easy clouds."""
    save(teacher, tmp_path / "teacher", provenance={})
    write_archive(tmp_path / "a.npz", ellipsoids(60, 0))
    write_archive(tmp_path / "b.npz", ellipsoids(30, 1))
    data = DataConfig(points=48, validation=0.2)
    own = replace(data, train=str(tmp_path / "a.npz"), test=None)
    return SuiteConfig(
        name="table5",
        teacher=str(tmp_path / "teacher"),
        out=str(tmp_path / "out"),
        data=(f"mn40={tmp_path}/a.npz,{tmp_path}/b.npz",),
        unfreeze=("start",),
        distill=DistillConfig(data=own, train=TRAIN, frozen="none"),
        classify=ClassifyConfig(data=data, train=TRAIN, head=HeadConfig(hidden=(8,))),
    )


def faked(monkeypatch: pytest.MonkeyPatch, *, failing: str = "") -> list[str]:
    """Replaces the work of cells and models by numbers; the names of what was asked for."""
    asked: list[str] = []

    def run_unit(config: SuiteConfig, unit: Any) -> dict[str, Any] | None:
        asked.append(unit_name(unit))
        if failing and failing in asked[-1]:
            raise RuntimeError("no luck")
        return {"cell": unit.name, "oa": 90.0} if isinstance(unit, Cell) else None

    monkeypatch.setattr(module, "run_unit", run_unit)
    return asked


# ---------------------------------------------------------------- what the paper printed


@pytest.mark.parametrize(
    ("key", "printed"),
    [
        (("2", "specialist-seg", "snp.miou_i"), ("65.72", "")),
        (("3", "s1", "mn40.10way-10shot"), ("88.3", "6.56")),
        (("4", "kmeans-student", "sn55"), ("76.08", "")),
        (("5", "teacher", "mn40"), ("93.02", "0.14")),
        (("5", "s4", "sonn-obj-bg"), ("86.00", "1.22")),
        (("5", "random-1", "oo3d"), ("3.82", "0.32")),
        (("5", "patchmerger-fmd-16", "snp.miou_c"), ("83.59", "")),
        (("8", "s16", "loss"), ("0.0736", "")),
        (("9", "supertoken-teacher", "oo3d"), ("30.63", "")),
        (("10", "s8-frozen@late", "sonn-pb"), ("80.64", "")),
        (("10", "s16@never", "snp.miou_i"), ("84.87", "")),
        (("10", "tome-fmd-1", "loss"), ("0.1509", "")),
    ],
)
def test_figures_are_the_printed_ones(key: tuple[str, str, str], printed: tuple[str, str]) -> None:
    assert paper_figures()[key] == printed


def test_unreadable_figures_are_left_out() -> None:
    """Cells of Table 10 whose text lost its digits."""
    assert ("10", "random-1", "oo3d") not in paper_figures()
    assert ("10", "larger-8", "oo3d") not in paper_figures()


def test_every_figure_has_a_row_and_a_column() -> None:
    names = {t.source: {row.name for row in t.rows} for n, t in TABLES.items() if "table" in n}
    names["12"] = set(STUDENTS)
    assert {source for source, _, _ in paper_figures()} == set(names)
    for source, row, _ in paper_figures():
        assert row in names[source]
    assert all(row.model in MODELS for table in TABLES.values() for row in table.rows)


def test_printed_deviations_are_over_the_epochs_of_thawing() -> None:
    """Rows "-" of Table 10 from the rows above them, and its Avg from the columns."""
    figures = paper_figures()
    aggregated = 0
    for source, row, column in figures:
        each = [figures.get(("10", f"{row}@{t}", column)) for t in ("never", "late", "start")]
        values = torch.tensor([float(found[0]) for found in each if found])
        if source == "10" and len(values) > 1 and column != "loss":
            mean, std = map(float, figures[source, row, column])
            assert float(values.mean()) == pytest.approx(mean, abs=0.0101)
            assert float(values.std()) == pytest.approx(std, abs=0.0101)
            aggregated += 1
    assert aggregated == 80
    for name in ("s16", "tome-8", "patchmerger-fmd-1"):
        own = [float(m) for (t, r, c), (m, _) in figures.items() if (t, r) == ("5", name)]
        assert sum(own[1:]) / 8 == pytest.approx(own[0], abs=0.011)


# ---------------------------------------------------------------- what is run


def test_thaw_and_protocol_of_a_cell(config: SuiteConfig) -> None:
    cell = Cell("s16", "mn40", "classify", 3, "late")
    long = replace(config.classify, train=replace(TRAIN, epochs=30))
    found = settings_of(replace(config, classify=long), cell)
    assert (found.unfreeze_encoder, found.train.seed, found.resume) == (20, 3, True)
    assert settings_of(config, cell._replace(unfreeze="never")).unfreeze_encoder is None
    published = settings_of(replace(config, as_published=True), cell)
    assert isinstance(published, ClassifyConfig)
    assert (published.train.epochs, published.unfreeze_encoder) == (150, 100)
    assert (published.label_smoothing, published.head.hidden) == (0.1, (256, 256))
    assert published.train.accelerator == "cpu"


def test_students_run_at_all_three_epochs_as_in_the_paper(config: SuiteConfig) -> None:
    table, rows = TABLES["table5"], {row.name: row for row in TABLES["table5"].rows}
    both = replace(config, unfreeze=(), seeds=(0, 1), data=(*config.data, "snp=procedural"))
    count = {
        (name, column): len(cells_of(both, table, rows[name], column))
        for name in ("s1", "teacher", "tome-1")
        for column in ("mn40", "snp")
    }
    assert count["s1", "mn40"] == 6
    assert count["s1", "snp"] == 4
    assert {count["teacher", c] for c in ("mn40", "snp")} == {2}
    few = replace(config, name="table3")
    assert next(columns_of(few, TABLES["table3"])) == "mn40.5way-10shot"
    detailed = {cell.name for cell in wanted_cells(replace(both, name="table10"))}
    added = ("truncated-0", "truncated-1", "truncated-2", "s16-after-1")
    published = {cell.name for cell in wanted_cells(both) if cell.model not in added}
    assert published < detailed


def test_what_a_cell_needs_is_run_first(config: SuiteConfig) -> None:
    found = list(stages(replace(config, only=("tome-8", "s4")), {}))
    names = [[unit_name(unit) for unit in units] for units in found]
    assert names == [
        [],
        ["model s4"],
        ["s4@start/mn40/classify/seed0", "teacher@late/mn40/classify/seed0"],
        ["teacher+tome-8@late/mn40/classify/seed0"],
    ]
    known: dict[str, dict[str, Any]] = {names[2][1]: {}}
    assert list(stages(replace(config, only=("tome-8",)), known))[2:] == [[], found[3]]
    given = replace(config, only=("s4",), models=("s4=somewhere",))
    assert list(stages(given, {}))[1] == []
    assert next(stages(replace(given, teacher="pretrain"), {})) == ["teacher"]
    with pytest.raises(InputError, match="no row or column s5"):
        wanted_cells(replace(config, only=("s5",)))


def test_only_missing_cells_run(config: SuiteConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a stop that cut the last row off, and after a cell that failed."""
    asked = faked(monkeypatch, failing="random-16")
    chosen = replace(config, only=("s4", "random-16", "random-1"), models=("s4=x",))
    with pytest.raises(PartialFailure, match="no luck") as found:
        suite(chosen)
    assert found.value.status == 1
    path = Path(config.out) / "results.jsonl"
    assert len(asked) == 4
    assert len(read_rows(path)) == 3
    path.write_text(path.read_text()[:-5])
    asked = faked(monkeypatch)
    rows = suite(chosen)
    assert asked == [
        "teacher+random-16@late/mn40/classify/seed0",
        "teacher+random-1@late/mn40/classify/seed0",
    ]
    assert len(rows) == 3
    asked.clear()
    assert suite(chosen) == rows == suite(replace(chosen, render=True))
    assert asked == []


def test_a_folder_keeps_its_settings(config: SuiteConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    faked(monkeypatch)
    suite(replace(config, only=("teacher",)))
    suite(replace(config, only=("teacher",), seeds=(0, 1), data=(*config.data, "own=a,b")))
    with pytest.raises(InputError, match="other settings of classify"):
        suite(replace(config, classify=replace(config.classify, label_smoothing=0.5)))
    with pytest.raises(InputError, match="data mn40"):
        suite(replace(config, data=("mn40=c,d",)))


def test_every_task_as_published(config: SuiteConfig) -> None:
    data = (*config.data, "sonn-pb=a,b", "snp=a,b", "sn55=a,b")
    own = replace(config, as_published=True, data=data, fewshot=FewshotConfig(published="folds"))
    few = episode_settings(own, Cell("s1", "mn40", "10way-20shot", 0))
    assert (few.protocol, few.mode, few.folds) == ("modelnet-fewshot@point-jepa", "finetune", 10)
    assert (few.augment.scale, few.drop_path, few.train.epochs) == ((0.6, 1.4), 0.2, 150)
    assert (few.data.subsample, few.data.up, few.data.points) == ("fps", "y", 1024)
    assert (few.published, few.way, few.shot, few.data.train) == (
        "folds", 10, 20, own.sources["mn40"].train,
    )  # fmt: skip
    probed = published_settings(own, Cell("teacher", "sonn-pb", "probe", 0), own.classify)
    assert (probed.data.up, probed.data.points) == ("y", 1024)
    assert [s.score for s in grid_of(replace(own, name="table9"), {}).columns] == ["svm_c012"] * 2
    assert grid_of(replace(own, name="table3"), {}).columns[0].column == "mn40.5way-10shot"
    for cell in (Cell("s1", "sn55", "5way-10shot", 0), Cell("s1", "own", "classify", 0)):
        with pytest.raises(InputError, match="no published protocol for the column"):
            published_settings(own, cell, own.fewshot)
    with pytest.raises(InputError, match=r"--fewshot\.published"):
        suite(replace(config, as_published=True, name="table3"))
    with pytest.raises(InputError, match="table4 as published has the columns sn55"):
        suite(replace(config, as_published=True, name="table4"))
    with pytest.raises(InputError, match="classify has no published protocol for the column own"):
        suite(replace(config, as_published=True, data=(*config.data, "own=c,d")))


def test_aggregates_are_over_the_rows_that_stand_in_the_table(config: SuiteConfig) -> None:
    late = replace(config, name="table10", unfreeze=("late",))
    rows = {"s4@late/mn40/classify/seed0": {"oa": 80.0}, "s4@start/mn40/classify/seed0": {"oa": 1}}
    shown = {row.name: results[1] for row, results in grid_of(late, rows).lines}
    assert "s4@start" not in shown
    assert "s4@never" not in shown
    assert shown["s4"] == shown["s4@late"]
    assert (shown["s4"].mean, shown["s4"].runs, shown["s4"].expected) == (80.0, 1, 1)
    assert {cell.unfreeze for cell in wanted_cells(late)} == {"", "late"}
    own = replace(late, unfreeze=("start", "late"))
    shown = {row.name: results[1] for row, results in grid_of(own, rows).lines}
    assert (shown["s4"].mean, shown["s4"].paper) == (40.5, ("91.49", "0.11"))


def test_a_loss_of_the_paper_stands_next_to_one_of_its_models_alone(config: SuiteConfig) -> None:
    paper = read_recipe(SuiteConfig, "paper/suite")
    eight = replace(paper, name="table8")
    row = {"loss": 0.08, "teacher_sizes": dict(TEACHER), "distilled_on": "shapenet55 train"}
    name = "s16/loss/loss/seed0"

    def shown(of: SuiteConfig, **changes: object) -> tuple[str, str] | None:
        lines = grid_of(of, {name: row | changes}).lines
        return next(results[0].paper for row, results in lines if row.name == "s16")

    assert shown(eight) == ("0.0736", "")
    assert shown(eight, distilled_on="procedural (seed 0)") is None
    assert shown(eight, teacher_sizes=TEACHER | {"groups": 128}) is None
    assert shown(replace(eight, as_published=False)) is None
    short = replace(eight.distill, train=replace(eight.distill.train, epochs=1))
    assert shown(replace(eight, distill=short)) is None
    assert is_table_15(paper)
    assert not is_table_15(config)


def test_captions_say_whose_numbers_stand_in_parentheses(config: SuiteConfig) -> None:
    compared = write_tables(config, {})
    assert "the paper's number for the column, of its own models: Point-JEPA's ViT-S" in compared
    assert "Teacher of this table: 3 blocks of width 24, 12 tokens of 8 points." in compared
    assert "GMACs per cloud, tokenizer included" in compared
    assert "paper" not in write_tables(replace(config, data=("mn40=procedural",)), {})


def test_all_tables_go_on_after_a_failure(
    config: SuiteConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    data = (*config.data, "sn55=a.npz,b.npz")
    asked = faked(monkeypatch, failing="s16-soft")
    monkeypatch.setattr(module, "require_inputs", lambda *_: None)
    monkeypatch.setattr(module, "draw", lambda *_: None)
    every = replace(config, name="all", data=data)
    with pytest.raises(PartialFailure, match=r"1 of \d+ .*table8.*no luck") as found:
        suite(every)
    assert found.value.status == 1
    cells = [name for name in asked if "model" not in name]
    assert len(cells) == len(set(cells)) > 50  # tables share cells
    for name in SUITES:
        assert (Path(config.out) / f"{name}.md").is_file()
    faked(monkeypatch)
    assert suite(every)
    with pytest.raises(InputError, match="--only names rows and columns of one table"):
        replace(every, only=("s16",))


# ---------------------------------------------------------------- what is shown


def test_means_deviations_and_missing_cells_by_hand(config: SuiteConfig) -> None:
    two = replace(config, seeds=(0, 1), unfreeze=("start", "never"))
    values = {
        "teacher@late/mn40/classify/seed0": {"oa": 80.0, "oa_last": 79.0, "oa_best_on_test": 82.0},
        "teacher@late/mn40/classify/seed1": {"oa": 83.0, "oa_last": 81.0, "oa_best_on_test": 84.0},
        "s4@start/mn40/classify/seed0": {"oa": 70.0},
        "s4@start/mn40/classify/seed1": {"oa": 72.0},
        "s4@never/mn40/classify/seed0": {"oa": 74.0},
        "tome-fmd-1@late/mn40/classify/seed0": {"oa": 61.234},
    }
    grid = grid_of(two, values)
    texts = {row.name: text_of(entries[0], 2) for row, entries in grid.lines}
    assert texts["teacher"] == "81.50 ± 2.12 (paper 93.02 ± 0.14)"
    # The paper's mean over the same times of unfreezing, 91.57 and 91.46.
    assert texts["s4"] == "72.00 ± 2.00 [3/4] (paper 91.51 ± 0.08)"
    assert texts["tome-fmd-1"] == "61.23 [1/2] (paper 92.14)"
    assert texts["random-1"] == "missing (paper 18.33 ± 0.66)"
    entries = {row.name: entries[0] for row, entries in grid.lines}
    assert (entries["teacher"].last, entries["teacher"].best) == (80.0, 83.0)
    assert entries["s4"].last is None
    own = grid_of(replace(two, data=("shapes=procedural",)), {})
    assert {text_of(entries[0], 2) for _, entries in own.lines} == {"missing"}
    probed = grid_of(replace(two, tasks=("mn40=probe",)), {})
    assert text_of(probed.lines[0][1][0], 2) == "missing"  # the paper did not probe here


def test_folds_are_the_deviation_of_few_shot_tables(config: SuiteConfig) -> None:
    values = {"s1/mn40/5way-10shot/seed0": {"oa": 92.0, "oa_std": 9.0, "oa_folds": [90.0, 94.0]}}
    grid = grid_of(replace(config, name="table3"), values)
    texts = {row.name: text_of(entries[0], 2) for row, entries in grid.lines}
    assert texts["s1"] == "92.00 ± 2.83 (paper 91.8 ± 4.02)"


def test_the_average_needs_all_columns(config: SuiteConfig) -> None:
    names = ("mn40", "oo3d", "sonn-obj-bg", "sonn-obj-only", "sonn-pb", "sn55", "snp")
    whole = replace(config, data=tuple(f"{name}=a,b" for name in names))
    scores = {"oa": 80.0, "miou_c": 70.0, "miou_i": 90.0}
    cells = [c for c in wanted_cells(whole) if c.model == "teacher" and not c.at_test]
    rows = {cell.name: scores for cell in cells}
    grid = grid_of(whole, rows)
    assert grid.columns[-1].heading == "Avg"
    assert text_of(grid.lines[0][1][-1], 2) == "80.00 (paper 87.72)"
    del rows[cells[0].name]
    assert text_of(grid_of(whole, rows).lines[0][1][-1], 2) == "missing (paper 87.72)"


def test_three_formats(config: SuiteConfig, capsys: pytest.CaptureFixture) -> None:
    out = Path(config.out)
    row = {"cell": "teacher@late/mn40/classify/seed0", "oa": 81.5, "oa_last": 79.0, "gmacs": 2.05}
    append(out / "results.jsonl", [row])
    assert suite(replace(config, render=True)) == [row]
    assert (out / "table5.md").read_text() == capsys.readouterr().out[:-1]
    lines = list(csv.DictReader((out / "table5.csv").read_text().splitlines()))
    assert len(lines) == len(TABLES["table5"].rows)
    assert lines[0]["mean"] == "81.5"
    assert (lines[0]["mean_last"], lines[0]["paper_std"], lines[1]["mean"]) == ("79", "0.14", "")
    text = (out / "table5.tex").read_text()
    assert r"baseline & - & 2.05 & 81.50 (paper 93.02 $\pm$ 0.14) \\" in text
    assert r"\begin{table}[t]" in text
    assert r"\caption{Foundry across benchmarks (Table 5 of the paper). Scores" in text
    assert r"\label{tab:table5}" in text
    assert text.count("{") == text.count("}")
    assert r"$\checkmark$" in text
    assert not set(text) & set("±✓✗")
    widths = {line.count("|") for line in markdown("t", grid_of(config, {})).splitlines()[2:-2]}
    assert widths == {5}
    assert latex("t", "t", grid_of(config, {})).count("missing") == len(lines)


def test_points_of_the_figures(config: SuiteConfig, tmp_path: Path) -> None:
    names = {"s1": (0.3, 70.0), "s4": (0.1, 80.0), "s4-frozen": (0.2, 75.0), "s8": (0.05, None)}
    rows: dict[str, dict[str, Any]] = {}
    for name, (loss, score) in names.items():
        rows[f"{name}/loss/loss/seed0"] = {"loss": loss}
        if score is not None:
            rows[f"{name}@start/mn40/classify/seed0"] = {"oa": score}
    marks = losses_and_scores(replace(config, name="figure2"), rows)
    assert set(marks) == {
        Mark(0.1, 80.0, "MN40", "not frozen", "s = 4"),
        Mark(0.3, 70.0, "MN40", "not frozen", "s = 1"),
        Mark(0.2, 75.0, "MN40", "frozen", "s = 4"),
    }
    assert {mark.shape for mark in with_correlations(marks)} == {r"MN40: $\rho = -1.00$, n = 3"}
    assert rank_correlation(marks[:1]) == "n = 1"
    for version, text in ((0, "3,0,50.0\n7,1,60.0\n"), (1, "7,1,61.0\n11,2,\n")):
        folder = tmp_path / "run" / "metrics" / f"version_{version}"
        folder.mkdir(parents=True)
        (folder / "metrics.csv").write_text("step,epoch,validation_oa\n" + text)
    assert logged(tmp_path / "run", "validation_oa") == {1: 50.0, 2: 61.0}


def test_tokens_left_of_a_table(config: SuiteConfig) -> None:
    rows: dict[str, dict[str, Any]] = {
        "teacher@late/mn40/classify/seed0": {"oa": 90.0, "tokens": 64},
        "teacher+tome-16@late/mn40/classify/seed0": {"oa": 70.0, "tokens": 64},
        "teacher+tome-1@late/mn40/classify/seed0": {"oa": 20.0, "tokens": 64},
        "tome-fmd-1@late/mn40/classify/seed0": {"oa": 80.0, "tokens": 64},
        "s4-frozen@start/mn40/classify/seed0": {"oa": 75.0, "tokens": 64},
        "truncated-2@start/mn40/classify/seed0": {"oa": 85.0, "tokens": 64},
    }
    (panel,) = scores_over_tokens(config, rows)
    assert (panel.heading, panel.axis) == ("MN40", "tokens left per cloud")
    assert panel.levels == {"teacher, 64 tokens": Level(90.0, None)}
    assert panel.curves == {
        "Foundry, frozen": ([4.0], [75.0]),
        "Truncated, no supertokens": ([64.0], [85.0]),
        "ToMe, inference from baseline": ([16.0, 1.0], [70.0, 20.0]),
        "ToMe, distilled and fine-tuned": ([1.0], [80.0]),
    }


def test_a_table_with_an_average_is_drawn(config: SuiteConfig) -> None:
    whole = replace(config, data=tuple(f"{name}=a,b" for name in COLUMNS))
    rows: dict[str, dict[str, Any]] = {
        f"s4@{unfreeze}/mn40/classify/seed0": {"oa": 75.0}
        for unfreeze in ("start", "late", "never")
    }
    assert grid_of(whole, rows).columns[-1].key == "avg"
    (panel,) = scores_over_tokens(whole, rows)
    assert (panel.heading, panel.curves) == ("MN40", {"Foundry": ([4.0], [75.0])})
    rows["s4@start/mn40/classify/seed1"] = {"oa": 79.0}
    (panel,) = scores_over_tokens(replace(whole, seeds=(0, 1)), rows)
    assert panel.errors == {"Foundry": [pytest.approx(8**0.5)]}  # of 75 and 79


# ---------------------------------------------------------------- real work, tiny


def test_a_tiny_table(config: SuiteConfig) -> None:
    """A teacher, the same with fewer tokens at test time, a student, and a distilled reducer."""
    rows = suite(replace(config, only=("tome-8", "s4", "tome-fmd-16")))
    by_name = {row["cell"]: row for row in read_rows(Path(config.out) / "results.jsonl")}
    assert set(by_name) == {
        "s4@start/mn40/classify/seed0",
        "tome-fmd-16@late/mn40/classify/seed0",
        "teacher@late/mn40/classify/seed0",
        "teacher+tome-8@late/mn40/classify/seed0",
    }
    assert len(rows) == 3  # the teacher's row was not asked for, only needed
    for row in by_name.values():
        assert {"oa", "seed", "code", "sizes", "data", "selection", "seconds"} <= set(row)
        assert row["gmacs"] > 0
        assert row["sizes"] == [48, 12, 30]
    merged = by_name["teacher+tome-8@late/mn40/classify/seed0"]
    assert (merged["tokens"], merged["encoded"]) == (12, 8)
    # All tokens kept is the teacher itself, so is its score.
    whole = Cell("teacher", "mn40", "classify", 0, "late", "tome-12")
    done = run_here(config, whole)
    assert done.value is not None
    assert done.value["oa"] == by_name["teacher@late/mn40/classify/seed0"]["oa"]


def test_a_specialist_needs_the_fine_tuned_teacher(config: SuiteConfig) -> None:
    larger = Backbone(replace(TINY, groups=16), generator=torch.Generator().manual_seed(0))
    save(larger, Path(config.out) / "larger", provenance={})
    with_sn55 = replace(config, name="table2", data=(config.data[0].replace("mn40", "sn55"),))
    suite(replace(with_sn55, teacher=f"{config.out}/larger", only=("specialist-cls",)))
    teacher, specialist = read_rows(Path(config.out) / "results.jsonl")
    assert teacher["cell"] == "teacher@late/sn55/classify/seed0"
    assert specialist["cell"] == "specialist-cls@never/sn55/classify/seed0"
    assert specialist["kind"] == "student"
    frozen = load_backbone(Path(config.out) / "cells" / specialist["cell"] / "model")
    source = load_backbone(Path(config.out) / "cells" / teacher["cell"] / "model")
    for name, weight in source.encoder.state_dict().items():
        assert torch.equal(frozen.encoder.state_dict()[name], weight)


def test_pre_training_with_supertokens_takes_the_sizes_of_the_teacher(
    config: SuiteConfig, teacher: Backbone, tmp_path: Path
) -> None:
    found = supertoken_settings(config, MODELS["supertoken-teacher"], teacher, tmp_path)
    assert found.backbone == teacher.config
    assert (found.objective, found.supertokens, found.resume) == ("jepa", 16, True)


@pytest.mark.parametrize("objective", ["masked", "jepa"])
def test_a_reconstructing_teacher_is_no_baseline_of_point_jepa(
    config: SuiteConfig, teacher: Backbone, tmp_path: Path, objective: str
) -> None:
    save(teacher, tmp_path / "made", provenance={"made_by": f"pretrain ({objective})"})
    told = is_reconstructing(replace(config, teacher=str(tmp_path / "made")))
    assert told == (objective == "masked")


def test_a_task_gives_the_same_row(config: SuiteConfig) -> None:
    cell = Cell("teacher", "mn40", "probe", 0)
    tasks = replace(config, cluster=ClusterConfig(engine="debug"))
    here, (apart, unknown) = (
        run_here(config, cell),
        run_stage(tasks, [cell, cell._replace(column="none")]),
    )
    assert "KeyError" in unknown.fault
    varying = {"seconds": 0, "code": ""}
    assert here.value | varying == apart.value | varying
    assert "KeyError" not in (Path(config.out) / "cells" / cell.name / "log.txt").read_text()


def test_faults_are_sentences(config: SuiteConfig) -> None:
    """Episodes of more classes than there are, and one archive for training and test."""
    few = replace(config, fewshot=FewshotConfig(data=config.classify.data, train=TRAIN))
    done = run_here(few, Cell("teacher", "mn40", "5way-10shot", 0))
    assert "5 classes with more than 10 clouds are needed" in done.fault
    same = replace(config, data=("mn40=a.npz",))
    done = run_here(same, Cell("teacher", "mn40", "probe", 0))
    assert "name training and test clouds" in done.fault


def test_changes_at_test_time(teacher: Backbone, points: torch.Tensor) -> None:
    for what in ("random-12", "larger-12", "tome-12"):
        model = reduced_at_test(teacher, what, points=96, seed=0)
        if what != "larger-12":  # its groups have another size
            found = model(points).features.sort(dim=1).values
            torch.testing.assert_close(found, teacher(points).features.sort(dim=1).values)
    assert reduced_at_test(teacher, "larger-4", points=96, seed=0).shape.group_size == 48
    with pytest.raises(InputError, match="random, larger or tome"):
        reduced_at_test(teacher, "nonsense-3", points=96, seed=0)
    with pytest.raises(InputError, match="a teacher is a backbone"):
        student = Student.from_teacher(teacher, supertokens=4)
        reduced_at_test(student, "random-3", points=96, seed=0)


# ---------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"name": "table7"}, "known are table2"),
        ({"teacher": ""}, "--teacher"),
        ({"data": ()}, "--data NAME=TRAIN,TEST"),
        ({"data": ("a",)}, "NAME=VALUE"),
        ({"data": ("a/b=c",)}, "letters, digits"),
        ({"data": ("a=b", "a=c")}, "names a twice"),
        ({"tasks": ("c=probe",)}, "which --data does not"),
        ({"tasks": ("mn40=magic",)}, "classify, probe"),
        ({"unfreeze": ("soon",)}, "start, late, never"),
        ({"seeds": (1, 1)}, "different"),
    ],
)
def test_bad_options_are_one_sentence(
    config: SuiteConfig, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(InputError, match=says) as found:
        replace(config, **options)
    assert "\n" not in str(found.value)


def test_the_command_line_reads_lists(capsys: pytest.CaptureFixture) -> None:
    words = (
        "suite table9 --teacher t --data mn40=a,b own=c --seeds 0 2 --cluster local --print_config"
    )
    with pytest.raises(SystemExit) as stop:
        cli.main(words.split())
    assert not stop.value.code
    made = from_dict(SuiteConfig, yaml.safe_load(capsys.readouterr().out))
    assert made.sources == {"mn40": ("a", "b"), "own": ("c", "c")}
    assert (made.name, made.seeds, made.cluster) == (
        "table9",
        (0, 2),
        ClusterConfig(engine="local"),
    )


def test_the_tiny_recipe_can_make_every_row(tmp_path: Path) -> None:
    """Its teacher is deep enough to halve its tokens to one, wide enough to be halved."""
    tiny = read_recipe(SuiteConfig, "cpu/suite-tiny")
    shape = tiny.pretrain.backbone
    assert 2 ** (shape.depth - 1) >= shape.groups >= 32
    assert shape.dim // 2 % max(1, shape.heads // 2) == 0
    assert len(wanted_cells(tiny)) == 2 * len(TABLES["table5"].rows)


def test_the_recipe_of_the_paper_has_all_its_columns_and_protocols() -> None:
    paper = read_recipe(SuiteConfig, "paper/suite")
    assert set(paper.sources) == set(COLUMNS)
    assert all(is_published(path) for source in paper.sources.values() for path in source)
    for name in SUITES:
        require_published(replace(paper, name=name))
