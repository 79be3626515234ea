"""Baselines: other ways to encode fewer tokens, which a student is compared with.

`matching` decides which tokens are merged, `trace` and `merged` merge them inside an encoder,
`sampling` makes fewer groups at inference, `students` holds the static students of Table 4.
"""

from foundry3d.baselines.merged import Merged
from foundry3d.baselines.sampling import LargerGroups, RandomSampling
from foundry3d.baselines.students import FPSStudent, KMeansStudent, fit_prototypes
from foundry3d.baselines.trace import PatchMerger, Reduction

__all__ = [
    "FPSStudent",
    "KMeansStudent",
    "LargerGroups",
    "Merged",
    "PatchMerger",
    "RandomSampling",
    "Reduction",
    "fit_prototypes",
]
