"""The last step, `retain`, however a run has ended: what nothing needs any more is deleted."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from conf.errors import InputError
from lifecycle.retrain.journal import journals, publisher
from lifecycle.retrain.night import Night, served_version
from ranking.bundle.store import STAGING, VERSIONS, version_before, versions
from serving.experiments.versions import pinned_versions


def retain_step(night: Night) -> dict[str, Any]:
    """Delete old versions of the store and old run folders.

    The current version, the one before it and those of arms of experiments always stay, and so does the
    folder of the run of the current version, from which the next one starts, and so do audit files.

    Returns:
        What was deleted.
    """
    try:
        current = served_version(night.store)
    except InputError as error:
        night.say(f"nothing is deleted: {error}")
        return {"versions": [], "runs": []}
    published = night.journal.published is not None
    return {
        "versions": _delete_versions(night, current) if published else [],
        "runs": _delete_runs(night, current),
    }


def _delete_versions(night: Night, current: str | None) -> list[str]:
    """Delete old versions; return their names."""
    known = versions(night.store)
    kept = set(known[-night.config.retrain.keep_versions :])
    if current is not None:
        kept |= {current, str(version_before(night.store, current))}
        kept.add(str(night.record("publish").get("before")))
    kept |= _named_by_experiments(night, known)
    old = [version for version in known if version not in kept]
    return [version for version in old if _deleted(night, version)]


def _deleted(night: Night, version: str) -> bool:
    """Delete a version; return whether it could be."""
    folder = night.store / VERSIONS / version
    # Under a hidden name first: what a kill leaves of it is no version, and the next publication removes it.
    hidden = folder.with_name(f"{STAGING}{version}")
    try:
        folder.rename(hidden)
    except OSError as error:
        night.say(f"version {version} cannot be deleted: {error.strerror}")
        return False
    shutil.rmtree(hidden, ignore_errors=True)
    return True


def _named_by_experiments(night: Night, known: list[str]) -> set[str]:
    """Return the versions that experiments need; all of them while their file cannot be read."""
    file = night.config.retrain.experiments
    if file is None:
        return set()
    try:
        return pinned_versions(Path(file), night.store, time.time())
    except InputError as error:
        night.say(f"no version is deleted: {error}")
        return set(known)


def _delete_runs(night: Night, current: str | None) -> list[str]:
    """Delete the folders of old runs; return their ids."""
    folder = night.places.runs
    present = sorted(path.name for path in folder.glob("*") if path.is_dir()) if folder.is_dir() else []
    source = publisher(journals(night.places.audit), current)
    kept = {night.journal.run, *present[-night.config.retrain.keep_runs :]}
    if source is not None:
        kept.add(source.run)
    old = [run for run in present if run not in kept]
    for run in old:
        shutil.rmtree(folder / run, ignore_errors=True)
    return old
