"""Versions that arms name: what they mean in a store, and which of them experiments still need."""

from __future__ import annotations

from pathlib import Path

from ranking.bundle.store import current_version, version_before
from serving.experiments.definitions import CURRENT_MODEL, PREVIOUS_MODEL
from serving.experiments.reading import read_experiments


def pinned_versions(path: Path, store: Path, now: float) -> set[str]:
    """Return the versions that the experiments of a file name, whether they are in the store or not.

    For whoever deletes old versions: experiments that have not ended need theirs, disabled ones too, as
    they may be enabled again. `previous` is the version before the current one.

    Args:
        path: the file of experiments.
        store: the artifact store.
        now: Unix seconds.

    Raises:
        InputError: the file is invalid, or the store has no current version.
    """
    live = [e for e in read_experiments(path) if e.end is None or now < e.end]
    names = {arm.version for experiment in live for arm in experiment.arms if arm.version is not None}
    return {version for name in names if (version := resolve_version(store, name)) is not None}


def resolve_version(store: Path, name: str, current: str | None = None) -> str | None:
    """Return the version that an arm's `version` means; None for `previous` if there is none.

    Args:
        store: the artifact store.
        name: `current`, `previous` or a version.
        current: the current version; None reads it from the store.

    Raises:
        InputError: the store has no current version.
    """
    if name not in (CURRENT_MODEL, PREVIOUS_MODEL):
        return name
    if current is None:
        current = current_version(store)
    return current if name == CURRENT_MODEL else version_before(store, current)
