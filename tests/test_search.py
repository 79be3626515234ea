"""The search for a student: limits, the study file, and a tiny search from end to end."""

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
import yaml
from optuna.trial import TrialState
from processes import start, wait_for

from foundry3d import cli
from foundry3d.checkpoints.folder import load, save
from foundry3d.checkpoints.origin import Origin
from foundry3d.config import (
    AugmentConfig,
    BackboneConfig,
    DataConfig,
    DistillConfig,
    SearchConfig,
    StudentOptions,
    TrainConfig,
    from_dict,
    to_dict,
)
from foundry3d.config.search import limit_of
from foundry3d.errors import InputError
from foundry3d.inference.cost import count
from foundry3d.models.backbone import Backbone
from foundry3d.models.student import Student
from foundry3d.models.truncated import Truncated
from foundry3d.report.rows import read_rows
from foundry3d.training.distill import student_of
from foundry3d.training.search import run as module
from foundry3d.training.search.costs import CandidateCost, counted, milliseconds
from foundry3d.training.search.outcome import best, command_of, front, rows_of
from foundry3d.training.search.run import prepared, search, try_candidates
from foundry3d.training.search.space import (
    name_of,
    options_of,
    rivals,
    smallest,
    space_of,
    suggest,
)
from foundry3d.training.search.study import cut_half_line, open_study
from foundry3d.training.search.trials import Setting, Taken, distill_settings, taken
from foundry3d.writing import held

SIZES = BackboneConfig(
    groups=16, group_size=8, point_widths=(8, 16, 32), dim=24, depth=2, heads=3, position_dim=16
)
DATA = DataConfig(train="procedural", train_clouds=78, points=64, validation=0.34)


@pytest.fixture
def config(tmp_path: Path) -> SearchConfig:
    """A search of three drawn candidates within half of the teacher's arithmetic."""
    teacher = Backbone(SIZES, generator=torch.Generator().manual_seed(2)).eval()
    save(teacher, tmp_path / "teacher", provenance={})
    return SearchConfig(
        limit=f"{0.75 * count(teacher).macs / 1e9:.6f}gmacs",
        teacher=str(tmp_path / "teacher"),
        out=str(tmp_path / "search"),
        trials=3,
        rungs=(1,),
        data=DATA,
        train=TrainConfig(epochs=1, batch_size=16, warmup_epochs=0, lr=3e-3, accelerator="cpu"),
    )


# ---------------------------------------------------------------- limits and costs


@pytest.mark.parametrize(
    ("text", "value", "unit"), [("5ms", 5, "ms"), ("30 GMACs", 30, "gmacs"), ("1e-1mb", 0.1, "mb")]
)
def test_limits_are_numbers_with_units(text: str, value: float, unit: str) -> None:
    assert tuple(limit_of(text)) == (value, unit)
    assert limit_of(str(limit_of(text))) == limit_of(text)


@pytest.mark.parametrize("text", ["5", "ms", "0ms", "-1mb", "5s", "1e999ms", "1.2.3mb"])
def test_other_limits_are_one_sentence(text: str) -> None:
    with pytest.raises(InputError, match="such as 5ms"):
        SearchConfig(limit=text)


def test_costs_are_counted_and_measured() -> None:
    teacher = Backbone(SIZES).eval()
    cost = counted(teacher)
    found = count(teacher)
    assert cost.gmacs == pytest.approx(found.macs / 1e9, abs=1e-6)
    assert cost.mb == pytest.approx(2 * found.params / 1e6, abs=1e-6)
    assert not cost.within(limit_of("99ms"))
    assert milliseconds(teacher, 64) > 0
    whole = CandidateCost(1.0, 2.0, 3.0)
    assert whole.within(limit_of("3ms"))
    assert not whole.within(limit_of("1.9mb"))
    assert not whole.within(limit_of("0.9gmacs"))


@pytest.mark.parametrize("unit", ["gmacs", "mb", "ms"])
def test_a_limit_below_every_candidate_names_the_cheapest(config: SearchConfig, unit: str) -> None:
    with pytest.raises(InputError, match=rf"cheapest candidate, truncated-0-\S+, costs .*{unit}"):
        search(replace(config, limit=f"0.000001{unit}"))


