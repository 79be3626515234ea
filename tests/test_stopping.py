"""Signals and numbers that are no longer finite end a run; what it has kept serves to go on."""

import logging
import os
import re
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from processes import ended, start, two_ranks, wait_for
from test_training import MASKED, TRAIN, same

from foundry3d import cli
from foundry3d.config import PretrainConfig, to_dict
from foundry3d.errors import InputError
from foundry3d.training import stopping
from foundry3d.training.pretrain import PretrainTask, pretrain
from foundry3d.training.stopping import Stopped

KINDS = {signal.SIGINT: 130, signal.SIGTERM: 143}


def recipe(folder: Path, **train: object) -> list[str]:
    config = replace(MASKED, out=str(folder / "run"), train=replace(TRAIN, **train))
    (folder / "recipe.yaml").write_text(yaml.safe_dump(to_dict(config)))
    return ["pretrain", "--config", str(folder / "recipe.yaml")]


def after_step(step: int, action, patch: pytest.MonkeyPatch) -> None:
    """Has `action(task, loss)` make the loss of a run's step of that number."""
    original = PretrainTask.training_step

    def stepping(self: PretrainTask, batch: object, index: int) -> torch.Tensor:
        loss = original(self, batch, index)
        if self.global_step + 1 == step:
            loss = action(self, loss)
        return loss

    patch.setattr(PretrainTask, "training_step", stepping)


@pytest.mark.parametrize("kind", KINDS)
def test_a_signal_ends_a_run_after_its_step(kind: signal.Signals, tmp_path: Path, caplog) -> None:
    config = replace(MASKED, out=str(tmp_path / "run"), train=replace(TRAIN, epochs=3))
    expected = pretrain(replace(config, out=str(tmp_path / "whole")))

    asked = []

    def ask(task: PretrainTask, loss: torch.Tensor) -> torch.Tensor:
        asked.append(task)
        signal.raise_signal(kind)
        return loss

    outside = signal.signal(kind, signal.default_int_handler)
    with pytest.MonkeyPatch.context() as patch:
        after_step(5, ask, patch)
        with pytest.raises(Stopped) as stop, caplog.at_level(logging.WARNING, "foundry3d"):
            pretrain(config)
    assert stop.value.code == KINDS[kind]
    assert signal.signal(kind, outside) is signal.default_int_handler
    out = tmp_path / "run"
    (said,) = caplog.messages
    assert f"stopped by {kind.name}, {out}/checkpoints/last.ckpt is kept" in said
    assert f"--config {out}/config.yaml --resume" in said
    assert [task.global_step for task in asked] == [5]  # it was taken, and none after it
    assert not (out / "model").exists() and not (out / "run.lock").exists()
    assert same(pretrain(replace(config, resume=True)), expected)


def test_a_signal_before_the_first_step_ends_a_run(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(
        PretrainTask, "on_fit_start", lambda self: signal.raise_signal(signal.SIGTERM), False
    )
    with pytest.raises(Stopped) as stop:
        pretrain(replace(MASKED, out=str(tmp_path / "run")))
    assert stop.value.code == 143


def stall() -> None:
    """Has a step never end."""

    def training_step(self: PretrainTask, batch: object, index: int) -> torch.Tensor:
        Path(self.config_out, "stalled").touch()
        while True:
            time.sleep(1)

    PretrainTask.config_out = os.environ["STALLED"]  # type: ignore[attr-defined]
    PretrainTask.training_step = training_step  # type: ignore[assignment]


def stall_without_patience() -> None:
    stall()
    stopping.GRACE = 0.1


@pytest.mark.parametrize("signals", [1, 2])
def test_a_stalled_step_is_ended(signals: int, tmp_path: Path) -> None:
    """By a second signal at once, or when the time of grace is over."""
    first = stall if signals == 2 else stall_without_patience
    words, said = recipe(tmp_path), tmp_path / "said"
    process = start(words, said, environment={"STALLED": str(tmp_path)}, first=first)
    wait_for(tmp_path / "stalled", process)
    os.kill(process.pid, signal.SIGTERM)
    if signals == 2:
        time.sleep(stopping.TWICE + 0.1)
        assert process.is_alive()
        os.kill(process.pid, signal.SIGTERM)
    assert ended(process) == 143
    assert "--resume goes on from it" in said.read_text()


def test_a_signal_to_one_of_two_processes_ends_both(tmp_path: Path) -> None:
    ranks = two_ranks(recipe(tmp_path, epochs=5000, devices=2, batch_size=8), tmp_path / "said")
    wait_for(tmp_path / "run" / "checkpoints" / "last.ckpt", ranks[0])
    os.kill(ranks[1].pid, signal.SIGTERM)
    assert [ended(rank) for rank in ranks] == [143, 143]
    said = (tmp_path / "said.0").read_text()
    assert "stopped by SIGTERM" in said and "Traceback" not in said


def test_progress_counts_whole_epochs(tmp_path: Path, caplog) -> None:
    with caplog.at_level(logging.INFO, "foundry3d"):
        pretrain(replace(MASKED, out=str(tmp_path / "run")))
    lines = [m for m in caplog.messages if m.startswith("epoch")]
    assert [re.match(r"epoch (\S+)  loss \d", line)[1] for line in lines] == ["1/2", "2/2"]


# ---------------------------------------------------------------- numbers that are not finite


def as_it_was(out: Path, config: PretrainConfig, expected: torch.nn.Module) -> None:
    """Only what was finite is kept, and the run goes on from it."""
    assert not (out / "model").exists()
    kept = torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)
    assert kept["global_step"] == 3
    assert all(v.isfinite().all() for v in kept["state_dict"].values())
    assert same(pretrain(replace(config, resume=True)), expected)


def spoil(task: PretrainTask, loss: torch.Tensor) -> torch.Tensor:
    """A weight that no loss depends on."""
    task.backbone.tokenizer.lift_norm.running_var.data[0] = torch.nan
    return loss


@pytest.mark.parametrize(
    ("step", "action", "what"),
    [
        (4, lambda task, loss: loss * torch.nan, "loss in epoch 2, step 4"),
        (5, lambda task, loss: loss * torch.inf, "loss in epoch 2, step 5"),
        (6, spoil, "weights in epoch 2, step 6"),
    ],
)
def test_a_diverged_run_keeps_its_last_finite_checkpoint(
    step: int, action, what: str, tmp_path: Path
) -> None:
    config = replace(MASKED, out=str(tmp_path / "run"))
    expected = pretrain(replace(config, out=str(tmp_path / "whole")))
    with pytest.MonkeyPatch.context() as patch:
        after_step(step, action, patch)
        with pytest.raises(InputError, match=f"NaN or infinite {what}; nothing was saved since"):
            pretrain(config)
    as_it_was(tmp_path / "run", config, expected)


def test_a_huge_learning_rate_is_one_sentence(tmp_path: Path, capsys) -> None:
    words = recipe(tmp_path, lr=1e9, start_lr=1e9, final_lr=1e9, epochs=4)
    with pytest.raises(SystemExit) as stop:
        cli.main(words)
    assert stop.value.code == 2
    assert "NaN or infinite" in capsys.readouterr().err
    assert not (tmp_path / "run" / "model").exists()
