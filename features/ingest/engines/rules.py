"""The rules on single rows of events: what is read of a row, and why it is rejected.

They are polars expressions over a row's own values. What has to be inferred from a whole column (the order of
day and month, the decimal sign) is in `EventStyles`, so that the rules can be applied to any part of a table,
in any process, with one result.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import polars as pl

from conf.tables import DataConfig
from features.data import schema
from features.files.readers import FILE, ROW, RawTable
from features.ingest import rejects as why
from features.ingest.event_readings import EventStyles, infer_styles, read_events, reject_reason
from features.ingest.id_matching import match_ids
from features.ingest.privacy import Pseudonyms

REASON = "__reason"
EXAMPLES = 3
"""Unreadable values that a message shows."""
_REQUIRED = (schema.USER_ID, schema.ITEM_ID, schema.EVENT, schema.TIMESTAMP, schema.ORDER)


@dataclass(frozen=True)
class EventRules:
    """Everything that decides about a row."""

    config: DataConfig
    styles: EventStyles
    pseudonyms: Pseudonyms | None
    """Replaces user and session ids, or None."""
    item_ids: pl.Series
    """Ids of the catalogue."""

    def judge(self, frame: pl.LazyFrame) -> JudgedEvents:
        """Read every row and decide about it.

        Args:
            frame: raw rows under contract names with `FILE` and `ROW`: a whole table, or a part of one.
        """
        readings = read_events(frame, self.config, self.styles, self.pseudonyms)
        if self.config.match_ids:
            matched = match_ids(readings.frame, "__item_id", self.item_ids, self.config.match_ids)
            readings = replace(readings, frame=matched)
        known = pl.LazyFrame({"__item_id": self.item_ids}).with_columns(pl.lit(True).alias("__known"))
        joined = readings.frame.join(known, on="__item_id", how="left", maintain_order="left")
        judged = joined.with_columns(reject_reason(self.config, readings).alias(REASON))
        existing = judged.collect_schema().names()
        return JudgedEvents(
            judged,
            readings.frame,
            [*_REQUIRED, *(c for c in schema.OPTIONAL_EVENT_COLUMNS if f"__{c}" in existing)],
            [c for c in readings.checked if c not in _REQUIRED],
            [c for c in why.KEYS if c in existing],
        )


@dataclass(frozen=True)
class JudgedEvents:
    """Rows with the reason of their rejection."""

    frame: pl.LazyFrame
    """`NAME` is a raw column, `__NAME` the parsed one, `REASON` null where the row is accepted."""
    read: pl.LazyFrame
    """The same rows without the reason, which needs the catalogue."""
    columns: list[str]
    """Columns of an accepted event."""
    optional: list[str]
    """Those whose unreadable values become null."""
    keys: list[str]
    """Raw columns that identify a rejected row."""

    def accepted(self) -> pl.LazyFrame:
        """Return the accepted rows under contract names, with `FILE` and `ROW`."""
        return self.frame.filter(pl.col(REASON).is_null()).select(FILE, ROW, *self.values())

    def values(self) -> list[pl.Expr]:
        """Return the parsed columns under contract names."""
        return [pl.col(f"__{c}").alias(c) for c in self.columns]

    def rejected(self) -> pl.LazyFrame:
        """Return the rejected rows as rejects.parquet has them."""
        return self.frame.filter(pl.col(REASON).is_not_null()).select(self.reject_columns())

    def reject_columns(self) -> list[pl.Expr]:
        """Return the columns of rejects.parquet."""
        keys = {schema.USER_ID: pl.col("__user_id"), **{c: pl.col(c) for c in self.keys}}
        return why.reject_columns("events", pl.col(REASON), keys)

    def unreadable(self, name: str) -> pl.Expr:
        """Return whether a row has a value in an optional column that cannot be read."""
        return pl.col(f"__given_{name}") & pl.col(f"__{name}").is_null()

    def tallies(self) -> list[pl.Expr]:
        """Return what is counted of accepted rows: values of optional columns, and unreadable ones."""
        counts: list[pl.Expr] = [pl.len().alias("rows")]
        for name in self.optional:
            bad = self.unreadable(name)
            counts += [
                pl.col(f"__given_{name}").sum().alias(f"given {name}"),
                bad.sum().alias(f"bad {name}"),
                pl.col(name).filter(bad).head(EXAMPLES).implode().alias(f"e.g. {name}"),
            ]
        return counts


def rules_of(
    table: RawTable, config: DataConfig, pseudonyms: Pseudonyms | None, item_ids: pl.Series
) -> EventRules:
    """Return the rules on a table's rows.

    Raises:
        InputError: dates with an ambiguous order of day and month.
    """
    return EventRules(config, infer_styles(table, config), pseudonyms, item_ids)
