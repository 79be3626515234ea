"""Units of work on submitit: through the steps of a job, and in processes that are killed."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import yaml
from cluster_work import halves
from test_parts import contents, ten_files  # noqa: F401

from foundry3d import cli, cluster
from foundry3d.cluster import Task, make_executor, outcome_file, run_units, shares
from foundry3d.config import ClusterConfig, EmbedConfig, from_dict
from foundry3d.embed import folder as folder_module
from foundry3d.embed.files import embed
from foundry3d.embed.parts import parts_in
from foundry3d.errors import InputError, PartialFailure

DEBUG = ClusterConfig(engine="debug")
LOCAL = ClusterConfig(engine="local", parallel=2)


def run(numbers: list[int], folder: Path, config: ClusterConfig = DEBUG) -> dict[int, object]:
    units = {f"number {n}": n for n in numbers}
    found = run_units(partial(halves, folder / "opened"), units, config, folder / "tasks")
    return {outcome.unit: outcome.fault or outcome.value for outcome in found}


def test_a_failure_does_not_stop_the_others(tmp_path: Path) -> None:
    assert run([2, 3, 4], tmp_path) == {2: 1.0, 3: "3 is odd", 4: 2.0}
    assert not list((tmp_path / "tasks").glob("*.json"))


def test_units_of_a_task_share_what_it_opens(tmp_path: Path) -> None:
    run([2, 4, 6], tmp_path, replace(DEBUG, units=2))
    assert (tmp_path / "opened").read_text() == ".."


def test_outcomes_that_a_killed_command_left_are_taken_over(tmp_path: Path) -> None:
    """Values are; faults are run again."""
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    outcome_file(tasks, "number 2").write_text('{"value": 7.0}')
    outcome_file(tasks, "number 4").write_text('{"fault": "no luck"}')
    outcome_file(tasks, "number 6").write_text('{"val')
    assert run([2, 4, 6], tmp_path) == {2: 7.0, 4: 2.0, 6: 3.0}


def test_a_task_that_is_queued_again_goes_on(tmp_path: Path) -> None:
    """What it has done is not done again, also by the pickled copy that the engine keeps."""
    submitit = pytest.importorskip("submitit")
    units = {"two": 2, "four": 4}
    task = Task(partial(halves, tmp_path / "opened"), units, tmp_path, apart=False)
    outcome_file(tmp_path, "two").write_text('{"value": "kept"}')
    again = task.checkpoint()
    assert isinstance(again, submitit.helpers.DelayedSubmission)
    path = tmp_path / "pickled"
    again.dump(path)
    submitit.helpers.DelayedSubmission.load(path).result()
    assert outcome_file(tmp_path, "two").read_text() == '{"value": "kept"}'
    assert outcome_file(tmp_path, "four").read_text() == '{"value": 2.0}'
    assert (tmp_path / "opened").read_text() == "."


def test_shares_keep_every_unit_once() -> None:
    units = {str(i): i for i in range(50)}
    for config, sizes in [
        (ClusterConfig(engine="slurm"), {1}),
        (LOCAL, {7, 1}),
        (replace(LOCAL, units=20), {20, 10}),
    ]:
        found = shares(units, config)
        assert {len(share) for share in found} == sizes
        assert [i for share in found for i in share.values()] == list(range(50))


def test_a_killed_process_fails_its_unit_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes; what one of them had done before it was killed counts."""
    places = (str(Path(__file__).parent), os.environ.get("PYTHONPATH", ""))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, places)))
    config = replace(LOCAL, units=2)
    found = run([2, 13, 4, 5], tmp_path, config)
    assert (found[2], found[4], found[5]) == (1.0, 2.0, "5 is odd")
    assert "its task ended without a result" in str(found[13])
    assert not [name for name in (tmp_path / "tasks").glob("*.json")]


