"""A sweep from its first trial to its winner: `shelfwise -m run hydra/sweeper=optuna ...`."""

from __future__ import annotations

import glob
import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState
from rich.console import Console
from rich.markup import escape

from conf.composition.compose import to_typed
from conf.composition.override_errors import readable
from conf.errors import InputError
from conf.sweep_schema import SweepConfig
from features.data.pipeline_step import plain
from tuning import study as studies
from tuning.space import Space, as_overrides, as_params, flatten, read_space, whole_numbers
from tuning.winner import changed, shop_overrides, trials_table, winner_command, write_experiment

COMMAND = "run"
READY = "main"
"""The default search space."""
OWN = "own"
"""Name of a study with the user's own space."""


@dataclass(frozen=True)
class Jobs:
    """Hydra's arguments of a sweeper."""

    config: DictConfig
    """Of the sweep."""
    loader: ConfigLoader
    task: Callable[[Any], Any]
    """Runs the command with a composed configuration and returns its score."""

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """Return the configuration of a job.

        Raises:
            InputError: an override that cannot be applied.

        """
        try:
            config = self.loader.load_sweep_config(self.config, list(overrides))
        except (HydraException, OmegaConfBaseException) as error:
            raise readable(error, overrides) from error
        with open_dict(config):
            del config["hydra"]
        return config


