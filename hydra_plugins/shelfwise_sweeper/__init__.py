"""`hydra/sweeper=optuna`: Hydra accepts sweepers only from packages under `hydra_plugins`.

The plug-in published as hydra-optuna-sweeper (1.3.0) needs an optuna below 3, so this project brings its own,
around the current one. Hydra imports this module at every start: what is heavy waits until a sweep begins.
"""

from __future__ import annotations

from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from conf.errors import InputError
from conf.sweep_schema import SweepConfig


class OptunaSweeper(Sweeper):
    """Hands a sweep that Hydra has composed to `tuning.sweep`."""

    def __init__(
        self,
        n_trials: int,
        study_name: str | None,
        storage: str | None,
        seed: int,
        startup_trials: int,
        params: DictConfig,
    ) -> None:
        """Take the settings one by one, as Hydra passes them."""
        self.given: dict[str, Any] = {
            "n_trials": n_trials, "study_name": study_name, "storage": storage, "seed": seed,
            "startup_trials": startup_trials, "params": OmegaConf.to_container(params),
        }  # fmt: skip

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep the composed configuration and get the launcher that runs jobs."""
        self.config = config
        self.loader = hydra_context.config_loader
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Search; `arguments` are the user's overrides without those of Hydra itself.

        Raises:
            InputError: a setting of the sweep is wrong, or optuna is not installed.

        """
        settings = SweepConfig(**self.given)
        try:
            import optuna  # noqa: F401
        except ImportError as error:
            raise InputError('hydra/sweeper=optuna needs `pip install "shelfwise[sweep]"`') from error
        from tuning.jobs import Jobs
        from tuning.sweep import sweep

        assert self.config is not None
        assert self.launcher is not None
        sweep(settings, arguments, Jobs(self.config, self.loader, self.launcher))