def test_what_is_asked_of_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The script that sbatch would get; Slurm itself is not here."""
    pytest.importorskip("submitit")
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    config = ClusterConfig(
        engine="slurm", partition="gpu", time=90, parallel=8, cpus=4, gpus=1, memory=16,
        setup=("module load cuda",), slurm=("account=lab", "constraint=a100"),
    )  # fmt: skip
    executor = make_executor(config, tmp_path)._executor
    text = executor._make_submission_file_text("COMMAND", "id")
    for line in (
        "--partition=gpu", "--time=90", "--cpus-per-task=4", "--gpus-per-node=1", "--mem=16GB",
        "--account=lab", "--constraint=a100", "module load cuda", "export OMP_NUM_THREADS=4",
    ):  # fmt: skip
        assert line in text
    assert executor.parameters["array_parallelism"] == 8
    assert executor.max_num_timeout == 3


# ---------------------------------------------------------------- commands


def test_tasks_write_the_parts_of_one_process(config: EmbedConfig, tmp_path: Path) -> None:
    embed(config)
    embed(replace(config, out=f"{tmp_path}/tasks/", cluster=DEBUG))
    assert contents(f"{tmp_path}/tasks/") == contents(config.out)
    assert len(contents(config.out)) == 4


def test_parts_that_fail_are_reported_and_only_they_are_made_again(
    config: EmbedConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = replace(config, cluster=DEBUG)
    asked: list[int] = []
    make = folder_module.make_part

    def failing(own, config, total, unit) -> None:
        asked.append(unit.number)
        if unit.number == 2 and len(asked) < 5:
            raise OSError("no space left")
        make(own, config, total, unit)

    monkeypatch.setattr(folder_module, "make_part", failing)
    with pytest.raises(PartialFailure, match=r"1 of 4 parts failed, part-000002-\w+.parquet first"):
        embed(config)
    assert len(parts_in(Path(config.out))) == 3
    embed(config)
    assert asked == [0, 1, 2, 3, 2]
    assert len(parts_in(Path(config.out))) == 4


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (["--cluster", "local"], {"engine": "local"}),
        (["--cluster.engine=local", "--cluster.cpus", "2"], {"engine": "local", "cpus": 2}),
        (
            ["--cluster", "slurm", "--cluster.time", "30", "--cluster.slurm", "account=a", "qos=b"],
            {"engine": "slurm", "time": 30, "slurm": ("account=a", "qos=b")},
        ),
    ],
)
def test_options_of_the_command_line(
    words: list[str], options: dict, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["embed", "a", "--model", "m", "--out", "x/", *words, "--print_config"])
    made = yaml.safe_load(capsys.readouterr().out)["cluster"]
    assert from_dict(ClusterConfig, made) == ClusterConfig(**options)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--cluster", "moon"], "'moon'"),
        (["--cluster.parallel", "2"], "cluster.parallel needs an engine; add --cluster local"),
        (["--workers", "2"], "--workers is now --cluster.parallel"),
        (["--cluster", "local", "--cluster.partition", "gpu"], "partition is for --cluster slurm"),
        (["--cluster", "slurm", "--cluster.slurm", "--x"], "cluster.slurm"),
        (["--cluster", "slurm", "--cluster.slurm", "a b"], "NAME=VALUE"),
        (["--cluster", "local", "--cluster.cpus", "0"], "cpus must be"),
    ],
)
def test_bad_options_are_one_sentence(
    words: list[str], says: str, capsys: pytest.CaptureFixture
) -> None:
    suite = "suite table5 --teacher t --data mn40=a,b"
    command = suite if "--workers" in words else "embed a --model m --out x/"
    with pytest.raises(SystemExit) as stop:
        cli.main([*command.split(), *words])
    assert stop.value.code == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert says in said[0]


def test_what_the_machine_lacks_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster.shutil, "which", lambda name: None)
    with pytest.raises(InputError, match="needs Slurm's srun and sbatch"):
        make_executor(ClusterConfig(engine="slurm"), tmp_path)
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(InputError, match=r'pip install "foundry3d\[cluster\]"'):
        make_executor(DEBUG, tmp_path)
