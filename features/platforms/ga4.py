"""Google Analytics 4's export to BigQuery: a row per event, with its list of items.

Every item of an event becomes an event. A signed-in user's `user_id` is preferred to the browser's
`user_pseudo_id`. Without `data.items` the catalogue is the items in the events, with their latest fields.

https://support.google.com/analytics/answer/7029846
"""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from conf.errors import InputError
from conf.schema import DataConfig
from features.data import schema
from features.files.readers import BOOKKEEPING, RawTable, readable, scan_table
from features.ingest.columns import map_columns
from features.ingest.raw_tables import Sources, table_of, text_options
from features.platforms.parts import Columns
from features.values.times import unix_seconds

_UNSET = ("(not set)", "(not provided)", "")
_CATEGORIES = ("item_category", "item_category2", "item_category3", "item_category4", "item_category5")
_TEXTS = ("title", "brand", "categories", "variant")


def _per_item(table: RawTable) -> RawTable:
    """Return a row per event and item: user_id, event, timestamp and the item's own fields."""
    types = table.frame.collect_schema()
    items = types.get("items")
    missing = [c for c in ("event_name", "event_timestamp", "user_pseudo_id") if c not in types]
    if missing or not (isinstance(items, pl.List) and isinstance(items.inner, pl.Struct)):
        what = f"no column '{missing[0]}'" if missing else "its column 'items' is no list of objects"
        raise InputError(
            f"{table.name}: {what}, so it is no BigQuery export of GA4; write the tables events_* as "
            "JSON Lines or Parquet, with event_name, event_timestamp, user_id, user_pseudo_id and items"
        )
    columns = Columns(table)
    frame = table.frame.select(
        *(c for c in BOOKKEEPING if c in types),
        columns.value("user_id", "user_pseudo_id").alias(schema.USER_ID),
        columns.value("event_name").alias(schema.EVENT),
        pl.col("event_timestamp").alias(schema.TIMESTAMP),
        "items",
    )
    # Events without items (page_view, scroll, ...) are dropped.
    exploded = frame.explode("items", empty_as_null=False, keep_nulls=False).unnest("items")
    return replace(table, frame=exploded)


def _set(name: str) -> pl.Expr:
    text = pl.col(name).cast(pl.String, strict=False).str.strip_chars()
    return pl.when(~text.is_in(_UNSET)).then(text)


def _catalogue(lines: RawTable) -> pl.DataFrame:
    """Return item_id, title, brand, categories, variant and price of each item's latest event."""
    types = lines.frame.collect_schema()
    at = unix_seconds(schema.TIMESTAMP, types[schema.TIMESTAMP])
    named = {"title": "item_name", "brand": "item_brand", "variant": "item_variant"}
    made = [_set(field).alias(name) for name, field in named.items() if field in types]
    parts = [_set(field) for field in _CATEGORIES if field in types]
    if parts:
        listed = pl.concat_list(parts).list.drop_nulls()
        made.append(pl.when(listed.list.len() > 0).then(listed).alias("categories"))
    if schema.PRICE in types:
        price = pl.col(schema.PRICE).cast(pl.Float64, strict=False)
        made.append(pl.when(price > 0).then(price).alias(schema.PRICE))
    rows = lines.frame.filter(pl.col(schema.ITEM_ID).is_not_null()).select(
        schema.ITEM_ID, at.alias("__at"), *made
    )
    names = [name for name in rows.collect_schema().names() if name not in (schema.ITEM_ID, "__at")]
    latest = rows.sort("__at", maintain_order=True).group_by(schema.ITEM_ID, maintain_order=True)
    return latest.agg(pl.col(name).drop_nulls().last() for name in names).collect().sort(schema.ITEM_ID)


def read_ga4(config: DataConfig) -> Sources:
    """Read an export of events; `data.items` may name a catalogue.

    Raises:
        InputError: no events are named, or they are not of this format.
    """
    if config.events is None:
        raise InputError(
            "data=ga4: set data.events='events_*.jsonl' (or Parquet), and data.items if there is a catalogue"
        )
    log = _per_item(scan_table(config.events, "data.events", text_options(config, "events")))
    names = [field for field in ("item_id", "item_name") if field in log.columns]
    if not names:
        raise InputError(f"{log.name}: its items have neither item_id nor item_name")
    log = replace(
        log, frame=log.frame.with_columns(pl.coalesce(_set(n) for n in names).alias(schema.ITEM_ID))
    )
    kept = (schema.USER_ID, schema.ITEM_ID, schema.EVENT, schema.TIMESTAMP, "quantity")
    have = log.frame.collect_schema().names()
    chosen = [pl.col(c) for c in have if c in (*kept, *BOOKKEEPING)]
    if schema.PRICE in have:
        chosen.append(pl.col(schema.PRICE).alias("value"))
    lines = log.frame.select(chosen)
    if config.items is not None:
        items, events = map_columns(
            scan_table(config.items, "data.items", text_options(config, "items")),
            replace(log, frame=lines),
            config.columns,
        )
        assert items is not None
        return Sources(items, events)
    with readable(log.name):
        catalogue = _catalogue(log)
    texts = tuple(
        name for name in _TEXTS if name in catalogue.columns and catalogue[name].is_not_null().any()
    )
    columns = {key: source for key, source in config.columns.items() if not key.startswith("items.")}
    _, events = map_columns(None, replace(log, frame=lines), columns)
    return Sources(table_of(catalogue, log.name, "data.items"), events, texts)
