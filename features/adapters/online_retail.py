"""UCI Online Retail (Chen, Sain and Guo 2012) and Online Retail II: invoice lines of a UK gift shop.

One file holds both tables: an item is a StockCode with its most frequent description, an event is one invoice
and item. The order of lines within an invoice is no time and would leak the next purchase, so each invoice is
shuffled with the configured seed into `order`.

`data=online_retail_unisrec` reproduces the preprocessing of UniSRec's published tables (Hou et al., KDD
2022): every line with a description, lines equal in invoice, item, quantity and time once, 5-core over those
lines. Only then are the lines of one invoice and item merged to one event, as repeated items would leak.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from conf.errors import InputError
from conf.schema import DataConfig
from features.data import schema
from features.files.readers import FILE, ROW, readable, scan_table
from features.ingest.cleaning import string_id
from features.ingest.columns import map_columns
from features.ingest.event_filters import kcore_mask
from features.ingest.raw_tables import (
    Sources,
    drop_rows,
    first_present,
    refuse_paths,
    sentence_case,
    table_of,
)
from features.ingest.required import require_columns
from features.values.numbers import number
from features.values.times import unix_seconds

_COLUMNS: dict[str, tuple[str, ...]] = {
    "InvoiceNo": ("Invoice",),
    "StockCode": (),
    "Description": (),
    "Quantity": (),
    "InvoiceDate": (),
    "UnitPrice": ("Price",),
    "CustomerID": ("Customer ID",),
}
"""The first edition's names -> those of the second."""
_PRODUCT_CODE = r"^(?:\d{5}|DCGS)"
"""Products have a five-digit code (or the web shop's own DCGS); POST, M, BANK CHARGES, PADS, gift_0001_20,
TEST001 and the like are postage, fees, vouchers, adjustments and tests."""
_US_DATE = "%m/%d/%Y %H:%M"
"""Format of InvoiceDate in the CSV edition."""
_STOCK_NOTE = (
    r"^\W*$|(?i)\b(?:adjust\w*|amazon|check|counted|damage\w*|dotcom|ebay|found|lost|missing|mailout|returned|"
    r"smashed|thrown|wet|wrong\w*|website|unsale\w*|test)\b"
)
"""Notes of the warehouse in place of a description."""
_NO_DESCRIPTION = (pl.col("description") == "").fill_null(True)


def _invoice_time(frame: pl.DataFrame) -> pl.Expr:
    dtype = frame.schema["InvoiceDate"]
    if dtype == pl.String:
        written = pl.col("InvoiceDate").str.to_datetime(_US_DATE, strict=False).dt.epoch("s")
        return pl.coalesce(written, unix_seconds("InvoiceDate", dtype))
    return unix_seconds("InvoiceDate", dtype)


def _clean_lines(
    raw: pl.DataFrame, user_column: str, keep_all: bool, dropped: dict[str, int]
) -> pl.DataFrame:
    """Reduce raw lines to sold products: invoice, item, user, description, quantity, price, time.

    With `keep_all` every line with a description and a user is kept.
    """
    types = raw.schema
    lines = raw.select(
        string_id("InvoiceNo", types["InvoiceNo"]).alias("invoice"),
        string_id("StockCode", types["StockCode"]).alias("item"),
        string_id(user_column, types[user_column]).alias("user"),
        pl.col("Description")
        .cast(pl.String)
        .str.replace_all(r"\s+", " ")
        .str.strip_chars(" .,")
        .alias("description"),
        number("Quantity", types["Quantity"]).alias("quantity"),
        number("UnitPrice", types["UnitPrice"]).alias("price"),
        _invoice_time(raw).alias("time"),
    )
    if keep_all:
        tests = (("no description", _NO_DESCRIPTION), (f"no {user_column}", pl.col("user").is_null()))
        return drop_rows(lines, tests, dropped)
    return drop_rows(
        lines,
        (
            ("cancelled invoice", pl.col("invoice").str.starts_with("C")),
            ("bad debt adjustment", pl.col("invoice").str.starts_with("A")),
            ("quantity not positive", (pl.col("quantity") <= 0).fill_null(True)),
            ("no description", _NO_DESCRIPTION),
            ("postage, fee, voucher or adjustment", ~pl.col("item").str.contains(_PRODUCT_CODE)),
            (
                "warehouse note instead of a description",
                pl.col("description").str.contains(_STOCK_NOTE) & (pl.col("price") <= 0),
            ),
            (f"no {user_column}", pl.col("user").is_null()),
        ),
        dropped,
    )


