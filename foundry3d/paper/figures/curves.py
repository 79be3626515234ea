"""Figure 4: loss and accuracy by epoch, e.g. of students distilled by MSE and by Smooth L1."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from foundry3d.paper.figures.page import page
from foundry3d.paper.figures.panels import Curve, draw_curves, legend_of
from foundry3d.paper.figures.run_metrics import by_epoch, read_metrics, runs_behind
from foundry3d.paper.figures.study import Study, Subject

log = logging.getLogger("foundry3d")
SCORES = {
    "validation_oa": "validation accuracy (%)",
    "validation_miou_i": "validation mIoU over shapes (%)",
}
"""Scores of fine-tuning by key; a panel for each that a run has."""
LOSSES = {"smooth_l1": "Smooth L1", "mse": "MSE"}


def curves_of(subjects: Sequence[Subject]) -> tuple[dict[str, list[Curve]], dict[str, str]]:
    """Curves of each panel by the name of its y axis, and the loss each model was distilled by.

    The loss comes from the model's own run of distillation, or from that of the student which it
    was fine-tuned from.

    Raises:
        InputError: settings of a run are damaged.
    """
    panels: dict[str, list[Curve]] = {}
    losses: dict[str, str] = {}
    for subject in subjects:
        runs = runs_behind(subject.folder)
        for run, settings in runs:
            rows = read_metrics(run)
            wanted = {axis: (key, True) for key, axis in SCORES.items()}
            if "teacher" in settings and "loss" in settings:
                losses[subject.name] = LOSSES.get(str(settings["loss"]), str(settings["loss"]))
                wanted["distillation loss (training)"] = ("loss", False)
            for axis, (key, after) in wanted.items():
                epochs, values = by_epoch(rows, key, after=after)
                if len(epochs):
                    panels.setdefault(axis, []).append(Curve(subject.name, epochs, values))
        if not any(subject.name == c.name for curves in panels.values() for c in curves):
            log.info(
                "curves: %s has no run of distillation or fine-tuning and is left out", subject.name
            )
    return panels, losses


def draw_training(study: Study) -> bool:
    """Draws `curves`, if a model has a run with metrics."""
    panels, losses = curves_of(study.subjects)
    if not panels:
        return False
    shown = {curve.name for curves in panels.values() for curve in curves}
    subjects = [subject for subject in study.subjects if subject.name in shown]
    names = [subject.name for subject in subjects]
    order = sorted(panels, key=lambda axis: "loss" not in axis)
    said = "; ".join(f"{name}: {loss}" for name, loss in losses.items())
    caption = (
        "Mean training loss of each epoch of distillation, and scores of fine-tuning on clouds "
        "held out of training, by epoch."
        + (f" Each curve shows its run's own loss, {said}." if said else "")
        + f" {study.protocol(subjects, '')}"
    )
    with page(study.out, "curves", (max(3.6, 3.1 * len(panels)), 2.6), caption) as figure:
        for i, axis in enumerate(order):
            axes = figure.add_subplot(1, len(order), i + 1)
            draw_curves(axes, panels[axis], names, axis, log="loss" in axis)
        legend_of(figure, names)
    return True
