"""A linear probe on the features of an exported file, and on torch's, to compare them.

Shapes: B clouds, N points.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from foundry3d.config import DataConfig, ExportConfig
from foundry3d.data.loading import load_splits
from foundry3d.errors import InputError
from foundry3d.export.metadata import Origin
from foundry3d.export.network import Network, example
from foundry3d.export.runners import Run
from foundry3d.models.backbone import Tokens

POINTS = 1024


def scores(
    network: Network, origin: Origin, run: Run, config: ExportConfig
) -> list[dict[str, Any]]:
    """A row with the scores of the exported file, and one with torch's.

    Raises:
        InputError: a segmenter, which has no pooled features, or data that cannot be read or has
            no labels.
    """
    from foundry3d.evaluation.probe import probe

    if "features" not in network.outputs:
        raise InputError("a segmenter has no features to probe; leave --data out")
    points = max(origin.policy.points or POINTS, network.least)
    train, test = config.data
    splits = load_splits(DataConfig(train=train, test=test, points=points), seed=config.seed)

    def tokens(found: tuple[Tensor, ...], batch: int) -> Tokens:
        features = found[network.outputs.index("features")]
        used = torch.full((batch,), features.shape[1])
        return Tokens(features=features, centers=features[..., :3], tokens_used=used)

    def exported(clouds: Tensor) -> Tokens:
        arrays = run(tuple(tensor.numpy() for tensor in example(network, clouds)))
        return tokens(tuple(map(torch.from_numpy, arrays)), len(clouds))

    def in_torch(clouds: Tensor) -> Tokens:
        return tokens(network(*example(network, clouds)), len(clouds))

    rows = []
    for name, form in (("exported", exported), ("torch", in_torch)):
        found = probe(form, splits, points=points)
        rows.append({"form": name} | {k: round(v, 3) for k, v in found._asdict().items()})
    return rows
