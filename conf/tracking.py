"""Settings of experiment trackers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from conf.checks import require


class TrackerKind(Enum):
    """Which experiment tracker gets a run, beside TensorBoard's files."""

    none = "none"
    """None."""
    mlflow = "mlflow"
    """MLflow: a server, a database or a local SQLite file."""
    wandb = "wandb"
    """Weights & Biases; with `WANDB_MODE=offline` files that `wandb sync` uploads later."""


@dataclass(frozen=True)
class TrackerConfig:
    """The experiment tracker that gets configuration, metrics by step, results, report and bundle version."""

    kind: TrackerKind = TrackerKind.none
    """The tracker; `tracker=mlflow` and `tracker=wandb` set it."""
    project: str = "shelfwise"
    """MLflow's experiment, or the project of Weights & Biases."""
    name: str | None = None
    """Name of the run; null is the last part of `work_dir`, of a sweep's numbered jobs the last two."""
    uri: str | None = None
    """MLflow's server or store, such as `http://host:5000` or `sqlite:///mlflow.db`; null is
    `MLFLOW_TRACKING_URI`, and without it `sqlite:///mlflow.db` in the current folder."""

    def __post_init__(self) -> None:
        """Check the project and that only MLflow has an address."""
        require(self.project.strip() != "", "tracker.project must not be empty")
        require(
            self.uri is None or self.kind is TrackerKind.mlflow,
            "tracker.uri is the address of MLflow: add tracker=mlflow, or leave it out",
        )
