"""`foundry3d export`: a file for another runtime, and a linear probe on its features and torch's.

Shapes: B clouds, N points.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foundry3d.config import DataConfig, ExportConfig
from foundry3d.data.loading import load_splits
from foundry3d.errors import InputError
from foundry3d.export.delivery import calibration, deliver, files_of, network_of
from foundry3d.export.formats import FORMATS, writer
from foundry3d.export.metadata import Origin
from foundry3d.export.network import Network, example
from foundry3d.export.runners import Run
from foundry3d.models.backbone import Tokens
from foundry3d.report.rows import table

POINTS = 1024


def export(config: ExportConfig) -> Path:
    """Writes a file that computes what the model does: `foundry3d export`.

    The file is verified before it appears; its report and what a runtime has to know are in its
    metadata. Prints the report and the size.

    Returns:
        Path of the file.

    Raises:
        InputError: the model or its budget cannot be exported, a package is missing, or the file
            differs from torch; nothing is written.
    """
    kind = FORMATS[config.to]
    writer(config.to, config.precision)  # what is missing is said before anything is loaded
    out = Path(config.out or Path(config.model).resolve().name + kind.suffix)
    if out.suffix != kind.suffix:
        raise InputError(f"{out}: {config.to} files end in {kind.suffix}")
    network, origin = network_of(config)
    samples = calibration(network, origin, config) if config.precision == "int8" else ()
    score = partial(scores, network, origin, config=config) if config.data else None
    report = deliver(network, origin, config, out, samples, score)
    columns = {name: name for name in report["cases"][0]}
    print(table(report["cases"], columns))
    if "scores" in report:
        print(f"\n{table(report['scores'], {'form': 'form', 'svm': 'SVM', 'knn': '20-NN'})}")
    size = sum(path.stat().st_size for path in files_of(out))
    print(f"\n{out}: {size / 1e6:.1f} MB in {config.precision}, compared with torch as shown")
    return out


def scores(
    network: Network, origin: Origin, run: Run, config: ExportConfig
) -> list[dict[str, Any]]:
    """A row with the scores of the exported file, and one with torch's.

    Raises:
        InputError: a segmenter, which has no pooled features, or data that cannot be read or has
            no labels.
        MissingExtra: a package of the probe is not installed.
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
