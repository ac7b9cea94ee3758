"""What the experiments file of `serve` says: shares, unit, start and end."""

from __future__ import annotations

from conf.experiment_report import ExperimentReportConfig
from lifecycle.experiments.plan import Declared


def declared_in(config: ExperimentReportConfig) -> dict[str, Declared]:
    """Return the experiments of the file; none without a file.

    Raises:
        InputError: the file cannot be read.
    """
    return {}
