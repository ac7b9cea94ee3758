"""`data.exclude`: rows excluded by the value of a column, and order states that suggest it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import polars as pl

from conf.composition.overrides import override
from conf.errors import InputError, closest
from features.files.readers import RawTable, readable
from features.ingest.cleaning import present
from features.ingest.raw_tables import drop_counted
from features.values.order_states import is_state_column, is_void

ANY = "*"
"""In `data.exclude`: any value."""
_ITEMS, _EVENTS = "items.", "events."
_STATES = 50
"""Most distinct values of a column of states."""


def columns_of(settings: Mapping[str, Any], table: str) -> dict[str, list[str]]:
    """Return file column -> values, in lower case, of the excluded rows of `items` or `events`."""
    found = {}
    for key, values in settings.items():
        of_items = key.startswith(_ITEMS)
        if of_items == (table == "items"):
            listed = values if isinstance(values, list | tuple) else [values]
            column = key.removeprefix(_ITEMS).removeprefix(_EVENTS)
            found[column] = [str(value).strip().lower() for value in listed]
    return found


def exclude(
    table: RawTable, settings: Mapping[str, Any], which: str, dropped: dict[str, int] | None
) -> RawTable:
    """Drop the rows that `data.exclude` names, and count them by column.

    Args:
        table: the raw table.
        settings: `data.exclude`.
        which: `items` or `events`.
        dropped: counts by reason, which are added to; None counts none.

    Raises:
        InputError: a column that the table lacks.
    """
    types = table.frame.collect_schema()
    frame = table.frame
    for column, values in columns_of(settings, which).items():
        if column not in types:
            raise InputError(
                f"data.exclude: no column '{column}' in {table.name}{closest(column, table.columns) or '.'} "
                f"Columns: {', '.join(table.columns)}"
            )
        text = pl.col(column).cast(pl.String, strict=False).str.strip_chars().str.to_lowercase()
        test = present(column, types[column]) if ANY in values else text.is_in(values)
        with readable(table.name):
            frame = drop_counted(frame, test, f"{which} with {column} {', '.join(values)}", dropped)
    return replace(table, frame=frame)


def void_states(table: RawTable) -> dict[str, dict[str, int]]:
    """Return column -> value -> rows, of columns with void orders."""
    found: dict[str, dict[str, int]] = {}
    types = table.frame.collect_schema()
    for column in table.columns:
        if not is_state_column(column) or types[column].is_nested() or types[column].is_temporal():
            continue
        text = pl.col(column).cast(pl.String, strict=False).str.strip_chars().alias(column)
        with readable(table.name):
            counts = table.frame.group_by(text).len().collect(engine="streaming").drop_nulls()
        if counts.height > _STATES:
            continue
        void = {value: int(rows) for value, rows in counts.sort(column).iter_rows() if is_void(column, value)}
        if void:
            found[column] = void
    return found


def exclusion(states: Mapping[str, Mapping[str, int]]) -> dict[str, list[str]]:
    """Return the `data.exclude` for some states."""
    return {column: list(values) for column, values in states.items()}


def void_orders(table: RawTable, total: int) -> list[str]:
    """Return a line on the number of events of void orders and the setting that excludes them, if any.

    Args:
        table: the events with the file's own columns.
        total: rows of the table.
    """
    states = void_states(table)
    if not states:
        return []
    found = "; ".join(
        f"{column} " + ", ".join(f"'{value}' ({rows:,})" for value, rows in values.items())
        for column, values in states.items()
    )
    return [
        f"events of orders that came to nothing count like the others, of {total:,} rows: {found}. "
        f"{override('data.exclude', exclusion(states))} leaves them out"
    ]
