"""Footers of a table: totals, and notes below the last row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import polars as pl

from features.data import schema
from features.files.readers import BOOKKEEPING, FILE, ROW
from features.ingest import rejects as why
from features.ingest.cleaning import present

_TOTAL: Final = (
    r"(?i)^\s*(?:(?:grand|sub)[- ]?total|totals?|sum|summe|gesamt(?:summe|betrag)?|zwischensumme|endsumme|"
    r"totale|total général|sous-total|somme|suma|total geral|totaal|subtotaal|razem|suma całkowita)\s*:?\s*$"
)
"""Names of total rows."""
_MOST = 10
"""Most footer rows; more of them are data faults."""
_NOTE = r"\S\s+\S|:\s*$"
"""Several words: unlikely an id."""
_WORDS = 0.1
"""Share of ids with blanks above which several words may be an id."""


def _trailing(ordinary: pl.Expr) -> pl.Expr:
    """Return whether a row is among at most `_MOST` rows after the last ordinary one of its file."""
    row = pl.col(ROW).cast(pl.Int64)
    last = pl.when(ordinary).then(row).max().over(FILE)
    return (row > last) & ((row.max().over(FILE) - last) <= _MOST)


def footer_rows(raw: pl.DataFrame, title: str | None) -> pl.Series:
    """Return which rows of a table of items are totals, or notes below it, [rows] bools.

    A total has its name as id and no title. Notes are rows below the table without an id that are named a
    total or are at most half as full as others, and rows with several words as id and nothing else where ids
    are single words.

    Args:
        raw: rows of text with `item_id`, `FILE` and `ROW`.
        title: the column of titles.
    """
    item = pl.col(schema.ITEM_ID)
    others = [c for c in raw.columns if c not in (*BOOKKEEPING, schema.ITEM_ID)]
    filled = pl.sum_horizontal([present(c, raw.schema[c]) for c in others] or [pl.lit(0)])
    has_id = present(schema.ITEM_ID, raw.schema[schema.ITEM_ID])
    called_total = item.str.contains(_TOTAL).fill_null(False)
    if title is not None and raw.schema[title] == pl.String:
        called_total &= ~present(title, pl.String()) | pl.col(title).str.contains(_TOTAL).fill_null(False)
    spaced = item.str.contains(_NOTE).fill_null(False)
    note = spaced & (filled == 0) if others else pl.lit(False)
    note &= spaced.mean() < _WORDS
    ordinary = has_id & ~called_total & ~note
    texts = [pl.col(c).str.contains(_TOTAL).fill_null(False) for c in others if raw.schema[c] == pl.String]
    sums = ~has_id & (
        pl.any_horizontal(*texts, pl.lit(False)) | (2 * filled <= filled.filter(ordinary).mean())
    )
    return raw.select(called_total | (_trailing(ordinary) & (sums | note)).fill_null(False)).to_series()


def below_events(rejected: pl.DataFrame, last: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    """Set the reason of rejected rows that are below a table of events.

    Such a row is after the last event of its file and has at most one of user, item and time, or is named a
    total.

    Args:
        rejected: rows of rejects.parquet.
        last: file and row of the last good event of each file, as `file` and `last`.
        keys: which of user, item and time the table has.
    """
    given = pl.sum_horizontal(present(key, pl.String()).cast(pl.Int8) for key in keys)
    total = pl.any_horizontal(pl.col(key).str.contains(_TOTAL).fill_null(False) for key in why.KEYS)
    placed = rejected.join(last, on="file", how="left", maintain_order="left")
    most = pl.col("row").max().over("file") - pl.col("last") <= _MOST
    below = (pl.col("row") > pl.col("last")) & most & ((given <= 1) | total)
    reason = pl.when(below.fill_null(False)).then(pl.lit(why.BELOW)).otherwise(why.REASON).alias(why.REASON)
    return placed.with_columns(reason).drop("last")
