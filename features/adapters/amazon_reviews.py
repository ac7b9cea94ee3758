"""Amazon reviews (McAuley's group), all editions: prepared tables, and the raw review and product files.

The 2014 product files are Python literals rather than JSON; they are parsed, never evaluated.
"""

from __future__ import annotations

import ast
import gzip
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import polars as pl

from conf.errors import InputError
from conf.schema import DataConfig
from features.data import schema
from features.files.readers import FILE, MALFORMED, ROW, RawTable, readable, resolve_paths, scan_table
from features.ingest.cleaning import string_id
from features.ingest.columns import map_columns
from features.ingest.raw_tables import Sources, first_present
from features.ingest.required import require_columns

_ITEM_NAMES = ("parent_asin", "asin")
_EVENT_NAMES = {
    schema.USER_ID: ("reviewerID",),
    schema.ITEM_ID: _ITEM_NAMES,
    schema.TIMESTAMP: ("unixReviewTime",),
    "value": ("overall", "rating"),
}
_LITERAL_FIELDS = ("asin", "title", "brand", "price", "categories", "description")


def _is_literal(path: str) -> bool:
    """Return whether the file holds Python dicts, with single quotes around the first key."""
    opener = gzip.open if path.endswith(".gz") else open
    with opener(path, "rb") as file:
        return file.read(2) == b"{'"


def _literals(path: str) -> Iterator[dict[str, Any]]:
    opener = gzip.open if path.endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8") as file:
        for row, line in enumerate(file, start=1):
            try:
                record = ast.literal_eval(line)
            except (ValueError, SyntaxError):
                record = None
            if isinstance(record, dict):
                yield {ROW: row, MALFORMED: None, **{k: record.get(k) for k in _LITERAL_FIELDS}}
            else:
                yield {ROW: row, MALFORMED: "not a Python dict", **dict.fromkeys(_LITERAL_FIELDS)}


def _scan_products(source: object) -> RawTable:
    paths = resolve_paths(source, "data.items")
    if not any(_is_literal(path) for path in paths):
        return scan_table(source, "data.items")
    types: dict[str, pl.DataType | type[pl.DataType]] = {
        ROW: pl.UInt32,
        MALFORMED: pl.String,
        **dict.fromkeys(_LITERAL_FIELDS, pl.String),
        "price": pl.Float64,
        "categories": pl.List(pl.List(pl.String)),
    }
    frames = []
    for path in paths:
        with readable(f"data.items: {path}"):
            frame = pl.DataFrame(_literals(path), schema=types, strict=False)
        frames.append(frame.with_columns(pl.lit(path).alias(FILE)))
    return RawTable(pl.concat(frames).lazy(), False, f"data.items ({paths[0]})")


def _flat_categories(table: RawTable) -> RawTable:
    """Flatten categories to distinct names: 2014 has a list of paths, later editions one path."""
    dtype = table.frame.collect_schema().get("categories")
    if not isinstance(dtype, pl.List):
        return table
    names = pl.col("categories")
    if isinstance(dtype.inner, pl.List):
        names = names.list.eval(pl.element().explode(empty_as_null=True, keep_nulls=True))
    names = names.list.drop_nulls().list.unique(maintain_order=True)
    return replace(table, frame=table.frame.with_columns(names.alias("categories")))


def read_amazon_reviews(config: DataConfig) -> Sources:
    """Read product and review tables; a raw product file is reduced to the products that have a review.

    Raises:
        InputError: missing files or columns.
    """
    if config.items is None or config.events is None:
        raise InputError("data.adapter=amazon_reviews: set data.items (products) and data.events (reviews)")
    items, events = map_columns(
        _scan_products(config.items), scan_table(config.events, "data.events"), config.columns
    )
    assert items is not None
    assert events is not None
    raw = schema.ITEM_ID not in items.columns
    items = _flat_categories(
        first_present(first_present(items, schema.ITEM_ID, _ITEM_NAMES), "brand", ("store",))
    )
    for name, alternatives in _EVENT_NAMES.items():
        events = first_present(events, name, alternatives)
    require_columns(items, (schema.ITEM_ID,), "items")
    require_columns(events, (schema.ITEM_ID,), "events")
    fields = tuple(c for c in ("title", "brand", "categories") if c in items.columns)
    dropped: dict[str, int] = {}
    if raw:
        items = _reviewed(items, events, dropped)
    return Sources(items, events, fields, dropped)


def _reviewed(items: RawTable, events: RawTable, dropped: dict[str, int]) -> RawTable:
    """Keep products with at least one review, a small part of the raw files."""
    event_type = events.frame.collect_schema()[schema.ITEM_ID]
    item_type = items.frame.collect_schema()[schema.ITEM_ID]
    with readable(items.name):
        seen = events.frame.select(string_id(schema.ITEM_ID, event_type).unique().drop_nulls())
        known = seen.collect(engine="streaming").to_series()
        product = string_id(schema.ITEM_ID, item_type)
        unseen = product.is_not_null() & ~product.is_in(known.implode())
        count = int(items.frame.select(unseen.sum()).collect(engine="streaming").item())
    if count:
        dropped["product without a review"] = count
    return replace(items, frame=items.frame.filter(~unseen))