def _line_core(lines: pl.DataFrame, k: int, dropped: dict[str, int]) -> pl.DataFrame:
    """Count lines equal in invoice, item, quantity and time once and keep their k-core over users and items.

    Raises:
        InputError: nothing is left.
    """
    distinct = lines.unique(["invoice", "item", "quantity", "time"], keep="first", maintain_order=True)
    if repeated := lines.height - distinct.height:
        dropped["line equal to another in invoice, item, quantity and time"] = repeated
    users, items = (distinct[c].rank("dense").to_numpy().astype(np.uint32) for c in ("user", "item"))
    core = distinct.filter(pl.Series(kcore_mask(users, items, k)))
    if core.is_empty():
        raise InputError(f"data.line_kcore={k} leaves no line of {distinct.height:,}")
    if outside := distinct.height - core.height:
        dropped[f"line outside the {k}-core"] = outside
    return core


def _items(lines: pl.DataFrame) -> pl.DataFrame:
    """One row per product, with its most frequent description (the first of equals) and median price.

    Sorted by code: in the order of first sale, row numbers, which break ties, would leak when a product
    arrived.
    """
    names = (
        lines.group_by("item", "description", maintain_order=True)
        .agg(pl.len().alias("uses"))
        .sort("uses", descending=True, maintain_order=True)
        .unique("item", keep="first", maintain_order=True)
    )
    prices = lines.filter(pl.col("price") > 0).group_by("item").agg(pl.col("price").median().round(2))
    first = lines.select(pl.col("item").unique().sort())
    items = first.join(names, on="item", maintain_order="left").join(
        prices, on="item", how="left", maintain_order="left"
    )
    return items.select(
        pl.col("item").alias(schema.ITEM_ID),
        sentence_case(pl.col("description")).alias("title"),
        pl.col("price").alias(schema.PRICE),
    )


def _shuffled(lines: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Number the events by time, each invoice shuffled, whatever the file's line order."""
    lines = lines.sort("time", "invoice", "item")
    chance = pl.Series("chance", np.random.default_rng(seed).random(lines.height))
    return (
        lines.with_columns(chance).sort("time", "invoice", "chance").drop("chance").with_row_index("position")
    )


def read_online_retail(config: DataConfig, seed: int) -> Sources:
    """Read the invoice lines of `data.events`; `data.user_column` is the user.

    Raises:
        InputError: no file, missing columns, or nothing left after cleaning.
    """
    refuse_paths("online_retail", {"data.items": config.items})
    if config.events is None:
        raise InputError("data.adapter=online_retail: set data.events to the invoice lines (csv or parquet)")
    table = map_columns(None, scan_table(config.events, "data.events"), config.columns)[1]
    assert table is not None
    for name, alternatives in _COLUMNS.items():
        table = first_present(table, name, alternatives)
    user_column = config.user_column or "CustomerID"
    require_columns(table, (*_COLUMNS, user_column), "events")
    with readable(table.name):
        raw = table.frame.sort(FILE, ROW).collect(engine="streaming")
    if raw.is_empty():
        raise InputError(f"{table.name}: no data rows")
    dropped: dict[str, int] = {}
    lines = _clean_lines(raw, user_column, config.keep_all_lines, dropped)
    if lines.is_empty():
        raise InputError(f"{table.name}: no sold product among {raw.height:,} lines; left out: {dropped}")
    if config.line_kcore:
        lines = _line_core(lines, config.line_kcore, dropped)
    baskets = lines.group_by("invoice", "item", "user", maintain_order=True).agg(
        pl.col("quantity").sum(),
        (pl.col("quantity") * pl.col("price")).sum().round(2).alias("value"),
        pl.col("time").min(),
    )
    if merged := lines.height - baskets.height:
        dropped["further line of the same invoice and item"] = merged
    events = _shuffled(baskets, seed).select(
        pl.col("user").alias(schema.USER_ID),
        pl.col("item").alias(schema.ITEM_ID),
        pl.lit(config.default_event).alias(schema.EVENT),
        pl.col("time").alias(schema.TIMESTAMP),
        pl.col("position").cast(pl.Int64).alias(schema.ORDER),
        "quantity",
        "value",
        pl.col("invoice").alias("session_id"),
    )
    file = str(raw[FILE][0])
    return Sources(
        table_of(_items(lines), file, f"products of {table.name}"),
        table_of(events, file, f"invoice lines of {table.name}"),
        ("title",),
        dropped,
    )
