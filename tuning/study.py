"""The study: every trial of a sweep on disk, so that a sweep that was cut off goes on where it was."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.samplers import TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from conf.errors import InputError
from features.data.pipeline_step import fingerprint

MAX_ATTEMPTS = 3
"""A trial that was cut off this often counts as failed: it may be what kills the process."""
_MADE_OF = "made_of"


@dataclass(frozen=True)
class Record:
    """What a study remembers of a trial beside its values and its score."""

    attempts: int = 0
    seconds: float | None = None
    failure: str | None = None


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Keep a second process out of a sweep's folder.

    Raises:
        InputError: when another process is sweeping there.

    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise InputError(f"{folder}: another sweep is running here") from error
    try:
        yield
    finally:
        lock.release()


def storage_url(storage: str | None, folder: Path) -> str:
    """Return the database to keep the study in: a URL as it is, a path as an SQLite file.

    Raises:
        InputError: when the file's folder cannot be made.

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
        searched: what is searched.
        settings: everything else that decides a score.

    Raises:
        InputError: when the study was made with another space or other settings, whose scores would not
            compare, or the database cannot be opened.

    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        study = optuna.create_study(storage=url, study_name=name, direction="maximize", load_if_exists=True)
    except Exception as error:  # the drivers' own types, one per database
        raise InputError(f"hydra.sweeper.storage: cannot open {url}: {str(error).splitlines()[0]}") from error
    made_of = {
        "space": fingerprint({key: distribution_to_json(d) for key, d in searched.items()}),
        "settings": fingerprint(settings),
    }
    before = study.user_attrs.get(_MADE_OF)
    if before is not None and before != made_of and best_trial(study) is None:  # e.g. a path was mistyped
        optuna.delete_study(storage=url, study_name=name)
        return open_study(url, name, searched, settings)
    if before is None:
        study.set_user_attr(_MADE_OF, made_of)
    elif before != made_of:
        what = "another search space" if before["space"] != made_of["space"] else "other data or settings"
        raise InputError(
            f"study '{name}' was made with {what}; "
            "give this sweep a name of its own: hydra.sweeper.study_name=NAME"
        )
    return study


def record_of(study: Study, number: int) -> Record:
    """Return what is remembered of a trial."""
    return Record(**study.user_attrs.get(f"trial {number}", {}))


def remember(study: Study, number: int, record: Record) -> None:
    """Keep a record of a trial."""
    study.set_user_attr(f"trial {number}", asdict(record))


def started(study: Study) -> list[FrozenTrial]:
    """Return the trials that have begun, in order; a planned one that no process has taken up is left out."""
    return [t for t in study.get_trials(deepcopy=False) if t.state is not TrialState.WAITING]


def next_trial(
    study: Study, searched: Mapping[str, BaseDistribution], n_trials: int, seed: int, startup_trials: int
) -> FrozenTrial | None:
    """Return the trial to run: one that was cut off, else a new one, else None when all are done.

    Each proposal has a generator of its own, seeded with its number: a sweep that was cut off proposes what
    it would have proposed anyway. A cut-off trial keeps its number, so that it finds its checkpoints.
    """
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        record = record_of(study, trial.number)
        if trial.params.keys() != searched.keys():  # killed while it was being proposed
            failure = "cut off before it began"
        elif record.attempts >= MAX_ATTEMPTS:
            failure = f"cut off {record.attempts} times"
        else:
            return trial
        remember(study, trial.number, Record(record.attempts, failure=failure))
        study.tell(trial.number, state=TrialState.FAIL)
    number = len(started(study))
    if number >= n_trials:
        return None
    study.sampler = TPESampler(seed=seed * 100_003 + number, n_startup_trials=startup_trials)
    asked = study.ask(dict(searched))
    return study.get_trials(deepcopy=False)[asked.number]


def best_trial(study: Study) -> FrozenTrial | None:
    """Return the trial with the highest score, the earliest of equals; None before the first success."""
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return max(done, key=lambda t: (t.value or 0.0, -t.number), default=None)
