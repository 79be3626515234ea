"""The models of the notebooks: those that ship, or tiny stand-ins for tests, trained in seconds."""

import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import foundry3d
from foundry3d.config import (
    BudgetDraws,
    DataConfig,
    DistillConfig,
    PretrainConfig,
    StudentOptions,
    read_recipe,
)


def load(name: str, *, small: bool = False) -> Any:
    """The shipped model of this name: mini-teacher, or its student mini.

    Args:
        name: of the model.
        small: never a shipped model, but one trained in a second, for tests.
    """
    return trained()[name] if small else foundry3d.load(name)


@cache
def trained() -> dict[str, Any]:
    """A teacher trained on built-in shapes, and a student of it for every budget."""
    teacher = read_recipe(PretrainConfig, "cpu/demo-teacher")
    student = read_recipe(DistillConfig, "cpu/demo-student")
    data = DataConfig(train="procedural", train_clouds=64, points=512, validation=0.0)
    train = replace(teacher.train, epochs=1, warmup_epochs=0)
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder)
        first = foundry3d.pretrain(
            replace(teacher, out=str(runs / "teacher"), data=data, train=train)
        )
        second = foundry3d.distill(
            replace(
                student,
                teacher=str(runs / "teacher" / "model"),
                out=str(runs / "student"),
                student=StudentOptions(supertokens=4, gate=True),
                budgets=BudgetDraws(random_ratio=True, nested=True),
                data=data,
                train=train,
            )
        )
    return {"mini-teacher": first, "mini": second}
