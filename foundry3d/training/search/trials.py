"""Trials: a candidate is taken while the study is held, then distilled rung by rung."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from optuna import Study, Trial
from optuna.trial import FrozenTrial, TrialState

from foundry3d.checkpoints.origin import Origin, origin_of
from foundry3d.config import DistillConfig, SearchConfig, StudentOptions, to_dict
from foundry3d.config.search import Limit
from foundry3d.data.clouds import Clouds
from foundry3d.data.loading import Measured
from foundry3d.errors import InputError
from foundry3d.models.backbone import Backbone
from foundry3d.models.tokenizer import PointModel
from foundry3d.training.distill import distill_on, student_of
from foundry3d.training.search.costs import counted, milliseconds
from foundry3d.training.search.space import Parameters, Space, name_of, options_of, rivals, suggest
from foundry3d.training.search.study import REDUCTION
from foundry3d.writing import held

log = logging.getLogger("foundry3d")

MOST_DRAWS = 300
"""Candidates over the limit that are drawn in a row before the search is called exhausted."""


class Setting(NamedTuple):
    """All that trials of a search share.

    Attributes:
        config: of the search.
        limit: of cost.
        space: the candidates.
        teacher: frozen, on the CPU between trials.
        train: training clouds.
        held: clouds on which candidates are compared.
        study: the shared one.
    """

    config: SearchConfig
    limit: Limit
    space: Space
    teacher: Backbone
    train: Clouds
    held: Measured
    study: Study

    @property
    def out(self) -> Path:
        """The folder of the search."""
        return Path(self.config.out)


class Taken(NamedTuple):
    """A candidate that this process distils.

    Attributes:
        trial: of the study.
        name: of the candidate, and of its folder.
        options: its student.
        rival: what pictures call it; None = it was drawn.
    """

    trial: Trial
    name: str
    options: StudentOptions
    rival: str | None


def distill_settings(
    config: SearchConfig, options: StudentOptions, *, epochs: int, out: Path
) -> DistillConfig:
    """A distillation of a candidate: all of it trains from the start; warm-up in proportion."""
    share = epochs / config.train.epochs
    warmup = round(config.train.warmup_epochs * min(1.0, share))
    return DistillConfig(
        teacher=config.teacher,
        out=str(out),
        student=options,
        frozen="none",
        resume=True,
        data=config.data,
        augment=config.augment,
        train=replace(config.train, epochs=epochs, warmup_epochs=warmup),
    )


def new_student(setting: Setting, options: StudentOptions) -> PointModel:
    """An untrained student of a candidate, in evaluation mode on the CPU."""
    epochs = setting.config.train.epochs
    config = distill_settings(setting.config, options, epochs=epochs, out=setting.out)
    student = student_of(setting.teacher.cpu(), config)
    assert isinstance(student, PointModel)
    return student.eval()


def put_in_queue(study: Study, parameters: Parameters, rival: str | None) -> None:
    """Adds a candidate that the next process to ask will get."""
    study.enqueue_trial(parameters, user_attrs={"rival": rival})


def release_dead(setting: Setting) -> None:
    """Puts the candidates of processes that have died into the queue again.

    Their trials count as failed; the new ones go on in the same folders. The study is held.
    """
    study, wanted = setting.study, rivals(setting.space)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        name, rival = trial.user_attrs.get("name"), trial.user_attrs.get("rival")
        try:
            with held(setting.out / "trials" / (name or "unnamed")):
                study.tell(trial.number, state=TrialState.FAIL)
        except BlockingIOError:
            continue  # its process is alive
        if rival is not None:
            put_in_queue(study, wanted[rival], rival)
        elif name is not None:
            put_in_queue(study, trial.params, None)
        log.info("trial %d was left unfinished and is taken up again", trial.number)


def is_counted(trial: FrozenTrial) -> bool:
    """Whether a trial is one of the `trials` that the search may draw and distil."""
    facts = trial.user_attrs
    drawn = facts.get("rival") is None and facts.get("trained", False)
    return drawn and (trial.state != TrialState.FAIL or "error" in facts)


def is_finished(trial: FrozenTrial) -> bool:
    """Whether a trial went through all rungs, or was stopped at one."""
    stopped = trial.state == TrialState.PRUNED and "fidelity" in trial.user_attrs
    return stopped or trial.state == TrialState.COMPLETE


def left_to_draw(setting: Setting) -> int:
    """How many candidates may still be drawn."""
    drawn = sum(map(is_counted, setting.study.get_trials(deepcopy=False)))
    return max(0, setting.config.trials - drawn)


@contextmanager
def taken(setting: Setting) -> Iterator[Taken | None]:
    """The next candidate within the limit, its folder held until the block ends; None = no more."""
    with ExitStack() as holding:
        with held(setting.out / "study", wait=True):
            release_dead(setting)
            found = next_within(setting, holding)
        yield found


def next_within(setting: Setting, holding: ExitStack) -> Taken | None:
    """Asks the study until a candidate is within the limit and in nobody's hands."""
    for _ in range(MOST_DRAWS):
        waiting = setting.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        if not waiting and left_to_draw(setting) == 0:
            return None
        found = ask(setting)
        if found is None:
            continue
        try:
            holding.enter_context(held(setting.out / "trials" / found.name))
        except BlockingIOError:  # drawn twice, and another process is at it
            setting.study.tell(found.trial, state=TrialState.FAIL)
            continue
        found.trial.set_user_attr("trained", True)
        return found
    log.info("no further candidate within %s was drawn", setting.limit)
    return None


