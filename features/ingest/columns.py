"""`data.columns`: mapping of the files' column names to those of the data contract."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from conf.errors import InputError, closest
from features.data import schema
from features.files.readers import BOOKKEEPING, RawTable
from features.ingest.cleaning import present, string_id

EVENT_COLUMNS = (
    schema.USER_ID,
    schema.ITEM_ID,
    schema.EVENT,
    schema.TIMESTAMP,
    schema.ORDER,
    *schema.OPTIONAL_EVENT_COLUMNS,
)
"""All columns of an event; others are not read."""
CLOCK = r"^\s*\d{1,2}(?:[:h]\d{2}(?::\d{2}(?:[.,]\d+)?)?(?:\s*[AaPp]\.?[Mm]\.?)?|[:.]\d{2}\s*Uhr)\s*$"
"""A time of day without its date."""
_MIDNIGHT = r"[ T]00:00(?::00(?:\.0+)?)?\s*$"
"""The time that a spreadsheet adds to a date."""
_EVENTS_ONLY = frozenset(EVENT_COLUMNS) - {schema.ITEM_ID}
_ITEMS_ONLY = frozenset((schema.PRICE, schema.CREATED_AT))


def sources_of(source: object, key: str) -> list[str]:
    """Return the file columns in a value of `data.columns`: one name, or a list of alternatives.

    Raises:
        InputError: it is neither a name nor a list of names.
    """
    names = source if isinstance(source, list | tuple) else [source]
    if not names or not all(isinstance(name, str) and name for name in names):
        raise InputError(
            f"data.columns.{key}: expected the name of a column or a list of names, not {source}"
        )
    return list(names)


def _first_value(names: Sequence[str], types: Mapping[str, pl.DataType]) -> pl.Expr:
    """Return the first value of several columns in a row."""
    if len(names) == 1:
        return pl.col(names[0])
    alike = len({types[name] for name in names}) == 1
    given = [
        pl.when(present(name, types[name])).then(pl.col(name) if alike else string_id(name, types[name]))
        for name in names
    ]
    return pl.coalesce(given)


def _moment(names: Sequence[str], types: Mapping[str, pl.DataType]) -> pl.Expr:
    """Return the first time of a row, combining a date and a time of day in two columns."""
    first = _first_value(names, types)
    if len(names) == 1:
        return first
    day, hour = (pl.col(name).cast(pl.String, strict=False) for name in names[:2])
    whole = pl.concat_str(day.str.replace(_MIDNIGHT, ""), hour.str.strip_chars(), separator=" ")
    joined = present(names[0], types[names[0]]) & hour.str.contains(CLOCK)
    return pl.when(joined).then(whole).otherwise(first.cast(pl.String, strict=False))


def _rename(table: RawTable, names: Mapping[str, Sequence[str]]) -> RawTable:
    """Rename columns; a mapped column replaces one that already has the new name."""
    if not names:
        return table
    types = table.frame.collect_schema()
    taken = set(names).union(*names.values())
    kept = [c for c in types.names() if c not in taken or c in BOOKKEEPING]
    mapped = (
        (_moment if new == schema.TIMESTAMP else _first_value)(old, types).alias(new)
        for new, old in names.items()
    )
    return replace(table, frame=table.frame.select(*kept, *mapped))


def _belongs(name: str, table: str) -> bool:
    """Return whether a contract column can be in `items` or `events`; other names can be in both."""
    return name not in (_EVENTS_ONLY if table == "items" else _ITEMS_ONLY)


def map_columns(
    items: RawTable | None, events: RawTable | None, columns: Mapping[str, Any]
) -> tuple[RawTable | None, RawTable | None]:
    """Apply `data.columns` to both tables.

    A key is a contract name or, for items, any other name (`title`). It applies to whichever table has
    the file column; `items.NAME` and `events.NAME` restrict it to one table. A value is a file column, or a
    list of them: each row takes the first with a value, and columns that a table lacks are ignored.

    Raises:
        InputError: a file column that no table has, where it is not one of a list.
    """
    tables = {"items": items, "events": events}
    names: dict[str, dict[str, list[str]]] = {"items": {}, "events": {}}
    for key, source in columns.items():
        prefix, _, rest = key.partition(".")
        name = rest if prefix in tables and rest else key
        allowed = [prefix] if name != key else [t for t in tables if _belongs(name, t)]
        candidates = {t: tables[t] for t in allowed}
        named = sources_of(source, key)
        having = {
            t: [n for n in named if n in table.columns]
            for t, table in candidates.items()
            if table is not None
        }
        if not any(having.values()) and not isinstance(source, list | tuple):
            listing = "; ".join(
                f"{t.name} has {', '.join(t.columns)}" for t in candidates.values() if t is not None
            )
            known = [c for t in candidates.values() if t is not None for c in t.columns]
            raise InputError(
                f"data.columns.{key}: no column '{source}' in {' or '.join(allowed)}{closest(source, known)}"
                f" ({listing or 'no such table is given'})"
            )
        for table_name, found in having.items():
            if found:
                names[table_name][name] = found
    return (
        _rename(items, names["items"]) if items else None,
        _rename(events, names["events"]) if events else None,
    )


def items_of_log(log: RawTable, columns: Mapping[str, Any]) -> RawTable:
    """Return the items in a file of events, one row each, without the events' columns.

    Args:
        log: the file, under its own names.
        columns: `data.columns`; columns mapped to `items.NAME` are kept.
    """
    taken_by = {key.removeprefix("events."): sources_of(source, key) for key, source in columns.items()}
    kept = {n for key, source in columns.items() if key.startswith("items.") for n in sources_of(source, key)}
    of_events = {n for name in _EVENTS_ONLY for n in taken_by.get(name, [name])} - kept
    names = log.frame.collect_schema().names()
    of_items = columns.get(f"items.{schema.ITEM_ID}", schema.ITEM_ID)
    ids = taken_by.get(schema.ITEM_ID, sources_of(of_items, schema.ITEM_ID))
    item_id = [name for name in ids if name in names]
    frame = log.frame.select(name for name in names if name not in of_events)
    if item_id:  # otherwise a later error names the columns
        frame = frame.unique(item_id, keep="first", maintain_order=True)
    return replace(log, frame=frame)
