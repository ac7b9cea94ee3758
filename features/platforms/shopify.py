"""Shopify: the products export and the orders export of the admin, in the layout of either generation.

A product is several rows: one per variant, and further ones with only a picture. The product's fields (title,
description, ...) are in its first row alone. An item is a variant, as in order lines; `product` groups the
variants of a product, so that lists can be capped by it.

https://help.shopify.com/en/manual/products/import-export/using-csv
https://help.shopify.com/en/manual/fulfillment/managing-orders/exporting-orders
"""

from __future__ import annotations

import polars as pl

from conf.schema import DataConfig
from features.data import schema
from features.files.readers import RawTable
from features.ingest.raw_tables import Sources, drop_counted
from features.platforms.exports import read_exports
from features.platforms.parts import (
    LINE_ID,
    LINE_NAME,
    VOID,
    Columns,
    finish,
    first_over,
    flag,
    join_item_ids,
    named_values,
    select_once,
)

_TEXTS = ("title", "brand", "product_type", "options", "category", "tags", "description")
_NO_OPTION = ("Default Title",)
"""Option value of the only variant of a product without options."""
_OPTIONS = (1, 2, 3)


def _products(table: RawTable, dropped: dict[str, int]) -> pl.DataFrame:
    columns = Columns(table)
    columns.require("Shopify", "products export", "Handle", "URL handle")
    columns.require("Shopify", "products export", "Title")
    handle = columns.value("Handle", "URL handle")

    def of_product(*spellings: str) -> pl.Expr:
        return first_over(columns.value(*spellings), handle)

    values = [columns.value(f"Option{n} Value") for n in _OPTIONS]
    chosen = [pl.when(~v.is_in(_NO_OPTION)).then(v) for v in values]
    sku = columns.value("Variant SKU", "SKU")
    price = columns.value("Variant Price", "Price")
    options = pl.concat_list(chosen).list.drop_nulls().list.join(" / ")
    made = {
        "product": handle,
        "title": of_product("Title"),
        "brand": of_product("Vendor"),
        "product_type": of_product("Type", "Custom Product Type"),
        "category": of_product("Product Category", "Standard Product Type"),
        "tags": of_product("Tags").str.split(",").list.eval(pl.element().str.strip_chars()),
        "description": of_product("Body (HTML)", "Body HTML", "Description"),
        "options": named_values(
            columns, [f"Option{n} Name" for n in _OPTIONS], [f"Option{n} Value" for n in _OPTIONS], _NO_OPTION
        ),
        schema.PRICE: price,
        "status": of_product("Status").str.to_lowercase(),
        "published": flag(of_product("Published", "Published on online store")),
        "inventory": columns.value("Variant Inventory Qty", "Inventory quantity").cast(
            pl.Int64, strict=False
        ),
        "image": pl.coalesce(
            columns.value("Variant Image", "Variant image URL"), of_product("Image Src", "Product image URL")
        ),
    }
    picture = sku.is_null() & price.is_null() & pl.all_horizontal(v.is_null() for v in values)
    # Option names are in the product's first row alone, like all fields of the product.
    names = [name for n in _OPTIONS for name in columns.find(f"Option{n} Name")]
    frame = table.frame.with_columns(first_over(pl.col(name), handle).alias(name) for name in names)
    frame = frame.with_columns(e.alias(name) for name, e in made.items())
    # The name of an order line: `Title` or `Title - Red / M`.
    line = pl.when(options != "").then(pl.format("{} - {}", "title", options)).otherwise(pl.col("title"))
    frame = frame.with_columns(line.alias(LINE_NAME))
    frame = drop_counted(frame, picture, "row of a product that holds another picture", dropped)
    several = pl.len().over("product") > 1
    of_handle = (
        pl.when(several & (options != "")).then(pl.format("{}/{}", "product", options)).otherwise("product")
    )
    return frame.with_columns(pl.coalesce(sku, of_handle).alias(schema.ITEM_ID)).collect(engine="streaming")


def _lines(table: RawTable, items: pl.DataFrame, config: DataConfig, dropped: dict[str, int]) -> pl.LazyFrame:
    columns = Columns(table)
    columns.require("Shopify", "orders export", "Lineitem name")
    columns.require("Shopify", "orders export", "Created at")
    order = columns.value("Name", "Id")

    def of_order(*spellings: str) -> pl.Expr:
        return first_over(columns.value(*spellings), order)

    cancelled = of_order("Cancelled at", "Canceled at").is_not_null()
    made = {
        schema.USER_ID: pl.coalesce(
            of_order("Email").str.to_lowercase(), of_order("Phone", "Billing Phone"), of_order("Billing Name")
        ),
        schema.TIMESTAMP: of_order("Created at", "Paid at"),
        "session_id": order,
        "quantity": columns.value("Lineitem quantity"),
        "value": columns.value("Lineitem price"),
        LINE_ID: columns.value("Lineitem sku"),
        LINE_NAME: columns.value("Lineitem name"),
        VOID: cancelled | (of_order("Financial Status").str.to_lowercase() == "voided"),
    }
    frame = select_once(table, made, config)
    frame = drop_counted(frame, pl.col(VOID), "line of a cancelled order", dropped).drop(VOID)
    return join_item_ids(frame, items)


def read_shopify(config: DataConfig) -> Sources:
    """Read products_export.csv and, if it is named, orders_export.csv.

    Raises:
        InputError: missing files, or files of another format.
    """
    read = read_exports(config, ("products_export.csv", "orders_export.csv"), _products, _lines)
    raw_events = [] if read.orders is None else read.orders.columns
    return finish(
        config, read.catalogue(), read.events, (read.products.columns, raw_events), _TEXTS, read.dropped
    )
