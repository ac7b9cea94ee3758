"""A sweep from its first trial to its winner: `shelfwise -m run hydra/sweeper=optuna ...`."""

from __future__ import annotations

import glob
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

from omegaconf import OmegaConf
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.markup import escape

from conf.errors import InputError
from conf.sweep_schema import SweepConfig
from features.data.pipeline_step import plain
from tuning.jobs import COMMAND, Jobs, quoted
from tuning.space import Space, as_overrides, as_params, flatten, read_space, whole_numbers
from tuning.study import (
    best_trial,
    next_trial,
    only_one,
    open_study,
    record_of,
    remember,
    started,
    storage_url,
)  # fmt: skip
from tuning.winner import changed, shop_overrides, trials_table, winner_command, write_experiment

READY = "main"
"""The search space of a sweep that names none."""
OWN = "own"
"""Name of a study whose space the user wrote."""


@dataclass(frozen=True)
class _Sweep:
    """One sweep: its name, its space, its place."""

    name: str
    space: Space
    folder: Path
    work_dir: str
    """Of the run whose finished steps trials may share; the winner is published there."""
    reuse: list[str]
    """What trials may share beside each other's steps: `work_dir`, and what the user named."""
    jobs: Jobs

    @property
    def trials(self) -> Path:
        """Folder of the trials, each a work directory named after its number."""
        return self.folder / "trials"

    def overrides(self, trial: FrozenTrial) -> list[str]:
        """Return everything that makes up a trial."""
        reuse = ",".join(quoted(place) for place in (*self.reuse, f"{glob.escape(str(self.trials))}/*"))
        return [
            *self.space.fixed,
            *as_overrides(trial.params),
            f"work_dir={quoted(str(self.trials / str(trial.number)))}",
            f"reuse=[{reuse}]",
            "evaluation.test=false",
            "evaluation.baselines=[]",
        ]


def ready_space(name: str = READY) -> dict[str, str]:
    """Return the parameters of a search space in conf/sweep."""
    text = resources.files("conf").joinpath("sweep", f"{name}.yaml").read_text()
    params = OmegaConf.create(text).hydra.sweeper.params
    return {str(key): str(value) for key, value in params.items()}


def _plan(settings: SweepConfig, arguments: Sequence[str], jobs: Jobs) -> _Sweep:
    """Decide what is searched, under which name and where.

    Raises:
        InputError: another command than `run`, or something that cannot be read.

    """
    if jobs.command != COMMAND:
        raise InputError(
            f"hydra/sweeper=optuna maximises what `{COMMAND}` returns: shelfwise -m {COMMAND} ..."
        )
    params = [f"{key}={value}" for key, value in flatten(settings.params).items()]
    space = read_space([*params, *arguments])
    name = settings.study_name or jobs.space_name or OWN
    if not space.searched:
        space = read_space([*(f"{key}={value}" for key, value in ready_space().items()), *arguments])
        name = settings.study_name or READY
    if not re.fullmatch(r"[\w-]+", name):
        raise InputError("hydra.sweeper.study_name may hold letters, digits, _ and - only")
    base = jobs.compose(space.fixed)
    values = jobs.values(space.fixed, list(space.searched))
    try:
        space = replace(space, searched=whole_numbers(space.searched, values))
    except ValueError as error:
        raise InputError(f"hydra/sweeper=optuna: {error}") from error
    folder = jobs.folder(Path(base.work_dir) / "sweeps" / name)
    return _Sweep(name, space, folder, base.work_dir, [base.work_dir, *base.reuse], jobs)


def _open(sweep: _Sweep, settings: SweepConfig) -> Study:
    """Open the study; a new one begins with the settings as they are, where they lie in the space."""
    searched = sweep.space.searched
    base = plain(sweep.jobs.compose(sweep.space.fixed))
    for key in ("work_dir", "threads", "reuse"):
        del base[key]
    study = open_study(
        storage_url(settings.storage, sweep.folder), sweep.name, searched,
        {"config": base, "seed": settings.seed, "startup_trials": settings.startup_trials},
    )  # fmt: skip
    if not study.get_trials(deepcopy=False):
        now = as_params(searched, sweep.jobs.values(sweep.space.fixed, list(searched)))
        if now is not None:
            study.enqueue_trial(now)
    return study