def test_no_candidate_is_cheaper_than_the_smallest() -> None:
    space, teacher = space_of(SIZES), Backbone(SIZES).eval()

    def costs(parameters: dict[str, Any]) -> CandidateCost:
        settings = DistillConfig(student=options_of(space, parameters), frozen="none")
        return counted(student_of(teacher, settings))

    least = [costs(parameters) for parameters in smallest(space)]
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [costs(suggest(study.ask(), space)) for _ in range(20)]
    for unit in ("gmacs", "mb"):
        assert min(getattr(c, unit) for c in least) <= min(getattr(c, unit) for c in drawn)


# ---------------------------------------------------------------- candidates


def test_every_candidate_is_a_student_of_the_teacher() -> None:
    """Drawn parameters give a model of their kind and sizes; names do not repeat."""
    space, teacher = space_of(SIZES), Backbone(SIZES).eval()
    study, names = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1)), {}
    for _ in range(80):
        parameters = suggest(study.ask(), space)
        options = options_of(space, parameters)
        model = student_of(teacher, DistillConfig(student=options, frozen="none"))
        assert isinstance(model, Truncated if parameters["kind"] == "truncated" else Student)
        assert model.shape.dim == parameters["dim"]
        assert model.shape.group_size == parameters["group_size"]
        assert model.output_dim == SIZES.dim
        assert names.setdefault(name_of(parameters), options) == options
    assert len(set(map(str, names.values()))) == len(names) > 30


def test_rivals_are_the_papers_students_and_truncated_teachers() -> None:
    space = space_of(replace(SIZES, depth=4))
    found = {title: options_of(space, parameters) for title, parameters in rivals(space).items()}
    assert found == {
        "truncated, 0 blocks": StudentOptions(kind="truncated", depth=0),
        "truncated, 1 block": StudentOptions(kind="truncated", depth=1),
        "truncated, 2 blocks": StudentOptions(kind="truncated", depth=2),
        "the paper's, s = 16": StudentOptions(supertokens=16),
        "the paper's, s = 1": StudentOptions(supertokens=1),
        "s = 16 after 1 block": StudentOptions(supertokens=16, supertokens_after=1),
    }


@pytest.mark.parametrize("depth", [1, 2, 12])
def test_rivals_are_in_the_space(depth: int) -> None:
    space = space_of(replace(SIZES, depth=depth))
    study = optuna.create_study()
    for parameters in rivals(space).values():
        study.enqueue_trial(parameters)
        assert suggest(study.ask(), space) == parameters


# ---------------------------------------------------------------- the study file


def test_half_a_line_is_cut_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    for content, kept in ((b"", b""), (b"a\nb\n", b"a\nb\n"), (b"a\nb", b"a\n"), (b"ab", b"")):
        path.write_bytes(content)
        cut_half_line(path)
        assert path.read_bytes() == kept
    path.write_bytes(b"a\n" + b"x" * 9000)
    cut_half_line(path)
    assert path.read_bytes() == b"a\n"


def test_draws_depend_on_seed_and_trial_alone(tmp_path: Path) -> None:
    """Two processes draw what one would; another seed draws something else."""
    space = space_of(SIZES)

    def drawn(name: str, seed: int, processes: int) -> list[dict[str, Any]]:
        path = tmp_path / name
        studies = [open_study(path, seed=seed, settings={}) for _ in range(processes)]
        return [suggest(studies[i % processes].ask(), space) for i in range(6)]

    one = drawn("a", 0, 1)
    assert drawn("b", 0, 2) == one
    assert drawn("c", 1, 1) != one
    assert len({name_of(parameters) for parameters in one}) > 3


def test_a_study_of_other_settings_is_refused(tmp_path: Path) -> None:
    open_study(tmp_path / "j", seed=0, settings={"limit": "5ms", "seed": 0})
    open_study(tmp_path / "j", seed=0, settings={"limit": "5ms", "seed": 0})
    with pytest.raises(InputError, match="other settings of limit;"):
        open_study(tmp_path / "j", seed=0, settings={"limit": "6ms", "seed": 0})


