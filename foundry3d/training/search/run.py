"""`foundry3d search`: the student that reproduces a teacher best within a limit of cost."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from foundry3d.checkpoints.folder import load, read_config, save
from foundry3d.checkpoints.origin import Origin, origin_of
from foundry3d.config import SearchConfig, StudentOptions, from_dict, require_data, to_dict
from foundry3d.config.search import limit_of
from foundry3d.data.clouds import Clouds
from foundry3d.data.loading import load_and_measured
from foundry3d.errors import InputError
from foundry3d.inference.allocator import retain_memory
from foundry3d.models.backbone import Backbone, require_teacher
from foundry3d.training.distill import distill_on
from foundry3d.training.search.costs import counted, full_cost, require_possible
from foundry3d.training.search.outcome import (
    Row,
    best,
    command_of,
    draw,
    epoch_words,
    rows_of,
    shown,
)
from foundry3d.training.search.space import name_of, options_of, rivals, smallest, space_of
from foundry3d.training.search.study import open_study
from foundry3d.training.search.trials import (
    Setting,
    distill_settings,
    left_to_draw,
    new_student,
    put_in_queue,
    run,
    taken,
)
from foundry3d.writing import held, write_text

log = logging.getLogger("foundry3d")

WAIT = 2.0
"""Seconds between looks at the candidates of other processes."""
FREE = ("trials", "out")
"""Options that processes of the same search may have differently."""


def prepared(config: SearchConfig) -> Setting:
    """Reads teacher and clouds, and opens the study, with the rivals in its queue if it is new.

    Raises:
        InputError: unusable limit, teacher or data, or a search with other settings in the folder.
    """
    if not config.limit:
        raise InputError("name the most that the student may cost: --limit 5ms, 0.3gmacs or 2mb")
    require_data(config.data)
    teacher = require_teacher(load(config.teacher))
    if not isinstance(teacher, Backbone):
        raise InputError(f"{config.teacher}: expected a Backbone, got a {type(teacher).__name__}")
    train, found = load_and_measured(config.data, seed=config.train.seed)
    if not isinstance(train, Clouds) or found is None or found.part != "held-out clouds":
        raise InputError(
            "candidates are compared on clouds held out of training, and none were; name an "
            "archive or folder of more clouds, or raise data.validation"
        )
    space, limit = space_of(teacher.config), limit_of(config.limit)
    settings = {k: v for k, v in to_dict(config).items() if k not in FREE}
    with held(Path(config.out) / "study", wait=True):
        study = open_study(Path(config.out) / "study.log", seed=config.seed, settings=settings)
        setting = Setting(config, limit, space, teacher, train, found, study)
        require_reachable(setting)
        if not study.get_trials(deepcopy=False):
            for title, parameters in rivals(space).items():
                put_in_queue(study, parameters, title)
    return setting


def require_reachable(setting: Setting) -> None:
    """Refuses a limit that the cheapest candidate exceeds.

    Raises:
        InputError: it does.
    """
    space, points = setting.space, setting.config.data.points
    timed = setting.limit.unit == "ms"
    models = {
        name_of(parameters): new_student(setting, options_of(space, parameters))
        for parameters in smallest(space)
    }
    if timed:  # the one with the fewest operations stands for all
        name = min(models, key=lambda name: counted(models[name]).gmacs)
        models = {name: models[name]}
    require_possible(
        setting.limit, models, lambda model: full_cost(model, points) if timed else counted(model)
    )


def try_candidates(setting: Setting) -> None:
    """Takes and distils candidates until none is left, here or in another process."""
    began, done = time.monotonic(), 0
    while True:
        with taken(setting) as candidate:
            if candidate is not None:
                log.info("trial %d: %s", candidate.trial.number, candidate.name)
                run(setting, candidate)
        if candidate is None:
            if not setting.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                return
            time.sleep(WAIT)
            continue
        done += 1
        report_progress(setting, candidate.trial.number, (time.monotonic() - began) / done)


def report_progress(setting: Setting, number: int, seconds: float) -> None:
    """One line: what a trial found, and how long the rest takes at this many seconds for each."""
    trials = setting.study.get_trials(deepcopy=False)
    facts = trials[number].user_attrs
    waiting = sum(trial.state == TrialState.WAITING for trial in trials)
    left = left_to_draw(setting) + waiting
    cost, share = facts["cost"], facts.get("fidelity", {}).get("unexplained")
    others = sum(trial.state == TrialState.RUNNING for trial in trials)
    minutes, rest = divmod(round(left * seconds / (1 + others)), 60)
    log.info(
        "%s: %s unexplained, %.3g GMACs, %s ms; %d trials left, about %d:%02d",
        facts["name"],
        "nothing known" if share is None else f"{100 * share:.1f} %",
        cost["gmacs"],
        "-" if cost["ms"] is None else f"{cost['ms']:.3g}",
        left,
        minutes,
        rest,
    )


def write_outcome(setting: Setting, rows: list[Row]) -> None:
    """Writes `rows.jsonl`, `search.md` and the pictures, and prints the table."""
    out, epochs = setting.out, setting.config.rungs[-1]
    over = [t for t in setting.study.get_trials(deepcopy=False) if t.user_attrs.get("over")]
    teacher = full_cost(setting.teacher.cpu(), setting.config.data.points)
    text = (
        f"Students within {setting.limit}, compared after {epoch_words(epochs)} on "
        f"{len(setting.held.clouds)} held-out clouds of {setting.held.clouds.name}; * = no other "
        f"one is both as cheap and as good. The teacher costs {teacher.gmacs:.3g} GMACs, "
        f"{teacher.ms:.3g} ms and {teacher.mb:.3g} MB. {len(over)} candidates over the limit were "
        f"not trained.\n\n{shown(rows)}"
    )
    write_text(out / "rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    write_text(out / "search.md", text + "\n")
    draw(out, rows, epochs=epochs)
    print(text)


def distilled_in_full(setting: Setting, chosen: Row) -> Origin:
    """Distils the chosen student with the full schedule and saves it as `<out>/model`."""
    config, values = setting.config, dict(chosen["student"])
    options = from_dict(StudentOptions, values)
    folder = setting.out / "full" / chosen["name"]
    run_config = distill_settings(config, options, epochs=config.train.epochs, out=folder)
    if not (folder / "model" / "config.json").is_file():
        log.info("distilling %s for %d epochs", chosen["name"], config.train.epochs)
        student: Any = new_student(setting, options)
        distill_on(run_config, setting.teacher, student, setting.train, setting.held)
    facts = read_config(folder)["provenance"]
    save(load(folder), setting.out / "model", provenance=facts)
    command = command_of(run_config, str(setting.out / "again"))
    write_text(setting.out / "command.txt", command + "\n")
    found = origin_of(setting.out)
    print(
        f"\n{chosen['name']} is in {setting.out}/model: {100 * (found.unexplained or 0):.1f} % "
        f"unexplained, cosine {found.cosine:.3f}, after {epoch_words(config.train.epochs)} "
        f"({found.fidelity_on}). The command that repeats its distillation:\n\n{command}"
    )
    return found


def search(config: SearchConfig) -> list[Row]:
    """Searches, prints the table, draws pictures, and distils the best student in full.

    Args:
        config: of the search.

    Returns:
        A row for each candidate.

    Raises:
        InputError: unusable options, teacher or data, a limit that no student keeps, or no
            candidate that could be trained.
    """
    retain_memory()
    setting = prepared(config)
    try_candidates(setting)
    rows = rows_of(setting.study.get_trials(deepcopy=False), setting.limit)
    chosen = best(rows)
    if chosen is None:
        raise InputError(
            f"none of {len(rows)} candidates was trained within {setting.limit}; raise --trials "
            "or --limit"
        )
    try:
        with held(setting.out / "full"):
            write_outcome(setting, rows)
            distilled_in_full(setting, chosen)
    except BlockingIOError:
        log.info("another process distils the chosen student in %s/full", setting.out)
    return rows