def _run(sweep: _Sweep, study: Study, trial: FrozenTrial, console: Console) -> None:
    """Run a trial and tell the study its score, or that it failed.

    Raises:
        InputError: bad input before any trial succeeded: it is not the trial's settings that are bad.

    """
    record = record_of(study, trial.number)
    record = replace(record, attempts=record.attempts + 1)
    remember(study, trial.number, record)
    begin = time.perf_counter()
    try:
        score = sweep.jobs.run(trial.number, sweep.overrides(trial), sweep.trials)
    except Exception as error:
        failure = f"{type(error).__name__}: {error}" if not isinstance(error, InputError) else str(error)
        remember(study, trial.number, replace(record, failure=failure.strip().splitlines()[0]))
        study.tell(trial.number, state=TrialState.FAIL)
        if isinstance(error, InputError) and best_trial(study) is None:
            raise
        console.print(f"[red]trial {trial.number} failed[/red]: {escape(failure)}", highlight=False)
        return
    remember(study, trial.number, replace(record, seconds=round(time.perf_counter() - begin, 1)))
    study.tell(trial.number, score)


def _write_winner(sweep: _Sweep, study: Study) -> Path | None:
    """Write the experiment file of the best trial so far."""
    best = best_trial(study)
    if best is None:
        return None
    trials = started(study)
    ours = sweep.jobs.compose(sweep.overrides(best))
    # Hydra knows the settings of the sweeper only where `sweep=` chooses it again.
    chosen = [override for override in sweep.space.fixed if override.startswith("sweep=")]
    reference = sweep.jobs.compose([*shop_overrides(sweep.space.fixed), *chosen])
    return write_experiment(sweep.folder, sweep.name, changed(ours, reference), best, trials[0], len(trials))


def sweep(
    settings: SweepConfig, arguments: Sequence[str], jobs: Jobs, console: Console | None = None
) -> None:
    """Search until the study has `n_trials` trials, going on where an earlier call was cut off.

    Every trial is a run in a work directory of its own that takes over the steps which the run in the
    user's work directory or an earlier trial has done with the same inputs. Trials look at validation only.

    Args:
        settings: of `hydra.sweeper`.
        arguments: the user's overrides, ranges among them.
        jobs: runs trials.
        console: where to report; standard output by default.

    Raises:
        InputError: bad input that no trial can succeed with.

    """
    console = console or Console()
    plan = _plan(settings, arguments, jobs)
    with only_one(plan.folder):
        study = _open(plan, settings)
        before = len(started(study))
        if before:
            console.print(f"sweep '{plan.name}': going on after {before} of {settings.n_trials} trials")
        while (
            trial := next_trial(
                study, plan.space.searched, settings.n_trials, settings.seed, settings.startup_trials
            )
        ) is not None:
            values = " ".join(as_overrides(trial.params))
            console.rule(f"[bold]trial {trial.number} of {settings.n_trials}")
            console.print(values, markup=False, highlight=False)
            try:
                _run(plan, study, trial, console)
            except KeyboardInterrupt:
                console.print(f"stopped in trial {trial.number}; the same command goes on with it")
                raise SystemExit(130) from None
            _write_winner(plan, study)
        console.print(trials_table(study, f"sweep '{plan.name}', {len(started(study))} trials"))
        written = _write_winner(plan, study)
        if written is None:
            raise InputError(f"sweep '{plan.name}': every trial failed")
        console.print(f"the winner's settings: {written}\npublish it, and measure it on test:", markup=False)
        command = winner_command(plan.folder, plan.name, shop_overrides(plan.space.fixed), plan.work_dir)
        console.print(f"  {command}", markup=False, highlight=False, soft_wrap=True)
