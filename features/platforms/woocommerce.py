"""WooCommerce: the products export, and orders by whichever of its exports a shop has.

A variable product is a row, and so is each of its variations, which has the product in `Parent` (`id:12` or a
SKU) and leaves shared fields empty. An item is the unit of an order line: a simple product, a variation with
a SKU, or a variable product whose variations have none.

Orders come from the plug-ins that write a row per line (Advanced Order Export, Customer/Order/Coupon Export),
or from Analytics, whose rows list their products in one field (`2× Hoodie - Red, 1× Cap`).

https://woocommerce.com/document/product-csv-importer-exporter/
https://github.com/woocommerce/woocommerce/wiki/Product-CSV-Import-Schema
"""

from __future__ import annotations

import re
from collections.abc import Sequence

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
    named_values,
    select_once,
)

_TEXTS = ("title", "brand", "categories", "attributes", "tags", "short_description", "description")
_SHARED = ("brand", "categories", "tags", "short_description", "description", "image")
"""Fields that a variation inherits from its product."""
_NAME = ("Name", "Nom", "Nombre", "Nome", "Naam", "Nazwa")
"""Headers are in the language of the shop: English, German, French, Spanish, Italian, Portuguese, Dutch,
Polish."""
_TYPE = ("Type", "Typ", "Tipo", "Rodzaj")
_SKU = ("SKU", "Artikelnummer", "UGS", "COD", "REF", "Artikelnr.")
_PARENT = (
    "Parent", "Übergeordnetes Produkt", "Eltern", "Superior", "Genitore", "Ascendente", "Pai", "Hoofd",
    "Element nadrzędny", "Nadrzędny", "Rodzic",
)  # fmt: skip
_BRAND = ("Brands", "Brand", "Marken", "Marques", "Marcas", "Marchi", "Merken", "Marki")
_CATEGORIES = (
    "Categories", "Kategorien", "Catégories", "Categorías", "Categorie", "Categorias", "Categorieën",
    "Kategorie",
)  # fmt: skip
_TAGS = ("Tags", "Schlagwörter", "Étiquettes", "Etiquetas", "Tag", "Tagi", "Znaczniki")
_SHORT = (
    "Short description", "Kurzbeschreibung", "Description courte", "Descripción corta", "Breve descrizione",
    "Descrizione breve", "Descrição curta", "Breve descrição", "Korte beschrijving", "Korte omschrijving",
    "Krótki opis",
)  # fmt: skip
_DESCRIPTION = (
    "Description",
    "Beschreibung",
    "Descripción",
    "Descrizione",
    "Descrição",
    "Beschrijving",
    "Opis",
)
_PRICE = (
    "Sale price", "Angebotspreis", "Tarif promo", "Precio rebajado", "Prezzo in offerta", "Preço promocional",
    "Actieprijs", "Cena promocyjna",
    "Regular price", "Regulärer Preis", "Tarif régulier", "Precio normal", "Prezzo di listino",
    "Preço normal", "Preço", "Reguliere prijs", "Cena regularna", "Cena",
)  # fmt: skip
_STOCK = (
    "In stock?", "Auf Lager?", "Vorrätig?", "En stock ?", "En stock?", "En inventaire?", "¿Existencias?",
    "¿En inventario?", "¿Hay existencias?", "Em estoque?", "Em stock?", "Op voorraad?", "W magazynie?",
)  # fmt: skip
_PUBLISHED = (
    "Published", "Veröffentlicht", "Publié", "Publicado", "Pubblicato", "Gepubliceerd", "Opublikowano",
)  # fmt: skip
_IMAGES = ("Images", "Bilder", "Imágenes", "Immagini", "Immagine", "Imagens", "Afbeeldingen", "Obrazki")
_ATTRIBUTE = re.compile(r"(?i)(?!meta:).*(?:attribut|atribut|atrybut|eigenschap)")
"""Names of attribute columns in these languages, followed by a number."""
_USER = (
    "Email (Billing)", "billing_email", "Billing Email Address", "Billing Email", "Customer Email",
    "customer_email",
    "E-Mail (Rechnung)", "Customer User ID", "customer_id", "Customer", "Customer Username",
)  # fmt: skip
_LINE_SKU = ("SKU", "item_sku", "Item SKU", "Product SKU", "Product_SKU", "sku")
_LINE_ID = (
    "Variation Id",
    "Variation ID",
    "variation_id",
    "Product Id",
    "Product ID",
    "product_id",
    "item_product_id",
)
_LINE_NAME = ("Item Name", "item_name", "Product Name", "Product name", "product_name", "Name")
_TIME = ("Order Date", "order_date", "Date", "date", "Order date", "Date Created", "date_created")
_ORDER = ("Order Number", "order_number", "Order #", "Order ID", "order_id", "Order Id")
_QUANTITY = ("Quantity (- Refund)", "Quantity", "item_quantity", "Qty", "quantity")
_VALUE = ("Item Cost", "Item Price", "item_price", "item_total", "Product Unit Price", "Order Line Total")
_STATUS = ("Order Status", "status", "order_status", "Status")
_LIST = ("Product(s)", "Products")
_VOID = (
    "cancelled", "canceled", "failed", "trash", "pending", "pending payment", "checkout-draft", "draft",
    "wc-cancelled", "wc-failed", "wc-pending", "wc-checkout-draft",
)  # fmt: skip


