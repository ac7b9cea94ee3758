"""A product feed for Google Merchant Center: a table with its attributes as columns, or XML (RSS or Atom).

Attributes have underscores or blanks (`image link`), and in XML the prefix `g:`.

https://support.google.com/merchants/answer/7052112
"""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from conf.errors import InputError
from conf.schema import DataConfig
from features.data import schema
from features.files.readers import BOOKKEEPING, RawTable, scan_table
from features.ingest.columns import map_columns
from features.ingest.id_lists import rows_of_ids, separator_in
from features.ingest.raw_tables import Sources, text_options
from features.ingest.required import require_columns
from features.platforms.parts import Columns, flag

_TEXTS = (
    "title", "brand", "product_type", "google_product_category", "color", "size", "material", "pattern",
    "gender", "age_group", "description",
)  # fmt: skip


def _plain_names(table: RawTable) -> RawTable:
    """Rename `g:image link` to `image_link`; a second column of the same name is not renamed."""
    names: dict[str, str] = {}
    for column in table.frame.collect_schema().names():
        plain = column.strip().lower().removeprefix("g:").replace(" ", "_")
        if column not in BOOKKEEPING and plain not in names.values():
            names[column] = plain
    return replace(table, frame=table.frame.rename(names))


def read_merchant_feed(config: DataConfig) -> Sources:
    """Read a feed as the catalogue, and any table of events.

    Raises:
        InputError: no feed is named, or it has neither `id` nor `title`.
    """
    if config.items is None:
        raise InputError("data=merchant_feed: set data.items=feed.xml (or .tsv) and data.events=EVENTS")
    feed = _plain_names(scan_table(config.items, "data.items", text_options(config, "items")))
    events = (
        None
        if config.events is None
        else scan_table(config.events, "data.events", text_options(config, "events"))
    )
    require_columns(feed, ("title",), "items")
    columns = Columns(feed)
    frame = feed.frame
    if "id" in feed.columns and schema.ITEM_ID not in feed.columns:
        frame = frame.rename({"id": schema.ITEM_ID})
    extra = {"product": columns.value("item_group_id"), "in_stock": flag(columns.value("availability"))}
    frame = frame.with_columns(e.alias(name) for name, e in extra.items() if name not in feed.columns)
    items, mapped_events = map_columns(replace(feed, frame=frame), events, config.columns)
    assert items is not None
    dropped: dict[str, int] = {}
    if mapped_events is not None:
        separator = separator_in(mapped_events, config)
        mapped_events = rows_of_ids(mapped_events, separator, dropped)
    filled = items.frame.select(pl.col(n).is_not_null().any() for n in _TEXTS if n in items.columns)
    has = filled.collect(engine="streaming").row(0, named=True)
    return Sources(items, mapped_events, tuple(n for n in _TEXTS if has.get(n)), dropped)
