"""The step `prepare`: the run's own dataset, and whether it has enough that is new."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np

from conf.errors import InputError
from conf.schema import PipelineConfig
from features.data.dataset import Dataset, load_dataset
from features.prepare import DATASET_FOLDER
from lifecycle.retrain.journal import journals, publisher
from lifecycle.retrain.night import Night, served_version
from lifecycle.retrain.outcomes import EndOfRunError, Outcome
from lifecycle.retrain.window import DAY, iso, newest_time, seconds_of
from ranking.bundle.store import MANIFEST, VERSIONS
from ranking.pipeline.prepared import prepared


def run_settings(night: Night) -> PipelineConfig:
    """Return the settings of the run's steps, with the ledger's files beside the shop's tables.

    Rejected rows stop nothing here: the step `check` judges their share by `data.max_reject_fraction`, so
    that a bad night is refused with its reason.
    """
    recorded = night.record("collect")["recorded"]
    data = replace(night.config.data, recorded=recorded or None, max_reject_fraction=1.0)
    return night.pipeline(data=data)


def prepare_step(night: Night) -> dict[str, Any]:
    """Make the dataset in the run's folder, and count the events that the served model was made without.

    Returns:
        Sizes of the dataset, kinds, rejects, the time of its newest event, and the new events.

    Raises:
        EndOfRunError: too few new events.
        InputError: tables that cannot be read, or that have no times.
    """
    dataset = prepared(run_settings(night), night.console)
    if not dataset.has_time:
        raise InputError(
            "retrain needs the times of events to measure on the newest; map their column: "
            "data.columns={timestamp: COLUMN}"
        )
    newest = newest_time(dataset.events.time)
    served = served_version(night.store)
    since = None if served is None else newest_of_version(night, served)
    new = len(dataset.events) if since is None else int((dataset.events.time > since).sum())
    record = {
        **describe(dataset),
        "newest_event": iso(newest),
        "served_version": served,
        "served_newest_event": None if since is None else iso(since),
        "new_events": new,
    }
    least = night.config.retrain.min_new_events
    if since is not None and new < least:
        raise EndOfRunError(
            Outcome.too_little,
            f"{new:,} events since {iso(since)}, the newest that {served} was made with; "
            f"retrain.min_new_events is {least:,}",
            record,
        )
    return record


def newest_of_version(night: Night, version: str) -> int:
    """Return the time of the newest event in the dataset that a version was made from, Unix seconds.

    That of its run where there was one, else the end of what it has learnt, by its manifest.
    """
    journal = publisher(journals(night.places.audit), version)
    if journal is not None:
        return seconds_of(journal.steps["prepare"]["newest_event"])
    manifest = json.loads((night.store / VERSIONS / version / MANIFEST).read_text(encoding="utf-8"))
    return int(manifest["data_end"])


def load_prepared(night: Night) -> Dataset:
    """Return the dataset of the run."""
    return load_dataset(night.folder / DATASET_FOLDER)


def describe(dataset: Dataset) -> dict[str, Any]:
    """Return what the audit file says of a dataset."""
    info = dataset.info
    at, count = np.unique(dataset.events.time // DAY, return_counts=True)
    recent = [[f"{np.datetime64(int(day), 'D')}", int(n)] for day, n in zip(at, count, strict=True)][-35:]
    return {
        "dataset_hash": info["content_hash"],
        "items": len(dataset.catalogue),
        "users": len(dataset.user_ids),
        "events": len(dataset.events),
        "kinds": info.get("kind_counts", {}),
        "ignored_kinds": info.get("ignored_events", {}),
        "rows_read": info.get("rows_read", {}),
        "rejects": info.get("rejects", {}),
        "events_by_day": recent,
    }