def test_a_damaged_study_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "j"
    open_study(path, seed=0, settings={})
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"{]\n" + b"".join(lines))
    with pytest.raises(InputError, match="j is damaged"):
        open_study(path, seed=0, settings={})


def test_the_candidate_of_a_killed_process_is_taken_up(
    config: SearchConfig,
) -> None:
    """It is called running, half a line follows, nobody holds its folder: the next one goes on."""
    setting = prepared(config)
    with taken(setting) as first:
        assert first is not None
        with taken(prepared(config)) as second:  # its process is alive: another candidate
            assert second is not None
            assert second.name != first.name
        trials = [candidate.trial.number for candidate in (first, second)]
        assert [setting.study.trials[i].state for i in trials] == [TrialState.RUNNING] * 2
    with open(setting.out / "study.log", "ab") as journal:
        journal.write(b'{"op_code":6,"trial')
    again = prepared(config)
    with taken(again) as third:
        assert third is not None
        assert [again.study.trials[i].state for i in trials] == [TrialState.FAIL] * 2
    names = set()
    for _ in range(8):
        with taken(again) as candidate:
            if candidate is None:
                break
            names.add(candidate.name)
            candidate.trial.set_user_attr("error", "not trained here")
            again.study.tell(candidate.trial.number, state=TrialState.FAIL)
    assert {first.name, second.name} <= names


def test_two_processes_never_work_on_the_same_candidate(config: SearchConfig) -> None:
    setting = prepared(config)
    names = [name_of(parameters) for parameters in rivals(setting.space).values()]
    with held(setting.out / "trials" / names[0]), taken(setting) as found:
        assert found is not None
        assert found.name != names[0]


# ---------------------------------------------------------------- outcome


def row(name: str, gmacs: float, unexplained: float | None, state: str = "tried") -> dict[str, Any]:
    return {"name": name, "gmacs": gmacs, "unexplained": unexplained, "state": state}


def test_the_front_is_what_nothing_dominates() -> None:
    rows = [
        row("cheap", 1, 0.5),
        row("worse", 2, 0.6),
        row("good", 3, 0.2),
        row("same", 3, 0.3),
        row("stopped", 0.5, 0.01, "stopped early"),
        row("broken", 0.5, float("inf")),
        row("over", 9, None, "over the limit"),
        row("best", 4, 0.1),
    ]
    assert [r["name"] for r in front(rows, "gmacs")] == ["cheap", "good", "best"]
    found = best(rows)
    assert found is not None
    assert found["name"] == "best"
    assert best(rows[4:7]) is None


def test_the_command_repeats_the_distillation(config: SearchConfig) -> None:
    """Every option of the run is on the command line, and no other."""
    options = StudentOptions(kind="truncated", depth=0, dim=16, point_widths=(8, 16), group_size=4)
    changed = replace(config, augment=AugmentConfig(scale=(0.9, 1.1), rotate=False))
    for student in (options, StudentOptions(supertokens=4, supertokens_after=1)):
        wanted = distill_settings(changed, student, epochs=7, out=Path("a"))
        words = shlex.split(command_of(wanted, "some where/b"))
        assert words[0] == "foundry3d"
        found = cli.read_options(*cli.split_command(words[1:]))
        assert found == replace(wanted, out="some where/b", resume=False)


