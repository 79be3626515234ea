"""Figures 14 and 15: tokens and supertokens by t-SNE, before and after W_K and W_Q.

Shapes: B objects, c tokens, s supertokens, n tokens of all objects, d width.
"""

from __future__ import annotations

import logging
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from torch import Tensor

from foundry3d.models.health import noiseless, tokens_read
from foundry3d.models.student import Student
from foundry3d.models.supertokens import DSO
from foundry3d.paper.figures.objects import colours_of, legend_lines, supertoken_legend
from foundry3d.paper.figures.page import page
from foundry3d.paper.figures.panels import bare
from foundry3d.paper.figures.projection import tsne
from foundry3d.paper.figures.study import Objects, Study

log = logging.getLogger("foundry3d")
LEAST = 5
"""Tokens that t-SNE needs."""


class Spaces(NamedTuple):
    """Tokens that a DSO reads, and its supertokens, in the two spaces.

    Attributes:
        tokens: (n, d) layer-normed.
        supertokens: (s, d).
        keys: (n, d) the tokens after W_K.
        queries: (s, d) the supertokens after W_Q.
        chosen: (n,) int64, the supertoken with the largest similarity to each token.
    """

    tokens: np.ndarray
    supertokens: np.ndarray
    keys: np.ndarray
    queries: np.ndarray
    chosen: np.ndarray


def spaces_of(dso: DSO, normed: Tensor) -> Spaces:
    """Both spaces of layer-normed tokens (n, d).

    With several assignment heads, the choice is that of the first.
    """
    with torch.no_grad():
        parts = (
            normed,
            dso.supertokens,
            dso.key(normed),
            dso.query(dso.supertokens),
            noiseless(dso, normed.unsqueeze(0)).squeeze(0),
        )
    return Spaces(*(part.detach().numpy() for part in parts))


def read_tokens(student: Student, objects: Objects) -> Tensor:
    """The layer-normed tokens (n, d) that a student's DSO reads of objects, one after the other.

    With a gate these are the tokens that are merged, which may be fewer than c of each.
    """
    with torch.no_grad(), tokens_read(student.dso) as read:
        for cloud in objects.points:
            student(cloud.unsqueeze(0))
    return torch.cat([normed.flatten(0, 1) for normed in read])


def draw_space(axes: Axes, places: np.ndarray, chosen: np.ndarray, supertokens: int) -> None:
    """Tokens as dots, supertokens as stars, a line from each token to the one it chose.

    Args:
        axes: empty.
        places: (n + s, 2), tokens first.
        chosen: (n,) supertoken of each token.
        supertokens: s.
    """
    tokens, own = places[: len(chosen)], places[len(chosen) :]
    shades = colours_of(np.arange(supertokens), supertokens)
    lines = np.stack([tokens, own[chosen]], axis=1)
    axes.add_collection(
        LineCollection(list(lines), colors=shades[chosen], linewidths=0.3, alpha=0.3, zorder=1)
    )
    axes.scatter(tokens[:, 0], tokens[:, 1], s=5, c=shades[chosen], linewidths=0, zorder=2)
    used = np.isin(np.arange(supertokens), chosen)
    for members, alpha in ((~used, 0.35), (used, 1.0)):
        x, y = own[members].T
        axes.scatter(
            x, y, s=70, marker="*", c=shades[members], alpha=alpha, edgecolors="black",
            linewidths=0.5, zorder=3,
        )  # fmt: skip
    axes.autoscale_view()
    bare(axes)


def draw_projections(study: Study) -> bool:
    """Draws `projections-NAME` for each student whose supertokens are learned."""
    subjects = list(study.with_supertokens("projections", learned=True))
    objects = study.objects() if subjects else None
    drawn = False
    for subject in subjects:
        assert isinstance(subject.model, Student)
        assert objects is not None
        read = read_tokens(subject.model, objects)
        if len(read) < LEAST:
            log.info("projections: %s merges no tokens here and is left out", subject.name)
            continue
        found, config = spaces_of(subject.model.dso, read), study.config
        both = {
            "before projection": (found.tokens, found.supertokens),
            r"after $W_K$ and $W_Q$": (found.keys, found.queries),
        }
        used = [int(number) for number in np.unique(found.chosen)]
        caption = (
            f"t-SNE of the tokens (dots) and supertokens (stars) of {subject.name}, before and "
            "after W_K (tokens) and W_Q (supertokens). A token has the colour of the supertoken "
            "that it chooses, to which a line leads; pale stars are chosen by no token shown. "
            f"{len(read)} tokens of {', '.join(objects.names)}; perplexity {config.perplexity:g}. "
            + study.protocol([subject], f"{len(objects.names)} clouds")
        )
        size = (6.2, 3.2 + 0.17 * legend_lines(len(used), 6.2))
        with page(study.out, f"projections-{subject.file_name}", size, caption) as figure:
            for i, (title, parts) in enumerate(both.items()):
                axes = figure.add_subplot(1, 2, i + 1)
                places = tsne(np.concatenate(parts), perplexity=config.perplexity, seed=config.seed)
                draw_space(axes, places, found.chosen, subject.supertokens)
                axes.set_title(title)
            supertoken_legend(figure, used, subject.supertokens)
        drawn = True
    return drawn
