"""`data.columns`: how the names in the files become the names of the data contract."""

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
"""Every column that an event may have; others are left in the files."""
CLOCK = r"^\s*\d{1,2}(?:[:h]\d{2}(?::\d{2}(?:[.,]\d+)?)?(?:\s*[AaPp]\.?[Mm]\.?)?|[:.]\d{2}\s*Uhr)\s*$"
"""A time of day without its date."""
_MIDNIGHT = r"[ T]00:00(?::00(?:\.0+)?)?\s*$"
"""What a spreadsheet adds to a date."""
_EVENTS_ONLY = frozenset(EVENT_COLUMNS) - {schema.ITEM_ID}
_ITEMS_ONLY = frozenset((schema.PRICE, schema.CREATED_AT))


def sources_of(source: object, key: str) -> list[str]:
    """Return the file columns that a value of `data.columns` names: one name, or a list of alternatives.

    Raises:
        InputError: neither a name nor a list of names.
    """
    names = source if isinstance(source, list | tuple) else [source]
    if not names or not all(isinstance(name, str) and name for name in names):
        raise InputError(
            f"data.columns.{key}: expected the name of a column or a list of names, not {source}"
        )
    return list(names)


def _first_value(names: Sequence[str], types: Mapping[str, pl.DataType]) -> pl.Expr:
    """Return the first of several columns that has a value in a row."""
    if len(names) == 1:
        return pl.col(names[0])
    alike = len({types[name] for name in names}) == 1
    given = [
        pl.when(present(name, types[name])).then(pl.col(name) if alike else string_id(name, types[name]))
        for name in names
    ]
    return pl.coalesce(given)


def _moment(names: Sequence[str], types: Mapping[str, pl.DataType]) -> pl.Expr:
    """Return the first time that a row has, with the clock where a date and its clock are two columns."""
    first = _first_value(names, types)
    if len(names) == 1:
        return first
    day, hour = (pl.col(name).cast(pl.String, strict=False) for name in names[:2])
    whole = pl.concat_str(day.str.replace(_MIDNIGHT, ""), hour.str.strip_chars(), separator=" ")
    joined = present(names[0], types[names[0]]) & hour.str.contains(CLOCK)
    return pl.when(joined).then(whole).otherwise(first.cast(pl.String, strict=False))


def _rename(table: RawTable, names: Mapping[str, Sequence[str]]) -> RawTable:
    """Give columns their new names; a column that had a new name before gives way to the mapped one."""
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
    """Whether a contract column can stand in `items` or `events`; the shop's own names can stand in both."""
    return name not in (_EVENTS_ONLY if table == "items" else _ITEMS_ONLY)


def map_columns(
    items: RawTable | None, events: RawTable | None, columns: Mapping[str, Any]
) -> tuple[RawTable | None, RawTable | None]:
    """Apply `data.columns` to both tables.

    A key is a contract name or, for items, any name the shop wants (`title`). It acts on whichever table has
    the file column; `items.NAME` and `events.NAME` restrict it to one table. A value is a file column, or a
    list of them: each row then takes the first that has a value, and columns that a table lacks are passed
    over.

    Raises:
        InputError: a file column that no table has, where it is not one of a list.
    """
    tables = {"items": items, "events": events}
    names: dict[str, dict[str, list[str]]] = {"items": {}, "events": {}}
    for key, source in columns.items():
        prefix, _, rest = key.partition(".")
        name = rest if prefix in tables and rest else key
        wanted = [prefix] if name != key else [t for t in tables if _belongs(name, t)]
        asked = {t: tables[t] for t in wanted}
        named = sources_of(source, key)
        having = {
            t: [n for n in named if n in table.columns] for t, table in asked.items() if table is not None
        }
        if not any(having.values()) and not isinstance(source, list | tuple):
            listing = "; ".join(
                f"{t.name} has {', '.join(t.columns)}" for t in asked.values() if t is not None
            )
            known = [c for t in asked.values() if t is not None for c in t.columns]
            raise InputError(
                f"data.columns.{key}: no column '{source}' in {' or '.join(wanted)}{closest(source, known)}"
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
    """Return the items that a file of events tells of, one row each, without what belongs to the events.

    Args:
        log: the file, under its own names.
        columns: `data.columns`; what it names `items.NAME` stays, whatever else it is.
    """
    taken_by = {key.removeprefix("events."): sources_of(source, key) for key, source in columns.items()}
    kept = {n for key, source in columns.items() if key.startswith("items.") for n in sources_of(source, key)}
    of_events = {n for name in _EVENTS_ONLY for n in taken_by.get(name, [name])} - kept
    names = log.frame.collect_schema().names()
    of_items = columns.get(f"items.{schema.ITEM_ID}", schema.ITEM_ID)
    ids = taken_by.get(schema.ITEM_ID, sources_of(of_items, schema.ITEM_ID))
    item_id = [name for name in ids if name in names]
    frame = log.frame.select(name for name in names if name not in of_events)
    if item_id:  # else the error names the columns that there are
        frame = frame.unique(item_id, keep="first", maintain_order=True)
    return replace(log, frame=frame)
