"""Every hyper-parameter of the package: frozen, keyword-only, each default in exactly one place.

Unknown keys and unusable values are errors where the record is made. No torch here: the command
line reads this room alone to print its help.
"""

from foundry3d.config.baselines import (
    FPSStudentConfig,
    KMeansStudentConfig,
    MergedConfig,
    ReductionConfig,
)
from foundry3d.config.bench import BenchConfig
from foundry3d.config.budgets import LAMBDAS, BudgetsConfig, SweepConfig
from foundry3d.config.commands import ConvertConfig, CostConfig, DemoConfig, DoctorConfig
from foundry3d.config.datasets import CheckConfig, PackConfig, PrepareConfig
from foundry3d.config.distillation import BudgetDraws, DistillConfig, LightTokenizerConfig
from foundry3d.config.downstream import (
    ClassifyConfig,
    FewshotConfig,
    FinetuneConfig,
    ProbeConfig,
    SegmentConfig,
    SpecialistConfig,
    ZeroshotConfig,
)
from foundry3d.config.embed import EmbedConfig
from foundry3d.config.heads import (
    ClassifierConfig,
    HeadConfig,
    HeadedConfig,
    PartHeadConfig,
    SegmenterConfig,
)
from foundry3d.config.models import PRESETS, BackboneConfig, StudentConfig, preset
from foundry3d.config.pretraining import JepaConfig, MaskedConfig, PretrainConfig
from foundry3d.config.records import (
    RECIPES,
    from_dict,
    read_recipe,
    to_dict,
)
from foundry3d.config.suite import SuiteConfig
from foundry3d.config.training import PRECISIONS, AugmentConfig, DataConfig, TrainConfig

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
