"""Figures 9 to 11: token features as colours of the points, a column for each model.

Shapes: M models, B objects, N points, c tokens, d width.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch

from foundry3d.models.upsample import interpolate
from foundry3d.paper.figures.objects import Cell, draw_objects, grid_size
from foundry3d.paper.figures.page import page
from foundry3d.paper.figures.projection import colours, upright
from foundry3d.paper.figures.study import Study, Subject

log = logging.getLogger("foundry3d")
BASES = {
    "shared": "one basis for all models and objects, so equal colours mean equal features",
    "object": "one basis for each object, the same for all models",
    "own": "a separate basis for each object and model, so colours cannot be compared",
}


def coloured(features: Sequence[np.ndarray], basis: str) -> list[np.ndarray]:
    """RGB (B, c, 3) of the features (B, c, d) of each model; c may differ between models.

    Args:
        features: of each model, of equal d unless the basis is own.
        basis: shared, object or own; see `BASES`.
    """
    if basis == "own":
        return [np.stack([colours(cloud) for cloud in found]) for found in features]
    ends = np.cumsum([found.shape[1] for found in features])[:-1]
    joined = np.concatenate(features, axis=1)
    made = colours(joined) if basis == "shared" else np.stack([colours(o) for o in joined])
    return np.split(made, ends, axis=1)


def of_one_width(study: Study) -> list[Subject]:
    """The models whose features are as wide as the first one's, where they share a basis."""
    subjects = list(study.subjects)
    widths = [s.model.output_dim for s in subjects if s.model is not None]
    if study.config.basis == "own":
        return subjects
    for subject, width in zip(subjects, widths, strict=True):
        if width != widths[0]:
            log.info(
                "pca: %s is left out, its features are %d wide and those of %s %d; --basis own "
                "shows both", subject.name, width, subjects[0].name, widths[0],
            )  # fmt: skip
    return [s for s, width in zip(subjects, widths, strict=True) if width == widths[0]]


def draw_features(study: Study) -> bool:
    """Draws `pca`."""
    subjects, objects, config = of_one_width(study), study.objects(), study.config
    outputs = [study.tokens(subject, objects) for subject in subjects]
    made = coloured([o.features.float().numpy() for o in outputs], config.basis)
    points = upright(objects.points.numpy(), config.up)
    columns = [
        interpolate(objects.points, output.centers, torch.from_numpy(tokens).float())
        .clamp(0, 1)
        .numpy()
        for output, tokens in zip(outputs, made, strict=True)
    ]
    cells = [[Cell(cloud, column[i]) for column in columns] for i, cloud in enumerate(points)]
    caption = (
        "Token features of frozen models, interpolated to the points and coloured by their first "
        f"three principal components; {BASES[config.basis]}. "
        + study.protocol(subjects, f"{len(points)} clouds")
    )
    names = [subject.name for subject in subjects]
    size = grid_size(len(cells), len(columns))
    with page(study.out, "pca", size, caption) as figure:
        draw_objects(figure, cells, rows=objects.names, columns=names)
    return True
