"""The shop's own tables, mapped by `data.columns`."""

from __future__ import annotations

from conf.errors import InputError
from conf.schema import DataConfig
from features.adapters.sources import Sources
from features.columns import items_of_log, map_columns
from features.readers import scan_table


def read_files(config: DataConfig) -> Sources:
    """Scan the configured items and events tables.

    Raises:
        InputError: no items table, a missing file, or a mapping to a column that does not exist.
    """
    if config.items is None:
        raise InputError("data.items is not set: give the items table, e.g. data.items=shop/items.csv")
    items = scan_table(config.items, "data.items")
    events = None if config.events is None else scan_table(config.events, "data.events")
    if config.items == config.events:
        items = items_of_log(items, config.columns)
    mapped_items, mapped_events = map_columns(items, events, config.columns)
    assert mapped_items is not None
    return Sources(mapped_items, mapped_events)