def _quoted(text: str) -> str:
    """Quote a value so that Hydra parses it as text."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


@dataclass(frozen=True)
class _Sweep:
    """One sweep: its name, space and folder."""

    name: str
    space: Space
    folder: Path
    work_dir: str
    """Work directory of the run whose finished steps trials may reuse; the winner is published there."""
    reuse: list[str]
    """Folders whose steps trials may reuse beside each other's: `work_dir`, and the user's `reuse`."""
    base: dict[str, Any]
    """The unmodified values of the varied settings."""
    start: dict[str, Any] | None
    """Their point of the space."""
    jobs: Jobs

    def overrides(self, trial: FrozenTrial | Trial) -> list[str]:
        """Return all overrides of a trial, whose work directory is named by its number."""
        trials = self.folder / "trials"
        reuse = ",".join(_quoted(folder) for folder in (*self.reuse, f"{glob.escape(str(trials))}/*"))
        return [
            *self.space.fixed,
            *as_overrides(trial.params),
            f"work_dir={_quoted(str(trials / str(trial.number)))}",
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
    """Determine the search space, the name and the folder.

    Raises:
        InputError: a command other than `run`, or arguments that cannot be parsed.

    """
    hydra = jobs.config.hydra
    if hydra.job.config_name != COMMAND:
        raise InputError(
            f"hydra/sweeper=optuna maximises what `{COMMAND}` returns: shelfwise -m {COMMAND} ..."
        )
    space = read_space([*as_overrides(flatten(settings.params)), *arguments])
    name = settings.study_name or hydra.runtime.choices.get("sweep") or OWN
    if not space.searched:
        space = read_space([*as_overrides(ready_space()), *arguments])
        name = settings.study_name or READY
    if not re.fullmatch(r"[\w-]+", name):
        raise InputError("hydra.sweeper.study_name may hold letters, digits, _ and - only")
    composed = jobs.compose(space.fixed)
    values = {}
    for key in space.searched:
        node = OmegaConf.select(composed, key.lstrip("+"))
        values[key] = OmegaConf.to_container(node) if OmegaConf.is_config(node) else node
    try:
        space = replace(space, searched=whole_numbers(space.searched, values))
    except ValueError as error:
        raise InputError(f"hydra/sweeper=optuna: {error}") from error
    base = plain(to_typed(composed))
    work_dir, reuse, _ = (base.pop(key) for key in ("work_dir", "reuse", "threads"))
    given = any(o.startswith("hydra.sweep.dir=") for o in hydra.overrides.hydra)
    folder = Path(hydra.sweep.dir) if given else Path(work_dir) / "sweeps" / name
    start = as_params(space.searched, values)
    return _Sweep(name, space, folder, work_dir, [work_dir, *reuse], base, start, jobs)


def _open(plan: _Sweep, settings: SweepConfig) -> Study:
    """Open the study; a new one begins with the unmodified settings if they are in the space."""
    study = studies.open_study(
        studies.storage_url(settings.storage, plan.folder), plan.name, plan.space.searched,
        {"config": plan.base, "seed": settings.seed, "startup_trials": settings.startup_trials},
    )  # fmt: skip
    if plan.start is not None and not study.get_trials(deepcopy=False):
        study.enqueue_trial(plan.start)
    return study


def _run(plan: _Sweep, study: Study, trial: Trial, console: Console) -> None:
    """Run a trial and record its score, or its failure, in the study.

    Raises:
        InputError: wrong input before any trial succeeded, which is not due to the trial's settings.

    """
    trial.set_user_attr(studies.ATTEMPTS, trial.user_attrs.get(studies.ATTEMPTS, 0) + 1)
    begin = time.perf_counter()
    try:
        score = plan.jobs.task(plan.jobs.compose(plan.overrides(trial)))
        if score is None:
            raise InputError("nothing to compare trials by: there are too few events to validate on")
        if not math.isfinite(score):
            raise ValueError(f"the score is {score}")
    except Exception as error:
        failure = f"{type(error).__name__}: {error}" if not isinstance(error, InputError) else str(error)
        trial.set_user_attr(studies.FAILURE, failure.strip().splitlines()[0])
        study.tell(trial, state=TrialState.FAIL)
        if isinstance(error, InputError) and studies.best_trial(study) is None:
            raise
        console.print(f"[red]trial {trial.number} failed[/red]: {escape(failure)}", highlight=False)
        return
    trial.set_user_attr(studies.SECONDS, round(time.perf_counter() - begin, 1))
    study.tell(trial, float(score))


def _write_winner(plan: _Sweep, study: Study) -> Path | None:
    """Write the experiment file of the best trial so far."""
    best = studies.best_trial(study)
    if best is None:
        return None
    # Hydra has the settings of the sweeper only if `sweep=` selects it.
    chosen = [override for override in plan.space.fixed if override.startswith("sweep=")]
    ours, reference = (
        to_typed(plan.jobs.compose(overrides))
        for overrides in (plan.overrides(best), [*shop_overrides(plan.space.fixed), *chosen])
    )
    return write_experiment(plan.folder, plan.name, changed(ours, reference), best, studies.started(study))


def sweep(
    settings: SweepConfig, arguments: Sequence[str], jobs: Jobs, console: Console | None = None
) -> None:
    """Search until the study has `n_trials` trials, resuming an interrupted sweep.

    Every trial is a run in a work directory of its own that reuses the steps that the user's work directory
    or an earlier trial has with the same inputs. Trials are scored on validation only.

    Args:
        settings: of `hydra.sweeper`.
        arguments: the user's overrides, ranges among them.
        jobs: composes and runs trials.
        console: where to report; standard output by default.

    Raises:
        InputError: wrong input, with which no trial can succeed.

    """
    console = console or Console()
    plan = _plan(settings, arguments, jobs)
    with studies.only_one(plan.folder):
        study = _open(plan, settings)
        before = len(studies.started(study))
        if before:
            console.print(f"sweep '{plan.name}': going on after {before} of {settings.n_trials} trials")
        ask = (study, plan.space.searched, settings.n_trials, settings.seed, settings.startup_trials)
        while (trial := studies.next_trial(*ask)) is not None:
            console.rule(f"[bold]trial {trial.number} of {settings.n_trials}")
            console.print(" ".join(as_overrides(trial.params)), markup=False, highlight=False)
            try:
                _run(plan, study, trial, console)
            except KeyboardInterrupt:
                console.print(f"stopped in trial {trial.number}; the same command goes on with it")
                raise SystemExit(130) from None
            _write_winner(plan, study)
        console.print(trials_table(study, f"sweep '{plan.name}', {len(studies.started(study))} trials"))
        written = _write_winner(plan, study)
        if written is None:
            raise InputError(f"sweep '{plan.name}': every trial failed")
        console.print(f"the winner's settings: {written}\npublish it, and measure it on test:", markup=False)
        command = winner_command(plan.folder, plan.name, shop_overrides(plan.space.fixed), plan.work_dir)
        console.print(f"  {command}", markup=False, highlight=False, soft_wrap=True)
