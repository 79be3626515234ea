"""Figures 12 and 13: which token goes to which supertoken, as maps and as colours of the points.

Shapes: B objects, N points, c tokens, s supertokens.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from foundry3d.geometry import gather, greedy_order, nearest_neighbors
from foundry3d.models.backbone import Tokens
from foundry3d.models.health import used_per_cloud
from foundry3d.paper.figures.objects import (
    CELL,
    Cell,
    colours_of,
    draw_cloud,
    draw_objects,
    grid_size,
    legend_lines,
    supertoken_legend,
)
from foundry3d.paper.figures.page import page
from foundry3d.paper.figures.projection import upright
from foundry3d.paper.figures.study import Objects, Study, Subject

INK = np.array([0.0, 0.2, 0.4])


def ordered_assignment(output: Tokens) -> np.ndarray:
    """The assignment (B, c) with tokens that are near each other next to each other."""
    assert output.assignment is not None
    order = greedy_order(output.centers)
    return gather(output.assignment.unsqueeze(-1), order).squeeze(-1).numpy()


def map_image(assignment: np.ndarray, supertokens: int) -> np.ndarray:
    """The map (c, s) of one object: 1 where a token (c,) goes to a supertoken; rows of -1 are 0."""
    return (assignment[:, None] == np.arange(supertokens)).astype(float)


def draw_map(axes: Axes, image: np.ndarray, note: str) -> None:
    """One map, tokens downwards and supertokens to the right."""
    rgb = 1 - image[..., None] * (1 - INK)
    axes.imshow(rgb, aspect="auto", interpolation="nearest")
    s = image.shape[1]
    for edge in range(1, s):
        axes.axvline(edge - 0.5, color="0.88", linewidth=0.3)
    ends = sorted({0, s - 1})
    axes.set_xticks(ends, [str(end + 1) for end in ends])
    axes.set_yticks([])
    axes.tick_params(length=2, pad=1)
    axes.spines[["top", "right"]].set_visible(True)
    axes.set_xlabel(note, fontsize=7, labelpad=1)


def note_of(output: Tokens, subject: Subject, which: int) -> str:
    """How many supertokens an object uses, and how many tokens a gate leaves unmerged."""
    assert output.assignment is not None
    chosen = output.assignment[which : which + 1]
    used = int(used_per_cloud(chosen, subject.supertokens))
    kept = int((chosen < 0).sum())
    return f"{used} of {subject.supertokens} used" + (f", {kept} not merged" if kept else "")


def draw_assignment(study: Study) -> bool:
    """Draws `assignment`, if a model assigns tokens."""
    subjects = list(study.with_supertokens("assignment"))
    if not subjects:
        return False
    objects = study.objects()
    outputs = [study.tokens(subject, objects) for subject in subjects]
    orders = [ordered_assignment(output) for output in outputs]
    points = upright(objects.points.numpy(), study.config.up)
    caption = (
        "Assignment maps: a row is a token, a column a supertoken, dark where the token goes to "
        "the supertoken. Tokens are ordered so that neighbours in space are neighbours in the map. "
        "Below each map: how many supertokens the object uses. "
        + study.protocol(subjects, f"{len(points)} clouds")
    )
    rows, columns = len(points), len(subjects) + 1
    size = (CELL * columns + 0.3, 1.45 * rows + 0.25)
    with page(study.out, "assignment", size, caption) as figure:
        for i, cloud in enumerate(points):
            axes = figure.add_subplot(rows, columns, i * columns + 1)
            grey = np.repeat(0.25 + 0.5 * height_of(cloud)[:, None], 3, axis=1)
            draw_cloud(axes, Cell(cloud, grey))
            axes.set_ylabel(objects.names[i])
            for j, (subject, output) in enumerate(zip(subjects, outputs, strict=True)):
                axes = figure.add_subplot(rows, columns, i * columns + j + 2)
                image = map_image(orders[j][i], subject.supertokens)
                draw_map(axes, image, note_of(output, subject, i))
                if i == 0:
                    axes.set_title(subject.name)
                if j == 0:
                    axes.set_ylabel(f"{image.shape[0]} tokens", fontsize=7, labelpad=2)
    return True


def height_of(points: np.ndarray) -> np.ndarray:
    """Height (N,) in [0, 1] of points (N, 3)."""
    z = points[:, 2]
    return (z - z.min()) / max(np.ptp(z), 1e-12)


def supertoken_of_points(objects: Objects, output: Tokens) -> np.ndarray:
    """(B, N) the supertoken of the token whose center is nearest to each point; -1 = not merged."""
    assert output.assignment is not None
    nearest = nearest_neighbors(objects.points, output.centers, 1)
    return gather(output.assignment.unsqueeze(-1), nearest.squeeze(-1)).squeeze(-1).numpy()


def draw_supertokens(study: Study) -> bool:
    """Draws `supertokens3d-NAME` for each model that assigns tokens."""
    subjects = list(study.with_supertokens("supertokens3d"))
    if not subjects:
        return False
    examples = study.config.examples
    objects = study.objects(examples)
    points = upright(objects.points.numpy(), study.config.up)
    for subject in subjects:
        output = study.tokens(subject, objects)
        of_points = supertoken_of_points(objects, output)
        colours = colours_of(of_points, subject.supertokens)
        count = -(-len(points) // examples)
        cells = [
            [
                Cell(points[k], colours[k], note_of(output, subject, k))
                for k in range(j, len(points), examples)
            ]
            for j in range(min(examples, len(points)))
        ]
        used = [int(number) for number in np.unique(of_points)]
        width, _ = grid_size(examples, count)
        size = grid_size(examples, count, legend=legend_lines(len(used), width))
        caption = (
            f"Supertokens of {subject.name} on objects of {count} categories, {examples} of each: "
            "a point has the colour of the supertoken to which the token nearest to it goes, and a "
            "supertoken has one colour throughout. "
            + study.protocol([subject], f"{len(points)} clouds")
        )
        headings = objects.names[::examples] if study.all_clouds.class_names else ()
        with page(study.out, f"supertokens3d-{subject.file_name}", size, caption) as figure:
            draw_objects(figure, cells, columns=headings)
            supertoken_legend(figure, used, subject.supertokens)
    return True
