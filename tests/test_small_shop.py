"""The example data has its licence beside it; the shop of `make taste` is cut from it by a stated rule."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from examples import small_shop

ROOT = Path(__file__).parents[1]


def test_the_data_is_whole_and_attributed() -> None:
    lines = pl.scan_parquet(small_shop.SOURCE)
    assert lines.select(pl.len()).collect().item() == 541_909
    about = (ROOT / "examples" / "data" / "README.md").read_text()
    assert "CC BY 4.0" in about
    assert "Chen" in about
    assert "creativecommons.org/licenses/by/4.0" in about


def test_the_most_invoiced_products_and_some_customers_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        ("1", "10000", 1.0, 1.0), ("1", "10000", 1.0, 1.0), ("2", "10000", 1.0, 2.0),  # on two invoices
        ("1", "20000", 1.0, 1.0), ("3", "20000", 1.0, 3.0),  # on two
        ("1", "30000", 1.0, 1.0), ("1", "30000", 1.0, 1.0), ("1", "30000", 1.0, 1.0),  # on one
        ("4", "POST", 1.0, 1.0), ("5", "POST", 1.0, 2.0), ("6", "POST", 1.0, 3.0),  # no product
        ("C7", "30000", -1.0, 1.0), ("8", "30000", 1.0, None), ("9", "30000", 1.0, None),
    ]  # fmt: skip
    names = ["InvoiceNo", "StockCode", "Quantity", "CustomerID"]
    lines = pl.DataFrame(rows, schema=names, orient="row").with_columns(InvoiceDate=datetime(2011, 1, 1))
    monkeypatch.setattr(small_shop, "PRODUCTS", 2)
    monkeypatch.setattr(small_shop, "CUSTOMERS", 2)
    small = small_shop.cut(lines)
    assert set(small["StockCode"]) == {"10000", "20000"}
    assert small["CustomerID"].n_unique() == 2
    assert small.equals(small_shop.cut(lines))
    kept = lines.filter(
        pl.col("StockCode").is_in(["10000", "20000"]),
        pl.col("CustomerID").is_in(small["CustomerID"].implode()),
    )
    assert small.equals(kept)  # every line of theirs, in the order of the file
