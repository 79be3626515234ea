"""`foundry3d bench objects`: teacher, students and light tokenizers on a batch of clouds.

A call includes what the paper times: sampling, grouping, tokenising and encoding.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from foundry3d.bench.floor import floor_columns
from foundry3d.bench.forms import described, model_of, runner, sample_output
from foundry3d.bench.measure import differences, timed, timings
from foundry3d.bench.memory import measured
from foundry3d.bench.reference import BATCHES
from foundry3d.bench.subjects import Subject, paper_students, teacher_of
from foundry3d.config import BenchConfig
from foundry3d.errors import InputError
from foundry3d.paper.cost import TOME_SCHEDULES

log = logging.getLogger("foundry3d")

LIGHT: dict[str, dict[str, Any]] = {
    "k=16": {"group_size": 16},
    "half widths": {"point_widths": (64, 128, 256)},
    "half widths, k=16": {"point_widths": (64, 128, 256), "group_size": 16},
    "quarter widths, k=8": {"point_widths": (32, 64, 128), "group_size": 8},
    "single stage, k=16": {"point_widths": (64, 128), "group_size": 16},
}
"""Changes to a tokenizer that make it lighter."""
BUDGETS = (16, 32, 48)
"""Token budgets of Tables 6 and 14."""
RATIOS = (None, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Thresholds of Tables 6 and 14; None = the student's own."""


def forms(subject: Subject, config: BenchConfig) -> list[Subject]:
    """A subject in its training form, and compiled in every precision of the run."""
    plain = replace(subject, name=f"{subject.name}, plain")
    return [plain] + [
        replace(subject, name=f"{subject.name}, compiled", form="compiled", precision=precision)
        for precision in config.precisions
    ]


def teachers(config: BenchConfig) -> list[Subject]:
    """The teacher in its published form at several batch sizes, then in ours."""
    first = teacher_of(config)
    sizes = dict.fromkeys(min(batch, first.clouds) for batch in BATCHES)
    published = [
        replace(first, name=f"teacher, published form, batch {n}", form="published", batch=n)
        for n in sizes
    ]
    return published + forms(first, config)


def listed(config: BenchConfig) -> list[Subject]:
    """All subjects of a run, the published forms of the teacher first."""
    found = teachers(config)
    teacher = teacher_of(config)
    students = [replace(teacher, name=f"s={s}", supertokens=s) for s in config.supertokens]
    students += [replace(teacher, name=path, student=path) for path in config.students]
    if config.paper:
        students += _of_the_paper(teacher, config)
    for student in students:
        found += forms(student, config)
    if config.light and config.supertokens:
        start = replace(teacher, supertokens=config.supertokens[0])
        for name, changes in LIGHT.items():
            light = replace(start, name=f"s={start.supertokens}, {name}", **changes)
            found += forms(light, config)[1:]
    return found


def _of_the_paper(teacher: Subject, config: BenchConfig) -> list[Subject]:
    """The rows of Tables 6 and 14 that are not measured anyway."""
    if model_of(teacher).shape.groups != 64:
        raise InputError("the paper's rows are for 64 tokens; omit --paper or --model")
    found = [
        replace(teacher, name=name.replace("_", " r="), removed=removed)
        for name, removed in TOME_SCHEDULES.items()
    ]
    return found + paper_students(teacher, config.supertokens, BUDGETS, RATIOS)


def errors(subject: Subject) -> dict[str, float | None]:
    """How far the subject's output is from that of its model's training form in fp32."""
    plain = replace(subject, form="training", precision="fp32")
    return differences(sample_output(subject), sample_output(plain))


def measure(config: BenchConfig) -> list[dict[str, Any]]:
    """A row for every subject: time, ratio, cost, floor, memory, error.

    Raises:
        InputError: the model cannot be loaded, or does not fit the options.
    """
    subjects = listed(config)
    log.info("%d forms of %d x %d points", len(subjects), *config.sizes[:2])
    times = timed({subject: runner(subject) for subject in subjects}, config)
    baseline = min(times[subject].median for subject in subjects if subject.form == "published")
    rows = []
    for i, subject in enumerate(subjects):
        if config.measures_memory and i % 5 == 0:
            log.info("floor, memory and error, form %d of %d", i + 1, len(subjects))
        best = subject.form == "published" and times[subject].median == baseline
        rows.append(
            {"bench": "objects", "baseline": best}
            | described(subject)
            | timings(times[subject], baseline=baseline, clouds=subject.clouds)
            | floor_columns(subject, times[subject])
            | measured(subject, config)
            | errors(subject)
        )
    return rows
