"""Foundry3D: distil a large self-supervised 3D point-cloud model into a small general-purpose one.

    import foundry3d

    teacher = foundry3d.load("runs/teacher/model")
    student = foundry3d.Student.from_teacher(teacher, supertokens=16)
    tokens = student(points)            # points (B, N, 3)
    tokens.features                     # (B, c, d), tokens.centers (B, c, 3)

Names are imported when they are first used, so that importing the package is free.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from foundry3d.backbone import Backbone as Backbone
    from foundry3d.backbone import Teacher as Teacher
    from foundry3d.backbone import Tokens as Tokens
    from foundry3d.checkpoint import load as load
    from foundry3d.checkpoint import save as save
    from foundry3d.compiled import compile as compile
    from foundry3d.config import BackboneConfig as BackboneConfig
    from foundry3d.config import StudentConfig as StudentConfig
    from foundry3d.embed import embed_clouds as embed_clouds
    from foundry3d.errors import InputError as InputError
    from foundry3d.foreign import load_foreign as load_foreign
    from foundry3d.hub import from_pretrained as from_pretrained
    from foundry3d.hub import save_pretrained as save_pretrained
    from foundry3d.student import Student as Student

_HOME = {
    "Backbone": "backbone",
    "Student": "student",
    "Tokens": "backbone",
    "compile": "compiled",
    "embed_clouds": "embed",
    "load": "checkpoint",
    "save": "checkpoint",
    "BackboneConfig": "config",
    "StudentConfig": "config",
    "InputError": "errors",
    "Teacher": "backbone",
    "from_pretrained": "hub",
    "load_foreign": "foreign",
    "save_pretrained": "hub",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'foundry3d' has no attribute {name!r}")
    return getattr(import_module(f"foundry3d.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
