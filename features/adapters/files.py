"""The shop's own tables, mapped by `data.columns`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import polars as pl

from conf.errors import InputError
from conf.schema import DataConfig
from features.data import schema
from features.files.readers import RawTable, scan_table
from features.ingest.columns import items_of_log, map_columns, sources_of
from features.ingest.exclusions import columns_of, exclude
from features.ingest.id_lists import PARALLEL, items_of_lists, rows_of_ids, separator_in
from features.ingest.long_form import items_of_properties
from features.ingest.nested import flatten, rows_of_lists
from features.ingest.raw_tables import Sources, text_options


def _wide(items: RawTable, config: DataConfig) -> RawTable:
    """Pivot items in long form to one row each; their ids are the mapped column that they have."""
    key = f"items.{schema.ITEM_ID}"
    mapped = config.columns.get(key, config.columns.get(schema.ITEM_ID, schema.ITEM_ID))
    names = sources_of(mapped, schema.ITEM_ID)
    return items_of_properties(
        items, next((n for n in names if n in items.columns), names[0]), config.properties
    )


def _paths(config: DataConfig, foreign: str) -> list[str]:
    """Return the columns that settings name, except for keys with the other table's prefix."""
    mapped = [
        name
        for key, source in config.columns.items()
        if not foreign or not key.startswith(foreign)
        for name in sources_of(source, key)
    ]
    tables = [table for table in ("items", "events") if f"{table}." != foreign]
    return [*mapped, *(column for table in tables for column in columns_of(config.exclude, table))]


@dataclass(frozen=True)
class FileShape:
    """How rows of the files become events under contract names; other processes do it with parts of them."""

    config: DataConfig
    item_types: dict[str, pl.DataType] = field(default_factory=dict)
    """Columns of the items before they are mapped, among which a mapped column may be."""
    separator: str | None = None
    """Separator of several ids in a cell; None where each has one."""

    @property
    def paths(self) -> list[str]:
        """Columns of the events that settings name."""
        return _paths(self.config, "items.")

    def rows(self, events: RawTable) -> RawTable:
        """Return the events of a part of the files, as `read_files` makes them of all of them."""
        items = RawTable(pl.LazyFrame(schema=self.item_types))
        flat = exclude(flatten(events, self.paths), self.config.exclude, "events", None)
        mapped = map_columns(items, flat, self.config.columns)[1]
        assert mapped is not None
        return self.listed(mapped, None)

    def listed(self, events: RawTable, dropped: dict[str, int] | None) -> RawTable:
        """Make an event of every item, where cells or lists hold several."""
        return rows_of_lists(rows_of_ids(events, self.separator, dropped), schema.ITEM_ID, PARALLEL)


def read_files(config: DataConfig) -> Sources:
    """Scan the configured items and events tables.

    Raises:
        InputError: no items table, a missing file, or a mapping to a column that does not exist.
    """
    if config.items is None:
        raise InputError("data.items is not set: give the items table, e.g. data.items=shop/items.csv")
    items = scan_table(config.items, "data.items", text_options(config, "items"))
    if config.properties:
        items = _wide(items, config)
    events = None
    if config.events is not None:
        events = scan_table(config.events, "data.events", text_options(config, "events"))
    log = config.items == config.events
    items = flatten(items, _paths(config, "" if log else "events."))
    dropped: dict[str, int] = {}
    shape = FileShape(config)
    events = None if events is None else flatten(events, shape.paths)
    if log:
        items = items_of_log(items, config.columns)
    items = exclude(items, config.exclude, "items", dropped)
    shape = replace(shape, item_types=dict(items.frame.collect_schema()))
    events = None if events is None else exclude(events, config.exclude, "events", dropped)
    mapped_items, mapped_events = map_columns(items, events, config.columns)
    assert mapped_items is not None
    if mapped_events is not None:
        shape = replace(shape, separator=separator_in(mapped_events, config))
        mapped_events = shape.listed(mapped_events, dropped)
    if log:
        mapped_items = items_of_lists(mapped_items, config)
    return Sources(mapped_items, mapped_events, (), dropped, shape=shape)
