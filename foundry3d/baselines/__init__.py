"""Fewer tokens without learned supertokens: the rows a student is compared with.

`matching` decides which tokens become one, `trace` and `merged` do so inside an encoder, `sampling`
makes fewer groups at inference, `students` are the static students of Table 4.
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
