"""One run: its settings, its folders and its journal."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from conf.errors import InputError
from conf.lifecycle import RetrainConfig
from conf.schema import PipelineConfig
from lifecycle.retrain.journal import Journal
from ranking.bundle.store import CURRENT, current_version

RETRAIN: Final = "retrain"
"""Folder of the work directory that holds everything of the loop."""


@dataclass(frozen=True)
class Places:
    """Where a work directory keeps what the loop needs from one run to the next."""

    root: Path

    @classmethod
    def of(cls, work_dir: str) -> Places:
        """Return the places of a work directory."""
        return cls(Path(work_dir) / RETRAIN)

    @property
    def lock(self) -> Path:
        """File of the lock."""
        return self.root / "lock"

    @property
    def audit(self) -> Path:
        """Folder of the audit files."""
        return self.root / "audit"

    @property
    def runs(self) -> Path:
        """Folder of the runs' outputs: datasets, models, checkpoints."""
        return self.root / "runs"

    @property
    def profile(self) -> Path:
        """Folder of the profile of the last accepted dataset, with which the next one is compared."""
        return self.root / "profile"

    @property
    def ledger(self) -> Path:
        """Folder of the events that servers have recorded."""
        return self.root / "ledger"


@dataclass(frozen=True)
class Night:
    """A run in progress; its steps read and extend the journal."""

    config: RetrainConfig
    console: Console
    journal: Journal

    @property
    def places(self) -> Places:
        """Folders of the work directory."""
        return Places.of(self.config.work_dir)

    @property
    def folder(self) -> Path:
        """The run's own work directory."""
        return self.places.runs / self.journal.run

    @property
    def store(self) -> Path:
        """The artifact store that servers load from."""
        return store_of(self.config)

    def record(self, step: str) -> dict[str, Any]:
        """Return what a finished step found."""
        return self.journal.steps[step]

    def say(self, line: str) -> None:
        """Print a line."""
        self.console.print(f"retrain: {line}", soft_wrap=True, markup=False, highlight=False)

    def pipeline(self, **changes: Any) -> PipelineConfig:  # noqa: ANN401 - settings
        """Return the settings of the steps of training, with the run's folder as work directory."""
        values = {own.name: getattr(self.config, own.name) for own in fields(PipelineConfig)}
        config = PipelineConfig(**{**values, "work_dir": str(self.folder)})
        return replace(config, **changes)


def store_of(config: RetrainConfig) -> Path:
    """Return the artifact store of the settings."""
    return Path(config.artifacts) if config.artifacts else Path(config.work_dir) / "artifacts"


def served_version(store: Path) -> str | None:
    """Return the current version; None for a store without any.

    Raises:
        InputError: the store names a version that is not there.
    """
    if not (store / CURRENT).is_file():
        return None
    try:
        return current_version(store)
    except InputError as error:
        raise InputError(f"artifacts: {error}") from error
