"""A prepared dataset as the checks read it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl

from conf.errors import InputError
from features.data import schema

DAY: Final = "day"
"""Added column: the event's day, UTC, as `2026-11-30`."""
_NUMBERS: Final = ("value", "quantity")


@dataclass(frozen=True)
class Tables:
    """Tables of a dataset, and dataset.json."""

    items: pl.DataFrame
    events: pl.DataFrame
    """user_id, item_id, event, timestamp (Unix seconds), `DAY`, and value and quantity where they exist."""
    rejects: pl.DataFrame
    info: dict[str, Any]

    def newest(self, now: float) -> int:
        """Return the time of the newest event that is not in the future, Unix seconds; 0 without one."""
        times = self.events[schema.TIMESTAMP]
        return int(times.filter(times <= now).max() or 0)  # type: ignore[arg-type]


def with_days(events: pl.DataFrame) -> pl.DataFrame:
    """Add the column `DAY`."""
    return events.with_columns(pl.from_epoch(schema.TIMESTAMP).dt.strftime("%Y-%m-%d").alias(DAY))


def read_tables(folder: Path) -> Tables:
    """Read a dataset directory that `prepare` wrote.

    Raises:
        InputError: there is none, or it has no times.
    """
    manifest = folder / schema.DATASET_FILE
    if not manifest.is_file():
        raise InputError(f"{folder}: no {schema.DATASET_FILE} here; run `shelfwise prepare` first")
    info = json.loads(manifest.read_text(encoding="utf-8"))
    events = pl.scan_parquet(folder / schema.EVENTS_FILE)
    names = [schema.USER_ID, schema.ITEM_ID, schema.EVENT, schema.TIMESTAMP]
    names += [name for name in _NUMBERS if name in events.collect_schema()]
    return Tables(
        pl.read_parquet(folder / schema.ITEMS_FILE),
        with_days(events.select(names).collect(engine="streaming")),
        pl.read_parquet(folder / schema.REJECTS_FILE),
        info,
    )
