"""Items in long form: a row per item and property, pivoted to a row per item."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import polars as pl

from conf.errors import InputError, closest
from features.files.readers import BOOKKEEPING, FILE, MALFORMED, ROW, RawTable, readable

NAME, VALUE, TIME = "name", "value", "time"
"""Keys of `data.properties`: the columns of the property's name, its value, and its time."""
_ITEM = "__item"
_MAX_COLUMNS = 100
"""Most properties that become columns; the most frequent are taken."""
_MIN_SHARE = 0.01
"""Least share of items with a property for it to become a column."""


def _newest(rows: pl.LazyFrame, columns: Mapping[str, str]) -> pl.DataFrame:
    """Return one row per item and property: the newest value, or the last one in the files."""
    read = [
        pl.col(columns[NAME]).cast(pl.String).alias(NAME),
        pl.col(columns[VALUE]).cast(pl.String).alias(VALUE),
    ]
    order = [pl.col(FILE), pl.col(ROW)]
    if TIME in columns:
        # Times of one export have one format, so numbers sort as numbers and others as text.
        moment = pl.col(columns[TIME])
        read += [moment.cast(pl.Float64, strict=False).alias("at"), moment.cast(pl.String).alias("written")]
        order = [pl.col("at"), pl.col("written"), *order]
    newest = rows.select(_ITEM, FILE, ROW, *read).group_by(_ITEM, NAME)
    last = pl.col(VALUE).sort_by(pl.struct(order)).last()
    return newest.agg(last, pl.col(FILE).first(), pl.col(ROW).first()).collect(engine="streaming")


def _check(table: RawTable, item_id: str, columns: Mapping[str, str]) -> None:
    if not {NAME, VALUE} <= columns.keys() <= {NAME, VALUE, TIME}:
        raise InputError(
            f"data.properties: expected name, value and perhaps time, not {', '.join(columns)}; "
            "e.g. 'data.properties={name: property, value: value, time: timestamp}'"
        )
    for key, column in (("columns.item_id", item_id), *((f"properties.{k}", c) for k, c in columns.items())):
        if column not in table.columns:
            raise InputError(
                f"data.{key}: no column '{column}' in {table.name}{closest(column, table.columns) or '.'} "
                f"Columns: {', '.join(table.columns)}"
            )


def items_of_properties(table: RawTable, item_id: str, columns: Mapping[str, str]) -> RawTable:
    """Pivot a table in long form into one with a row per item and a column per property.

    Properties of fewer than 1 % of the items are dropped, and those beyond the 100 most frequent, as a table
    may have thousands. Malformed rows and rows without an item are passed on, to be rejected with the items.

    Args:
        table: rows of an item's id, a property's name and its value.
        item_id: the column of ids in the files.
        columns: `data.properties`.

    Raises:
        InputError: a key other than name, value and time, or a missing column.
    """
    _check(table, item_id, columns)
    usable = pl.col(MALFORMED).is_null() & pl.col(item_id).is_not_null() & pl.col(columns[NAME]).is_not_null()
    with readable(table.name):
        newest = _newest(table.frame.filter(usable).with_columns(pl.col(item_id).alias(_ITEM)), columns)
        bad = table.frame.filter(~usable).select(*BOOKKEEPING, item_id).collect(engine="streaming")
    counts = newest.group_by(NAME).len().sort(["len", NAME], descending=[True, False])
    common = counts.filter(pl.col("len") >= _MIN_SHARE * newest[_ITEM].n_unique()).head(_MAX_COLUMNS)[NAME]
    names = [name for name in common.sort() if name not in (item_id, *BOOKKEEPING)]
    wide = newest.filter(pl.col(NAME).is_in(names)).pivot(NAME, index=_ITEM, values=VALUE)
    places = newest.group_by(_ITEM).agg(pl.col(FILE).min(), pl.col(ROW).min())
    frame = places.join(wide, on=_ITEM, how="left").sort(FILE, ROW).rename({_ITEM: item_id})
    frame = frame.with_columns(pl.lit(None, dtype=pl.String).alias(MALFORMED))
    frame = frame.select(*BOOKKEEPING, item_id, *(name for name in names if name in frame.columns))
    return replace(table, frame=pl.concat([frame, bad], how="diagonal").lazy())
