"""OTTO's session data (Kaggle): JSON Lines, a session with its list of events per line.

Items have ids alone; the catalogue is every id that occurs. A session is taken as a user. Times are
milliseconds in the original release and seconds in Kaggle's; both are read. Tables with a row per event
(`session`, `aid`, `ts`, `type`), as often shared in Parquet, are read too.
"""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from conf.errors import InputError
from conf.schema import DataConfig
from features.data import schema
from features.files.readers import BOOKKEEPING, RawTable, scan_table
from features.ingest.columns import map_columns
from features.ingest.raw_tables import Sources, ids_of, refuse_paths, table_of
from features.ingest.required import require_columns

_EVENTS = {
    schema.USER_ID: "session",
    schema.ITEM_ID: "aid",
    schema.TIMESTAMP: "ts",
    schema.EVENT: "type",
}


def _flat(table: RawTable) -> RawTable:
    """Make a row of every event of a session, with the row number of the session's line."""
    dtype = table.frame.collect_schema().get("events")
    if dtype is None:
        return table
    if not (isinstance(dtype, pl.List) and isinstance(dtype.inner, pl.Struct)):
        raise InputError(f"{table.name}: column 'events' holds {dtype}; expected a list of objects")
    bookkeeping = [c for c in BOOKKEEPING if c in table.frame.collect_schema()]
    frame = table.frame.select(*bookkeeping, "session", pl.col("events"))
    return replace(table, frame=frame.explode("events", empty_as_null=False).unnest("events"))


def read_otto(config: DataConfig) -> Sources:
    """Read sessions as users; items have ids alone.

    Raises:
        InputError: `data.events` is missing, or is not a file of sessions.
    """
    refuse_paths("otto", {"data.items": config.items})
    if config.events is None:
        raise InputError("data.adapter=otto: set data.events=otto-recsys-train.jsonl")
    events = _flat(scan_table(config.events, "data.events"))
    require_columns(events, tuple(_EVENTS.values()), "events")
    _, named = map_columns(None, events, {**_EVENTS, **config.columns})
    assert named is not None
    return Sources(table_of(ids_of(named), named.name, "data.items"), named)
