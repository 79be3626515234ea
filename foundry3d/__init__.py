"""Foundry3D: distil a large self-supervised 3D point-cloud model into a small general-purpose one.

    import foundry3d

    teacher = foundry3d.load("runs/teacher/model")
    student = foundry3d.Student.from_teacher(teacher, supertokens=16)
    tokens = student(points)            # points (B, N, 3)
    tokens.features                     # (B, c, d), tokens.centers (B, c, 3)

Names are imported when they are first used, so that importing the package is free.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from foundry3d.checkpoints.create import create_model as create_model
    from foundry3d.checkpoints.create import list_models as list_models
    from foundry3d.checkpoints.folder import load as load
    from foundry3d.checkpoints.folder import save as save
    from foundry3d.checkpoints.foreign import load_foreign as load_foreign
    from foundry3d.checkpoints.hub import from_pretrained as from_pretrained
    from foundry3d.checkpoints.hub import save_pretrained as save_pretrained
    from foundry3d.config import BackboneConfig as BackboneConfig
    from foundry3d.config import StudentConfig as StudentConfig
    from foundry3d.embed.clouds import embed_clouds as embed_clouds
    from foundry3d.embed.features import read_features as read_features
    from foundry3d.errors import InputError as InputError
    from foundry3d.evaluation.probe import probe as probe
    from foundry3d.geometry.normals import estimate_normals as estimate_normals
    from foundry3d.inference.compiled import compile as compile
    from foundry3d.inference.stream import Stream as Stream
    from foundry3d.models.backbone import Backbone as Backbone
    from foundry3d.models.backbone import Teacher as Teacher
    from foundry3d.models.backbone import Tokens as Tokens
    from foundry3d.models.budget import Budget as Budget
    from foundry3d.models.extend import with_attributes as with_attributes
    from foundry3d.models.student import Student as Student
    from foundry3d.models.truncated import Truncated as Truncated
    from foundry3d.training.distill import distill as distill
    from foundry3d.training.pretrain import pretrain as pretrain

_HOME = {
    "Backbone": "models.backbone",
    "BackboneConfig": "config",
    "Budget": "models.budget",
    "InputError": "errors",
    "Stream": "inference.stream",
    "Student": "models.student",
    "StudentConfig": "config",
    "Teacher": "models.backbone",
    "Tokens": "models.backbone",
    "Truncated": "models.truncated",
    "compile": "inference.compiled",
    "create_model": "checkpoints.create",
    "distill": "training.distill",
    "embed_clouds": "embed.clouds",
    "estimate_normals": "geometry.normals",
    "from_pretrained": "checkpoints.hub",
    "list_models": "checkpoints.create",
    "load": "checkpoints.folder",
    "load_foreign": "checkpoints.foreign",
    "pretrain": "training.pretrain",
    "probe": "evaluation.probe",
    "read_features": "embed.features",
    "save": "checkpoints.folder",
    "save_pretrained": "checkpoints.hub",
    "with_attributes": "models.extend",
}
_MOVED = {
    "foundry3d.cost": "foundry3d.inference.cost",
    "foundry3d.scene_dense": "foundry3d.scenes.dense",
    "foundry3d.scene_memory": "foundry3d.scenes.memory",
    "foundry3d.scene_windows": "foundry3d.scenes.windows",
    "foundry3d.student": "foundry3d.models.student",
    "foundry3d.tasks": "foundry3d.training",
    "foundry3d.tasks.distill": "foundry3d.training.distill",
    "foundry3d.tasks.pretrain": "foundry3d.training.pretrain",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("foundry3d")
    if name not in _HOME:
        raise AttributeError(f"module 'foundry3d' has no attribute {name!r}")
    return getattr(import_module(f"foundry3d.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__


class _Moved(MetaPathFinder, Loader):
    """Modules that the documentation named before they moved are imported under both names."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in _MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        sys.modules[module.__name__] = import_module(_MOVED[module.__name__])


sys.meta_path.insert(0, _Moved())
