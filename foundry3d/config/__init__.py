"""Every hyper-parameter of the package: frozen, keyword-only, each default in exactly one place.

Unknown keys and unusable values are errors where the record is made. No torch here: the command
line reads this room alone to print its help.
"""

from foundry3d.config.bench import BenchConfig
from foundry3d.config.budgets import LAMBDAS, BudgetsConfig, SweepConfig
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
from foundry3d.config.datasets import CheckConfig, PrepareConfig
from foundry3d.config.downstream import (
    ClassifierConfig,
    ClassifyConfig,
    FewshotConfig,
    FinetuneConfig,
    HeadConfig,
    HeadedConfig,
    ZeroshotConfig,
)
from foundry3d.config.light import LightTokenizerConfig
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
from foundry3d.config.reduction import (
    FPSStudentConfig,
    KMeansStudentConfig,
    MergedConfig,
    ReductionConfig,
)
from foundry3d.config.segmentation import PartHeadConfig, SegmentConfig, SegmenterConfig
from foundry3d.config.specialist import SpecialistConfig
from foundry3d.config.suite import SuiteConfig
from foundry3d.config.training import (
    PRECISIONS,
    AugmentConfig,
    BudgetDraws,
    DataConfig,
    TrainConfig,
)

__all__ = [
    "LAMBDAS",
    "PRECISIONS",
    "PRESETS",
    "RECIPES",
    "AugmentConfig",
    "BackboneConfig",
    "BenchConfig",
    "BudgetDraws",
    "BudgetsConfig",
    "CheckConfig",
    "ClassifierConfig",
    "ClassifyConfig",
    "ConvertConfig",
    "CostConfig",
    "DataConfig",
    "DemoConfig",
    "DistillConfig",
    "DoctorConfig",
    "EmbedConfig",
    "FPSStudentConfig",
    "FewshotConfig",
    "FinetuneConfig",
    "HeadConfig",
    "HeadedConfig",
    "JepaConfig",
    "KMeansStudentConfig",
    "LightTokenizerConfig",
    "MaskedConfig",
    "MergedConfig",
    "PackConfig",
    "PartHeadConfig",
    "PrepareConfig",
    "PretrainConfig",
    "ProbeConfig",
    "ReductionConfig",
    "SegmentConfig",
    "SegmenterConfig",
    "SpecialistConfig",
    "StudentConfig",
    "SuiteConfig",
    "SweepConfig",
    "TrainConfig",
    "ZeroshotConfig",
    "from_dict",
    "preset",
    "read_recipe",
    "to_dict",
]
