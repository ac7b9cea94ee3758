"""Rejected rows: their file and row, and the reason."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import polars as pl

from conf.composition.overrides import override
from conf.errors import InputError
from features.data import schema
from features.files import readers
from features.files.readers import FILE, ROW
from features.text.titles import shortened

TABLE = "table"
REASON = "reason"
KEYS = (schema.USER_ID, schema.ITEM_ID, schema.EVENT, schema.TIMESTAMP, schema.ORDER)
"""Raw fields that identify a rejected row; user ids are pseudonyms if the dataset's are."""
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
IMPLAUSIBLE_TIME = "implausible timestamp"
NO_POSITION = "neither timestamp nor order"
UNKNOWN_ITEM = "unknown item"
SHORTENED_ITEM = "item_id shortened by a spreadsheet"
LONG_ITEM = f"item_id longer than {schema.MAX_ID_CHARS} characters"
LONG_USER = f"user_id longer than {schema.MAX_ID_CHARS} characters"
SHORTENED_USER = "user_id shortened by a spreadsheet"
NO_ITEM = "no item of its own"
"""A row without item_id that supplements a product with variants."""
REPEATED_ITEM = "duplicate item_id, same content"
CONFLICTING_ITEM = "duplicate item_id, different content"
BELOW = "total or note, no row of the table"
_HARMLESS = (REPEATED_ITEM, CONFLICTING_ITEM, NO_ITEM, BELOW, f"malformed row: {readers.HEADER_AGAIN}")
"""Reasons that do not count towards `max_reject_fraction`, as no data are lost."""
_SHOWN_KEY = {
    UNKNOWN_ITEM: schema.ITEM_ID,
    BAD_TIMESTAMP: schema.TIMESTAMP,
    BAD_ORDER: schema.ORDER,
    IMPLAUSIBLE_TIME: schema.TIMESTAMP,
    LONG_ITEM: schema.ITEM_ID,
    LONG_USER: schema.USER_ID,
    SHORTENED_ITEM: schema.ITEM_ID,
    SHORTENED_USER: schema.USER_ID,
}
"""Reason -> the raw value shown in messages."""
_SHOWN = 10
_SHOWN_CHARS = 60
_NEARLY_ALL = 0.9
"""Share of rejected rows above which no useful data would be left."""


def malformed(reason: pl.Expr) -> pl.Expr:
    """Return the reason for a malformed row, or null."""
    return pl.format("malformed row: {}", reason)


def unknown_kind(kind: pl.Expr) -> pl.Expr:
    """Return the reason for an event kind that `data.event_weights` does not name."""

    def named(values: pl.Series) -> pl.Series:
        fix = {k: f"unknown event kind '{k}': add {weighed(k)}" for k in values.unique().drop_nulls()}
        return values.replace(list(fix), list(fix.values())) if fix else values

    return kind.map_batches(named, return_dtype=pl.String, is_elementwise=True)


def weighed(kind: str) -> str:
    """Return the override that sets a kind's weight to 1."""
    if re.fullmatch(r"[A-Za-z_]\w*", kind, re.ASCII):
        return f"data.event_weights.{kind}=1"
    return override("data.event_weights", {kind: 1})


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
    """Raise an error if too many rows of a table are rejected.

    Args:
        rejects: the table's rejected rows.
        rows: rows read, rejected ones included.
        limit: `data.max_reject_fraction`.
        name: the table's name in messages.
        hint: further text of the message, e.g. examples of known ids.

    Raises:
        InputError: with the counts by reason and the first ten rejected rows.
    """
    bad = rejects.filter(~pl.col(REASON).is_in(_HARMLESS))
    if not rows or bad.height <= limit * rows:
        return
    reasons = ", ".join(f"{reason} ({count:,})" for reason, count in list(count_reasons(bad).items())[:5])
    first = [
        f"  {row['file']} row {row['row']}: {row[REASON]}"
        + (
            f" '{shortened(row[_SHOWN_KEY[row[REASON]]] or '', _SHOWN_CHARS)}'"
            if row[REASON] in _SHOWN_KEY
            else ""
        )
        for row in bad.head(_SHOWN).iter_rows(named=True)
    ]
    share = math.ceil(100 * bad.height / rows) / 100
    setting = override("data.max_reject_fraction", {bad[TABLE][0]: share})
    go_on = f"{setting} goes on without them. " if share < _NEARLY_ALL else ""
    raise InputError(
        f"{name}: {bad.height:,} of {rows:,} rows rejected, more than data.max_reject_fraction={limit:g}: "
        f"{reasons}{hint}. {go_on}The first {len(first)}:\n" + "\n".join(first)
    )


def check_readable(where: str, name: str, given: int, bad: int, examples: Sequence[object]) -> None:
    """Raise an error if most values of an optional column cannot be parsed, as its name is misleading.

    Args:
        where: the table's name in messages; it begins with the setting, `data.items (...)`.
        name: the column.
        given: values that the column has.
        bad: those that cannot be read.
        examples: some of these, raw.

    Raises:
        InputError: with three values, and how to keep the column under another name.
    """
    if 2 * bad <= given:
        return
    shown = ", ".join(f"'{shortened(str(e), _SHOWN_CHARS)}'" for e in examples[:3])
    table = "events" if where.startswith("data.events") else "items"
    rename = override("data.columns", {f"{table}.{name}_text": name})
    raise InputError(
        f"{where}: {bad:,} of {given:,} values of {name} cannot be read, e.g. {shown}. "
        f"Map another column to it, or leave it out under another name: {rename}"
    )
