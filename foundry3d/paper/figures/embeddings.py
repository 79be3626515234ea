"""Figure 8: t-SNE of pooled outputs, a panel for each model, coloured by class."""

from __future__ import annotations

import numpy as np
from sklearn.preprocessing import StandardScaler

from foundry3d.errors import InputError
from foundry3d.paper.figures.page import page
from foundry3d.paper.figures.panels import draw_classes, grid_shape, legend_shape
from foundry3d.paper.figures.projection import agreement, tsne
from foundry3d.paper.figures.study import Study

LEAST = 5
"""Clouds that t-SNE needs."""


def pooled_panels(study: Study) -> list[tuple[str, np.ndarray]]:
    """Title and coordinates (n, 2) of each model; the title says how pure neighbourhoods are.

    Raises:
        InputError: there are fewer than `LEAST` clouds.
    """
    clouds, config = study.many, study.config
    if len(clouds) < LEAST:
        raise InputError(f"{clouds.name}: t-SNE needs at least {LEAST} clouds, got {len(clouds)}")
    labelled = clouds.labels >= 0
    panels = []
    for subject in study.subjects:
        pooled = StandardScaler().fit_transform(study.encoded(subject).pooled)
        title = subject.name
        if labelled.sum() > 1:
            pure = 100 * agreement(pooled[labelled], clouds.labels[labelled])
            title += f" ({pure:.0f} %)"
        panels.append((title, tsne(pooled, perplexity=config.perplexity, seed=config.seed)))
    return panels


def draw_embeddings(study: Study) -> bool:
    """Draws `tsne`."""
    panels, clouds = pooled_panels(study), study.many
    rows, columns = grid_shape(len(panels))
    caption = (
        "t-SNE of pooled outputs (maximum and mean over the token features, each standardised) of "
        "frozen models; each mark is a cloud, its colour and shape the class. In brackets: the "
        "share of the 10 nearest neighbours, in the space of these outputs, that are of the same "
        "class. Perplexity "
        f"{study.config.perplexity:g}, started from PCA. "
        + study.protocol(study.subjects, f"{len(clouds)} clouds")
    )
    shown = [clouds.class_names[label] for label in np.unique(clouds.labels) if label >= 0]
    side = max(1.9, 3.4 / columns)
    _, lines = legend_shape(shown, side * columns)
    size = (side * columns, (side + 0.15) * rows + 0.16 * lines)
    with page(study.out, "tsne", size, caption) as figure:
        draw_classes(figure, panels, clouds.labels, clouds.class_names)
    return True