def _attributes(columns: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the columns of attributes' names and of their values: the first two that bear a number."""
    numbered: dict[str, list[str]] = {}
    for name in columns:
        number = re.search(r"\d+", name)
        if number and _ATTRIBUTE.match(name):
            numbered.setdefault(number.group(), []).append(name)
    pairs = [found[:2] for found in numbered.values() if len(found) > 1]
    return [name for name, _ in pairs], [value for _, value in pairs]


def _rows(table: RawTable) -> pl.LazyFrame:
    columns = Columns(table)
    columns.require("WooCommerce", "products export", *_NAME)
    columns.require("WooCommerce", "products export", *_TYPE)
    columns.require("WooCommerce", "products export", *_SKU, "ID")

    def listed(*spellings: str) -> pl.Expr:
        return columns.value(*spellings).str.split(",").list.eval(pl.element().str.strip_chars())

    kind = columns.value(*_TYPE).str.to_lowercase()
    names, values = _attributes(table.columns)
    return table.frame.with_columns(
        columns.value(*_SKU).alias("__sku"),
        columns.value("ID").alias("__id"),
        columns.value(*_PARENT).alias("__parent"),
        kind.str.contains("variation").fill_null(False).alias("__variation"),
        kind.str.contains("variable").fill_null(False).alias("__variable"),
        columns.value(*_NAME).alias("title"),
        columns.value(*_NAME).alias(LINE_NAME),
        columns.value(*_BRAND).alias("brand"),
        listed(*_CATEGORIES).alias("categories"),
        listed(*_TAGS).alias("tags"),
        named_values(columns, names, values, ()).alias("attributes"),
        columns.value(*_SHORT).alias("short_description"),
        columns.value(*_DESCRIPTION).alias("description"),
        columns.value(*_PRICE).alias(schema.PRICE),
        flag(columns.value(*_STOCK)).alias("in_stock"),
        flag(columns.value(*_PUBLISHED)).alias("published"),
        columns.value(*_IMAGES).str.split(",").list.first().alias("image"),
    )


def _products(table: RawTable, dropped: dict[str, int]) -> pl.DataFrame:
    frame = _rows(table).collect(engine="streaming")
    parents = frame.filter(~pl.col("__variation"))
    shared = [pl.col(name).alias(f"__of_parent_{name}") for name in _SHARED]
    product = pl.coalesce("__sku", "__id").alias("__product")
    keyed = pl.concat(
        [
            parents.select(pl.format("id:{}", "__id").alias("__parent"), product, *shared),
            parents.select(pl.col("__sku").alias("__parent"), product, *shared),
        ]
    )
    keyed = keyed.drop_nulls("__parent").unique("__parent", keep="first", maintain_order=True)
    frame = frame.join(keyed, on="__parent", how="left", maintain_order="left")
    own = pl.col("__variation")
    frame = frame.with_columns(
        pl.when(own).then(pl.coalesce(name, f"__of_parent_{name}")).otherwise(name).alias(name)
        for name in _SHARED
    )
    own_product = pl.coalesce("__sku", "__id")
    frame = frame.with_columns(pl.when(own).then("__product").otherwise(own_product).alias("product"))
    named = frame.filter(own & pl.col("__sku").is_not_null())["product"].implode()
    bare = frame.filter(own & pl.col("__sku").is_null())["product"].implode()
    # A variable product has no price; that of its first variation is taken.
    of_first = pl.col(schema.PRICE).drop_nulls().first().over("product")
    frame = frame.with_columns(
        pl.when("__variable")
        .then(pl.coalesce(schema.PRICE, of_first))
        .otherwise(schema.PRICE)
        .alias(schema.PRICE)
    )
    lazy = drop_counted(
        frame.lazy(),
        own & pl.col("__sku").is_null() & pl.col("__product").is_not_null(),
        "variation without a SKU: its product stands for it",
        dropped,
    )
    whole = pl.col("__variable") & pl.col("product").is_in(named) & ~pl.col("product").is_in(bare)
    lazy = drop_counted(lazy, whole, "variable product: its variations stand for it", dropped)
    lazy = lazy.with_columns(
        pl.coalesce("__sku", "__id").alias(schema.ITEM_ID), pl.col("__id").alias("product_id")
    )
    return lazy.collect().drop(c for c in frame.columns if c.startswith("__of_parent_"))


def _lines(table: RawTable, items: pl.DataFrame, config: DataConfig, dropped: dict[str, int]) -> pl.LazyFrame:
    columns = Columns(table)
    columns.require("WooCommerce", "orders export", *_LINE_SKU, *_LINE_ID, *_LINE_NAME, *_LIST)
    columns.require("WooCommerce", "orders export", *_TIME)
    made = {
        schema.USER_ID: columns.value(*_USER).str.to_lowercase(),
        schema.TIMESTAMP: columns.value(*_TIME),
        "session_id": columns.value(*_ORDER),
        "quantity": columns.value(*_QUANTITY),
        "value": columns.value(*_VALUE),
        LINE_ID: columns.value(*_LINE_SKU),
        "__number": columns.value(*_LINE_ID),
        LINE_NAME: columns.value(*_LINE_NAME, *(() if columns.find(*_LINE_SKU, *_LINE_ID) else _LIST)),
        VOID: columns.value(*_STATUS).str.to_lowercase().is_in(_VOID),
    }
    frame = select_once(table, made, config)
    frame = drop_counted(frame, pl.col(VOID), "line of a cancelled or unpaid order", dropped).drop(VOID)
    if not columns.find(*_LINE_SKU, *_LINE_ID, *_LINE_NAME):
        # `2× Hoodie - Red, 1× Cap`: names may contain commas, but not before a number and `×`.
        parts = pl.col(LINE_NAME).str.replace_all(r",\s*(\d+)\s*[×x]\s", "\x1f$1× ").str.split("\x1f")
        frame = frame.with_columns(parts.alias(LINE_NAME)).explode(
            LINE_NAME, empty_as_null=True, keep_nulls=True
        )
        split = pl.col(LINE_NAME).str.extract_groups(r"^\s*(?<count>\d+)\s*[×x]\s(?<what>.*)$")
        frame = frame.with_columns(
            split.struct.field("count").alias("quantity"), split.struct.field("what").alias(LINE_NAME)
        )
    # A line without a SKU may have the number of its product.
    numbers = items.select(
        pl.col("product_id").alias("__number"), pl.col(schema.ITEM_ID).alias("__of_number")
    )
    numbers = numbers.drop_nulls().unique("__number")
    frame = frame.join(numbers.lazy(), on="__number", how="left", maintain_order="left")
    frame = frame.with_columns(pl.coalesce(LINE_ID, "__of_number", "__number").alias(LINE_ID))
    return join_item_ids(frame, items).drop("__number", "__of_number")


def read_woocommerce(config: DataConfig) -> Sources:
    """Read the products export and, if one is named, an export of orders.

    Raises:
        InputError: missing files, or files of another format.
    """
    read = read_exports(config, ("wc-product-export.csv", "orders.csv"), _products, _lines)
    private = [
        c for c in ("__sku", "__id", "__parent", "__variation", "__variable", "__product") if c in read.items
    ]
    raw_events = [] if read.orders is None else read.orders.columns
    raw = (read.products.columns, raw_events)
    return finish(config, read.catalogue(*private), read.events, raw, _TEXTS, read.dropped)
