"""The last step, `retain`, of published and refused runs: what nothing needs any more is deleted."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from conf.errors import InputError
from lifecycle.retrain.journal import journals
from lifecycle.retrain.night import Night, served_version
from ranking.bundle.store import VERSIONS, version_before, versions
from serving.experiments.versions import pinned_versions


def retain_step(night: Night) -> dict[str, Any]:
    """Delete old versions of the store and old run folders.

    The current version, the one before it and those of arms of experiments always stay, and so does the
    folder of the last published run, from which the next one starts, and so do audit files.

    Returns:
        What was deleted.
    """
    published = "version" in night.journal.steps.get("publish", {})
    return {"versions": _delete_versions(night) if published else [], "runs": _delete_runs(night)}


def _delete_versions(night: Night) -> list[str]:
    known = versions(night.store)
    current = served_version(night.store)
    kept = set(known[-night.config.retrain.keep_versions :])
    if current is not None:
        kept |= {current, str(version_before(night.store, current))}
        kept.add(str(night.record("publish").get("before")))
    kept |= _named_by_experiments(night, known)
    old = [version for version in known if version not in kept]
    for version in old:
        # The manifest first: a folder without it is no version, whatever a kill leaves of it.
        folder = night.store / VERSIONS / version
        (folder / "manifest.json").unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
    return old


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


def _delete_runs(night: Night) -> list[str]:
    """Delete the folders of old runs; return their ids."""
    folder = night.places.runs
    present = sorted(path.name for path in folder.glob("*") if path.is_dir()) if folder.is_dir() else []
    finished = journals(night.places.audit)
    published = [journal.run for journal in finished if "version" in journal.steps.get("publish", {})]
    kept = {night.journal.run, *published[-1:], *present[-night.config.retrain.keep_runs :]}
    old = [run for run in present if run not in kept]
    for run in old:
        shutil.rmtree(folder / run, ignore_errors=True)
    return old
