from __future__ import annotations

import polars as pl
import pytest

from explorer.storefront.shelf import Facet, facets, filter_expression, price_facet
from ranking.catalogue.filter_language import compile_filter, evaluate

FRAME = pl.DataFrame(
    {
        "item_id": [f"i{n}" for n in range(8)],
        "item_text": ["x"] * 8,
        "title": [f"t{n}" for n in range(8)],
        "brand": ["A", "A", "A", 'B "best"', 'B "best"', "C\\D", None, None],
        "new": [True, False, False, False, None, None, None, None],
        "sale": [True] * 4 + [False] * 4,
        "sku": [f"s{n}" for n in range(8)],
        "price": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, None],
    }
)


def test_attributes_with_few_values_are_filters() -> None:
    found = facets(FRAME, ("title", "sku"))
    assert [facet.name for facet in found] == ["brand", "new", "sale", "price"]
    assert found[0].values == (("A", "A (3)"), ('B "best"', 'B "best" (2)'), ("C\\D", "C\\D (1)"))
    assert found[2].values == (("false", "false (4)"), ("true", "true (4)"))


def test_attributes_with_many_values_or_few_items_are_none() -> None:
    many = pl.DataFrame({"item_id": [str(n) for n in range(100)], "sku": [f"s{n}" for n in range(100)]})
    rare = many.with_columns(rare=pl.Series(["a", "b"] + [None] * 98), one=pl.lit("x"))
    assert facets(rare) == []


def test_price_bands_hold_about_equally_many_items() -> None:
    assert price_facet(FRAME) == Facet(
        "price",
        (("-3", "below 3.00 (2)"), ("3-4", "3.00 to 4.00 (1)"), ("4-6", "4.00 to 6.00 (2)"),
         ("6-", "6.00 and more (2)")),
    )  # fmt: skip
    assert price_facet(FRAME.select("item_id")) is None
    assert price_facet(FRAME.with_columns(price=pl.lit(None, dtype=pl.Float64))) is None
    assert price_facet(FRAME.with_columns(price=pl.lit(3.0))) is None


@pytest.mark.parametrize("facet", facets(FRAME, ("title", "sku")), ids=lambda facet: facet.name)
def test_a_filter_leaves_the_items_that_it_counts(facet: Facet) -> None:
    for value, shown in facet.values:
        expression = filter_expression([(facet.name, value)], FRAME.schema)
        mask = evaluate(FRAME, compile_filter(FRAME.schema, expression))
        assert f"({int(mask.sum())})" in shown


def test_filters_are_joined_and_foreign_ones_are_left_out() -> None:
    chosen = [("brand", "A"), ("sale", "true"), ("price", "1-x"), ("colour", "red"), ("price", "no")]
    assert filter_expression(chosen, FRAME.schema) == '`brand` = "A" AND `sale` AND `price` >= 1'
    assert filter_expression([], FRAME.schema) == ""
    assert filter_expression([("price", "1 OR price-2")], FRAME.schema) == "`price` < 2"
