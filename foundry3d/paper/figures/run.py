"""The command `foundry3d figures`: reads models and clouds once, then draws each figure."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from foundry3d.config import FiguresConfig
from foundry3d.data.clouds import Clouds
from foundry3d.data.loading import load_part
from foundry3d.errors import InputError
from foundry3d.inference.allocator import retain_memory
from foundry3d.paper.figures.curves import draw_training
from foundry3d.paper.figures.embeddings import draw_embeddings
from foundry3d.paper.figures.features import draw_features
from foundry3d.paper.figures.health import draw_health
from foundry3d.paper.figures.maps import draw_assignment, draw_supertokens
from foundry3d.paper.figures.projections import draw_projections
from foundry3d.paper.figures.study import Study, read_subjects

log = logging.getLogger("foundry3d")

DRAW: dict[str, Callable[[Study], bool]] = {
    "tsne": draw_embeddings,
    "pca": draw_features,
    "assignment": draw_assignment,
    "supertokens3d": draw_supertokens,
    "projections": draw_projections,
    "curves": draw_training,
    "health": draw_health,
}
"""What draws each figure of `config.FIGURES`; it returns False where no model has what it shows."""


def clouds_of(config: FiguresConfig) -> Clouds:
    """The clouds that the configuration names.

    Raises:
        InputError: they cannot be read, or have too few points.
    """
    return load_part(
        config.data,
        points=config.points,
        clouds=config.clouds,
        seed=config.seed,
        train=config.split == "train",
    )


def draw_figures(config: FiguresConfig) -> list[str]:
    """Draws figures into `config.out`, each as soon as it is complete.

    Returns:
        The names of the figures that were drawn.

    Raises:
        InputError: models or data cannot be read, or no model has what any of the figures shows.
    """
    retain_memory()
    only_runs = set(config.which) == {"curves"}
    subjects = read_subjects(config.models, models=not only_runs)
    clouds = None if only_runs else clouds_of(config)
    study = Study(config=config, subjects=subjects, clouds=clouds)
    drawn = []
    for name in dict.fromkeys(config.which):
        if DRAW[name](study):
            drawn.append(name)
            log.info("%s: drawn", name)
        else:
            log.info("%s: not drawn, no model has what it shows", name)
    if not drawn:
        raise InputError(f"nothing to draw: no model has what {', '.join(config.which)} show")
    print(f"pictures and captions: {Path(config.out)}")
    return drawn
