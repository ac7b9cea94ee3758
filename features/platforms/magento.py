"""Magento and Adobe Commerce: the products export of the admin, and order lines queried from its tables.

Rows with a `store_view_code` repeat a product for one store view, mostly empty. A configurable product lists
its variations (`sku=TEE-M,size=M|sku=TEE-L,size=L`), which are separate rows; these are the items, as in
order lines.

https://experienceleague.adobe.com/docs/commerce-admin/systems/data-transfer/data-attributes-product.html
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
    flag,
    join_item_ids,
    select_once,
)

_TEXTS = ("title", "categories", "attributes", "short_description", "description")
_SHARED = ("categories", "short_description", "description", "image")
"""Fields that a variation inherits from its product."""
_VOID = ("canceled", "cancelled", "closed", "pending_payment", "fraud")


def _products(table: RawTable, dropped: dict[str, int]) -> pl.DataFrame:
    columns = Columns(table)
    columns.require("Magento", "products export", "sku")
    columns.require("Magento", "products export", "product_type")
    paths = (
        columns.value("categories")
        .str.split(",")
        .list.eval(
            pl.element().str.strip_chars().str.strip_prefix("Default Category/").str.replace_all("/", " > ")
        )
    )
    frame = table.frame.with_columns(
        columns.value("sku").alias(schema.ITEM_ID),
        columns.value("name").alias("title"),
        columns.value("name").alias(LINE_NAME),
        paths.alias("categories"),
        # `color=Red,size=M` becomes readable text.
        columns.value("additional_attributes")
        .str.replace_all("=", ": ")
        .str.replace_all(",", ", ")
        .alias("attributes"),
        columns.value("short_description").alias("short_description"),
        columns.value("description").alias("description"),
        columns.value("special_price", "price").alias(schema.PRICE),
        flag(columns.value("is_in_stock")).alias("in_stock"),
        columns.value("base_image", "image").alias("image"),
        columns.value("configurable_variations")
        .str.extract_all(r"(?:^|[|,])sku=[^,|]+")
        .alias("__variations"),
    )
    frame = drop_counted(
        frame, columns.value("store_view_code").is_not_null(), "row of a product for one store view", dropped
    )
    items = frame.collect(engine="streaming")
    parents = items.filter(pl.col("__variations").list.len() > 0).select(
        pl.col(schema.ITEM_ID).alias("product"),
        pl.col("__variations").list.eval(pl.element().str.extract("sku=(.+)$")).alias("__child"),
        *(pl.col(name).alias(f"__of_parent_{name}") for name in _SHARED),
    )
    children = parents.explode("__child", empty_as_null=True, keep_nulls=True).drop_nulls("__child")
    children = children.unique("__child", keep="first", maintain_order=True)
    items = items.join(
        children, left_on=schema.ITEM_ID, right_on="__child", how="left", maintain_order="left"
    )
    items = items.with_columns(pl.coalesce(name, f"__of_parent_{name}").alias(name) for name in _SHARED)
    present = items.filter(pl.col("product").is_not_null())["product"].implode()
    whole = pl.col(schema.ITEM_ID).is_in(present)
    kept = drop_counted(
        items.lazy(), whole, "configurable product: its variations stand for it", dropped
    ).collect()
    kept = kept.with_columns(pl.coalesce("product", schema.ITEM_ID).alias("product"))
    return kept.drop("__variations", *(f"__of_parent_{name}" for name in _SHARED))


def _lines(table: RawTable, items: pl.DataFrame, config: DataConfig, dropped: dict[str, int]) -> pl.LazyFrame:
    columns = Columns(table)
    columns.require("Magento", "table of order lines", "sku")
    columns.require("Magento", "table of order lines", "created_at", "order_created_at", "Purchase Date")
    made = {
        schema.USER_ID: columns.value("customer_email", "customer_id").str.to_lowercase(),
        schema.TIMESTAMP: columns.value("created_at", "order_created_at", "Purchase Date"),
        "session_id": columns.value("increment_id", "order_id"),
        "quantity": columns.value("qty_ordered", "qty"),
        "value": columns.value("price", "base_price"),
        LINE_ID: columns.value("sku"),
        LINE_NAME: columns.value("name"),
        "__child": columns.value("parent_item_id").is_not_null(),
        VOID: columns.value("state", "status").str.to_lowercase().is_in(_VOID),
    }
    frame = select_once(table, made, config)
    child = pl.col("__child")
    frame = drop_counted(frame, child, "line of a variation that repeats the line of its product", dropped)
    frame = drop_counted(frame, pl.col(VOID), "line of a cancelled or unpaid order", dropped)
    frame = frame.drop(VOID, "__child")
    return join_item_ids(frame, items)


def read_magento(config: DataConfig) -> Sources:
    """Read the products export and, if it is named, a table of order lines.

    Raises:
        InputError: missing files, or files of another format.
    """
    read = read_exports(config, ("catalog_product.csv", "order_lines.csv"), _products, _lines)
    made = {schema.USER_ID, schema.ITEM_ID, schema.TIMESTAMP, "session_id", "quantity", "value"}
    raw_events = [] if read.orders is None else [name for name in read.orders.columns if name not in made]
    of_items = {schema.ITEM_ID, "title", "product", "price", "in_stock", "image", "attributes", *_SHARED}
    raw_items = [name for name in read.products.columns if name not in of_items]
    return finish(config, read.catalogue(), read.events, (raw_items, raw_events), _TEXTS, read.dropped)
