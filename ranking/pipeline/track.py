"""What a tracker gets of an evaluation: the metrics of every system, the bundle's version, and the report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from conf.schema import PipelineConfig
from encoders.training.tracking import end_run, log_results, require_tracker, tracked_run
from ranking.bundle.store import current_version
from ranking.evaluation.report import METRICS_FILE, REPORT_FILE

WINDOWS = ("valid", "test")


def final_metrics(result: Mapping[str, Any]) -> dict[str, float]:
    """Return every system's metrics in every measured window, by `window/system/metric`."""
    return {
        f"{window}/{system}/{metric}": value
        for window in WINDOWS
        for system, metrics in result.get(window, {}).items()
        for metric, value in metrics.items()
        if value is not None
    }


def _tags(result: Mapping[str, Any], store: Path | None) -> dict[str, str]:
    """Return what identifies data, code and bundle; a bundle's version ends with the hash of its content."""
    protocol = result["protocol"]
    tags = {
        "measured": str(protocol["measured"]),
        "dataset_hash": str(protocol["dataset_hash"]),
        "code_version": str(protocol["code_version"]),
    }
    if store is not None:
        version = current_version(store)
        tags |= {"bundle_version": version, "bundle_hash": version.rpartition("-")[2]}
    return tags


def track_evaluation(
    config: PipelineConfig, result: Mapping[str, Any], folder: Path, store: Path | None, console: Console
) -> None:
    """Give the results to the configured tracker and end its run.

    Args:
        config: of the run.
        result: of the evaluation.
        folder: with metrics.json and report.html.
        store: of the published bundle; None where none was measured.
        console: where to report.

    Raises:
        InputError: the tracker is not installed or cannot be reached.
    """
    run = tracked_run(config)
    if run is None:
        return
    log_results(
        run, final_metrics(result), _tags(result, store), [folder / REPORT_FILE, folder / METRICS_FILE]
    )
    end_run(config)
    where = f"store {run.uri}" if run.uri is not None and "@" not in run.uri else run.kind.value
    console.print(f"tracked as run {run.id} of project {run.project} ({where})", highlight=False)


@contextmanager
def tracking(config: PipelineConfig) -> Iterator[None]:
    """Begin the tracker's run before the first step, so that a wrong setting is reported at once.

    A run that fails is marked so; the command that resumes it continues it.
    """
    require_tracker(config)
    tracked_run(config)
    try:
        yield
    except BaseException:
        end_run(config, failed=True)
        raise
    end_run(config)  # where too few events left nothing to evaluate
