"""A small shop sampled from the invoice lines in `examples/data`, for tests that take seconds.

    python examples/small_shop.py work/taste/invoice_lines.parquet

The rule: the 300 products on the most invoices, and 1,200 of the customers who bought any, drawn with a fixed
seed; of these customers every line with one of these products.
"""

from __future__ import annotations

import sys
from pathlib import Path

import polars as pl

SOURCE = Path(__file__).parent / "data" / "online_retail.parquet"
PRODUCTS = 300
CUSTOMERS = 1_200
SEED = 0


def cut(lines: pl.DataFrame) -> pl.DataFrame:
    """Return the lines of the small shop, in the order of the file."""
    sold = lines.filter(
        pl.col("CustomerID").is_not_null(),
        pl.col("Quantity") > 0,
        pl.col("StockCode").str.contains(r"^\d{5}"),
    )
    invoices = sold.group_by("StockCode").agg(pl.col("InvoiceNo").n_unique().alias("invoices"))
    products = invoices.sort("invoices", "StockCode", descending=[True, False]).head(PRODUCTS)["StockCode"]
    sold = sold.filter(pl.col("StockCode").is_in(products.implode()))
    customers = sold["CustomerID"].unique().sort()
    drawn = customers.sample(min(CUSTOMERS, len(customers)), seed=SEED)
    return sold.filter(pl.col("CustomerID").is_in(drawn.implode()))


def main() -> None:
    """Write the small shop's lines to the path that is given."""
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/small_shop.py OUTPUT.parquet")
    output = Path(sys.argv[1])
    output.parent.mkdir(parents=True, exist_ok=True)
    cut(pl.read_parquet(SOURCE)).write_parquet(output)


if __name__ == "__main__":
    main()