def ask(setting: Setting) -> Taken | None:
    """Asks for a candidate and counts what it costs; None = over the limit or known already."""
    study, trial = setting.study, setting.study.ask()
    rival = trial.user_attrs.get("rival")
    parameters = suggest(trial, setting.space)
    name, options = name_of(parameters), options_of(setting.space, parameters)
    known = [t for t in study.get_trials(deepcopy=False) if t.user_attrs.get("name") == name]
    trial.set_user_attr("name", name)
    trial.set_user_attr("student", to_dict(options))
    student = new_student(setting, options)
    cost = counted(student)
    if setting.limit.unit == "ms" or rival is not None or cost.within(setting.limit):
        measured = [t.user_attrs["cost"].get("ms") for t in known if "cost" in t.user_attrs]
        times = [ms for ms in measured if ms is not None]
        points = setting.config.data.points
        cost = cost._replace(ms=times[0] if times else milliseconds(student, points))
    trial.set_user_attr("cost", cost._asdict())
    if not cost.within(setting.limit):
        trial.set_user_attr("over", True)
        study.tell(trial, state=TrialState.PRUNED)
        return None
    if rival is None and any(is_finished(t) for t in known):
        study.tell(trial, state=TrialState.FAIL)  # the sampler does not learn from those
        return None
    return Taken(trial, name, options, rival)


def run(setting: Setting, candidate: Taken) -> None:
    """Distils a candidate rung by rung, and reports its unexplained variance after each."""
    trial, study = candidate.trial, setting.study
    try:
        for i, epochs in enumerate(setting.config.rungs):
            found = fidelity_after(setting, candidate, epochs)
            value = float("inf") if found.unexplained is None else found.unexplained
            trial.set_user_attr("fidelity", {"epochs": epochs} | found._asdict())
            trial.report(value, REDUCTION**i)
            last = i == len(setting.config.rungs) - 1
            if trial.should_prune() and candidate.rival is None and not last:
                study.tell(trial, state=TrialState.PRUNED)
                return
        study.tell(trial, value)
    except InputError as error:
        log.warning("%s: %s", candidate.name, error)
        trial.set_user_attr("error", str(error))
        study.tell(trial, state=TrialState.FAIL)


def fidelity_after(setting: Setting, candidate: Taken, epochs: int) -> Origin:
    """The fidelity of a candidate after a short distillation, which is done unless it is there."""
    folder = setting.out / "trials" / candidate.name / f"epochs-{epochs}"
    config = distill_settings(setting.config, candidate.options, epochs=epochs, out=folder)
    if not (folder / "model" / "config.json").is_file():
        student: Any = new_student(setting, candidate.options)
        distill_on(config, setting.teacher, student, setting.train, setting.held)
    return origin_of(folder)
