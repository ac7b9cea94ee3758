"""Rows that could not become part of the dataset: where they stand, and why."""

from __future__ import annotations

import polars as pl

from conf.errors import InputError
from features import schema
from features.readers import FILE, ROW

TABLE = "table"
REASON = "reason"
KEYS = (schema.USER_ID, schema.ITEM_ID, schema.EVENT, schema.TIMESTAMP, schema.ORDER)
"""Raw fields that tell a rejected row from others; user ids are pseudonyms where the dataset's are."""
COLUMNS: dict[str, type[pl.DataType]] = {
    TABLE: pl.String,
    "file": pl.String,
    "row": pl.Int64,
    REASON: pl.String,
    **dict.fromkeys(KEYS, pl.String),
}
"""Columns of rejects.parquet."""

MISSING_USER = "missing user_id"
MISSING_ITEM = "missing item_id"
MISSING_EVENT = "missing event"
BAD_TIMESTAMP = "bad timestamp"
BAD_ORDER = "bad order"
NO_POSITION = "neither timestamp nor order"
UNKNOWN_ITEM = "unknown item"
SHORTENED_ITEM = "item_id shortened by a spreadsheet"
SHORTENED_USER = "user_id shortened by a spreadsheet"
NO_ITEM = "no item of its own"
"""A row without item_id that only adds to a product with variants."""
REPEATED_ITEM = "duplicate item_id, same content"
CONFLICTING_ITEM = "duplicate item_id, different content"
_HARMLESS = (REPEATED_ITEM, CONFLICTING_ITEM, NO_ITEM)
"""Left out and listed, but not held against `max_reject_fraction`: another row of the item stays."""
_SHOWN_KEY = {
    UNKNOWN_ITEM: schema.ITEM_ID,
    BAD_TIMESTAMP: schema.TIMESTAMP,
    BAD_ORDER: schema.ORDER,
    SHORTENED_ITEM: schema.ITEM_ID,
    SHORTENED_USER: schema.USER_ID,
}
"""Reason -> the raw value that a message shows beside it."""
_SHOWN = 10


def malformed(reason: pl.Expr) -> pl.Expr:
    """Return the reason for a row that its format could not give, or null."""
    return pl.format("malformed row: {}", reason)


def unknown_kind(kind: pl.Expr) -> pl.Expr:
    """Return the reason for an event kind that `data.event_weights` does not name."""
    return pl.format("unknown event kind '{}': add data.event_weights.{}", kind, kind)


def reject_columns(table: str, reason: pl.Expr, keys: dict[str, pl.Expr]) -> list[pl.Expr]:
    """Return expressions for the columns of rejects.parquet; keys that a table lacks are null."""
    raw = [keys.get(k, pl.lit(None)).cast(pl.String).alias(k) for k in KEYS]
    return [
        pl.lit(table).alias(TABLE),
        pl.col(FILE).cast(pl.String).alias("file"),
        pl.col(ROW).cast(pl.Int64).alias("row"),
        reason.alias(REASON),
        *raw,
    ]


def count_reasons(rejects: pl.DataFrame) -> dict[str, int]:
    """Count rejected rows by reason, most frequent first."""
    counts = rejects.group_by(REASON).len().sort(["len", REASON], descending=[True, False])
    return dict(counts.select(REASON, pl.col("len").cast(pl.Int64)).iter_rows())


def check_fraction(rejects: pl.DataFrame, rows: int, limit: float, name: str, hint: str = "") -> None:
    """Stop when too many rows of a table are bad.

    Args:
        rejects: the table's rejected rows.
        rows: rows read, rejected ones included.
        limit: `data.max_reject_fraction`.
        name: the table's name in messages.
        hint: what else to tell, e.g. how known ids look.

    Raises:
        InputError: with the counts by reason and the first ten rejected rows.
    """
    bad = rejects.filter(~pl.col(REASON).is_in(_HARMLESS))
    if not rows or bad.height <= limit * rows:
        return
    reasons = ", ".join(f"{reason} ({count:,})" for reason, count in list(count_reasons(bad).items())[:5])
    first = [
        f"  {row['file']} row {row['row']}: {row[REASON]}"
        + (f" '{row[_SHOWN_KEY[row[REASON]]]}'" if row[REASON] in _SHOWN_KEY else "")
        for row in bad.head(_SHOWN).iter_rows(named=True)
    ]
    raise InputError(
        f"{name}: {bad.height:,} of {rows:,} rows rejected, more than data.max_reject_fraction={limit:g}: "
        f"{reasons}{hint}. The first {len(first)}:\n" + "\n".join(first)
    )
