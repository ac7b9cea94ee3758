"""The step `check`: whether the data are like those of the last accepted run."""

from __future__ import annotations

from typing import Any

from lifecycle.retrain.night import Night
from lifecycle.retrain.outcomes import EndOfRunError, Outcome

TABLES = ("items", "events")


def check_step(night: Night) -> dict[str, Any]:
    """Judge the dataset of the run.

    Returns:
        The checks, each with name, value, limit, outcome and a line in words.

    Raises:
        EndOfRunError: a check refuses the data.
    """
    checks = [_rejects(night, table) for table in TABLES]
    refused = [check["line"] for check in checks if check["outcome"] == "refused"]
    record = {"checks": checks}
    if refused:
        raise EndOfRunError(Outcome.refused, "; ".join(refused), record)
    for check in checks:
        if check["outcome"] == "warned":
            night.say(f"warning: {check['line']}")
    return record


def _rejects(night: Night, table: str) -> dict[str, Any]:
    """Judge the share of rejected rows by the setting with which `prepare` would have stopped."""
    prepared = night.record("prepare")
    counts: dict[str, int] = prepared["rejects"].get(table, {})
    rows, rejected = int(prepared["rows_read"].get(table, 0)), sum(counts.values())
    share, limit = rejected / rows if rows else 0.0, night.config.data.reject_limit(table)
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in counts.items())
    outcome = "refused" if share > limit else "passed"
    line = f"{rejected:,} of {rows:,} rows of {table} are rejected ({share:.1%}" + (
        f": {reasons})" if reasons else ")"
    )
    if outcome == "refused":
        line += (
            f", more than data.max_reject_fraction={limit:g}; see {night.folder / 'dataset'}/rejects.parquet"
        )
    return {
        "name": f"rejected_{table}", "value": share, "limit": limit, "outcome": outcome, "line": line
    }  # fmt: skip
