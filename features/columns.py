"""`data.columns`: how the names in the files become the names of the data contract."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import polars as pl

from conf.errors import InputError, closest
from features import schema
from features.readers import BOOKKEEPING, RawTable

EVENT_COLUMNS = (
    schema.USER_ID,
    schema.ITEM_ID,
    schema.EVENT,
    schema.TIMESTAMP,
    schema.ORDER,
    *schema.OPTIONAL_EVENT_COLUMNS,
)
"""Every column that an event may have; others are left in the files."""
_EVENTS_ONLY = frozenset(EVENT_COLUMNS) - {schema.ITEM_ID}
_ITEMS_ONLY = frozenset((schema.PRICE, schema.CREATED_AT))


def _rename(table: RawTable, names: Mapping[str, str]) -> RawTable:
    """Give columns their new names; a column that had a new name before gives way to the mapped one."""
    if not names:
        return table
    taken = set(names) | set(names.values())
    kept = [c for c in table.frame.collect_schema().names() if c not in taken or c in BOOKKEEPING]
    return replace(
        table, frame=table.frame.select(*kept, *(pl.col(old).alias(new) for new, old in names.items()))
    )


def _belongs(name: str, table: str) -> bool:
    """Whether a contract column can stand in `items` or `events`; the shop's own names can stand in both."""
    return name not in (_EVENTS_ONLY if table == "items" else _ITEMS_ONLY)


def map_columns(
    items: RawTable | None, events: RawTable | None, columns: Mapping[str, str]
) -> tuple[RawTable | None, RawTable | None]:
    """Apply `data.columns` to both tables.

    A key is a contract name or, for items, any name the shop wants (`title`). It acts on whichever table has
    the file column; `items.NAME` and `events.NAME` restrict it to one table.

    Raises:
        InputError: a file column that no table has.
    """
    tables = {"items": items, "events": events}
    names: dict[str, dict[str, str]] = {"items": {}, "events": {}}
    for key, source in columns.items():
        prefix, _, rest = key.partition(".")
        name = rest if prefix in tables and rest else key
        wanted = [prefix] if name != key else [t for t in tables if _belongs(name, t)]
        asked = {t: tables[t] for t in wanted}
        having = [t for t, table in asked.items() if table is not None and source in table.columns]
        if not having:
            listing = "; ".join(
                f"{t.name} has {', '.join(t.columns)}" for t in asked.values() if t is not None
            )
            known = [c for t in asked.values() if t is not None for c in t.columns]
            raise InputError(
                f"data.columns.{key}: no column '{source}' in {' or '.join(wanted)}{closest(source, known)}"
                f" ({listing or 'no such table is given'})"
            )
        for table_name in having:
            names[table_name][name] = source
    return (
        _rename(items, names["items"]) if items else None,
        _rename(events, names["events"]) if events else None,
    )


def items_of_log(log: RawTable, columns: Mapping[str, str]) -> RawTable:
    """Return the items that a file of events tells of, one row each, without what belongs to the events.

    Args:
        log: the file, under its own names.
        columns: `data.columns`; what it names `items.NAME` stays, whatever else it is.
    """
    taken_by = {key.removeprefix("events."): source for key, source in columns.items()}
    kept = {source for key, source in columns.items() if key.startswith("items.")}
    of_events = {taken_by.get(name, name) for name in _EVENTS_ONLY} - kept
    names = log.frame.collect_schema().names()
    item_id = taken_by.get(schema.ITEM_ID, columns.get(f"items.{schema.ITEM_ID}", schema.ITEM_ID))
    frame = log.frame.select(name for name in names if name not in of_events)
    if item_id in names:  # else it will be told that there is none
        frame = frame.unique(item_id, keep="first", maintain_order=True)
    return replace(log, frame=frame)


def require_columns(table: RawTable, names: tuple[str, ...], prefix: str) -> None:
    """Check that a table has the columns that the contract demands.

    Args:
        table: the table after `map_columns`.
        names: required contract columns.
        prefix: `items` or `events`, for the fix in the message.

    Raises:
        InputError: naming the missing column, what exists, and what to set.
    """
    existing = table.columns
    for name in names:
        if name not in existing:
            raise InputError(
                f"{table.name}: no column '{name}'{closest(name, existing) or '.'} "
                f"Columns: {', '.join(existing)}. "
                f"Set 'data.columns={{{prefix}.{name}: COLUMN}}' to the one in the file"
            )
