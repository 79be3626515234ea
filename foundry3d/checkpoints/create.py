"""Models by name: the presets, which are untrained, and the models that ship."""

from __future__ import annotations

from fnmatch import fnmatch
from typing import Any

from foundry3d.checkpoints import zoo
from foundry3d.checkpoints.folder import Model, load
from foundry3d.config import PRESETS, from_dict, to_dict
from foundry3d.errors import InputError
from foundry3d.models.backbone import Backbone


def list_models(filter: str = "*", *, pretrained: bool = False) -> list[str]:
    """The names that `create_model` takes.

    Args:
        filter: a pattern with `*` and `?`.
        pretrained: only those with trained weights.
    """
    known = zoo.names() if pretrained else (*PRESETS, *zoo.names())
    return sorted(name for name in known if fnmatch(name, filter))


def create_model(name: str, pretrained: bool = True, **changes: Any) -> Model:
    """A model by its name, in evaluation mode, on the CPU.

    Args:
        name: one of `list_models()`. Saved models are loaded by their folder: `foundry3d.load`.
        pretrained: with its trained weights; False = initial weights, drawn by torch's default
            generator.
        changes: fields of the model's configuration record (of a preset, `BackboneConfig`) that
            differ, e.g. `groups=128`; records inside it take dictionaries.

    Raises:
        InputError: an unknown name or field, no trained weights of that name, or trained weights
            that do not fit the changes.
    """
    if name in zoo.names():
        return _changed(load(zoo.ZOO / name), pretrained, changes)
    if name not in PRESETS:
        raise InputError(
            f"no model {name!r}; known are {', '.join(list_models())}; foundry3d.load reads folders"
        )
    if pretrained:
        raise InputError(
            f"{name} has no trained weights; pretrained=False makes an untrained model; trained "
            f"are {zoo.known()}"
        )
    return Backbone.preset(name, **changes)


def _changed(model: Model, pretrained: bool, changes: dict[str, Any]) -> Model:
    """The model with fields of its record changed, and with its weights or new ones."""
    if pretrained and not changes:
        return model
    values = to_dict(model.config)
    for key, value in changes.items():
        nested = isinstance(values.get(key), dict) and isinstance(value, dict)
        values[key] = values[key] | value if nested else value
    kind: Any = type(model)
    made: Model = kind(from_dict(type(model.config), values))
    if pretrained:
        try:
            made.load_state_dict(model.state_dict())
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"the trained weights do not fit {', '.join(changes)} ({reason}); "
                "pretrained=False draws new ones"
            ) from None
    return made.eval()
