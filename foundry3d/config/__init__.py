"""Every hyper-parameter of the package: frozen, keyword-only records, each default standing once.

Unknown keys and unusable values are errors when a record is made. Nothing here imports torch, so
the command line prints its help without waiting for it.
"""

from foundry3d.config.baselines import (
    FPSStudentConfig,
    KMeansStudentConfig,
    MergedConfig,
    ReductionConfig,
)
from foundry3d.config.bench import BenchConfig
from foundry3d.config.budgets import BudgetsConfig
from foundry3d.config.cluster import ClusterConfig
from foundry3d.config.commands import (
    ConvertConfig,
    DemoConfig,
    DoctorConfig,
    ModelsConfig,
    ViewConfig,
)
from foundry3d.config.data import (
    AugmentConfig,
    CheckConfig,
    DataConfig,
    PackConfig,
    PrepareConfig,
    read_for,
    require_data,
)
from foundry3d.config.depth import DepthConfig
from foundry3d.config.distillation import DistillConfig, TokenLossConfig
from foundry3d.config.downstream import (
    ClassifyConfig,
    FewshotConfig,
    FinetuneConfig,
    HeadedRunConfig,
    ProbeConfig,
    SegmentConfig,
    SpecialistConfig,
    ZeroshotConfig,
)
from foundry3d.config.embed import EmbedConfig
from foundry3d.config.export import BenchExportConfig, ExportConfig
from foundry3d.config.figures import FIGURES, FiguresConfig
from foundry3d.config.heads import (
    ClassifierConfig,
    HeadConfig,
    HeadedConfig,
    PartHeadConfig,
    SegmenterConfig,
)
from foundry3d.config.models import (
    PRESETS,
    BackboneConfig,
    StudentConfig,
    StudentOptions,
    SupertokenOptions,
    TruncatedConfig,
    preset,
)
from foundry3d.config.paper import LAMBDAS, CostConfig, SuiteConfig, SweepConfig
from foundry3d.config.pretraining import JepaConfig, MaskedConfig, PretrainConfig
from foundry3d.config.records import from_dict, to_dict
from foundry3d.config.search import SearchConfig
from foundry3d.config.settings import RECIPES, read_recipe
from foundry3d.config.stored import TeacherFeaturesConfig
from foundry3d.config.teaching import FilesConfig, PredictConfig, SimilarConfig, TeachConfig
from foundry3d.config.training import PRECISIONS, BudgetDraws, TrainConfig

__all__ = [
    "FIGURES",
    "LAMBDAS",
    "PRECISIONS",
    "PRESETS",
    "RECIPES",
    "AugmentConfig",
    "BackboneConfig",
    "BenchConfig",
    "BenchExportConfig",
    "BudgetDraws",
    "BudgetsConfig",
    "CheckConfig",
    "ClassifierConfig",
    "ClassifyConfig",
    "ClusterConfig",
    "ConvertConfig",
    "CostConfig",
    "DataConfig",
    "DemoConfig",
    "DepthConfig",
    "DistillConfig",
    "DoctorConfig",
    "EmbedConfig",
    "ExportConfig",
    "FPSStudentConfig",
    "FewshotConfig",
    "FiguresConfig",
    "FilesConfig",
    "FinetuneConfig",
    "HeadConfig",
    "HeadedConfig",
    "HeadedRunConfig",
    "JepaConfig",
    "KMeansStudentConfig",
    "MaskedConfig",
    "MergedConfig",
    "ModelsConfig",
    "PackConfig",
    "PartHeadConfig",
    "PredictConfig",
    "PrepareConfig",
    "PretrainConfig",
    "ProbeConfig",
    "ReductionConfig",
    "SearchConfig",
    "SegmentConfig",
    "SegmenterConfig",
    "SimilarConfig",
    "SpecialistConfig",
    "StudentConfig",
    "StudentOptions",
    "SuiteConfig",
    "SupertokenOptions",
    "SweepConfig",
    "TeachConfig",
    "TeacherFeaturesConfig",
    "TokenLossConfig",
    "TrainConfig",
    "TruncatedConfig",
    "ViewConfig",
    "ZeroshotConfig",
    "from_dict",
    "preset",
    "read_for",
    "read_recipe",
    "require_data",
    "to_dict",
]
