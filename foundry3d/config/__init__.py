"""Every hyper-parameter of the package: frozen, keyword-only, each default in exactly one place.

Unknown keys and unusable values are errors where the record is made. No torch here: the command
line reads this room alone to print its help.
"""

from foundry3d.config.commands import (
    ConvertConfig,
    CostConfig,
    DemoConfig,
    DistillConfig,
    DoctorConfig,
    EmbedConfig,
    PackConfig,
    PretrainConfig,
    ProbeConfig,
)
from foundry3d.config.models import (
    PRESETS,
    BackboneConfig,
    JepaConfig,
    MaskedConfig,
    StudentConfig,
    preset,
)
from foundry3d.config.records import (
    RECIPES,
    from_dict,
    read_recipe,
    to_dict,
)
from foundry3d.config.training import (
    PRECISIONS,
    AugmentConfig,
    DataConfig,
    TrainConfig,
)

__all__ = [
    "PRECISIONS",
    "PRESETS",
    "RECIPES",
    "AugmentConfig",
    "BackboneConfig",
    "ConvertConfig",
    "CostConfig",
    "DataConfig",
    "DemoConfig",
    "DistillConfig",
    "DoctorConfig",
    "EmbedConfig",
    "JepaConfig",
    "MaskedConfig",
    "PackConfig",
    "PretrainConfig",
    "ProbeConfig",
    "StudentConfig",
    "TrainConfig",
    "from_dict",
    "preset",
    "read_recipe",
    "to_dict",
]
