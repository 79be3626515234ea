"""How much depth a teacher has to compress: its final features predicted from every block.

What is predicted from is T_l + P, which a truncated student of l blocks reads (l = 0: the tokens).
A linear map and an MLP with one hidden layer of GELU are fitted by ridge regression on tokens of
training clouds, in closed form. The hidden layer is random and the output layer reads its input
too, so a trained MLP may well do better.

Shapes: B clouds, c tokens, n rows (tokens of any number of clouds), m inputs, d width.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from foundry3d.checkpoints.folder import load
from foundry3d.checkpoints.origin import origin_of
from foundry3d.config import DepthConfig, read_for, require_data
from foundry3d.data.batches import in_order
from foundry3d.data.clouds import Clouds
from foundry3d.data.loading import load_splits
from foundry3d.errors import InputError
from foundry3d.evaluation.rows import short_name
from foundry3d.inference.allocator import retain_memory
from foundry3d.models.backbone import Backbone, require_teacher
from foundry3d.report.figures import Panel, curves_of, draw_lines
from foundry3d.report.rows import append, code_version, table
from foundry3d.transforms import normalise

log = logging.getLogger("foundry3d")
RIDGE = 1e-4
"""Strength of the penalty, relative to the mean square of the inputs."""
COLUMNS = {"block": "blocks read", "linear": "linear (%)", "mlp": "MLP (%)"}


class Moments(NamedTuple):
    """Sums over rows of inputs x (n, m), the first of which is 1, and targets y (n, d).

    Attributes:
        xx: (m, m) sum of x x^T.
        xy: (m, d) sum of x y^T.
        yy: (d,) sum of y^2.
    """

    xx: Tensor
    xy: Tensor
    yy: Tensor

    def plus(self, other: Moments) -> Moments:
        """The moments of both sets of rows."""
        return Moments(*(a + b for a, b in zip(self, other, strict=True)))


def moments(inputs: Tensor, targets: Tensor) -> Moments:
    """The moments of inputs (n, m) and targets (n, d), in float64."""
    x = F.pad(inputs.double(), (1, 0), value=1.0)
    y = targets.double()
    return Moments(x.mT @ x, x.mT @ y, y.square().sum(dim=0))


def ridge(found: Moments, strength: float = RIDGE) -> Tensor:
    """Weights (m, d) of the ridge regression; the constant input is not penalised."""
    penalty = torch.full_like(found.yy[:1], strength) * found.xx.diagonal()[1:].mean()
    diagonal = F.pad(penalty.expand(len(found.xx) - 1), (1, 0))
    return torch.linalg.solve(found.xx + diagonal.diag(), found.xy)


def unexplained(found: Moments, weights: Tensor) -> float:
    """Share of the variance of these targets that the weights (m, d) leave unexplained."""
    error = found.yy - 2 * (weights * found.xy).sum(dim=0)
    error = error + (weights * (found.xx @ weights)).sum(dim=0)
    variance = found.yy - found.xy[0].square() / found.xx[0, 0]
    return float(error.sum() / variance.sum())


def states_of(teacher: Backbone, points: Tensor) -> tuple[list[Tensor], Tensor]:
    """T_l + P (n, d) for l = 0..L, and the final features (n, d), of points (B, N, 3)."""
    groups = teacher.group(normalise(points))
    tokens = teacher.tokenizer(groups.neighborhoods)
    start, positions = teacher.embed_groups(groups, tokens)
    output, states = teacher.encode_blocks(groups, range(teacher.shape.depth), tokens=tokens)
    read = [(state + positions).flatten(0, 1) for state in (start, *states)]
    return read, output.features.flatten(0, 1)


def hidden_layer(rows: Tensor, units: int, seed: int) -> Callable[[Tensor], Tensor]:
    """Inputs (n, d) scaled by the mean and deviation of `rows`, before `units` random GELU units.

    Returns:
        A function from (n, d) to (n, d + units).
    """
    generator = torch.Generator().manual_seed(seed)
    width = rows.shape[-1]
    mean, std = rows.mean(dim=0), rows.std(dim=0)
    std = torch.where(std > 0, std, 1.0)
    weight = torch.randn(width, units, generator=generator) / width**0.5
    bias = torch.randn(units, generator=generator)
    weight, bias = weight.to(rows), bias.to(rows)

    def layer(x: Tensor) -> Tensor:
        scaled = (x - mean) / std
        return torch.cat([scaled, F.gelu(scaled @ weight + bias)], dim=-1)

    return layer


def depth_curve(
    teacher: Backbone, train: Clouds, held: Clouds, *, points: int, hidden: int, seed: int = 0
) -> list[dict[str, float]]:
    """Unexplained variance of the final features, predicted from 0 to L blocks.

    Args:
        teacher: in evaluation mode.
        train: clouds that the predictors are fitted on.
        held: clouds that are predicted.
        points: of each cloud that are read.
        hidden: units of the MLP's hidden layer.
        seed: of that layer.

    Returns:
        `block`, the number of blocks read, and `linear` and `mlp`, the shares in percent.
    """
    device = next(teacher.parameters()).device

    def batches(clouds: Clouds) -> Iterator[tuple[list[Tensor], Tensor]]:
        for batch in in_order(clouds, 64, points):
            yield states_of(teacher, batch.to(device))

    with torch.inference_mode():
        first, _ = next(batches(train))
        layers = [hidden_layer(rows, hidden, seed) for rows in first]
        fitted, tested = (_summed(batches(clouds), layers) for clouds in (train, held))
        width = first[0].shape[-1] + 1  # the constant and T_l + P come before the hidden units
        curve = []
        for block, (fit, test) in enumerate(zip(fitted, tested, strict=True)):
            whole = unexplained(test, ridge(fit))
            fit, test = (Moments(m.xx[:width, :width], m.xy[:width], m.yy) for m in (fit, test))
            line = unexplained(test, ridge(fit))
            curve.append({"block": block, "linear": 100 * line, "mlp": 100 * whole})
    return curve


def _summed(
    batches: Iterator[tuple[list[Tensor], Tensor]], layers: list[Callable[[Tensor], Tensor]]
) -> list[Moments]:
    """The moments of all batches for every block."""
    sums: list[Moments] = []
    for states, goal in batches:
        new = [moments(layer(x), goal) for layer, x in zip(layers, states, strict=True)]
        sums = [a.plus(b) for a, b in zip(sums, new, strict=True)] if sums else new
    return sums


def depth(config: DepthConfig) -> list[dict[str, Any]]:
    """The curve of a saved teacher: prints it, adds its rows to a file and draws a picture.

    Raises:
        InputError: the teacher or data cannot be read, or no cloud is held out.
    """
    require_data(config.data)
    retain_memory()
    began = time.monotonic()
    teacher = require_teacher(load(config.teacher))
    data = replace(read_for(config.data, teacher.shape), test=None)
    splits = load_splits(data, seed=config.seed)
    if splits.validation is None:
        raise InputError("no cloud is held out to be predicted; raise data.validation")
    chosen = np.random.default_rng(config.seed).permutation(len(splits.train))[: config.clouds]
    train, held = splits.train.take(chosen), splits.validation
    log.info("%s: fitting on %d clouds, %d held out", config.teacher, len(train), len(held))
    units = config.hidden * teacher.output_dim
    curve = depth_curve(
        teacher, train, held, points=config.data.points, hidden=units, seed=config.seed
    )
    name = short_name(config.teacher)
    facts = {
        "task": "depth",
        "teacher": name,
        **origin_of(config.teacher)._asdict(),
        "protocol": f"unexplained variance (%) of final features on held-out clouds; ridge "
        f"{RIDGE:g} from T_l + P; MLP: {units} random GELU units and its input",
        "data": splits.train.name,
        "sizes": [len(train), len(held)],
        "points": config.data.points,
        "seed": config.seed,
        "code": code_version(),
        "seconds": round(time.monotonic() - began, 1),
    }
    rows: list[dict[str, Any]] = [facts | row for row in curve]
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    append(out / "results.jsonl", rows)
    print(table(rows, COLUMNS))
    draw_depth(out / "depth.png", rows, name)
    return rows


def draw_depth(path: Path, rows: list[dict[str, Any]], name: str) -> Path:
    """Draws the unexplained variance over the number of blocks read."""
    kinds = {"linear": "linear map", "mlp": "MLP, random hidden layer"}
    points = ((text, row["block"], row[kind]) for kind, text in kinds.items() for row in rows)
    panel = Panel(name, "blocks of the teacher that were read", curves_of(points))
    return draw_lines(
        path,
        [panel],
        title="Final features predicted from earlier blocks",
        y="unexplained variance on held-out clouds (%)",
    )
