"""The study file: trials that several processes and machines add to, safe against kill -9.

Every line of the journal is one change. A process that is killed leaves at most half a line, which
the next one to write removes, and a trial that is still called running; whoever holds the study
next sees that nobody holds that trial's folder and puts its candidate into the queue again.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import Study
from optuna.trial import FrozenTrial

from foundry3d.errors import InputError

REDUCTION = 3
"""One of so many candidates goes on to the next rung."""
STARTUP = 10
"""Trials before the sampler learns from them."""


class RepairingLock(JournalFileOpenLock):
    """Optuna's lock; whoever takes it removes half a line that a killed process has left."""

    def __init__(self, journal: Path) -> None:
        super().__init__(str(journal))
        self._journal = journal

    def acquire(self) -> bool:
        """Waits for the lock and repairs the journal."""
        taken = super().acquire()
        cut_half_line(self._journal)
        return taken


def cut_half_line(path: Path) -> None:
    """Removes an incomplete last line of a file."""
    with open(path, "rb+") as file:
        file.seek(0, os.SEEK_END)
        size = end = file.tell()
        while end > 0:
            start = max(0, end - 4096)
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            end = start + found + 1 if found >= 0 else start
            if found >= 0:
                break
        if end < size:
            file.truncate(end)


class NumberedSampler(BaseSampler):
    """TPE whose draws depend on the seed, the trial's number and the trials before it alone.

    Processes that share a study therefore never draw the same, and one process draws the same
    again.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._number = -1
        self._inner = TPESampler()

    def _of(self, trial: FrozenTrial) -> TPESampler:
        if trial.number != self._number:
            words = np.random.SeedSequence([self._seed, trial.number]).generate_state(1)
            self._number = trial.number
            self._inner = TPESampler(seed=int(words[0]), n_startup_trials=STARTUP)
        return self._inner

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """As TPE does."""
        return self._of(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """As TPE does."""
        return self._of(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """As TPE does."""
        return self._of(trial).sample_independent(study, trial, param_name, param_distribution)


def open_study(journal: Path, *, seed: int, settings: dict[str, Any]) -> Study:
    """The study in a journal, which is made where it is missing.

    Args:
        journal: file; only one process may open a new one at a time.
        seed: of the sampler.
        settings: of the search, to hold against those of an earlier process.

    Raises:
        InputError: the journal is damaged, or belongs to a search with other settings.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal.parent.mkdir(parents=True, exist_ok=True)
    journal.touch()
    try:
        backend = JournalFileBackend(str(journal), lock_obj=RepairingLock(journal))
        study = optuna.create_study(
            storage=JournalStorage(backend),
            study_name="search",
            load_if_exists=True,
            direction="minimize",
            sampler=NumberedSampler(seed),
            pruner=SuccessiveHalvingPruner(min_resource=1, reduction_factor=REDUCTION),
        )
        known = study.user_attrs.get("settings")
    except (ValueError, KeyError, AssertionError) as error:
        raise InputError(
            f"{journal} is damaged ({type(error).__name__}: {error}); restore it, or choose "
            "another --out"
        ) from None
    if known is None:
        study.set_user_attr("settings", settings)
        return study
    changed = sorted(k for k in known | settings if known.get(k) != settings.get(k))
    if changed:
        raise InputError(
            f"{journal.parent} holds a search with other settings of {', '.join(changed)}; give "
            "the same ones, or another --out"
        )
    return study
