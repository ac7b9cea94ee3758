"""Retailrocket (Kaggle): events.csv, the two item_properties files, and category_tree.csv if it is named too.

Item properties are a row per item, property and week; the publisher has hashed most names and all words. Only
`categoryid` and `available` are readable. Items with events but no properties stay in the catalogue, without
a category: they have a fifth of the events.
"""

from __future__ import annotations

import polars as pl

from conf.errors import InputError
from conf.schema import DataConfig
from features.data import schema
from features.files.readers import RawTable, resolve_paths, scan_table
from features.ingest.columns import map_columns
from features.ingest.long_form import items_of_properties
from features.ingest.raw_tables import Sources, ids_of, table_of
from features.ingest.required import require_columns

_PROPERTIES = {"name": "property", "value": "value", "time": "timestamp"}
_EVENTS = {
    schema.USER_ID: "visitorid",
    schema.ITEM_ID: "itemid",
    schema.EVENT: "event",
    schema.TIMESTAMP: "timestamp",
    "session_id": "transactionid",
}
_READABLE = {"categoryid": "category", "available": "available"}


def _is_tree(path: str) -> bool:
    return set(scan_table(path, "data.items").columns) == {"categoryid", "parentid"}


def _described(paths: list[str]) -> pl.DataFrame:
    """Return item_id, the last category and availability, and the parent category if a tree is given."""
    trees = [path for path in paths if _is_tree(path)]
    table = scan_table([path for path in paths if path not in trees], "data.items")
    require_columns(table, ("itemid", "property", "value", "timestamp"), "items")
    readable_property = pl.col("property").is_in(list(_READABLE))
    chosen = RawTable(table.frame.filter(readable_property), table.untyped, table.name)
    wide = items_of_properties(chosen, "itemid", _PROPERTIES)
    found = {name: new for name, new in _READABLE.items() if name in wide.columns}
    items = wide.frame.filter(pl.col("itemid").is_not_null()).collect()
    items = items.select(
        pl.col("itemid").alias(schema.ITEM_ID), *(pl.col(n).alias(new) for n, new in found.items())
    )
    if trees and "category" in items.columns:
        tree = scan_table(trees, "data.items").frame.select(
            pl.col("categoryid").alias("category"), pl.col("parentid").alias("parent_category")
        )
        items = items.join(tree.unique("category", keep="first").collect(), on="category", how="left")
    return items


def read_retailrocket(config: DataConfig) -> Sources:
    """Read events and the readable properties of items.

    Raises:
        InputError: missing files, or columns other than the published ones.
    """
    if config.items is None or config.events is None:
        raise InputError(
            "data.adapter=retailrocket: set data.items='item_properties_part*.csv' and data.events=events.csv"
        )
    events = scan_table(config.events, "data.events")
    require_columns(events, tuple(_EVENTS.values()), "events")
    _, events_named = map_columns(None, events, {**_EVENTS, **config.columns})
    assert events_named is not None
    items = _described(resolve_paths(config.items, "data.items"))
    seen = ids_of(events_named)
    items = pl.concat(
        [items, seen.filter(~seen[schema.ITEM_ID].is_in(items[schema.ITEM_ID].implode()))], how="diagonal"
    )
    fields = tuple(name for name in ("category", "parent_category") if name in items.columns)
    return Sources(table_of(items, "item_properties", "data.items"), events_named, fields)
