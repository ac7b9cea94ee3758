"""The study: every trial of a sweep in Optuna's storage, so that an interrupted sweep is resumed."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import optuna
from filelock import FileLock, Timeout
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.samplers import TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from conf.errors import InputError
from features.data.pipeline_step import fingerprint

MAX_ATTEMPTS: Final = 3
"""Attempts after which an interrupted trial is failed, as it may crash the process."""
ATTEMPTS: Final = "attempts"
SECONDS: Final = "seconds"
FAILURE: Final = "failure"
_MADE_OF: Final = "made_of"


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Lock a sweep's folder against a second process.

    Raises:
        InputError: another process has the lock.

    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout as error:
        raise InputError(f"{folder}: another sweep is running here") from error


def storage_url(storage: str | None, folder: Path) -> str:
    """Return the study's database: a URL unchanged, a path as an SQLite file.

    Raises:
        InputError: the file's folder cannot be created.

    """
    if storage is not None and "://" in storage:
        return storage
    path = folder / "study.db" if storage is None else Path(storage)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"hydra.sweeper.storage: {error}") from error
    return f"sqlite:///{path.resolve()}"


def open_study(
    url: str, name: str, searched: Mapping[str, BaseDistribution], settings: Mapping[str, Any]
) -> Study:
    """Open a study or start one; scores are maximised.

    Args:
        url: database.
        name: of the study in it.
        searched: the search space.
        settings: all other settings that affect a score.

    Raises:
        InputError: the study has another space or other settings, whose scores are not comparable, or the
            database cannot be opened.

    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        study = optuna.create_study(storage=url, study_name=name, direction="maximize", load_if_exists=True)
    except Exception as error:  # types differ between database drivers
        raise InputError(f"hydra.sweeper.storage: cannot open {url}: {str(error).splitlines()[0]}") from error
    made_of = {
        "space": fingerprint({key: distribution_to_json(d) for key, d in searched.items()}),
        "settings": fingerprint(settings),
    }
    before = study.user_attrs.setdefault(_MADE_OF, made_of)
    if before == made_of:
        study.set_user_attr(_MADE_OF, made_of)
        return study
    if best_trial(study) is None:  # nothing to lose, e.g. after a mistyped path
        optuna.delete_study(storage=url, study_name=name)
        return open_study(url, name, searched, settings)
    what = "another search space" if before["space"] != made_of["space"] else "other data or settings"
    raise InputError(
        f"study '{name}' was made with {what}; "
        "give this sweep a name of its own: hydra.sweeper.study_name=NAME"
    )


def started(study: Study) -> list[FrozenTrial]:
    """Return the trials that have been started, in order."""
    return [t for t in study.get_trials(deepcopy=False) if t.state is not TrialState.WAITING]


def next_trial(
    study: Study, searched: Mapping[str, BaseDistribution], n_trials: int, seed: int, startup_trials: int
) -> Trial | None:
    """Return the trial to run: an interrupted one, else a new one, else None when all are done.

    Each proposal has a generator of its own, seeded with its number, so a resumed sweep proposes the same
    trials. An interrupted trial keeps its number, so that it finds its checkpoints; Optuna's own retries
    (`RetryFailedTrialCallback`) assign a new one.
    """
    for found in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        trial = Trial(study, found._trial_id)
        attempts = trial.user_attrs.get(ATTEMPTS, 0)
        if trial.params.keys() == searched.keys() and attempts < MAX_ATTEMPTS:
            return trial
        trial.set_user_attr(FAILURE, f"interrupted after {attempts} attempts")
        study.tell(trial, state=TrialState.FAIL)
    number = len(started(study))
    if number >= n_trials:
        return None
    study.sampler = TPESampler(seed=seed * 100_003 + number, n_startup_trials=startup_trials)
    return study.ask(dict(searched))


def best_trial(study: Study) -> FrozenTrial | None:
    """Return the trial with the highest score, the earliest of equals; None before the first success."""
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return max(done, key=lambda t: (t.value or 0.0, -t.number), default=None)
