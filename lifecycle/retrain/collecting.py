"""The step `collect`: the raw tables of the run, and what servers have recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from features.adapters import source_files
from lifecycle.ledger.collection import collect
from lifecycle.retrain.night import Night


def collect_step(night: Night) -> dict[str, Any]:
    """Bring the ledger up to date.

    Returns:
        The counts of the ledger, its files, and the shop's own tables as they were read (`sources`).

    Raises:
        InputError: a table that does not exist, or a state that cannot be read.
    """
    sources = facts_of_sources(night)
    found = collect(night.places.ledger, night.store, night.config.state, night.config.redis)
    night.say(
        f"collected {found.new_events:,} new recorded events, {found.events:,} in all"
        + (f"; {found.erased_users:,} erased users taken out" if found.erased_users else "")
    )
    return {
        "sources": sources,
        "ledger": found.record(),
        "recorded": [str(path) for path in found.files],
    }


def facts_of_sources(night: Night) -> list[list[Any]]:
    """Return path, size in bytes and time of change of every table of the shop."""
    facts = []
    for path in source_files(night.config.data):
        found = Path(path).stat()
        facts.append([str(path), found.st_size, found.st_mtime_ns])
    return facts
