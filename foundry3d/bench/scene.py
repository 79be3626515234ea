"""`foundry3d bench scene`: one large cloud, its geometry alone and the whole pass of students.

The baseline is a student in its plain form on plain torch geometry, with groups taken in chunks
because all of them at once need gigabytes. A teacher's attention over all tokens is refused, with
the memory that it would need; the teacher runs in windows.

Shapes: N points, c tokens.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from foundry3d.bench.floor import floor_columns
from foundry3d.bench.forms import described, model_of
from foundry3d.bench.measure import columns, differences, timed, timings
from foundry3d.bench.memory import measured
from foundry3d.bench.scene_forms import runner
from foundry3d.bench.subjects import Subject, paper_students, scene_points, teacher_of
from foundry3d.config import BenchConfig
from foundry3d.errors import InputError
from foundry3d.models.backbone import Tokens
from foundry3d.scenes.memory import require_attention, scene_memory
from foundry3d.scenes.scene import encode_scene, group_scene

log = logging.getLogger("foundry3d")

COLUMNS = columns(
    *("name", "precision", "median_s", "iqr_s", "repeats", "ratio", "gmacs", "floor_percent"),
    *("peak_mb", "working_mb", "stated_mb", "error", "agreement"),
)
BUDGETS = (16, 32, 64, 128, 256, 512, 1024)
"""Token budgets of Table 7."""


def listed(config: BenchConfig) -> list[Subject]:
    """All subjects of a run, the plain form first.

    Raises:
        InputError: no supertokens.
    """
    if not config.supertokens:
        raise InputError("scenes are measured with students; set --supertokens")
    points = config.sizes.scene_points
    teacher = teacher_of(
        config,
        name="teacher, windows",
        form="windows",
        clouds=1,
        batch=1,
        points=points,
        groups=points // config.points_per_token,
    )
    first = config.supertokens[0]
    start = replace(teacher, form="streamed", supertokens=first)
    found = [
        replace(start, name=f"s={first}, plain form, plain geometry", form="plain scene"),
        replace(start, name="geometry alone", form="geometry"),
    ]
    students = [replace(start, name=f"s={s}", supertokens=s) for s in config.supertokens]
    if config.paper:
        students += paper_students(start, config.supertokens, BUDGETS)
    for precision in config.precisions:
        found += [replace(student, precision=precision) for student in students]
    precision = config.precisions[-1]
    dense = replace(start, name=f"s={first}, features of every point", form="dense")
    return [*found, *(replace(one, precision=precision) for one in (dense, teacher))]


def stated(subject: Subject) -> float | None:
    """The memory in MB that `embed` announces for such a scene; None for geometry alone."""
    model, windows = model_of(subject), subject.form == "windows"
    if subject.form == "geometry":
        return None
    need = scene_memory(
        model.shape,
        points=subject.points,
        tokens=model.shape.groups,
        supertokens=subject.supertokens,
        encoded=subject.token_budget,
        window=model_of(replace(subject, groups=None)).shape.groups if windows else None,
        output_dim=model.output_dim,
    )
    return need.peak / 1e6


def measure(config: BenchConfig) -> list[dict[str, Any]]:
    """A row for every subject; prints why the teacher is not run without windows.

    Raises:
        InputError: the model cannot be loaded, or does not fit the options.
    """
    subjects = listed(config)
    count = subjects[0].groups
    assert count is not None
    log.info("scene of %d points, %d tokens, %d forms", subjects[0].points, count, len(subjects))
    runner(replace(subjects[1], points=2**15, groups=2**11))()  # compiles the kernels
    calls = {subject: runner(subject) for subject in subjects}
    times = timed(calls, config, share=0.25)
    wanted: dict[Subject, Tokens] = {}
    rows = []
    for i, subject in enumerate(subjects):
        if config.measures_memory and i % 5 == 0:
            log.info("floor, memory and error, form %d of %d", i + 1, len(subjects))
        found = calls[subject]() if subject.form == "streamed" else None
        errors: dict[str, float | None] = {"error": None, "agreement": None}
        if found is not None:
            key = replace(subject, name="", precision="fp32", form="training")
            if key not in wanted:
                model = model_of(key)
                points = scene_points(subject.points, subject.seed, subject.device)
                scene = group_scene(model, points, points_per_token=config.points_per_token)
                wanted[key] = encode_scene(model, scene, budget=subject.budget)
            errors = differences(found, wanted[key])
        first = times[subjects[0]].median
        row = described(subject) | timings(times[subject], baseline=first, clouds=1)
        row |= {"bench": "scene", "baseline": i == 0} | errors
        row |= {"stated_mb": stated(subject)} | measured(subject, config)
        if subject.form in ("streamed", "plain scene") and subject.token_budget is None:
            row |= floor_columns(subject, times[subject])
        rows.append(row | ({"gmacs": None} if subject.form == "geometry" else {}))
    whole = model_of(replace(subjects[-1], supertokens=None))
    try:
        require_attention(whole.shape, count)
    except InputError as error:
        print(f"The teacher without windows: {error}.\n")
    return rows
