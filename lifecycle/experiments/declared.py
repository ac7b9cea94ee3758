"""What the experiments file of `serve` says: shares, unit, start and end."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from lifecycle.experiments.plan import Declared
from serving.experiments.reading import read_experiments


def declared_in(path: str | None) -> dict[str, Declared]:
    """Return the experiments of a file; none without a file.

    Raises:
        InputError: the file cannot be read, or is invalid.
    """
    if path is None:
        return {}
    return {
        experiment.name: Declared(
            {arm.name: arm.share for arm in experiment.arms},
            experiment.unit,
            _moment(experiment.start),
            _moment(experiment.end),
        )
        for experiment in read_experiments(Path(path))
    }


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
