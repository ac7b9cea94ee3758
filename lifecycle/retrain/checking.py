"""The step `check`: whether the data are like those of the last accepted run."""

from __future__ import annotations

from typing import Any

from features.data import schema
from features.prepare import DATASET_FOLDER
from lifecycle.checks.data import check_tables
from lifecycle.checks.profile import load_profile, profile_of, save_profile
from lifecycle.checks.tables import read_tables
from lifecycle.retrain.journal import journals
from lifecycle.retrain.night import Night
from lifecycle.retrain.outcomes import EndOfRunError, Outcome
from lifecycle.retrain.watching import ROLLING_BACK

TABLES = ("items", "events")
PROFILE = "profile"
"""Folder of a run with the profile of its data."""


def check_step(night: Night) -> dict[str, Any]:
    """Judge the dataset of the run; its profile waits in the run's folder for the publication.

    Returns:
        The checks, each with name, value, limit, outcome and a line in words.

    Raises:
        EndOfRunError: a check refuses the data.
    """
    tables = read_tables(night.folder / DATASET_FOLDER)
    previous = load_profile(night.places.profile)
    judged = check_tables(previous, tables, night.config.checks)
    checks = [*(_rejects(night, table) for table in TABLES), *(check.record() for check in judged)]
    refused = [check["line"] for check in checks if check["outcome"] == "refused"]
    record = {"checks": checks}
    if refused:
        raise EndOfRunError(Outcome.refused, "; ".join(refused), record)
    for check in checks:
        if check["outcome"] == "warned":
            night.say(f"warning: {check['line']}")
    save_profile(profile_of(tables, previous, judged), night.folder / PROFILE)
    return record


def accept_profile(night: Night) -> None:
    """Make the data of a run what the next run's are compared with, if its version was published and kept."""
    if night.journal.published is None or ROLLING_BACK in night.journal.content:
        return
    profile = load_profile(night.folder / PROFILE)
    if profile is not None:
        save_profile(profile, night.places.profile)


def _rejects(night: Night, table: str) -> dict[str, Any]:
    """Judge the share of rejected rows by the setting with which `prepare` would have stopped."""
    rows, counts = _rows(night.record("prepare"), table)
    rejected, usual = sum(counts.values()), _usual_share(night, table)
    share, limit = rejected / rows if rows else 0.0, night.config.data.reject_limit(table) + usual
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in counts.items())
    outcome = "refused" if share > limit else "passed"
    line = f"{rejected:,} of {rows:,} rows of {table} are rejected ({share:.1%}" + (
        f": {reasons})" if reasons else ")"
    )
    if outcome == "refused":
        line += (
            f", the last published run had {usual:.1%}: more than data.max_reject_fraction="
            f"{limit - usual:g} above that"
        )
        if not night.config.dry_run:  # which leaves no folder
            line += f"; see {night.folder / DATASET_FOLDER / schema.REJECTS_FILE}"
    return {
        "name": f"rejected_{table}", "value": share, "limit": limit, "outcome": outcome, "line": line
    }  # fmt: skip


def _rows(prepared: dict[str, Any], table: str) -> tuple[int, dict[str, int]]:
    """Return the rows that a table had, and those that were rejected by reason."""
    return int(prepared["rows_read"].get(table, 0)), prepared["rejects"].get(table, {})


def _usual_share(night: Night, table: str) -> float:
    """Return the share of rejected rows in the last published run; 0 before the first.

    Events of items that the shop has given up are rejected for ever: they must not refuse every run.
    """
    for journal in reversed(journals(night.places.audit)):
        if journal.published is not None:
            rows, counts = _rows(journal.steps["prepare"], table)
            return sum(counts.values()) / rows if rows else 0.0
    return 0.0
