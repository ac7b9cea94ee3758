"""Trials as Hydra jobs: composing one's configuration, and running it."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from conf.compose import to_typed
from conf.errors import InputError
from conf.override_errors import readable
from conf.schema import PipelineConfig

COMMAND = "run"
_QUIET = {"version": 1, "disable_existing_loggers": False, "root": {"level": "WARNING", "handlers": []}}


def quoted(text: str) -> str:
    """Quote a value so that Hydra reads it as this text, whatever is in it."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


class Jobs:
    """A sweep's access to Hydra."""

    def __init__(self, config: DictConfig, loader: ConfigLoader, launcher: Launcher) -> None:
        """Take what Hydra hands to a sweeper; the launcher holds the same `config`."""
        self._config = config
        self._loader = loader
        self._launcher = launcher
        with open_dict(config):  # the launcher would log every override of every trial
            config.hydra.hydra_logging = _QUIET

    @property
    def command(self) -> str | None:
        """Which command is swept."""
        name: str | None = self._config.hydra.job.config_name
        return name

    @property
    def space_name(self) -> str | None:
        """Name of the ready search space that was chosen with `sweep=`."""
        name: str | None = self._config.hydra.runtime.choices.get("sweep")
        return name

    def folder(self, otherwise: Path) -> Path:
        """Return `hydra.sweep.dir` where the user set it."""
        given = any(o.startswith("hydra.sweep.dir=") for o in self._config.hydra.overrides.hydra)
        return Path(self._config.hydra.sweep.dir) if given else otherwise

    def compose(self, overrides: Sequence[str]) -> PipelineConfig:
        """Return the configuration of a job.

        Raises:
            InputError: an unknown key or a value out of range.

        """
        try:
            config = self._loader.load_sweep_config(self._config, list(overrides))
        except (HydraException, OmegaConfBaseException) as error:
            raise readable(error, overrides) from error
        with open_dict(config):
            del config["hydra"]
        typed: PipelineConfig = to_typed(config)
        return typed

    def values(self, overrides: Sequence[str], keys: Sequence[str]) -> dict[str, Any]:
        """Return what the keys of a job's configuration are set to, None for a key that is not there."""
        try:
            config = self._loader.load_sweep_config(self._config, list(overrides))
        except (HydraException, OmegaConfBaseException) as error:
            raise readable(error, overrides) from error
        found = {}
        for key in keys:
            node = OmegaConf.select(config, key.lstrip("+"))
            found[key] = OmegaConf.to_container(node) if OmegaConf.is_config(node) else node
        return found

    def run(self, number: int, overrides: Sequence[str], folder: Path) -> float:
        """Run a job to its end and return its score.

        Args:
            number: of the trial.
            overrides: of the trial.
            folder: each job's folder is made in here, named after its number.

        Raises:
            InputError: bad input, or too little data to measure on.
            Exception: whatever the job raised.

        """
        place = f"hydra.sweep.dir={quoted(str(folder))}"
        with open_dict(self._config):
            self._config.hydra.sweep.dir = str(folder)
        try:
            [job] = self._launcher.launch([[*overrides, place]], initial_job_idx=number)
        except (HydraException, OmegaConfBaseException) as error:
            raise readable(error, overrides) from error
        with redirect_stderr(io.StringIO()):  # it would print every override of a failed job
            score = job.return_value
        if score is None:
            raise InputError("nothing to compare trials by: there are too few events to validate on")
        if not math.isfinite(score):
            raise ValueError(f"the score is {score}")
        return float(score)
