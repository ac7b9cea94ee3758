"""Typed settings of `hydra/sweeper=optuna`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from conf.checks import at_least


@dataclass(frozen=True)
class SweepConfig:
    """A search with Optuna's TPE sampler for the settings with the highest validation ndcg@10."""

    n_trials: int = 20
    """Trials of the study altogether, those of earlier, interrupted calls included."""
    study_name: str | None = None
    """Null is the name of the ready space (`sweep=NAME`), or `own`; also the winner's experiment name."""
    storage: str | None = None
    """SQLite file or a database URL; null is `study.db` in the sweep's folder."""
    seed: int = 0
    """Of the proposals; trials themselves use the run's `seed`."""
    startup_trials: int = 8
    """Trials drawn at random before the sampler learns from scores."""
    params: dict[str, Any] = field(default_factory=dict)
    """What to search: `{user_encoder.dropout: interval(0.1, 0.6)}`; arguments of the same form win."""
    _target_: str = "hydra_plugins.shelfwise_sweeper.OptunaSweeper"
    """What Hydra builds; not a setting."""

    def __post_init__(self) -> None:
        """Check ranges."""
        at_least(1, self, "hydra.sweeper.", "n_trials", "startup_trials")
        at_least(0, self, "hydra.sweeper.", "seed")
