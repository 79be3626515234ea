"""How well final features are predicted from blocks."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY
from sklearn.linear_model import Ridge

from foundry3d import cli
from foundry3d.checkpoints.folder import save
from foundry3d.config import DataConfig, DepthConfig
from foundry3d.data.clouds import Clouds
from foundry3d.errors import InputError
from foundry3d.evaluation.depth import (
    depth_curve,
    hidden_layer,
    moments,
    ridge,
    states_of,
    unexplained,
)
from foundry3d.models.backbone import Backbone
from foundry3d.models.truncated import Truncated
from foundry3d.report.rows import read_rows
from foundry3d.transforms import normalise


def clouds(count: int, seed: int) -> Clouds:
    points = np.random.default_rng(seed).normal(size=(count, 96, 3)).astype(np.float32)
    return Clouds(points=points, labels=np.full(count, -1))


def test_ridge_is_that_of_scikit_learn(generator: torch.Generator) -> None:
    x, y = (torch.randn(40, width, generator=generator).double() for width in (5, 3))
    x = 2 * x + 1
    found = ridge(moments(x, y).plus(moments(x[:7], y[:7])), 0.3)
    both = [torch.cat([part, part[:7]]).numpy() for part in (x, y)]
    alpha = 0.3 * (both[0] ** 2).sum(axis=0).mean()
    wanted = Ridge(alpha=alpha).fit(*both)
    np.testing.assert_allclose(found[1:].numpy(), wanted.coef_.T, atol=1e-10)
    np.testing.assert_allclose(found[0].numpy(), wanted.intercept_, atol=1e-10)
    test = torch.randn(30, 5, generator=generator).double()
    goal = torch.randn(30, 3, generator=generator).double()
    error = ((wanted.predict(test.numpy()) - goal.numpy()) ** 2).sum()
    variance = ((goal - goal.mean(dim=0)) ** 2).sum()
    assert unexplained(moments(test, goal), found) == pytest.approx(error / float(variance))


def test_what_is_linear_or_flat_is_told_apart(generator: torch.Generator) -> None:
    x = torch.randn(400, 6, generator=generator)
    y = x @ torch.randn(6, 4, generator=generator) + 3
    assert unexplained(moments(x, y), ridge(moments(x, y), 1e-9)) < 1e-9
    noise = torch.randn(400, 4, generator=generator)
    assert unexplained(moments(x, noise), ridge(moments(x, noise))) > 0.95
    bent = x.abs()
    layer = hidden_layer(x, 200, seed=0)
    assert unexplained(moments(x, bent), ridge(moments(x, bent))) > 0.9
    assert unexplained(moments(layer(x), bent), ridge(moments(layer(x), bent))) < 0.1


def test_the_last_block_predicts_what_its_norm_makes(teacher: Backbone) -> None:
    """The curve falls towards the final features; an MLP that sees its input is no worse."""
    with torch.no_grad():
        for block in teacher.encoder.blocks:
            block.fc1.weight.mul_(30)
            block.fc2.weight.mul_(30)
    curve = depth_curve(teacher, clouds(96, 0), clouds(32, 1), points=96, hidden=64)
    assert [row["block"] for row in curve] == [0, 1, 2, 3]
    linear = [row["linear"] for row in curve]
    assert linear == sorted(linear, reverse=True)
    assert all(row["mlp"] < row["linear"] for row in curve)
    assert linear[-1] < 0.5 * linear[0]


def test_a_curve_reads_what_truncated_students_read(teacher: Backbone) -> None:
    student, points = (
        Truncated.from_teacher(teacher, depth=2),
        torch.from_numpy(clouds(4, 0).points),
    )
    groups = student.group(normalise(points))
    tokens, places = student.embed_groups(groups)
    wanted = student.encoder(tokens, places) + places
    states, features = states_of(teacher, points)
    torch.testing.assert_close(states[2], wanted.flatten(0, 1))
    torch.testing.assert_close(features, teacher.encode(groups).features.flatten(0, 1))


def test_the_command_prints_writes_and_draws(
    teacher: Backbone, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    save(teacher, tmp_path / "teacher", provenance={})
    words = ["depth", "--teacher", str(tmp_path / "teacher"), "--out", str(tmp_path / "out")]
    words += ["--data.train", "procedural", "--data.train_clouds", "60", "--data.points", "64"]
    cli.main([*words, "--clouds", "20", "--data.validation", "0.3"])
    rows = read_rows(tmp_path / "out" / "results.jsonl")
    assert [row["block"] for row in rows] == list(range(TINY.depth + 1))
    assert rows[0]["sizes"][0] == 20
    assert "96 random GELU units" in rows[0]["protocol"]
    assert "blocks read" in capsys.readouterr().out
    assert (tmp_path / "out" / "depth.png").stat().st_size > 0


def test_depth_needs_held_out_clouds(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"set data\.validation"):
        DepthConfig(data=DataConfig(train="procedural", validation=0.0))