def test_a_search_from_end_to_end(
    config: SearchConfig, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rivals first, then three drawn ones; nothing over the limit is trained; the best is kept."""
    rows = search(config)
    printed = capsys.readouterr().out
    out, limit = Path(config.out), limit_of(config.limit)
    space = space_of(SIZES)
    titles = rivals(space)
    assert set(titles) <= {r["what"] for r in rows}
    drawn = [r for r in rows if r["what"] == "drawn"]
    assert len(drawn) == 3
    for found in rows:
        trained = (out / "trials" / found["name"]).exists()
        assert trained == (found["gmacs"] <= limit.value) == (found["state"] == "tried")
        assert found["name"] in printed
        assert (found["ms"] or 0) > 0
    assert any(r["state"] == "over the limit" for r in rows)
    chosen = best(rows)
    assert chosen is not None
    model = load(out)
    wanted = from_dict(StudentOptions, chosen["student"])
    assert isinstance(model, Truncated if wanted.kind == "truncated" else Student)
    assert counted(model).gmacs == chosen["gmacs"]
    for name in ("fidelity-gmacs.png", "fidelity-ms.png", "search.md", "command.txt"):
        assert (out / name).stat().st_size > 0
    saved = read_rows(out / "rows.jsonl", keys=("name", "unexplained"))
    assert saved == json.loads(json.dumps(rows))

    # the same command again has nothing left to train
    monkeypatch.setattr(module, "distill_on", None)
    monkeypatch.setattr("foundry3d.training.search.trials.distill_on", None)
    assert search(config) == rows

    # the printed command makes the same student
    command = shlex.split((out / "command.txt").read_text())
    assert shlex.join(command) in printed
    cli.main(command[1:])
    again = load(out / "again")
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_a_search_survives_kill(config: SearchConfig, tmp_path: Path) -> None:
    """Killed in the middle of a distillation, the same command goes on with that candidate."""
    config = replace(config, trials=0, rungs=(12,), limit="0.00028gmacs")  # one rival keeps it
    path = tmp_path / "search.yaml"
    path.write_text(yaml.safe_dump(to_dict(config)))
    process = start(["search", "--config", str(path)], tmp_path / "said")
    out, name = Path(config.out), name_of(rivals(space_of(SIZES))["truncated, 0 blocks"])
    folder = out / "trials" / name / "epochs-12"
    wait_for(folder / "checkpoints" / "previous.ckpt", process)
    process.kill()
    process.join()
    assert not (folder / "model").exists()
    run_name = (folder / "config.yaml").read_text().splitlines()[0]
    rows = search(config)
    assert {r["state"] for r in rows} == {"tried", "over the limit"}
    assert (folder / "config.yaml").read_text().splitlines()[0] == run_name  # it went on
    setting = prepared(config)
    named = [t for t in setting.study.trials if t.user_attrs.get("name") == name]
    assert [t.state for t in named] == [TrialState.FAIL, TrialState.COMPLETE]


def test_halving_stops_drawn_candidates_and_no_rival(
    config: SearchConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rivals reach the last rung however bad; drawn ones that are worse than all stop at once."""
    read: dict[str, list[int]] = {}

    def worse_and_worse(_: Setting, candidate: Taken, epochs: int) -> Origin:
        read.setdefault(candidate.name, []).append(epochs)
        return Origin(unexplained=1.0 + len(read), cosine=0.0)

    monkeypatch.setattr("foundry3d.training.search.trials.fidelity_after", worse_and_worse)
    setting = prepared(replace(config, rungs=(1, 3), limit="1gmacs", trials=2))
    try_candidates(setting)
    rows = rows_of(setting.study.trials, setting.limit)
    for found in rows:
        drawn = found["what"] == "drawn"
        assert read[found["name"]] == ([1] if drawn else [1, 3])
        assert found["state"] == ("stopped early" if drawn else "tried")
    assert sum(found["what"] == "drawn" for found in rows) == 2


def test_what_cannot_be_trained_is_a_failed_trial(
    config: SearchConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One broken candidate costs itself alone; a search of nothing else is one sentence."""

    def broken(*_: Any) -> None:
        raise InputError("NaN or infinite loss")

    monkeypatch.setattr("foundry3d.training.search.trials.distill_on", broken)
    setting = prepared(config)
    try_candidates(setting)
    rows = rows_of(setting.study.trials, setting.limit)
    assert {r["state"] for r in rows} == {"failed", "over the limit"}
    with pytest.raises(InputError, match="candidates was trained within"):
        search(config)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "--limit 5ms"),
        (["--limit", "5"], "such as 5ms"),
        (["--limit", "5ms"], "name the training clouds"),
        (["--limit", "5ms", "--rungs", "3", "1"], "rising numbers of epochs"),
        (["--limit", "5ms", "--data.validation", "0"], "held-out clouds"),
    ],
)
def test_bad_options_are_one_sentence(
    capsys: pytest.CaptureFixture, arguments: list[str], says: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["search", *arguments])
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1
