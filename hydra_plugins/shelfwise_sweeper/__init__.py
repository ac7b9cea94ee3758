"""`hydra/sweeper=optuna`: Hydra accepts sweepers only from packages under `hydra_plugins`.

The published plug-in hydra-optuna-sweeper (1.3.0) needs optuna below 3, so this project has its own. Hydra
imports this module at every start, so heavy imports are deferred to a sweep.
"""

from __future__ import annotations

from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from conf.errors import InputError
from conf.sweep_schema import SweepConfig


class OptunaSweeper(Sweeper):
    """Passes a composed sweep to `tuning.sweep`."""

    def __init__(self, params: DictConfig, **settings: object) -> None:
        """Take the fields of `SweepConfig` one by one, as Hydra passes them."""
        self.settings: dict[str, Any] = {**settings, "params": OmegaConf.to_container(params)}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store Hydra's context and the job's function."""
        self.parts = (config, hydra_context.config_loader, task_function)

    def sweep(self, arguments: list[str]) -> None:
        """Search; `arguments` are the user's overrides without those of Hydra itself.

        Raises:
            InputError: a wrong setting of the sweep, or optuna is not installed.

        """
        settings = SweepConfig(**self.settings)
        try:
            import optuna  # noqa: F401
        except ImportError as error:
            raise InputError('hydra/sweeper=optuna needs `pip install "shelfwise[sweep]"`') from error
        from tuning.sweep import Jobs, sweep

        sweep(settings, arguments, Jobs(*self.parts))
