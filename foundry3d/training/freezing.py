"""The parts of a model that can be frozen, and which of them came from a teacher.

Frozen means: no gradient step and evaluation mode, so that BatchNorm statistics stay too. Words and
epochs are those of `foundry3d.config.freezing`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from foundry3d.baselines.wrapped import Wrapped
from foundry3d.config import DistillConfig
from foundry3d.config.freezing import FROZEN
from foundry3d.errors import InputError
from foundry3d.models.backbone import Backbone, Teacher
from foundry3d.models.tokenizer import PointModel
from foundry3d.training.goals import Learner
from foundry3d.training.task import freeze

MODULES = {
    "tokenizer": ("tokenizer", "token_bridge"),
    "position": ("position", "position_bridge"),
    "encoder": ("encoder",),
}


class Part(NamedTuple):
    """What is frozen together: modules, and all of their parameters and a few loose ones."""

    modules: list[nn.Module]
    parameters: list[nn.Parameter]


def core_of(model: PointModel | Wrapped) -> PointModel:
    """The backbone or student itself, without a token reducer around it."""
    return model.backbone if isinstance(model, Wrapped) else model


def part_of(core: PointModel, name: str) -> Part:
    """The part `tokenizer`, `position` or `encoder` of a model."""
    return _part([core.get_submodule(module) for module in MODULES[name]], _loose(core, name))


def inherited_part(teacher: Backbone, core: PointModel, names: Iterable[str]) -> Part:
    """What of these parts holds the teacher's weights, bit for bit; new layers are left out.

    Args:
        teacher: that the model may have started from.
        core: before its training.
        names: of the parts.
    """
    modules: list[nn.Module] = []
    loose: list[nn.Parameter] = []
    for name in names:
        for module in MODULES[name]:
            modules += shared_modules(core.get_submodule(module), teacher.get_submodule(module))
        pairs = zip(_loose(core, name), _loose(teacher, name), strict=False)
        loose += [own for own, its in pairs if _equal(own, its)]
    return _part(modules, loose)


def shared_modules(own: nn.Module, other: nn.Module) -> Iterator[nn.Module]:
    """The largest submodules that hold the same weights and buffers under the same name in both."""
    mine, its = own.state_dict(), other.state_dict()
    if mine and mine.keys() == its.keys() and all(_equal(mine[k], its[k]) for k in mine):
        yield own
        return
    children = dict(other.named_children())
    for name, child in own.named_children():
        if name in children:
            yield from shared_modules(child, children[name])


def holds(part: Part, parameters: Iterable[nn.Parameter]) -> bool:
    """Whether a part has all of these parameters."""
    known = {id(parameter) for parameter in part.parameters}
    return all(id(parameter) in known for parameter in parameters)


def freeze_part(part: Part) -> None:
    """Freezes a part for good, in place."""
    for module in part.modules:
        freeze(module, True)
    for parameter in part.parameters:
        parameter.requires_grad_(False)


def set_modes(part: Part, frozen: bool) -> None:
    """Puts the modules of a part into evaluation mode while they are frozen, else into training."""
    for module in part.modules:
        module.train(not frozen)


def drop_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Takes gradients away, so that parameters take no step and do not affect clipping.

    They are not switched off, because distributed training fixes at the start which parameters it
    synchronises.
    """
    for parameter in parameters:
        parameter.grad = None


def still_part(config: DistillConfig, teacher: Teacher | None, student: Learner) -> Part:
    """What of a student stays as it came from the teacher while the configuration freezes it.

    Raises:
        InputError: it is not what `config.frozen` promises: the student's encoder (for all: nothing
            of it) holds the teacher's weights, or token_loss is to train the same tokenizer.
    """
    names, core = FROZEN[config.frozen], core_of(student)
    if not names:
        return Part([], [])
    still = Part([], [])
    if isinstance(teacher, Backbone):
        still = inherited_part(teacher, core, names)
    promised = core.encoder.parameters() if config.frozen == "encoder" else []
    if not (still.parameters and holds(still, promised)):
        what = "encoder does" if config.frozen == "encoder" else "weights do"
        raise InputError(
            f"the student's {what} not come from the teacher, so there is nothing to keep frozen; "
            "use --frozen none"
        )
    if config.token_loss.used and holds(still, core.tokenizer.parameters()):
        raise InputError(
            "token_loss would train the tokenizer, which frozen all keeps as the teacher's; leave "
            "one of them out"
        )
    return still


def require_trainable(still: Part, student: nn.Module) -> None:
    """Refuses a run in which nothing trains.

    Raises:
        InputError: all of the student's parameters stay frozen.
    """
    if holds(still, student.parameters()):
        raise InputError(
            f"a {type(student).__name__} has no weights but its teacher's, which frozen all keeps "
            "as they are; use --frozen encoder or none"
        )


def _part(modules: list[nn.Module], loose: list[nn.Parameter]) -> Part:
    return Part(modules, [p for module in modules for p in module.parameters()] + loose)


def _loose(core: PointModel, name: str) -> list[nn.Parameter]:
    if not isinstance(core, Backbone) or name != "encoder":
        return []
    return [p for p in (core.class_token, core.class_position) if p is not None]


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a.detach().cpu(), b.detach().cpu())
