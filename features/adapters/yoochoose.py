"""YooChoose (RecSys Challenge 2015): yoochoose-clicks.dat and yoochoose-buys.dat, commas, no header.

A session is taken as a user. A click's category is 1 to 12, a brand (any longer number), `S` for a special
offer or 0 for unknown; an item has its last known one. Prices and quantities of 0 are unknown.
"""

from __future__ import annotations

import polars as pl

from conf.errors import InputError
from conf.schema import DataConfig
from features.data import schema
from features.files.readers import RawTable, readable, resolve_paths
from features.ingest.raw_tables import Sources, first_line, refuse_paths, scan_headerless, table_of

_CLICKS = (schema.USER_ID, schema.TIMESTAMP, schema.ITEM_ID, "category")
_BUYS = (schema.USER_ID, schema.TIMESTAMP, schema.ITEM_ID, schema.PRICE, "quantity")
_CATEGORIES = [str(number) for number in range(1, 13)]


def _scan(path: str) -> pl.LazyFrame:
    fields = first_line(path).count(",") + 1
    if fields not in (len(_CLICKS), len(_BUYS)):
        raise InputError(
            f"data.events: {path}: expected lines of 4 fields (yoochoose-clicks.dat) or 5 "
            f"(yoochoose-buys.dat), not {fields}"
        )
    bought = fields == len(_BUYS)
    frame = scan_headerless(path, _BUYS if bought else _CLICKS, ",")
    return frame.with_columns(pl.lit("purchase" if bought else "click").alias(schema.EVENT))


def _items(events: pl.LazyFrame) -> pl.DataFrame:
    """Return every item in the events, with its last known category and brand and its median price."""
    category = pl.col("category")
    price = pl.col(schema.PRICE).cast(pl.Float64, strict=False)
    known = category.is_in(_CATEGORIES)
    brand = category.str.contains(r"^\d{3,}$")
    items = events.filter(pl.col(schema.ITEM_ID).is_not_null()).group_by(schema.ITEM_ID)
    last = [
        category.filter(test).sort_by(pl.col(schema.TIMESTAMP).filter(test)).last().alias(name)
        for name, test in (("category", known), ("brand", brand))
    ]
    return items.agg(*last, price.filter(price > 0).median()).collect(engine="streaming").sort(schema.ITEM_ID)


def read_yoochoose(config: DataConfig) -> Sources:
    """Read clicks and purchases; the catalogue is every item in them.

    Raises:
        InputError: `data.events` is missing, or a file has other fields.
    """
    refuse_paths("yoochoose", {"data.items": config.items, "data.columns": config.columns})
    if config.events is None:
        raise InputError(
            "data.adapter=yoochoose: set data.events='[yoochoose-clicks.dat,yoochoose-buys.dat]'"
        )
    paths = resolve_paths(config.events, "data.events")
    name = f"data.events ({', '.join(paths)})"
    with readable(name):
        log = pl.concat([_scan(path) for path in paths], how="diagonal")
        for column in ("category", schema.PRICE, "quantity"):
            if column not in log.collect_schema():
                log = log.with_columns(pl.lit(None, dtype=pl.String).alias(column))
        items = _items(log)
    events = log.with_columns(
        pl.when(pl.col(column).cast(pl.Float64, strict=False) > 0).then(column).alias(new)
        for column, new in ((schema.PRICE, "value"), ("quantity", "quantity"))
    )
    return Sources(table_of(items, name, "data.items"), RawTable(events, True, name), ("category", "brand"))
